"""A server on a real socket, in a thread of its own, whose every answer is a method's to write.

HTTP/1.1 as far as tests need it: requests one after the other on a connection, answers in one go or in chunks, and
every way of ending a connection. It remembers what it saw. It listens on 127.0.0.1 and never stops by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import httptools

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Self

    from penstock.testing.plan import End

KEY_HEADER = "idempotency-key"

_STOP_S = 5.0
_BEFORE_RESET_S = 0.02
_BUFFER_BYTES = 64 * 1024
_KEPT_BYTES = 1024 * 1024
_KEPT_MOMENTS = 10_000


@dataclass
class Seen:
    """One request, and what became of its answer. Moments are monotonic seconds."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    began_at: float
    dialect: str | None = None
    model: str | None = None
    faults: tuple[str, ...] = ()
    written_bytes: int = 0
    written_after_close_bytes: int = 0
    #: the body as far as it was written, up to a megabyte of it
    sent: bytearray = field(default_factory=bytearray)
    #: when each piece of content was written, the first thousands of them
    content_at: list[float] = field(default_factory=list)
    #: when the other side closed while it was being answered
    closed_at: float | None = None
    #: how long a write waited, because nobody read
    blocked_s: float = 0.0
    is_over: threading.Event = field(default_factory=threading.Event)

    def wait_over(self, timeout_s: float = 10.0) -> Seen:
        if not self.is_over.wait(timeout_s):
            raise TimeoutError(f"{self.method} {self.path} is still being answered.")
        return self


class Server:
    """`port` 0 takes a free one. Use it in `with`."""

    def __init__(self, *, port: int = 0) -> None:
        self.seen: list[Seen] = []
        self._arrived = threading.Condition()
        self._listening = _listener(port)
        #: where it listens; the same one after it has refused for a while
        self.port = int(self._listening.getsockname()[1])
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._stopped = asyncio.Event()
        self._connections: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._run, name="penstock-testing", daemon=True)

    async def answer(self, seen: Seen, exchanged: Exchanged) -> None:
        """Answer one request. Cancelled when the connection is lost."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """In the loop, when the server stops."""

    # --- what a test asks of it ---------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.root}/v1"

    def wait_for(self, number: int = 1, timeout_s: float = 10.0) -> Seen:
        """The request that is the `number`th to have come."""
        with self._arrived:
            if not self._arrived.wait_for(lambda: len(self.seen) >= number, timeout_s):
                raise TimeoutError(f"{len(self.seen)} requests came, not {number}.")
        return self.seen[number - 1]

    def executions(self) -> dict[str, int]:
        """How often each idempotency key was executed."""
        keys = [seen.headers[KEY_HEADER] for seen in self.seen if KEY_HEADER in seen.headers]
        return {key: keys.count(key) for key in keys}

    @contextlib.contextmanager
    def refusing(self) -> Iterator[None]:
        """Nobody listens here meanwhile, and connections without a question are closed, as when a server is down."""
        asyncio.run_coroutine_threadsafe(self._stop_listening(), self._loop).result(_STOP_S)
        try:
            yield
        finally:
            asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(_STOP_S)

    def close(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopped.set)
            self._thread.join(_STOP_S)
        self._listening.close()

    # --- the thread ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        with contextlib.closing(self._loop):
            self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        await self._listen()
        await self._stopped.wait()
        await self._stop_listening()
        for connection in tuple(self._connections):
            connection.abort()
        for task in self._tasks:
            task.cancel()
        await asyncio.sleep(0)
        await self.aclose()

    async def _listen(self) -> None:
        if self._server is not None:
            return
        if self._listening.fileno() < 0:
            self._listening = _listener(self.port)
        self._server = await self._loop.create_server(lambda: _Connection(self), sock=self._listening)

    async def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for connection in tuple(self._connections):
            if connection.is_idle:
                connection.abort()

    async def refuse_for(self, seconds: float) -> None:
        """Return at once; from now on, and until then, nobody listens here."""
        await self._stop_listening()
        task = self._loop.create_task(self._listen_later(seconds))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _listen_later(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self._listen()

    def _note(self, seen: Seen) -> None:
        with self._arrived:
            self.seen.append(seen)
            self._arrived.notify_all()


def _listener(port: int) -> socket.socket:
    listening = socket.create_server(("127.0.0.1", port), backlog=512)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
    return listening


class _Connection(asyncio.Protocol):
    """One connection: requests one after the other, each answered by its plan."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None
        self._seen: Seen | None = None
        self._can_write = asyncio.Event()
        self._can_write.set()
        self._gone = asyncio.Event()
        self._path = b""
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self._waiting: list[Seen] = []

    # --- asyncio's side -----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        transport.set_write_buffer_limits(_BUFFER_BYTES)
        self._server._connections.add(self)  # two halves of one thing

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.abort()

    def eof_received(self) -> bool:
        """The other side says no more. It may still read, so that what is written on can be counted."""
        self._left()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._left()
        self._can_write.set()
        self._transport = None
        if self._task is not None:
            self._task.cancel()
        self._server._connections.discard(self)

    def pause_writing(self) -> None:
        self._can_write.clear()

    def resume_writing(self) -> None:
        self._can_write.set()

    def _left(self) -> None:
        if self._seen is not None and self._seen.closed_at is None:
            self._seen.closed_at = time.monotonic()
        self._gone.set()

    @property
    def is_idle(self) -> bool:
        return self._seen is None and not self._waiting

    def abort(self) -> None:
        """RST, not FIN."""
        if self._transport is not None:
            held = self._transport.get_extra_info("socket")
            held.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()

    # --- httptools' side ----------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._path, self._headers, self._body = b"", {}, []

    def on_url(self, url: bytes) -> None:
        self._path += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, data: bytes) -> None:
        self._body.append(data)

    def on_message_complete(self) -> None:
        method = self._parser.get_method().decode("latin-1")
        path = self._path.decode("latin-1")
        self._waiting.append(Seen(method, path, self._headers, b"".join(self._body), time.monotonic()))
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._answer())

    async def _answer(self) -> None:
        while self._waiting:
            seen = self._seen = self._waiting.pop(0)
            if seen.method == "POST":
                self._server._note(seen)
            try:
                await self._server.answer(seen, Exchanged(self, seen))
            finally:
                self._seen = None
                seen.is_over.set()


