"""A transparent recording proxy, and the server that plays its recordings back. Real sockets, in a thread each.

`Recorder` passes every request on as it came and every byte back as it comes, and keeps both in a cassette. `Replayer`
answers from a cassette: the same bytes in the same reads, as fast as they came, faster, at once, or one read a step.
What was not recorded is a 404 that says so. Neither changes a byte of a body.
"""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from penstock.canon.errors import PenstockError, UnknownRoute
from penstock.canon.wire import ConnectionLost, HttpRequest
from penstock.testing.plan import Piece
from penstock.testing.recording import Answered, Asked, Cassette, Exchange, request_key, secrets_of
from penstock.testing.server import Server
from penstock.transport.http1 import Http1Transport

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from penstock.testing.server import Exchanged, Seen

#: what belongs to a connection, and not to what goes over it
_OWN_HEADERS = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-length",
        "host",
        "keep-alive",
        "proxy-connection",
        "te",
        "transfer-encoding",
    }
)

#: how many times as fast as it came; any word: at once
Speed = float | str


class Recorder(Server):
    """`url` is what to ask instead of `upstream`; what is asked there goes on to it, and into `folder`."""

    def __init__(self, upstream: str, folder: Path, *, port: int = 0, environ: Mapping[str, str] | None = None) -> None:
        super().__init__(port=port)
        self._environ = environ or {}
        parts = urlsplit(upstream)
        self._origin = f"{parts.scheme}://{parts.netloc}"
        self._base = parts.path.rstrip("/")
        self._cassette = Cassette(folder)
        self._lock = threading.Lock()
        self._transport: Http1Transport | None = None

    @property
    def url(self) -> str:
        return f"{self.root}{self._base}"

    async def answer(self, seen: Seen, exchanged: Exchanged) -> None:
        if self._transport is None:
            self._transport = Http1Transport(environ=self._environ)
        headers = tuple((name, value) for name, value in seen.headers.items() if name not in _OWN_HEADERS)
        request = HttpRequest(seen.method, self._origin + seen.path, headers, seen.body)
        began = time.monotonic()
        try:
            response = await self._transport.open(request, connect_s=10.0)
        except PenstockError as error:
            await exchanged.say(502, "text/plain", f"penstock record: {error}\n".encode())
            return
        passed = {name: value for name, value in response.headers.items() if name not in _OWN_HEADERS}
        body, reads = bytearray(), []
        end: Literal["clean", "cut", "cancelled"] = "cancelled"
        try:
            await exchanged.begin(response.status, passed)
            while data := await response.read():
                body += data
                reads.append((round((time.monotonic() - began) * 1000, 1), len(body)))
                await exchanged.write(data)
            end = "clean"
            response.release()
            await exchanged.end("clean")
        except ConnectionLost:
            end = "cut"
            await exchanged.end("cut")
        finally:
            response.abort()
            answered = Answered(response.status, passed, tuple(reads), end)
            asked = Asked(seen.method, seen.path, seen.headers)
            with self._lock:
                secrets = secrets_of(seen.headers, seen.path)
                self._cassette.add(Exchange(asked, answered, seen.body, bytes(body)), secrets)

    async def aclose(self) -> None:
        if self._transport is not None:
            await self._transport.aclose()


class Replayer(Server):
    """Serves `folder`. The same request again gets the next of its recordings, and the last one from then on.

    `step` is acquired before each read. `base` is the upstream's base URL, whose path `url` has as well.
    """

    def __init__(
        self,
        folder: Path,
        *,
        speed: Speed = 1.0,
        port: int = 0,
        step: threading.Semaphore | None = None,
        base: str | None = None,
    ) -> None:
        self._exchanges: dict[tuple[str, str, str], list[Exchange]] = {}
        for exchange in Cassette(folder).load():
            self._exchanges.setdefault(exchange.key, []).append(exchange)
        self._paths = sorted({f"{method} {path}" for method, path, _ in self._exchanges})
        self._speed = speed
        self._base = urlsplit(base).path.rstrip("/") if base is not None else _shared_base(self._paths)
        self._step = step
        #: requests that nobody recorded
        self.misses: list[Seen] = []
        super().__init__(port=port)

    @property
    def url(self) -> str:
        return f"{self.root}{self._base}"

    async def answer(self, seen: Seen, exchanged: Exchanged) -> None:
        exchange = self._find(seen)
        if exchange is None:
            self.misses.append(seen)
            error = UnknownRoute(
                f"No recording fits this {seen.method} {seen.path}.", fix=f"Recorded: {', '.join(self._paths)}."
            )
            await exchanged.say(404, "text/plain", f"penstock replay: {error}\n".encode())
            return
        answered = exchange.answered
        await exchanged.begin(answered.status, answered.headers)
        for piece in self._pieces(exchange.response_body, answered):
            if self._step is not None:
                await asyncio.to_thread(self._step.acquire)
            elif piece.after_s > 0:
                await asyncio.sleep(piece.after_s)
            await exchanged.write(piece.data)
        await exchanged.end("clean" if answered.end == "clean" else "cut")

    def _find(self, seen: Seen) -> Exchange | None:
        held = self._exchanges.get(request_key(seen.method, seen.path, seen.body))
        if not held:
            return None
        return held.pop(0) if len(held) > 1 else held[0]

    def _pieces(self, body: bytes, answered: Answered) -> Iterator[Piece]:
        at, was_ms = 0, 0.0
        for ms, end in answered.reads:
            pause_s = (ms - was_ms) / 1000 / self._speed if isinstance(self._speed, int | float) else 0.0
            yield Piece(body[at:end], "content", max(0.0, pause_s))
            at, was_ms = end, ms
        if body[at:]:
            yield Piece(body[at:], "content")


def _shared_base(paths: list[str]) -> str:
    """The base that most APIs have, where every recorded path begins with it."""
    plain = [path.partition(" ")[2] for path in paths]
    return next((base for base in ("/v1beta", "/v1") if all(path.startswith(f"{base}/") for path in plain)), "")
