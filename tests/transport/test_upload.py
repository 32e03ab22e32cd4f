"""A request's body that comes piece by piece."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from penstock.canon.errors import ConnectError
from penstock.canon.wire import ConnectionLost, HttpRequest, HttpResponse
from penstock.transport.http1 import Http1Transport
from tests.transport.raw import OK, Peer, client, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


def request(url: str, pieces: AsyncIterator[bytes], length: int | None = None) -> HttpRequest:
    return HttpRequest("POST", url, upload=pieces, upload_length=length)


async def given(*pieces: bytes | asyncio.Event | Exception) -> AsyncIterator[bytes]:
    for piece in pieces:
        if isinstance(piece, asyncio.Event):
            await piece.wait()
        elif isinstance(piece, Exception):
            raise piece
        else:
            yield piece


async def closed(transport: Http1Transport) -> None:
    async with asyncio.timeout(5):
        while transport.open_connections:  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def to_the_end(response: HttpResponse) -> None:
    while await response.read():
        pass


async def test_pieces_leave_as_they_come():
    gate, seen = asyncio.Event(), asyncio.Event()
    heads = []

    async def handle(peer: Peer) -> None:
        heads.append(await peer.reader.readuntil(b"\r\n\r\n"))
        assert await peer.reader.readexactly(8) == b"3\r\none\r\n"
        seen.set()  # the second has not been given yet
        assert await peer.reader.readexactly(13) == b"3\r\ntwo\r\n0\r\n\r\n"
        await peer.send(OK)

    async with serving(handle) as upstream, client() as transport:
        opening = asyncio.create_task(transport.open(request(upstream.url("/files"), given(b"one", gate, b"", b"two"))))
        await seen.wait()
        gate.set()
        response = await opening
        assert (response.status, await response.read()) == (200, b"ok")
        response.release()
        assert b"transfer-encoding: chunked" in heads[0]
        assert b"content-length" not in heads[0]
        assert transport.idle_connections == 1  # as good as any other for the next


async def test_a_known_length_is_said_and_kept():
    async def handle(peer: Peer) -> None:
        seen = await peer.request()
        assert (seen.headers["content-length"], seen.body) == ("6", b"onetwo")
        await peer.send(OK)

    async with serving(handle) as upstream, client() as transport:
        response = await transport.open(request(upstream.url("/files"), given(b"one", b"two"), 6))
        assert await response.read() == b"ok"
        response.release()


@pytest.mark.parametrize("length", [6, None], ids=["its length said", "in chunks"])
@pytest.mark.parametrize("pieces", [(b"one",), (b"one", b"twothree"), (b"one", ValueError("it broke off"))], ids=str)
async def test_half_a_body_never_looks_whole(pieces: tuple[bytes | Exception, ...], length: int | None):
    if length is None and not isinstance(pieces[-1], Exception):
        return  # in chunks any length is right
    came, over = bytearray(), asyncio.Event()

    async def handle(peer: Peer) -> None:
        try:
            await peer.reader.readuntil(b"\r\n\r\n")
            while data := await peer.reader.read(100):
                came.extend(data)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            over.set()

    async with serving(handle) as upstream, client() as transport:
        with pytest.raises(ConnectError):
            await transport.open(request(upstream.url("/files"), given(*pieces), length))
        await closed(transport)
        await over.wait()
    assert len(came) < 6 if length is not None else not came.endswith(b"0\r\n\r\n")


async def test_an_early_answer_ends_the_upload_and_the_connection():
    never = asyncio.Event()

    async def handle(peer: Peer) -> None:
        await peer.reader.readuntil(b"3\r\none\r\n")
        await peer.send(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno")
        await peer.gone()

    async with serving(handle) as upstream, client() as transport:
        response = await transport.open(request(upstream.url("/files"), given(b"one", never, b"two")))
        assert (response.status, await response.read()) == (413, b"no")
        response.release()
        assert transport.idle_connections == 0
        await closed(transport)
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) <= 3  # this one, the upstream's two


async def test_giving_up_ends_the_upload():
    never, seen = asyncio.Event(), asyncio.Event()

    async def handle(peer: Peer) -> None:
        await peer.reader.readuntil(b"3\r\none\r\n")
        seen.set()
        await peer.gone()

    async with serving(handle) as upstream, client() as transport:
        opening = asyncio.create_task(transport.open(request(upstream.url("/files"), given(b"one", never))))
        await seen.wait()
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        await closed(transport)


async def test_the_upstream_sets_the_pace():
    """What it does not read is not taken from whoever gives it."""
    taken = 0
    go_on = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        nonlocal taken
        for _ in range(1000):
            taken += 1
            yield b"x" * 65536
            await asyncio.sleep(0)

    async def handle(peer: Peer) -> None:
        await go_on.wait()
        while b"0\r\n\r\n" not in (data := await peer.reader.read(1 << 20))[-5:]:
            assert data
        await peer.send(OK)

    async with serving(handle) as upstream, client() as transport:
        opening = asyncio.create_task(transport.open(request(upstream.url("/files"), endless())))
        before = -1
        while taken != before:
            before = taken
            await asyncio.sleep(0.1)
        assert taken < 300
        go_on.set()
        response = await opening
        assert await response.read() == b"ok"
        assert taken == 1000
        response.release()


async def test_a_lost_connection_in_the_answer_ends_the_upload():
    never = asyncio.Event()

    async def handle(peer: Peer) -> None:
        await peer.reader.readuntil(b"3\r\none\r\n")
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhal")
        peer.reset()

    async with serving(handle) as upstream, client() as transport:
        response = await transport.open(request(upstream.url("/files"), given(b"one", never)))
        with pytest.raises(ConnectionLost):
            await to_the_end(response)
        response.abort()
        await closed(transport)
