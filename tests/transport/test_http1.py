"""The client against real sockets: what goes out, what comes in, and what goes wrong on the way."""

import asyncio
import contextlib
import socket
import sys

import pytest

from penstock.canon.errors import ConnectError, InvalidRequest, ProtocolError, TimedOut
from penstock.canon.wire import HttpRequest
from penstock.transport.base import HttpResponse, Transport
from penstock.transport.http1 import Http1Transport
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
    silent_address,
    unused_port,
)

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
        ("GET", "x", "sesame\r\nb: c"),
        ("GET", "x", "sesame\nb"),
        ("GET", "x", "sesame\rb"),
        ("GET", "x", "sesame\0b"),
        ("GET", "x", "sesame 日本"),
        ("GET", "x\r\ny", "sesame"),
        ("GET", "x y", "sesame"),
        ("GET", "x:", "sesame"),
        ("GET", "", "sesame"),
        ("GET /", "x", "sesame"),
        ("G\r\n", "x", "sesame"),
        ("", "x", "sesame"),
    ],
)
async def test_what_would_break_out_of_its_line_is_refused(method, header, value):
    async with client() as transport:
        with pytest.raises(InvalidRequest) as caught:
            await transport.open(HttpRequest(method, "http://127.0.0.1:1/", (("a", "b"), (header, value))))
        assert "sesame" not in str(caught.value)


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


# --- errors of connecting --------------------------------------------------------------------------------------------


async def test_nothing_listens():
    with unused_port() as port:
        async with client() as transport:
            with pytest.raises(ConnectError) as caught:
                await transport.open(HttpRequest("GET", f"http://127.0.0.1:{port}/"))
    assert str(caught.value) == (f"Nothing listens on 127.0.0.1:{port}. Start the upstream, or correct its url.")
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)
    assert transport.open_connections == 0


def resolving(monkeypatch, answer):
    async def getaddrinfo(host, port, **options):
        if isinstance(answer, Exception):
            raise answer
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in answer]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)


@pytest.mark.parametrize(
    "error", [socket.gaierror(socket.EAI_NONAME, "Name or service not known"), UnicodeError("label too long")]
)
async def test_a_name_nobody_knows(monkeypatch, error):
    resolving(monkeypatch, error)
    async with client() as transport:
        with pytest.raises(ConnectError, match=r"^The name nowhere\.invalid cannot be resolved\. Check") as caught:
            await transport.open(HttpRequest("GET", "http://nowhere.invalid/"))
        assert caught.value.__cause__ is error


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux has all of 127.0.0.0/8")
@pytest.mark.parametrize("first", ["refuses", "is silent"])
async def test_every_address_of_a_name_is_tried(monkeypatch, first):
    monkeypatch.setattr("penstock.transport.dial.ADDRESS_S", 0.02)
    resolving(monkeypatch, ["127.0.0.2", "127.0.0.2", "127.0.0.1"])
    async with serving(answering) as upstream, client() as transport:
        with silent_address("127.0.0.2", upstream.port) if first == "is silent" else contextlib.nullcontext():
            assert await fetch(transport, HttpRequest("GET", f"http://two.example:{upstream.port}/")) == b"ok"
            assert upstream.seen[0].headers["host"] == f"two.example:{upstream.port}"


async def test_it_is_a_transport():
    transport: Transport = Http1Transport()
    async with serving(answering) as upstream:
        response: HttpResponse = await transport.open(upstream.get(), connect_s=1)
        assert (response.status, response.headers) == (200, {"content-length": "2"})
        assert await response.read() == b"ok"
        response.release()
        await transport.aclose()


async def test_c8_no_connection_within_the_clock():
    with silent_address() as url:
        async with client() as transport:
            with pytest.raises(TimedOut) as caught:
                await transport.open(HttpRequest("GET", url), connect_s=0.03)
            assert (caught.value.clock, caught.value.after_s) == ("connect", 0.03)


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
        await asyncio.sleep(1.5)  # longer than connecting may take, which on a busy machine is not nothing
        await peer.send(OK)

    async with serving(handle) as upstream, client() as transport:
        assert await fetch(transport, upstream.get(), connect_s=1.0) == b"ok"
