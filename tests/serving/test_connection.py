"""A client that does not read, before a server of this process whose sockets hold little."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING

import pytest
import uvicorn
from uvicorn.server import ServerState

from penstock.serving.asgi import read_body, respond
from penstock.serving.connection import Connection, connection_of
from tests.virtual_clock import on_virtual_time

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from penstock.serving.asgi import Receive, Scope, Send

WRITE_S = 0.2


@contextlib.asynccontextmanager
async def serving(size: int, made: list[Connection]) -> AsyncIterator[int]:
    """Each request is answered with so many bytes, at once. Gives the port."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-length", b"%d" % size)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"x" * size})

    config = uvicorn.Config(app, http=Connection, lifespan="off", log_config=None)
    config.load()
    loop = asyncio.get_running_loop()

    def protocol() -> Connection:
        made.append(Connection(config=config, server_state=ServerState(), app_state={}, _loop=loop))
        made[-1].write_s = WRITE_S
        return made[-1]

    listening = socket.create_server(("127.0.0.1", 0))
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    server = await loop.create_server(protocol, sock=listening)
    try:
        yield listening.getsockname()[1]
    finally:
        server.close()
        for connection in made:
            connection.transport.abort()


async def ask(port: int) -> socket.socket:
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(client, ("127.0.0.1", port))
    await loop.sock_sendall(client, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    return client


async def read(client: socket.socket, size: int, pause_s: float = 0.0) -> int:
    """How much comes, a little at a time."""
    loop, got = asyncio.get_running_loop(), 0
    with contextlib.suppress(ConnectionError):
        while got < size and (data := await loop.sock_recv(client, 4096)):
            got += len(data)
            await asyncio.sleep(pause_s)
    return got


@pytest.mark.parametrize("size", [40_000, 1_000_000], ids=["in one small buffer", "more than the buffer takes"])
def test_c11_what_nobody_reads_is_not_kept_for_ever(size: int) -> None:
    async def play() -> None:
        made: list[Connection] = []
        async with serving(size, made) as port:
            client = await ask(port)
            await asyncio.sleep(WRITE_S / 2)
            (connection,) = made
            assert 0 < connection.transport.get_write_buffer_size() <= size
            assert not made[0].is_cut
            await asyncio.sleep(2.5 * WRITE_S)
            assert connection.is_cut
            assert await read(client, size) < size
            client.close()

    asyncio.run(play())


def test_c11_whoever_reads_on_is_left_alone_however_slow() -> None:
    """Its pace is a few steps of the kernel's buffer in the time in which it may read nothing."""

    async def play() -> None:
        made: list[Connection] = []
        size = 100_000
        async with serving(size, made) as port:
            client = await ask(port)
            began = asyncio.get_running_loop().time()
            assert await read(client, size, pause_s=WRITE_S / 5) > size
            assert asyncio.get_running_loop().time() - began > 3 * WRITE_S
            assert not made[0].is_cut
            client.close()

    asyncio.run(play())


class Buffer(asyncio.Transport):
    """A transport of which only its buffer matters: `held` bytes, as the test says; and what is `written`."""

    def __init__(self) -> None:
        super().__init__()
        self.held = 0
        self.written: list[bytes] = []
        self.is_aborted = self.is_closed = False

    def write(self, data: bytes | bytearray | memoryview[int]) -> None:
        self.written.append(bytes(data))

    def close(self) -> None:
        self.is_closed = True

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def write_eof(self) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return self.held

    def is_closing(self) -> bool:
        return self.is_aborted

    def abort(self) -> None:
        self.is_aborted = True


@on_virtual_time
async def test_c11_whoever_reads_a_flood_is_left_alone():
    """What waits for it is as much as ever whenever one looks, and something else each time."""
    config = uvicorn.Config(lambda scope: None, http=Connection, lifespan="off", log_config=None)
    config.load()
    connection = Connection(config, ServerState(), {}, asyncio.get_running_loop())
    connection.write_s = 4.0
    buffer = Buffer()
    connection.connection_made(buffer)
    for _ in range(30):
        buffer.held = 70_000
        connection.pause_writing()
        await asyncio.sleep(0.5)
        buffer.held = 10_000
        connection.resume_writing()
    assert not buffer.is_aborted
    buffer.held = 70_000
    connection.pause_writing()
    await asyncio.sleep(3.5)
    assert not buffer.is_aborted
    await asyncio.sleep(1.6)
    assert connection.is_cut


def test_c11_without_a_limit_nobody_is_cut_off() -> None:
    async def play() -> None:
        made: list[Connection] = []
        async with serving(100_000, made) as port:
            client = await ask(port)
            await asyncio.sleep(0.05)
            made[0].write_s = None
            await asyncio.sleep(3 * WRITE_S)
            assert not made[0].is_cut
            client.close()

    asyncio.run(play())


# --- whole answers ----------------------------------------------------------------------------------------------------

ASKED = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}"


