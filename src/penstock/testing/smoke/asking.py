"""A client of a worker: it asks over connections of its own, and notes what came, when, and in which read.

It judges nothing. What cannot be read is noted as well (`malformed`), and so is how the answer ended.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import msgspec

from penstock.canon.errors import PenstockError
from penstock.canon.wire import ConnectionLost, HttpRequest
from penstock.dialects.base import JSON_ERRORS
from penstock.framing.sse import SSEFraming
from penstock.transport.http1 import Http1Transport
from penstock.worker.events import Narration, Started, Token, WorkerEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from penstock.canon.target import Secret
    from penstock.canon.wire import HttpResponse

T = TypeVar("T")

CONNECT_S = 5.0
MAX_BODY_BYTES = 16 * 1024 * 1024

_event: msgspec.json.Decoder[Any] = msgspec.json.Decoder(WorkerEvent)


@dataclass
class Answer:
    """An answer in one go. `json` is None where the body is none."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    took_s: float

    @property
    def json(self) -> Any:
        try:
            return msgspec.json.decode(self.body)
        except JSON_ERRORS:
            return None


@dataclass
class Came:
    """One event: what it was, when it came, in which read."""

    event: WorkerEvent
    at: float
    read: int


@dataclass
class Heard:
    """A stream, as far as it came. `ended`: its body's proper end, a lost connection, our patience, or our leaving."""

    asked_at: float
    status: int = 0
    events: list[Came] = field(default_factory=list)
    #: frames behind `[DONE]`, that among them
    dones: int = 0
    after_done: int = 0
    malformed: str | None = None
    ended: Literal["clean", "cut", "open", "left"] = "open"

    def of(self, kind: type[T]) -> list[T]:
        return [came.event for came in self.events if isinstance(came.event, kind)]

    @property
    def tokens(self) -> list[Token]:
        return self.of(Token)

    @property
    def text(self) -> str:
        return "".join(token.t for token in self.tokens)

    @property
    def started(self) -> Started | None:
        return next(iter(self.of(Started)), None)

    @property
    def narrations(self) -> list[Narration]:
        return self.of(Narration)


class Client:
    """`url` is the worker's root. Nothing that is asked waits longer than `patience_s` in all."""

    def __init__(
        self,
        url: str,
        *,
        token: Secret | None = None,
        patience_s: float = 60.0,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.patience_s = patience_s
        self._url = url.rstrip("/").removesuffix("/v1")
        self._headers: tuple[tuple[str, str], ...] = (("content-type", "application/json"),)
        if token is not None:
            self._headers += (("authorization", f"Bearer {token.reveal()}"),)
        self._transport = Http1Transport(environ=environ)

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._transport.aclose()

    async def send(self, method: str, path: str, body: Any = None) -> Answer:
        """Raises `PenstockError`, `ConnectionLost` or `TimeoutError` where there is no whole answer."""
        began = time.monotonic()
        async with asyncio.timeout(self.patience_s):
            response = await self._open(method, path, body)
            try:
                pieces: list[bytes] = []
                while (data := await response.read()) and sum(map(len, pieces)) < MAX_BODY_BYTES:
                    pieces.append(data)
                response.release()
            finally:
                response.abort()
        return Answer(response.status, response.headers, b"".join(pieces), time.monotonic() - began)

    async def hear(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        show: Callable[[str], None] | None = None,
        heard: Heard | None = None,
        leave_after: int | None = None,
    ) -> Heard:
        """Ask for a stream and hear all of it, or `leave_after` so many tokens. `show` is given each token's text.

        `heard` is filled while it comes, for who looks on.
        """
        heard = Heard(time.monotonic()) if heard is None else heard
        try:
            async with asyncio.timeout(self.patience_s):
                response = await self._open(method, path, body)
                try:
                    await self._listen(response, heard, show, leave_after)
                finally:
                    response.abort()
        except TimeoutError:
            heard.ended = "open"
        except (PenstockError, ConnectionLost):
            heard.ended = "cut"
        return heard

    async def _open(self, method: str, path: str, body: Any) -> HttpResponse:
        data = b"" if body is None else msgspec.json.encode(body)
        request = HttpRequest(method, f"{self._url}{path}", self._headers, data)
        return await self._transport.open(request, connect_s=CONNECT_S)

    async def _listen(
        self, response: HttpResponse, heard: Heard, show: Callable[[str], None] | None, leave_after: int | None
    ) -> None:
        heard.status = response.status
        framing, read = SSEFraming(), 0
        while data := await response.read():
            read += 1
            for frame in framing.feed(data):
                if frame.data:
                    self._note(frame.data, heard, read, show)
            if leave_after is not None and len(heard.tokens) >= leave_after:
                heard.ended = "left"
                return
        heard.ended = "clean"

    @staticmethod
    def _note(data: bytes, heard: Heard, read: int, show: Callable[[str], None] | None) -> None:
        if data == b"[DONE]":
            heard.dones += 1
            return
        if heard.dones:
            heard.after_done += 1
        try:
            event = _event.decode(data)
        except JSON_ERRORS as error:
            heard.malformed = heard.malformed or str(error)
            return
        heard.events.append(Came(event, time.monotonic(), read))
        if show is not None and isinstance(event, Token):
            show(event.t)
