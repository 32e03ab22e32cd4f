"""The client against real sockets: requests on the wire, reuse, staleness, limits, clocks, cancellation and leaks."""

import asyncio
import os
import random
import socket
from contextlib import asynccontextmanager

import pytest

from penstock.canon.errors import ConnectError, InvalidRequest, ProtocolError, TimedOut
from penstock.canon.wire import HttpRequest
from penstock.transport.base import ConnectionLost
from penstock.transport.http1 import Http1Transport
from tests.transport.raw import OK, STREAM, answering, body_of, chunked, serving


@asynccontextmanager
async def client(**options):
    transport = Http1Transport(**options)
    try:
        yield transport
    finally:
        await transport.aclose()
        assert transport.open_connections == transport.waiting == 0


async def fetch(transport, request, **options):
    response = await transport.open(request, **options)
    body = await body_of(response)
    response.release()
    return body


def unused_port():
    """A port on which nothing listens: bound, never listening, and ours until the socket is closed."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    return sock, sock.getsockname()[1]


# --- the request -----------------------------------------------------------------------------------------------------


async def test_a_request_on_the_wire():
    async with serving(answering) as upstream, client(user_agent="tester") as transport:
        request = HttpRequest("POST", upstream.url("/v1/chat?x=1"), (("authorization", "Bearer k"),), b"{}")
        assert await fetch(transport, request) == b"ok"
        (seen,) = upstream.seen
        assert (seen.method, seen.target, seen.body) == ("POST", "/v1/chat?x=1", b"{}")
        assert seen.headers == {
            "authorization": "Bearer k",
            "host": f"127.0.0.1:{upstream.port}",
            "accept-encoding": "identity",
            "user-agent": "tester",
            "content-length": "2",
        }


async def test_what_the_caller_says_goes_except_for_lengths():
    async with serving(answering) as upstream, client() as transport:
        headers = (
            ("host", "other"),
            ("accept-encoding", "gzip"),
            ("user-agent", "mine"),
            ("content-length", "99"),
            ("transfer-encoding", "chunked"),
        )
        await fetch(transport, HttpRequest("POST", upstream.url(), headers, b"{}"))
        assert upstream.seen[0].headers == {
            "host": "other",
            "accept-encoding": "gzip",
            "user-agent": "mine",
            "content-length": "2",
        }


@pytest.mark.parametrize(
    ("method", "body", "length"),
    [
        ("GET", b"", None),
        ("HEAD", b"", None),
        ("DELETE", b"", None),
        ("POST", b"", "0"),
        ("PUT", b"", "0"),
        ("GET", b"x", "1"),
    ],
)
async def test_content_length(method, body, length):
    async with serving(answering) as upstream, client() as transport:
        response = await transport.open(HttpRequest(method, upstream.url(), (), body))
        response.abort()
        assert upstream.seen[0].headers.get("content-length") == length
        assert upstream.seen[0].headers["user-agent"].startswith("penstock/")


@pytest.mark.parametrize(
    ("method", "header", "value"),
    [
        ("GET", "x", "a\r\nb: c"),
        ("GET", "x", "a\nb"),
        ("GET", "x", "a\rb"),
        ("GET", "x", "a\0b"),
        ("GET", "x", "日本"),
        ("GET", "x\r\ny", "a"),
        ("GET", "x y", "a"),
        ("GET", "x:", "a"),
        ("GET", "", "a"),
        ("GET /", "x", "a"),
        ("G\r\n", "x", "a"),
        ("", "x", "a"),
    ],
)
async def test_what_would_break_out_of_its_line_is_refused(method, header, value):
    async with client() as transport:
        with pytest.raises(InvalidRequest) as caught:
            await transport.open(HttpRequest(method, "http://127.0.0.1:1/", (("a", "b"), (header, value))))
        assert value not in str(caught.value).removeprefix("The header x holds a ")


async def test_a_user_agent_that_would_break_out_is_refused():
    async with client(user_agent="a\r\nb: c") as transport:
        with pytest.raises(InvalidRequest):
            await transport.open(HttpRequest("GET", "http://127.0.0.1:1/"))


async def test_latin_1_values_go_as_they_are():
    async with serving(answering) as upstream, client() as transport:
        await fetch(transport, upstream.get(x="ä"))
        assert upstream.seen[0].headers["x"] == "ä"


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
async def test_ipv6():
    async with serving(answering, host="::1") as upstream, client() as transport:
        assert await fetch(transport, upstream.get()) == b"ok"
        assert upstream.seen[0].headers["host"] == f"[::1]:{upstream.port}"


async def test_a_name_is_resolved_and_every_address_tried():
    # localhost has ::1 as well on most machines, where nothing listens.
    async with serving(answering) as upstream, client() as transport:
        assert await fetch(transport, HttpRequest("GET", f"http://localhost:{upstream.port}/")) == b"ok"


async def test_tcp_nodelay():
    async with serving(answering) as upstream, client() as transport:
        response = await transport.open(upstream.get())
        (pool,) = transport._pools.values()
        (connection,) = pool._open
        sock = connection._transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        response.abort()


# --- the answer ------------------------------------------------------------------------------------------------------


async def trickle(peer, data):
    for i in range(len(data)):
        await peer.send(data[i : i + 1])
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
        STREAM + chunked(b"he", b"llo"),
        b"HTTP/1.1 200 OK\r\n\r\nhello",
        b"HTTP/1.1 100 Continue\r\n\r\n" + STREAM + chunked(b"hello"),
    ],
)
async def test_c3_a_byte_at_a_time(answer):
    async def handle(peer):
        await peer.request()
        await trickle(peer, answer)

    async with serving(handle) as upstream, client() as transport:
        assert await fetch(transport, upstream.post()) == b"hello"


async def test_c2_headers_and_each_chunk_come_at_once():
    go = asyncio.Event()

    async def handle(peer):
        await peer.request()
        await peer.send(STREAM)
        for i in range(3):
            await go.wait()
            go.clear()
            await peer.send(chunked(b"%d" % i, end=False))
        await peer.send(b"0\r\n\r\n")

    async with serving(handle) as upstream, client() as transport:
        response = await transport.open(upstream.post())
        for i in range(3):
            go.set()
            assert await response.read() == b"%d" % i
        assert await response.read() == b""


async def test_an_answer_while_the_request_is_still_being_written():
    async def handle(peer):
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.send(b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 4\r\n\r\nbig!")
        await asyncio.sleep(1)

    async with serving(handle) as upstream, client() as transport:
        response = await transport.open(upstream.post(b"x" * 20_000_000))
        assert response.status == 413
        assert await body_of(response) == b"big!"
        response.release()
        await upstream.until_live(1)
        assert transport.idle_connections == 0


async def test_what_is_not_http_is_a_protocol_error():
    async def handle(peer):
        await peer.request()
        await peer.send(b"220 smtp.example ESMTP\r\n")
        await peer.gone()

    async with serving(handle) as upstream, client() as transport:
        with pytest.raises(ProtocolError, match="valid HTTP"):
            await transport.open(upstream.get())
        await upstream.until_live(0)


async def test_c11_a_head_over_the_limit_is_a_protocol_error():
    async def handle(peer):
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nx: " + b"a" * 2000)
        await peer.gone()

    async with serving(handle) as upstream, client(max_header_bytes=1000) as transport:
        with pytest.raises(ProtocolError, match="1000 bytes"):
            await transport.open(upstream.get())
        await upstream.until_live(0)


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


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_c1_a_stale_connection_is_replaced_once_and_the_request_runs_once(how):
    ended = asyncio.Event()

    async def handle(peer):
        number = peer.upstream.accepted
        await peer.request()
        await peer.send(OK)
        if number == 1:
            # The client's next request is on its way while this closes; it is never read.
            await peer.reader.readuntil(b"\r\n\r\n")
            peer.reset() if how == "reset" else peer.writer.close()
            ended.set()
        else:
            await peer.gone()

    async with serving(handle) as upstream, client() as transport:
        assert await fetch(transport, upstream.post(b"1")) == b"ok"
        assert await fetch(transport, upstream.post(b"2")) == b"ok"
        assert ended.is_set()
        assert [seen.body for seen in upstream.seen] == [b"1", b"2"]
        assert upstream.accepted == 2


async def test_c1_only_once():
    async def handle(peer):
        if peer.upstream.accepted == 1:
            await peer.request()
            await peer.send(OK)
        await peer.reader.readuntil(b"\r\n\r\n")

    async with serving(handle) as upstream, client() as transport:
        assert await fetch(transport, upstream.post()) == b"ok"
        with pytest.raises(ConnectError, match="without an answer"):
            await transport.open(upstream.post())
        assert upstream.accepted == 2


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


async def test_c1_a_stale_connection_is_not_replaced_by_another_kept_one():
    async def handle(peer):
        number = peer.upstream.accepted
        await peer.request()
        await peer.send(OK)
        if number <= 2:
            await peer.reader.readuntil(b"\r\n\r\n")  # every kept one is stale
        else:
            await peer.gone()

    async with serving(handle) as upstream, client(max_connections_per_origin=2) as transport:
        held = [await transport.open(upstream.get()) for _ in range(1)]
        held.append(await transport.open(upstream.get()))
        for response in held:
            await body_of(response)
            response.release()
        assert await fetch(transport, upstream.post()) == b"ok"


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


class Gate:
    """Answers a request only when it is told to."""

    def __init__(self):
        self.arrived = asyncio.Queue()

    async def handle(self, peer):
        while True:
            seen = await peer.request()
            go = asyncio.Event()
            await self.arrived.put((seen.target, go))
            await go.wait()
            await peer.send(OK)


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
    sock, port = unused_port()
    with sock:
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


# --- a slow reader ---------------------------------------------------------------------------------------------------


async def test_c11_a_slow_reader_slows_its_upstream_down():
    sent = 0

    async def handle(peer):
        nonlocal sent
        peer.writer.transport.set_write_buffer_limits(0)
        await peer.request()
        await peer.send(STREAM)
        for _ in range(640):
            await peer.send(chunked(b"x" * 65536, end=False))
            sent += 65536
        await peer.send(b"0\r\n\r\n")

    async with serving(handle) as upstream, client(high_water_bytes=65536) as transport:
        response = await transport.open(upstream.post())
        before = -1
        while sent != before:  # until the upstream can send no more
            before = sent
            await asyncio.sleep(0.02)
        assert sent < 640 * 65536, "the kernel's buffers and ours hold less than 40 MiB"
        assert sum(map(len, response.pieces)) < 1_000_000
        assert len(await body_of(response)) == 640 * 65536
        response.release()
        assert transport.idle_connections == 1


# --- release ---------------------------------------------------------------------------------------------------------


async def test_release_drains_and_the_connection_is_used_again():
    async def handle(peer):
        while True:
            await peer.request()
            await peer.send(STREAM + chunked(b"data: [DONE]\n\n", end=False))
            await asyncio.sleep(0.002)
            await peer.send(b"0\r\n\r\n")

    async with serving(handle) as upstream, client(max_connections_per_origin=1) as transport:
        for _ in range(3):
            response = await transport.open(upstream.post())
            assert await response.read() == b"data: [DONE]\n\n"
            response.release()
            assert transport.idle_connections == 0
        # The bound makes the next caller wait until the last is drained.
        assert upstream.accepted == 1


@pytest.mark.parametrize("rest", [b"", b"x" * 5000])
async def test_release_of_what_does_not_end_closes_within_bounds(rest):
    async def handle(peer):
        await peer.request()
        await peer.send(STREAM + chunked(b"a", end=False))
        if rest:
            await peer.send(chunked(rest, end=False))
        await peer.gone()

    async with serving(handle) as upstream, client(drain_bytes=1000, drain_s=0.02) as transport:
        response = await transport.open(upstream.post())
        await response.read()
        response.release()
        await upstream.until_live(0)
        assert transport.open_connections == 0


# --- errors of connecting --------------------------------------------------------------------------------------------


async def test_nothing_listens():
    sock, port = unused_port()
    with sock:
        async with client() as transport:
            with pytest.raises(ConnectError) as caught:
                await transport.open(HttpRequest("GET", f"http://127.0.0.1:{port}/"))
    assert str(caught.value) == (f"Nothing listens on 127.0.0.1:{port}. Start the upstream, or correct its url.")
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)
    assert transport.open_connections == 0


async def test_a_name_nobody_knows(monkeypatch):
    async def no_such_name(*args, **options):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    class Loop:
        getaddrinfo = staticmethod(no_such_name)

    monkeypatch.setattr("penstock.transport.dial.asyncio.get_running_loop", lambda: Loop)
    from penstock.transport.dial import _UPSTREAM, _resolve
    from penstock.transport.origin import Origin

    with pytest.raises(ConnectError, match=r"^The name nowhere\.invalid cannot be resolved\."):
        await _resolve(Origin("http", "nowhere.invalid", 80), _UPSTREAM)


async def test_c8_no_connection_within_the_clock():
    # A backlog that is full does not answer: as an address does that swallows packets.
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen(0)
        fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(sock.getsockname())
            fillers.append(filler)
        async with client() as transport:
            with pytest.raises(TimedOut) as caught:
                await transport.open(HttpRequest("GET", f"http://127.0.0.1:{sock.getsockname()[1]}/"), connect_s=0.03)
            assert (caught.value.clock, caught.value.after_s) == ("connect", 0.03)
        for filler in fillers:
            filler.close()


async def test_c8_the_line_counts_as_connecting():
    gate = Gate()
    async with serving(gate.handle) as upstream, client(max_connections_per_origin=1) as transport:
        first = asyncio.create_task(fetch(transport, upstream.get()))
        _, go = await gate.arrived.get()
        with pytest.raises(TimedOut):
            await transport.open(upstream.get(), connect_s=0.01)
        assert transport.waiting == 0
        go.set()
        assert await first == b"ok"


async def test_c8_the_answer_does_not_count_as_connecting():
    async def handle(peer):
        await peer.request()
        await asyncio.sleep(0.03)
        await peer.send(OK)

    async with serving(handle) as upstream, client() as transport:
        assert await fetch(transport, upstream.get(), connect_s=0.015) == b"ok"


# --- cancellation ----------------------------------------------------------------------------------------------------


async def test_c7_cancelled_while_waiting_for_headers_closes_the_socket():
    async def handle(peer):
        await peer.request()
        await peer.gone()

    async with serving(handle) as upstream, client(max_connections_per_origin=1) as transport:
        call = asyncio.create_task(transport.open(upstream.post()))
        await upstream.until_live(1)
        await asyncio.sleep(0.002)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await upstream.until_live(0)
        assert transport.open_connections == 0


async def test_c7_cancelled_while_connecting_frees_the_slot():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen(0)
        filler = [socket.socket() for _ in range(4)]
        for one in filler:
            one.setblocking(False)
            one.connect_ex(sock.getsockname())
        async with client(max_connections_per_origin=1) as transport:
            call = asyncio.create_task(
                transport.open(HttpRequest("GET", "http://127.0.0.1:%d/" % sock.getsockname()[1]))
            )
            await asyncio.sleep(0.005)
            (pool,) = transport._pools.values()
            assert pool._connecting == 1
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert pool._connecting == 0
            assert pool.is_empty
        for one in filler:
            one.close()


async def test_c7_a_cancelled_reader_loses_nothing_and_abort_closes():
    async def handle(peer):
        await peer.request()
        await peer.send(STREAM)
        await peer.gone()

    async with serving(handle) as upstream, client() as transport:
        response = await transport.open(upstream.post())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.005):
                await response.read()
        assert upstream.live == 1
        response.abort()
        await upstream.until_live(0)
        assert transport.open_connections == 0


async def test_c7_cancelled_at_any_moment_leaves_nothing():
    seeds = random.Random(7)

    async def handle(peer):
        while True:
            await peer.request()
            await asyncio.sleep(0.001)
            await peer.send(OK)

    async with serving(handle) as upstream, client(max_connections_per_origin=3) as transport:
        for _ in range(40):
            calls = [asyncio.create_task(fetch(transport, upstream.get())) for _ in range(5)]
            for call in calls:
                await asyncio.sleep(seeds.random() * 0.0015)
                if seeds.random() < 0.7:
                    call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
        (pool,) = transport._pools.values()
        assert (pool._connecting, pool.waiting) == (0, 0)
        await upstream.until_live(transport.open_connections)
        assert transport.open_connections == transport.idle_connections <= 3


# --- closing ---------------------------------------------------------------------------------------------------------


async def test_aclose_closes_idle_and_busy_and_wakes_the_line():
    async def handle(peer):
        await peer.request()
        await peer.send(STREAM)
        await peer.gone()

    async with serving(handle) as upstream:
        transport = Http1Transport(max_connections_per_origin=1)
        busy = await transport.open(upstream.post())
        reader = asyncio.create_task(busy.read())
        waiting = asyncio.create_task(transport.open(upstream.post()))
        await asyncio.sleep(0)
        await transport.aclose()
        with pytest.raises(ConnectionLost, match="closed"):
            await reader
        with pytest.raises(ConnectError, match="closed"):
            await waiting
        with pytest.raises(ConnectError, match="closed"):
            await transport.open(upstream.post())
        await transport.aclose()
        await upstream.until_live(0)
        assert transport.open_connections == 0
        assert repr(transport) == "<Http1Transport closed, 0 open, 0 idle>"


async def test_aclose_ends_what_is_being_connected():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(sock.getsockname())
        transport = Http1Transport()
        call = asyncio.create_task(transport.open(HttpRequest("GET", "http://127.0.0.1:%d/" % sock.getsockname()[1])))
        await asyncio.sleep(0.005)
        async with asyncio.timeout(1):
            await transport.aclose()
        with pytest.raises(ConnectError, match="closed"):
            await call
        for filler in fillers:
            filler.close()


# --- leaks -----------------------------------------------------------------------------------------------------------


def open_sockets():
    found = 0
    for fd in os.listdir("/proc/self/fd"):
        try:
            found += os.readlink(f"/proc/self/fd/{fd}").startswith("socket:")
        except OSError:
            continue
    return found


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts sockets in /proc")
async def test_c13_nothing_is_left_after_every_kind_of_ending():
    async def handle(peer):
        while True:
            seen = await peer.request()
            match seen.target:
                case "/whole":
                    await peer.send(OK)
                case "/stream":
                    await peer.send(STREAM + chunked(b"a", b"b"))
                case "/cut":
                    await peer.send(STREAM + chunked(b"a", end=False))
                    return
                case "/reset":
                    await peer.send(STREAM)
                    peer.reset()
                    return
                case "/garbage":
                    await peer.send(b"garbage\r\n\r\n")
                case "/hang":
                    await peer.send(STREAM)
                    await peer.gone()
                case "/silent":
                    await peer.gone()

    async def one(transport, upstream, number):
        target = ["/whole", "/stream", "/cut", "/reset", "/garbage", "/hang", "/silent"][number % 7]
        ending = ["read", "release", "abort", "cancel"][number // 7 % 4]
        try:
            async with asyncio.timeout(0.01 if ending == "cancel" else 0.05):
                response = await transport.open(upstream.get(target))
        except (ConnectError, ProtocolError, TimeoutError):
            return
        try:
            if ending in ("read", "cancel"):
                async with asyncio.timeout(0.01):
                    await body_of(response)
        except (ConnectionLost, TimeoutError):
            pass
        finally:
            response.release() if ending == "release" else response.abort()

    tasks, sockets = asyncio.all_tasks(), open_sockets()
    async with serving(handle) as upstream:
        transport = Http1Transport(max_connections_per_origin=8, drain_s=0.02)
        await asyncio.gather(*[one(transport, upstream, number) for number in range(224)])
        (pool,) = transport._pools.values()
        assert (pool._connecting, pool.waiting) == (0, 0)
        await asyncio.sleep(0.03)
        assert transport.open_connections == transport.idle_connections
        await upstream.until_live(transport.open_connections)
        await transport.aclose()
        await upstream.until_live(0)
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == tasks
    assert open_sockets() == sockets