def connected(*headers: tuple[bytes, bytes], takes_s: float = 0.0) -> tuple[Connection, Buffer]:
    """A connection whose every request is answered with `ok`."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await read_body(scope, receive, 10)
        if takes_s:
            await asyncio.sleep(takes_s)
        await respond(send, 200, b"ok", headers, connection=connection_of(scope))

    config = uvicorn.Config(app, http=Connection, lifespan="off", log_config=None, date_header=False)
    config.load()
    connection, buffer = Connection(config, ServerState(), {}, asyncio.get_running_loop()), Buffer()
    connection.timeout_keep_alive = 5
    connection.connection_made(buffer)
    return connection, buffer


@on_virtual_time
async def test_a_whole_answer_is_one_write() -> None:
    connection, buffer = connected((b"x-a", b"1"))
    for asked in range(3):
        connection.data_received(ASKED)
        await asyncio.sleep(0.1)
        assert len(buffer.written) == asked + 1
    head = b"HTTP/1.1 200 OK\r\nx-a: 1\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n"
    assert buffer.written == [head + b"ok"] * 3


@on_virtual_time
async def test_whole_answers_to_pipelined_requests_come_in_order() -> None:
    connection, buffer = connected()
    connection.data_received(ASKED * 3)
    await asyncio.sleep(0.1)
    assert [said[-2:] for said in buffer.written] == [b"ok"] * 3
    assert not buffer.is_closed


@on_virtual_time
@pytest.mark.parametrize("value", [b"1\r\nx-evil: 1", b"1\nx-evil: 1", b"1\rx", b"\0"])
async def test_c3_no_value_of_a_header_begins_a_line_of_its_own(value: bytes) -> None:
    connection, buffer = connected((b"x-a", value))
    connection.data_received(ASKED)
    await asyncio.sleep(0.1)
    assert not buffer.written
    assert buffer.is_closed


@on_virtual_time
@pytest.mark.parametrize("said", [b"connection: close\r\n", b""])
async def test_whoever_wants_no_more_is_closed_upon(said: bytes) -> None:
    connection, buffer = connected()
    version = b"HTTP/1.1" if said else b"HTTP/1.0"
    connection.data_received(ASKED.replace(b"HTTP/1.1", version).replace(b"host", said + b"host"))
    await asyncio.sleep(0.1)
    assert b"".join(buffer.written).endswith(b"ok")
    assert b"connection: close" in buffer.written[0]
    assert buffer.is_closed


@on_virtual_time
@pytest.mark.parametrize("behind", [b"", b" GET / HTTP/1.1\r\n\r\n"], ids=["alone", "with what stands behind"])
async def test_c11_what_is_too_long_is_told_so_whatever_comes_with_its_end(behind: bytes) -> None:
    connection, buffer = connected()
    said = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n2;" + b"x" * 70_000
    connection.data_received(said[:60_000])
    connection.data_received(said[60_000:] + behind)
    await asyncio.sleep(0.1)
    assert b"".join(buffer.written).startswith(b"HTTP/1.1 431 ")


# --- a client that asks no more ---------------------------------------------------------------------------------------


@on_virtual_time
async def test_a_kept_connection_is_closed_when_nothing_more_is_asked() -> None:
    connection, buffer = connected()
    for _ in range(4):
        connection.data_received(ASKED)
        await asyncio.sleep(4)
    assert not buffer.is_closed
    await asyncio.sleep(0.9)
    assert not buffer.is_closed
    await asyncio.sleep(0.2)
    assert buffer.is_closed


@on_virtual_time
async def test_a_kept_connection_is_not_closed_while_it_is_asked() -> None:
    connection, buffer = connected(takes_s=30)
    connection.data_received(ASKED)
    await asyncio.sleep(31)
    connection.data_received(ASKED)
    await asyncio.sleep(29)
    assert not buffer.is_closed
    await asyncio.sleep(7)
    assert len(buffer.written) == 2
    assert buffer.is_closed