class Exchanged:
    """The answer to one request, as it is being written."""

    def __init__(self, connection: _Connection, seen: Seen) -> None:
        self._connection = connection
        self._seen = seen

    @property
    def is_open(self) -> bool:
        return self._connection._transport is not None

    async def say(self, status: int, content_type: str, body: bytes) -> None:
        """An answer in one go."""
        head = [f"content-type: {content_type}", f"content-length: {len(body)}"]
        await self._send(_head(status, head) + body)

    async def begin(self, status: int, headers: Mapping[str, str]) -> None:
        said = [f"{name}: {value}" for name, value in headers.items()]
        await self._send(_head(status, ["transfer-encoding: chunked", *said]))

    async def write(self, data: bytes, *, is_content: bool = False) -> None:
        seen = self._seen
        if is_content and len(seen.content_at) < _KEPT_MOMENTS:
            seen.content_at.append(time.monotonic())
        if len(seen.sent) < _KEPT_BYTES:
            seen.sent += data
        if data:
            await self._send(b"%x\r\n%b\r\n" % (len(data), data))

    async def end(self, how: End) -> None:
        connection = self._connection
        match how:
            case "clean":
                await self._send(b"0\r\n\r\n")
            case "cut" if connection._transport is not None:
                connection._transport.close()
            case "reset":
                await asyncio.sleep(_BEFORE_RESET_S)  # a reset takes with it what was not read
                connection.abort()
            case "hang":
                await connection._gone.wait()

    async def _send(self, data: bytes) -> None:
        transport, seen = self._connection._transport, self._seen
        if transport is None or transport.is_closing():
            await asyncio.sleep(0)  # a write that failed is told of in the loop's next turn, which must come
            return
        transport.write(data)
        seen.written_bytes += len(data)
        if seen.closed_at is not None:
            seen.written_after_close_bytes += len(data)
        can_write = self._connection._can_write
        if can_write.is_set():
            await asyncio.sleep(0)  # each piece is a write of its own, and the other side may leave in between
        else:
            began = time.monotonic()
            await can_write.wait()
            seen.blocked_s += time.monotonic() - began


def _head(status: int, headers: list[str]) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status} {_REASONS.get(status, 'Said')}", *headers, "", ""]).encode("latin-1")


_REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 429: "Too Many Requests"}
