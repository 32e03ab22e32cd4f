"""An upstream of real sockets whose every byte a test decides, and which remembers what it saw.

It runs on 127.0.0.1, on a free port, in a thread with a loop of its own, so that a test may block. `answers` says what
comes next: one `Answer` for every request, or a function of the `Exchange` that gives one. A body is a list of pieces:
bytes are written at once, a `Gate` waits until the test opens it, a number lets seconds pass. How it ends is `end`.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

DEADLINE_S = 60.0

#: clean: the chunk that ends the body · cut: closed without it · reset: RST · hang: nothing until the other side closes
End = Literal["clean", "cut", "reset", "hang"]


class Gate:
    """The upstream stops here until the test opens it; `wait_reached` waits until it has come so far."""

    def __init__(self) -> None:
        self._reached = threading.Event()
        self._opened = threading.Event()
        self._waiting: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None
        self._lock = threading.Lock()

    def open(self) -> None:
        with self._lock:
            self._opened.set()
            if self._waiting is not None:
                loop, event = self._waiting
                loop.call_soon_threadsafe(event.set)

    def wait_reached(self) -> None:
        assert self._reached.wait(DEADLINE_S), "the upstream did not come to its gate"

    async def passed(self) -> None:
        event = asyncio.Event()
        with self._lock:
            if self._opened.is_set():
                event.set()
            self._waiting = (asyncio.get_running_loop(), event)
        self._reached.set()
        await event.wait()


Piece = bytes | Gate | float


@dataclass(frozen=True)
class Answer:
    """`cut`: the pieces joined, and written so many bytes at a time. `chunked` False: the connection's end is the
    body's, or its `content-length` header."""

    pieces: Sequence[Piece] = ()
    status: int = 200
    content_type: str | None = "text/event-stream"
    headers: tuple[tuple[str, str], ...] = ()
    end: End = "clean"
    cut: int | None = None
    chunked: bool = True
    before: Gate | float | None = None  # waited for before the head is written
    has_head: bool = True  # False: the connection ends without an answer


def sse(*pieces: Piece, end: End = "clean", cut: int | None = None) -> Answer:
    return Answer(pieces, end=end, cut=cut)


def document(body: bytes, *, status: int = 200, content_type: str = "application/json", **headers: str) -> Answer:
    given = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return Answer((body,), status=status, content_type=content_type, headers=given)


