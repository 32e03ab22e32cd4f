"""Connections that are kept, found stale, and waited for."""

import asyncio
import select
import socket

import pytest

from penstock.canon.errors import ConnectError
from penstock.canon.wire import HttpRequest
from penstock.transport.base import ConnectionLost
from tests.transport.raw import (
    OK,
    STREAM,
    Gate,
    answering,
    body_of,
    chunked,
    client,
    fetch,
    serving,
    unused_port,
)

# --- keeping connections ---------------------------------------------------------------------------------------------


async def test_connections_are_used_again():
    async with serving(answering) as upstream, client() as transport:
        for _ in range(5):
            assert await fetch(transport, upstream.post()) == b"ok"
        assert upstream.accepted == 1
        assert (transport.open_connections, transport.idle_connections) == (1, 1)
        assert repr(transport) == "<Http1Transport 1 origins, 1 open, 1 idle>"


async def test_origins_do_not_share():
    async with serving(answering) as one, serving(answering) as two, client() as transport:
        await fetch(transport, one.get())
        await fetch(transport, two.get())
        assert (one.accepted, two.accepted) == (1, 1)
        assert transport.idle_connections == 2


async def test_the_last_used_is_lent_first():
    async def handle(peer):
        name = b"%d" % peer.upstream.accepted
        while True:
            await peer.request()
            await peer.send(STREAM + chunked(name))

    async with serving(handle) as upstream, client() as transport:
        first, second = await asyncio.gather(*[transport.open(upstream.get()) for _ in range(2)])
        bodies = [await body_of(first), await body_of(second)]
        first.release()
        last = (await fetch(transport, upstream.get())).decode()
        assert upstream.accepted == 2
        assert last in {body.decode() for body in bodies}
        assert await fetch(transport, upstream.get()) == last.encode()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\n\r\nok",
        OK + b"!",
        OK + OK,
    ],
)
async def test_what_must_not_be_used_again_is_closed(answer):
    async def handle(peer):
        await peer.request()
        await peer.send(answer)
        if answer.startswith(b"HTTP/1.1 200 OK\r\n\r\n"):
            return
        await peer.gone()

    async with serving(handle) as upstream, client() as transport:
        for _ in range(2):
            assert await fetch(transport, upstream.post()) == b"ok"
        await upstream.until_live(0)
        assert upstream.accepted == 2
        assert len(upstream.seen) == 2


