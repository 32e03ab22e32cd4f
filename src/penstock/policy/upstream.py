"""The leaf of every stack: one attempt at one target.

A `Call` with a target goes in; the stream of its reply comes out, once its first content is in hand. The request is
executed once. Status comes before parsing: an answer that is not 2xx is a typed error, never a stream. Leaving the
context closes the upstream, or gives its connection back when the reply was read to its end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec.structs import replace

from penstock.canon.errors import Cancelled, PenstockError, Unsupported
from penstock.canon.wire import ConnectionLost
from penstock.dialects import dialect as dialect_of
from penstock.dialects.adapt import adapted, asking
from penstock.framing.base import MAX_FRAME_BYTES
from penstock.framing.choose import choose_framing
from penstock.policy.client_key import with_clients_key
from penstock.streams.clocks import Clocks
from penstock.streams.handler import Attempt
from penstock.streams.inflate import inflated
from penstock.streams.stream import MAX_REPLY_BYTES, Chooser, EventStream, Reply

if TYPE_CHECKING:
    from penstock.canon.target import Target
    from penstock.canon.wire import HttpRequest, HttpResponse
    from penstock.dialects.base import Decoder, Reader, UpstreamDialect
    from penstock.framing.base import Framing
    from penstock.streams.clocks import Timeouts
    from penstock.streams.handler import Call, Handler
    from penstock.transport.base import Transport

#: An error's body is kept for the caller and the record; more of it says nothing more.
MAX_ERROR_BODY_BYTES = 64 * 1024


#: Whose streams are arrays, where a server passes over that events were asked for; no document of theirs is one.
_IN_ARRAYS = frozenset({"gemini"})

#: The dialect to ask a target in. Raises `Unsupported` where there is none.
Speaks = Callable[["Target"], "UpstreamDialect"]

#: What to send to a target for a call, and who reads its answer. Raises `Unsupported` where nothing can be sent.
Asks = Callable[["Call", "Target"], "tuple[Reader, HttpRequest]"]


def in_dialect(speaks: Speaks = lambda target: dialect_of(target.dialect)) -> Asks:
    """The client's own dialect is forwarded, by the client's own form of it; any other is built.

    Either way without what the target is known to lack.
    """

    def asks(call: Call, target: Target) -> tuple[Reader, HttpRequest]:
        client, head = call.dialect, call.head
        dialect: UpstreamDialect
        if client is not None and client.name == target.dialect and head is not None:
            if call.asks_stream is not call.stream:
                head = asking(head, client, stream=call.asks_stream)
            dialect, request = client, client.forward_request(head, target, call.headers)
        else:
            dialect, wanted = speaks(target), call.request
            if call.asks_stream is not call.stream:
                wanted = replace(wanted, stream=call.asks_stream)
            request = dialect.build_request(wanted, target)
        if call.lacks:
            asked_usage = call.head.include_usage if call.head is not None else call.request.include_usage
            request = adapted(dialect.name, request, call.lacks, strict=call.strict, asked_usage=asked_usage)
        return dialect, request

    return asks


_REPLIES = in_dialect()


def upstream(
    transport: Transport,
    timeouts: Timeouts,
    asks: Asks = _REPLIES,
    *,
    max_frame_bytes: int = MAX_FRAME_BYTES,
    max_reply_bytes: int = MAX_REPLY_BYTES,
) -> Handler:
    """The handler that asks `call.target` over `transport`."""

    def handle(call: Call) -> _Asking:
        return _Asking(call, transport, timeouts, asks, max_frame_bytes, max_reply_bytes)

    return handle


class _Asking:
    """One attempt, from its request to its connection's release. A class, because a generator costs each call more."""

    __slots__ = (
        "_asks", "_attempt", "_began", "_call", "_max_frame_bytes", "_max_reply_bytes", "_reply", "_timeouts",
        "_transport",
    )  # fmt: skip

    def __init__(
        self,
        call: Call,
        transport: Transport,
        timeouts: Timeouts,
        asks: Asks,
        max_frame_bytes: int,
        max_reply_bytes: int,
    ) -> None:
        self._call = call
        self._transport = transport
        self._asks = asks
        self._timeouts = timeouts
        self._max_frame_bytes = max_frame_bytes
        self._max_reply_bytes = max_reply_bytes
        self._attempt: Attempt | None = None
        self._began = 0.0
        self._reply: Reply | None = None

    async def __aenter__(self) -> EventStream:
        call, target = self._call, self._call.target
        assert target is not None, "routing comes before the leaf"
        if target.forward_auth:
            speaks = call.dialect.name if call.dialect is not None else None
            target = with_clients_key(target, call.headers, speaks, call.key)
        dialect, request = self._asks(call, target)
        _note_dropped(call, dialect, request)
        if call.trace is not None:
            request = replace(request, headers=(*request.headers, *call.trace.headers))
        attempt = self._attempt = Attempt(str(target))
        call.attempts.append(attempt)
        number = len(call.attempts)
        self._began = call.now()
        clocks = Clocks(self._timeouts, now=call.now, began=call.began, is_document=not call.asks_stream)
        try:
            response = await clocks.guard(self._transport.open(request, connect_s=self._timeouts.connect))
            attempt.status = response.status
            try:
                response = inflated(response)
            except PenstockError:
                response.abort()
                raise
            choose = _chooser(response, dialect, target, self._max_frame_bytes)
            reply = self._reply = Reply(
                response,
                choose,
                now=call.now,
                target=attempt.target,
                attempt=number,
                clocks=clocks,
                max_bytes=self._max_reply_bytes,
            )
            if not 200 <= response.status < 300:
                body = masked(await error_body(response), target)
                raise dialect.read_error(response.status, response.headers, body, attempt.target)
            await reply.begin(call.narrate, hold=call.may_be_asked_again)
        except BaseException as error:
            if isinstance(error, PenstockError):
                error.target = error.target or attempt.target
                error.attempt = number
                attempt.error = error.error_type
            else:
                attempt.error = type(error).__name__ if isinstance(error, Exception) else Cancelled.kind
            attempt.took_s = call.now() - self._began
            clocks.stop()
            if self._reply is not None:
                self._reply.close()
                self._note_wasted(type(error))
            raise
        return EventStream(reply, target=target, dialect=dialect.name, status=response.status, attempt=number)

    async def __aexit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        assert self._reply is not None
        assert self._attempt is not None
        self._reply.close()
        self._note_wasted(kind)
        self._attempt.took_s = self._call.now() - self._began
        if self._reply.error is not None:
            self._attempt.error = self._reply.error.error_type
        elif not self._reply.is_complete:
            self._attempt.error = Cancelled.kind

    def _note_wasted(self, kind: type[BaseException] | None) -> None:
        """The client has left: what had come for it reaches nobody."""
        if kind is asyncio.CancelledError and self._reply is not None:
            self._call.sent.bytes_after_disconnect += self._reply.unread_bytes


