"""The two shapes that compose, and the call that travels through them.

A `Handler` opens a call's stream: its `async with` spans the whole stream, entering it returns when the first content
is in hand, and leaving it closes the upstream. A `Layer` wraps a handler; a `Stage` wraps a stream's batches.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from copy import copy
from typing import TYPE_CHECKING

from msgspec import Struct

from penstock.streams.batch import Batch

if TYPE_CHECKING:
    from penstock.canon.errors import PenstockError
    from penstock.canon.events import Progress
    from penstock.canon.key import Key
    from penstock.canon.request import ChatRequest
    from penstock.canon.target import Target
    from penstock.canon.trace import Trace
    from penstock.dialects.base import Dialect, RequestHead
    from penstock.streams.stream import EventStream

Batches = AsyncIterator[Batch]
Stage = Callable[[Batches], Batches]
Handler = Callable[["Call"], AbstractAsyncContextManager["EventStream"]]
Layer = Callable[[Handler], Handler]


class Attempt(Struct):
    """One execution upstream (C1). `error` is the word for what went wrong; `status` None before an answer.

    `learnt` is what its refusal told of the target, by the names of `dialects.adapt`. `took_s`: how long it lasted,
    once it is over; `tokens`: what a reply that was thrown away says it cost, if it does.
    """

    target: str
    status: int | None = None
    error: str | None = None
    learnt: str | None = None
    took_s: float | None = None
    tokens: int | None = None


class Sent(Struct):
    """What left for the client, counted by whoever writes to it."""

    bytes_out: int = 0
    heartbeats: int = 0
    #: the last byte was handed over: a client that leaves now has everything
    is_whole: bool = False
    #: the client read nothing for too long, and was cut off
    is_cut: bool = False
    #: bytes that had come from the upstream for a client that had gone, and nobody read
    bytes_after_disconnect: int = 0


class Call:
    """One request on its way. `dialect`, `head` and `body` are the client's; a library call has `request` alone."""

    __slots__ = (
        "_request", "asks_stream", "attempts", "began", "began_unix", "body", "dialect", "dropped", "head", "headers",
        "http_status", "key", "lacks", "may_be_asked_again", "model", "narrate", "now", "queued_s", "recovered",
        "request_id", "route", "sent", "stopped", "stream", "strict", "target", "targets", "trace", "waits_for",
    )  # fmt: skip

    def __init__(
        self,
        *,
        request_id: str,
        model: str,
        stream: bool,
        request: ChatRequest | None = None,
        dialect: Dialect | None = None,
        head: RequestHead | None = None,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        route: str | None = None,
        target: Target | None = None,
        strict: bool = False,
        key: Key | None = None,
        narrate: Callable[[Progress], None] | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.request_id = request_id
        self.model = model
        self.stream = stream
        #: whether the target is asked for a stream: what the client asked for, unless the target is known to lack it
        self.asks_stream = stream
        #: what the target is known not to take, by the names of `dialects.adapt`
        self.lacks: frozenset[str] = frozenset()
        self._request = request
        self.dialect = dialect
        self.head = head
        self.body = body
        self.headers = headers or {}
        self.route = route
        #: whom it is asked of now
        self.target = target
        #: all who may be asked, in the order in which they are
        self.targets: tuple[Target, ...] = (target,) if target is not None else ()
        #: refuse what the upstream's dialect has no word for, instead of leaving it out
        self.strict = strict
        #: what was left out of the request, by the names that the client gave
        self.dropped: tuple[str, ...] = ()
        self.narrate = narrate
        self.now = now
        self.began = now()
        self.began_unix = time.time()
        self.attempts: list[Attempt] = []
        self.sent = Sent()
        self.http_status: int | None = None
        #: whose it is, where callers have keys of their own
        self.key = key
        #: how long it has waited for a place, and, while it waits, where it stands
        self.queued_s = 0.0
        self.waits_for: Callable[[], Progress] | None = None
        #: its place in a trace, where calls are traced
        self.trace: Trace | None = None
        #: why we ended it, when we did
        self.stopped: PenstockError | None = None
        #: how its reply was taken up after content (`restart`, `continue`), where it was
        self.recovered: str | None = None
        #: set by a layer that could still try elsewhere: the reply is then held back until its first content
        self.may_be_asked_again = False

    @property
    def has_request(self) -> bool:
        return self._request is not None or self.dialect is not None

    @property
    def request(self) -> ChatRequest:
        """The request in no dialect; parsed when first asked for, which a same-dialect call never does."""
        if self._request is None:
            assert self.dialect is not None, "a call has a request, or a dialect to parse one"
            self._request = self.dialect.parse_request(self.body, self.head.path if self.head is not None else "")
        return self._request

    def continuing(self, request: ChatRequest) -> Call:
        """The same call with another request: attempts, moments and what was sent are one. Its body is built anew."""
        other = copy(self)
        other._request = request
        other.head = None
        return other

    def __repr__(self) -> str:
        return f"<Call {self.request_id} {self.model}{' stream' if self.stream else ''}, {len(self.attempts)} attempts>"


def compose(leaf: Handler, *layers: Layer) -> Handler:
    """The handler that these layers make round a leaf; the first named sees a call first."""
    for layer in reversed(layers):
        leaf = layer(leaf)
    return leaf