@dataclass
class Exchange:
    """One request and what became of its answer. Moments are monotonic seconds."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    began_at: float = field(default_factory=time.monotonic)
    written: int = 0  # body bytes handed to the kernel
    written_after_close: int = 0
    closed_at: float | None = None  # when the other side closed, while this was being answered
    blocked: threading.Event = field(default_factory=threading.Event)  # a write could not be finished for a while
    is_waiting: bool = False  # at a gate
    over: threading.Event = field(default_factory=threading.Event)

    def wait_over(self) -> Exchange:
        assert self.over.wait(DEADLINE_S), "the exchange did not end"
        return self


Choose = Callable[[Exchange], Answer]

#: A write that takes longer than this is blocked by whoever does not read.
BLOCKED_S = 0.3


class Upstream:
    """`exchanges` holds every request since `forget`, `live` counts connections that are open now. `port`: one that
    another has left."""

    def __init__(self, port: int = 0) -> None:
        self.exchanges: list[Exchange] = []
        self.live = 0
        self.errors: list[BaseException] = []
        self._choose: Choose = lambda exchange: document(b"no script", status=500)
        self._arrived = threading.Condition()
        self._tasks: set[asyncio.Task[None]] = set()
        self._listening = socket.create_server(("127.0.0.1", port), backlog=512)
        # Small, so that a reader who stops is felt soon.
        self._listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * 1024)
        self.port: int = self._listening.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    # --- what a test asks of it ---

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def answers(self, answer: Answer | Choose) -> None:
        self._choose = answer if callable(answer) else lambda exchange: answer

    def forget(self) -> None:
        self.exchanges = []
        self.errors = []

    def wait_for(self, number: int = 1) -> Exchange:
        """The exchange that is the `number`th since `forget`."""
        with self._arrived:
            came = self._arrived.wait_for(lambda: len(self.exchanges) >= number, DEADLINE_S)
        assert came, f"{len(self.exchanges)} requests came, not {number}"
        return self.exchanges[number - 1]

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(DEADLINE_S)
        self._loop.close()

    # --- the thread ---

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._connected, sock=self._listening, limit=1 << 20)
        await self._stop.wait()
        server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await server.wait_closed()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.live += 1
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            while exchange := await self._request(reader):
                if not await self._answer(exchange, reader, writer):
                    break
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        except BaseException as error:
            self.errors.append(error)
        finally:
            writer.transport.abort()
            self.live -= 1
            self._tasks.discard(task)

    async def _request(self, reader: asyncio.StreamReader) -> Exchange | None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        except asyncio.IncompleteReadError:
            return None
        first, *lines = head[:-4].split("\r\n")
        method, path, _ = first.split(" ")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        exchange = Exchange(method, path, headers, body)
        with self._arrived:
            self.exchanges.append(exchange)
            self._arrived.notify_all()
        return exchange

    async def _answer(self, exchange: Exchange, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection can be used again."""
        answer = self._choose(exchange)
        writing = asyncio.ensure_future(self._write(exchange, answer, writer))
        # Nobody sends anything while we answer: what comes is the end.
        gone = asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait((writing, gone), return_when=asyncio.FIRST_COMPLETED)
            if writing.done() and writing.exception() is not None:
                exchange.closed_at = time.monotonic()
            elif not writing.done() or answer.end == "hang":
                with contextlib.suppress(ConnectionError):
                    await gone
                exchange.closed_at = time.monotonic()
                if not exchange.is_waiting:
                    await asyncio.wait((writing,), timeout=1.0)  # whoever only writes finds out by writing
                writing.cancel()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await writing
        finally:
            writing.cancel()
            gone.cancel()
            await asyncio.gather(writing, gone, return_exceptions=True)
            exchange.over.set()
        return answer.chunked and answer.end == "clean" and exchange.closed_at is None

    async def _write(self, exchange: Exchange, answer: Answer, writer: asyncio.StreamWriter) -> None:
        await _pass(exchange, answer.before)
        head = [f"HTTP/1.1 {answer.status} Whatever"]
        head += [f"content-type: {answer.content_type}"] if answer.content_type is not None else []
        head += [f"{name}: {value}" for name, value in answer.headers]
        head += ["transfer-encoding: chunked"] if answer.chunked else []
        if answer.has_head:
            writer.write("\r\n".join([*head, "", ""]).encode("latin-1"))
        for piece in _cut(answer):
            if isinstance(piece, bytes):
                writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if answer.chunked else piece)
                await _drain(exchange, writer)
                exchange.written += len(piece)
                if exchange.closed_at is not None:
                    exchange.written_after_close += len(piece)
            else:
                await _pass(exchange, piece)
        if answer.end == "clean" and answer.chunked:
            writer.write(b"0\r\n\r\n")
        await _drain(exchange, writer)
        if answer.end == "reset":
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
        elif answer.end == "cut" or not answer.chunked:
            writer.close()


async def _pass(exchange: Exchange, piece: Gate | float | None) -> None:
    if isinstance(piece, Gate):
        exchange.is_waiting = True
        await piece.passed()
        exchange.is_waiting = False
    elif piece is not None:
        await asyncio.sleep(piece)


async def _drain(exchange: Exchange, writer: asyncio.StreamWriter) -> None:
    try:
        await asyncio.wait_for(writer.drain(), BLOCKED_S)
    except TimeoutError:
        exchange.blocked.set()
        await writer.drain()


def _cut(answer: Answer) -> Iterable[Piece]:
    if answer.cut is None:
        return [piece for piece in answer.pieces if piece != b""]
    whole = b"".join(piece for piece in answer.pieces if isinstance(piece, bytes))
    return [whole[k : k + answer.cut] for k in range(0, len(whole), answer.cut)]