def _note_dropped(call: Call, dialect: Reader, request: HttpRequest) -> None:
    if request.dropped and call.strict:
        raise Unsupported(
            f"The model's dialect ({dialect.name}) has no {', '.join(request.dropped)}.",
            param=request.dropped[0],
            fix="Leave it out, or allow it to be left out with strict: false.",
        )
    call.dropped = request.dropped


def _chooser(response: HttpResponse, dialect: Reader, target: Target, max_frame_bytes: int) -> Chooser:
    def choose(first: bytes, is_all: bool) -> tuple[Framing, Decoder] | None:
        is_array = dialect.name in _IN_ARRAYS and first.lstrip().startswith(b"[")
        framing = choose_framing(
            response.headers.get("content-type"),
            first,
            is_all=is_all,
            streams_as="json-array" if is_array else dialect.streams_as,
            max_frame_bytes=max_frame_bytes,
        )
        if framing is None:
            return None
        return framing, dialect.decoder(
            document=framing.name == "document", provider=target.upstream, profile=target.profile
        )

    return choose


async def error_body(response: HttpResponse) -> bytes:
    pieces: list[bytes] = []
    size = 0
    try:
        while size < MAX_ERROR_BODY_BYTES and (data := await response.read()):
            pieces.append(data)
            size += len(data)
    except ConnectionLost:
        pass  # what came of it is still the best account of what went wrong
    response.release()
    return b"".join(pieces)[:MAX_ERROR_BODY_BYTES]


def masked(body: bytes, target: Target) -> bytes:
    """Some servers repeat the key that they refuse."""
    return body.replace(target.key.reveal().encode(), b"***") if target.key else body
