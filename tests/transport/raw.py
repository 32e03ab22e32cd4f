"""For the tests of the transport: an upstream on real sockets, silent addresses, and a count of what is open."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from penstock.canon.wire import HttpRequest
from penstock.transport.http1 import Http1Transport

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from penstock.transport.base import HttpResponse

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
STREAM = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


class Seen(NamedTuple):
    """A request as it arrived."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


class Peer:
    """The upstream's end of one connection."""

    def __init__(self, upstream: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.upstream = upstream
        self.reader = reader
        self.writer = writer

    async def request(self) -> Seen:
        """The next request; `IncompleteReadError` when the client has left instead."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head[:-4].split("\r\n")
        method, target, _ = first.split(" ")
        headers = dict(line.split(": ", 1) for line in lines)
        body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        seen = Seen(method, target, headers, body)
        self.upstream.saw(seen)
        return seen

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def gone(self) -> None:
        """Wait until the client has closed."""
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(65536):
                pass

    def reset(self) -> None:
        """Close with RST, not FIN."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        self.writer.transport.abort()


class Upstream:
    """`accepted` counts connections, `live` those that are still open, `seen` holds the requests in order."""

    def __init__(self) -> None:
        self.port = 0
        self.scheme = "http"
        self.host = "127.0.0.1"
        self.accepted = 0
        self.live = 0
        self.seen: list[Seen] = []
        self._changed = asyncio.Event()

    def url(self, path: str = "/") -> str:
        return f"{self.scheme}://{self.host}:{self.port}{path}"

    def get(self, path: str = "/", **headers: str) -> HttpRequest:
        return HttpRequest("GET", self.url(path), tuple(headers.items()))

    def post(self, body: bytes = b"{}", path: str = "/") -> HttpRequest:
        return HttpRequest("POST", self.url(path), (("content-type", "application/json"),), body)

    def saw(self, seen: Seen) -> None:
        self.seen.append(seen)
        self._changed.set()

    def count(self, step: int) -> None:
        self.live += step
        self._changed.set()

    async def until_asked(self, number: int = 1) -> None:
        """Wait until so many requests have come."""
        async with asyncio.timeout(5):
            while len(self.seen) < number:
                self._changed.clear()
                await self._changed.wait()

    async def until_live(self, number: int) -> None:
        """Wait until so many connections are open: the end of a client's socket, seen from here."""
        async with asyncio.timeout(5):
            while self.live != number:
                self._changed.clear()
                await self._changed.wait()


@asynccontextmanager
async def serving(
    handle: Callable[[Peer], Awaitable[None]], *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> AsyncIterator[Upstream]:
    """`handle` runs once for each connection, which is closed when it returns. Its errors are the test's."""
    upstream = Upstream()
    upstream.host = f"[{host}]" if ":" in host else host
    upstream.scheme = "https" if tls else "http"
    errors: list[BaseException] = []
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        upstream.accepted += 1
        upstream.count(+1)
        peer = Peer(upstream, reader, writer)
        try:
            await handle(peer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        except BaseException as error:
            errors.append(error)
        finally:
            writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError, TimeoutError):
                async with asyncio.timeout(0.2):
                    await writer.wait_closed()
            writer.transport.abort()
            upstream.count(-1)
            tasks.discard(task)

    server = await asyncio.start_server(serve, host, 0, ssl=tls)
    upstream.port = server.sockets[0].getsockname()[1]
    try:
        yield upstream
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()
    if errors:
        raise errors[0]


async def answering(peer: Peer) -> None:
    """The simplest upstream: `ok` to everything."""
    while True:
        await peer.request()
        await peer.send(OK)


async def body_of(response: HttpResponse) -> bytes:
    pieces = []
    while data := await response.read():
        pieces.append(data)
    return b"".join(pieces)


def chunked(*chunks: bytes, end: bool = True) -> bytes:
    """Chunks on the wire."""
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + (b"0\r\n\r\n" if end else b"")


class Gate:
    """Answers a request only when it is told to."""

    def __init__(self):
        self.arrived: asyncio.Queue[tuple[str, asyncio.Event]] = asyncio.Queue()

    async def handle(self, peer):
        while True:
            seen = await peer.request()
            go = asyncio.Event()
            await self.arrived.put((seen.target, go))
            await go.wait()
            await peer.send(OK)


@asynccontextmanager
async def client(**options):
    """A transport that leaves nothing open."""
    transport = Http1Transport(**options)
    try:
        yield transport
    finally:
        await transport.aclose()
        assert transport.open_connections == transport.waiting == 0


async def fetch(transport, request, **options):
    """The body, read whole."""
    response = await transport.open(request, **options)
    body = await body_of(response)
    response.release()
    return body


@contextmanager
def unused_port() -> Iterator[int]:
    """A port on which nothing listens, and nothing will: it is bound."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


@contextmanager
def silent_address(host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """The URL of a port that neither accepts nor refuses, as a firewall that drops packets: its backlog is full."""
    with contextlib.ExitStack() as opened:
        listener = opened.enter_context(socket.socket())
        listener.bind((host, port))
        listener.listen(0)
        for _ in range(4):
            filler = opened.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield f"http://{host}:{listener.getsockname()[1]}/"


async def until_open_sockets(number: int) -> None:
    """Wait until the loop, on the server's side too, has closed what it was told to close."""
    async with asyncio.timeout(5):
        while open_sockets() != number:  # noqa: ASYNC110
            await asyncio.sleep(0.001)


def open_sockets() -> int:
    """How many this process holds."""
    found = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the one that lists the directory is gone already
            found += str(descriptor.readlink()).startswith("socket:")
    return found