async def test_bytes_on_an_idle_connection_close_it():
    async def handle(peer):
        await peer.request()
        await peer.send(OK)
        await asyncio.sleep(0.002)
        await peer.send(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
        await peer.gone()

    async with serving(handle) as upstream, client() as transport:
        assert await fetch(transport, upstream.post()) == b"ok"
        await upstream.until_live(0)
        assert transport.open_connections == 0


async def test_idle_connections_are_closed_in_time():
    async with serving(answering) as upstream, client(idle_s=0.02) as transport:
        await asyncio.gather(*[fetch(transport, upstream.get()) for _ in range(3)])
        assert transport.idle_connections == upstream.live
        await upstream.until_live(0)
        assert transport.open_connections == 0
        assert await fetch(transport, upstream.get()) == b"ok"


async def test_use_keeps_a_connection_from_growing_old():
    async with serving(answering) as upstream, client(idle_s=0.03) as transport:
        for _ in range(6):
            await fetch(transport, upstream.get())
            await asyncio.sleep(0.01)
        assert upstream.accepted == 1


# --- staleness -------------------------------------------------------------------------------------------------------


class Kept:
    """An upstream on a bare socket: closes a kept connection before the next request can reach it."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._listening.setblocking(False)
        self.port = self._listening.getsockname()[1]
        self.requests: list[bytes] = []
        self.accepted: list[socket.socket] = []

    def post(self, body: bytes) -> HttpRequest:
        return HttpRequest("POST", f"http://127.0.0.1:{self.port}/", body=body)

    async def answer(self) -> None:
        """Take a connection, and answer what comes on it."""
        loop = asyncio.get_running_loop()
        peer, _ = await loop.sock_accept(self._listening)
        self.accepted.append(peer)
        peer.setblocking(False)
        self.requests.append((await loop.sock_recv(peer, 65536)).rpartition(b"\r\n")[2])
        await loop.sock_sendall(peer, OK)

    def close(self) -> None:
        for peer in self.accepted:
            peer.close()
        self._listening.close()


@pytest.fixture(params=["looks first", "is told too late"])
def looks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the close is seen before the request is written, or crosses it, as over a long line."""
    if request.param == "is told too late":
        monkeypatch.delattr(select, "poll")


@pytest.mark.usefixtures("looks")
async def test_c1_a_stale_connection_is_replaced_once_and_the_request_runs_once():
    upstream = Kept()
    async with client() as transport:
        answering_once = asyncio.create_task(upstream.answer())
        assert await fetch(transport, upstream.post(b"1")) == b"ok"
        await answering_once
        upstream.accepted[0].close()  # its FIN is here before the loop can look: the next request meets a closed socket
        answering_again = asyncio.create_task(upstream.answer())
        assert await fetch(transport, upstream.post(b"2")) == b"ok"
        await answering_again
    assert upstream.requests == [b"1", b"2"]
    upstream.close()


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_c1_a_request_that_a_kept_connection_delivered_is_never_sent_again(how):
    """The upstream read it and died: it may have executed it."""

    async def handle(peer):
        await peer.request()
        await peer.send(OK)
        await peer.request()
        if how == "reset":
            peer.reset()

    async with serving(handle) as upstream, client() as transport:
        assert await fetch(transport, upstream.post(b"1")) == b"ok"
        with pytest.raises(ConnectError, match="without an answer"):
            await transport.open(upstream.post(b"2"))
        assert [seen.body for seen in upstream.seen] == [b"1", b"2"]
        assert upstream.accepted == 1


async def test_c1_a_fresh_connection_is_never_replaced():
    async def handle(peer):
        await peer.request()

    async with serving(handle) as upstream, client() as transport:
        with pytest.raises(ConnectError, match="without an answer"):
            await transport.open(upstream.post())
        assert len(upstream.seen) == upstream.accepted == 1


async def test_c1_never_replaced_once_a_byte_of_the_answer_came():
    async def handle(peer):
        await peer.request()
        await peer.send(OK)
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n")

    async with serving(handle) as upstream, client() as transport:
        await fetch(transport, upstream.post())
        with pytest.raises(ConnectError, match="middle of its answer's head"):
            await transport.open(upstream.post())
        assert upstream.accepted == 1
        assert len(upstream.seen) == 2


@pytest.mark.usefixtures("looks")
async def test_c1_a_stale_connection_is_not_replaced_by_another_kept_one():
    upstream = Kept()
    async with client() as transport:
        both = [asyncio.create_task(fetch(transport, upstream.post(b"1"))) for _ in range(2)]
        for _ in both:
            await upstream.answer()
        assert await asyncio.gather(*both) == [b"ok", b"ok"]
        for peer in upstream.accepted:
            peer.close()
        answering_again = asyncio.create_task(upstream.answer())
        assert await fetch(transport, upstream.post(b"2")) == b"ok"
        await answering_again
    assert upstream.requests == [b"1", b"1", b"2"]
    upstream.close()


async def test_c3_an_answer_that_came_before_its_request_is_nobodys():
    """It is in the socket, and the loop has not looked yet: the next request goes elsewhere."""
    upstream = Kept()
    async with client() as transport, asyncio.timeout(5):
        answering_once = asyncio.create_task(upstream.answer())
        assert await fetch(transport, upstream.post(b"1")) == b"ok"
        await answering_once
        upstream.accepted[0].send(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nother")
        answering_again = asyncio.create_task(upstream.answer())
        assert await fetch(transport, upstream.post(b"2")) == b"ok"
        await answering_again
    assert upstream.requests == [b"1", b"2"]
    upstream.close()


async def test_c4_a_cut_in_the_body_is_a_lost_connection():
    async def handle(peer):
        await peer.request()
        await peer.send(STREAM + chunked(b"hel", end=False))

    async with serving(handle) as upstream, client() as transport:
        response = await transport.open(upstream.post())
        assert await response.read() == b"hel"
        with pytest.raises(ConnectionLost):
            await response.read()


# --- the pool's bound ------------------------------------------------------------------------------------------------


async def test_c11_callers_beyond_the_bound_wait_in_order():
    gate = Gate()
    async with serving(gate.handle) as upstream, client(max_connections_per_origin=2) as transport:
        callers = []
        for i in range(6):
            callers.append(asyncio.create_task(fetch(transport, upstream.get(f"/{i}"))))
            await asyncio.sleep(0)
        order = []
        for _ in range(6):
            target, go = await gate.arrived.get()
            order.append(target)
            assert upstream.accepted <= 2
            go.set()
        assert await asyncio.gather(*callers) == [b"ok"] * 6
        assert order == [f"/{i}" for i in range(6)]
        assert transport.waiting == 0


async def test_c11_a_connection_that_closes_wakes_the_next():
    async def handle(peer):
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok")

    async with serving(handle) as upstream, client(max_connections_per_origin=1) as transport:
        bodies = await asyncio.gather(*[fetch(transport, upstream.get()) for _ in range(5)])
        assert bodies == [b"ok"] * 5
        assert upstream.accepted == 5


async def test_c11_a_connection_that_cannot_be_made_wakes_the_next():
    with unused_port() as port:
        async with client(max_connections_per_origin=1) as transport:
            request = HttpRequest("GET", f"http://127.0.0.1:{port}/")
            errors = await asyncio.gather(*[transport.open(request) for _ in range(4)], return_exceptions=True)
            assert [type(error) for error in errors] == [ConnectError] * 4


async def test_c11_a_cancelled_caller_leaves_no_trace_in_the_line():
    gate = Gate()
    async with serving(gate.handle) as upstream, client(max_connections_per_origin=1) as transport:
        first = asyncio.create_task(fetch(transport, upstream.get("/first")))
        _, go = await gate.arrived.get()
        waiting = [asyncio.create_task(fetch(transport, upstream.get(f"/{i}"))) for i in range(3)]
        await asyncio.sleep(0)
        assert transport.waiting == 3
        waiting[0].cancel()
        waiting[2].cancel()
        await asyncio.gather(waiting[0], waiting[2], return_exceptions=True)
        assert transport.waiting == 1
        go.set()
        target, go = await gate.arrived.get()
        assert target == "/1"
        go.set()
        assert await first == await waiting[1] == b"ok"
        assert (transport.open_connections, transport.idle_connections) == (1, 1)


@pytest.mark.parametrize("next_waits", [False, True])
async def test_c11_cancelled_in_the_moment_of_its_turn_passes_the_connection_on(next_waits):
    async with serving(answering) as upstream, client(max_connections_per_origin=1) as transport:
        await fetch(transport, upstream.get())
        (pool,) = transport._pools.values()
        held = await pool.acquire()
        waiting = asyncio.create_task(pool.acquire())
        behind = asyncio.create_task(pool.acquire()) if next_waits else None
        await asyncio.sleep(0)
        pool.put_back(held)
        waiting.cancel()  # it was given the connection, but has not run since
        await asyncio.gather(waiting, return_exceptions=True)
        assert waiting.cancelled()
        if behind is not None:
            assert await behind is held
            pool.put_back(held)
        assert pool.idle_connections == 1
        assert upstream.accepted == 1


async def test_c11_cancelled_in_the_moment_of_its_turn_passes_the_slot_on():
    async with serving(answering) as upstream, client(max_connections_per_origin=1) as transport:
        await fetch(transport, upstream.get())
        (pool,) = transport._pools.values()
        held = await pool.acquire()
        waiting = asyncio.create_task(pool.acquire())
        behind = asyncio.create_task(pool.acquire())
        await asyncio.sleep(0)
        pool.discard(held)
        waiting.cancel()
        connection = await behind
        assert (pool.open_connections, pool._connecting) == (1, 0)
        pool.put_back(connection)
        held.close()
