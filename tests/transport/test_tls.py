"""TLS: certificates are checked, streams end as they do without it, and nothing is left open when it fails."""

import asyncio
import socket
import ssl

import pytest
import trustme

from penstock.canon.errors import ConnectError, TimedOut
from penstock.canon.wire import HttpRequest
from penstock.transport.base import ConnectionLost
from penstock.transport.dial import default_ssl_context
from penstock.transport.http1 import Http1Transport
from tests.transport.raw import (
    OK,
    STREAM,
    answering,
    body_of,
    chunked,
    client,
    fetch,
    open_sockets,
    serving,
    until_open_sockets,
)

AUTHORITY = trustme.CA()


def server_context(*names):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert(*names).configure_cert(context)
    return context


LOCAL = server_context("127.0.0.1", "localhost")


@pytest.fixture
def trusting():
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    return context


async def test_a_good_certificate(trusting):
    async with serving(answering, tls=LOCAL) as upstream, client(ssl_context=trusting) as transport:
        for _ in range(3):
            assert await fetch(transport, upstream.post(b"x" * 100_000), connect_s=2) == b"ok"
        assert upstream.accepted == 1
        (pool,) = transport._pools.values()
        (connection,) = pool._open
        sock = connection._transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_the_server_is_told_the_name(trusting):
    names = []
    context = server_context("localhost")
    context.sni_callback = lambda _sock, name, _context: names.append(name)
    async with serving(answering, tls=context) as upstream, client(ssl_context=trusting) as transport:
        assert await fetch(transport, HttpRequest("GET", f"https://localhost:{upstream.port}/")) == b"ok"
        assert names == ["localhost"]


async def test_the_systems_authorities_are_read_once_and_not_for_each_transport(monkeypatch):
    """Reading them takes 20 ms, in which the loop stands still; a program may make a transport for each call."""
    made = []

    def create():
        made.append(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
        return made[-1]

    default_ssl_context.cache_clear()
    monkeypatch.setattr(ssl, "create_default_context", create)
    try:
        async with serving(answering, tls=LOCAL) as upstream:
            for _ in range(3):
                async with client() as transport:
                    with pytest.raises(ConnectError, match="not trusted"):
                        await transport.open(upstream.get())
    finally:
        default_ssl_context.cache_clear()
    assert len(made) == 1


async def test_an_authority_that_is_not_trusted():
    sockets = open_sockets()
    async with serving(answering, tls=LOCAL) as upstream, client() as transport:
        with pytest.raises(ConnectError, match=r"^The certificate of 127\.0\.0\.1:\d+ is not trusted: ") as caught:
            await transport.open(upstream.get())
        assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)
        await upstream.until_live(0)
        assert upstream.seen == []
    await until_open_sockets(sockets)


async def test_a_certificate_for_another_name(trusting):
    async with serving(answering, tls=server_context("example.com")) as upstream, client(ssl_context=trusting) as t:
        with pytest.raises(ConnectError, match="Use the name that the certificate is for"):
            await t.open(upstream.get())
        await upstream.until_live(0)


async def test_an_upstream_that_does_not_speak_tls(trusting):
    async def handle(peer):
        await peer.reader.read(1)
        await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await peer.gone()

    async with serving(handle) as upstream, client(ssl_context=trusting) as transport:
        with pytest.raises(ConnectError, match=r"does not speak TLS as we do: .*use http://"):
            await transport.open(HttpRequest("GET", f"https://127.0.0.1:{upstream.port}/"))
        await upstream.until_live(0)


@pytest.mark.parametrize("size", [1, 3, 1000])
async def test_a_stream(trusting, size):
    wire = STREAM + chunked(b"data: a\n\n", b"data: b\n\n")

    async def handle(peer):
        while True:
            await peer.request()
            for i in range(0, len(wire), size):
                await peer.send(wire[i : i + size])

    async with serving(handle, tls=LOCAL) as upstream, client(ssl_context=trusting) as transport:
        for _ in range(2):
            assert await fetch(transport, upstream.get()) == b"data: a\n\ndata: b\n\n"
        assert upstream.accepted == 1


async def test_a_body_until_eof(trusting):
    """Pathology 44."""

    async def handle(peer):
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\nhello")

    async with serving(handle, tls=LOCAL) as upstream, client(ssl_context=trusting) as transport:
        assert await fetch(transport, upstream.get()) == b"hello"
        await upstream.until_live(0)


async def test_c4_a_body_until_eof_without_the_end_of_tls(trusting):
    async def handle(peer):
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\nhel")
        await asyncio.sleep(0.005)
        peer.writer.transport.abort()  # a FIN that anybody on the way could have sent

    async with serving(handle, tls=LOCAL) as upstream, client(ssl_context=trusting) as transport:
        response = await transport.open(upstream.get())
        assert await response.read() == b"hel"
        with pytest.raises(ConnectionLost):
            await response.read()


async def test_c4_a_cut_body(trusting):
    async def handle(peer):
        await peer.request()
        await peer.send(STREAM + chunked(b"hel", end=False))

    async with serving(handle, tls=LOCAL) as upstream, client(ssl_context=trusting) as transport:
        response = await transport.open(upstream.get())
        assert await response.read() == b"hel"
        with pytest.raises(ConnectionLost):
            await response.read()


async def test_c1_a_stale_connection_is_replaced(trusting):
    async def handle(peer):
        await peer.request()
        await peer.send(OK)
        if peer.upstream.accepted > 1:
            await peer.gone()

    async with serving(handle, tls=LOCAL) as upstream, client(ssl_context=trusting) as transport:
        assert await fetch(transport, upstream.get()) == b"ok"
        assert await fetch(transport, upstream.get()) == b"ok"
        assert (upstream.accepted, len(upstream.seen)) == (2, 2)


@pytest.mark.parametrize("end", ["cancel", "clock", "aclose"])
async def test_c7_the_handshake_can_be_given_up(trusting, end):
    greeted = asyncio.Event()

    async def handle(peer):
        await peer.reader.read(1)
        greeted.set()
        await peer.gone()

    async with serving(handle) as upstream:
        transport = Http1Transport(ssl_context=trusting)
        request = HttpRequest("GET", f"https://127.0.0.1:{upstream.port}/")
        call = asyncio.create_task(transport.open(request, connect_s=0.02 if end == "clock" else None))
        await greeted.wait()
        if end == "cancel":
            call.cancel()
        if end == "aclose":
            await transport.aclose()
        (result,) = await asyncio.gather(call, return_exceptions=True)
        assert isinstance(result, {"cancel": asyncio.CancelledError, "clock": TimedOut, "aclose": ConnectError}[end])
        await upstream.until_live(0)
        await transport.aclose()
        assert transport.open_connections == 0


@pytest.mark.parametrize("ending", ["abort", "cancel"])
async def test_c7_gone_is_closed(trusting, ending):
    async def handle(peer):
        await peer.request()
        if ending == "abort":
            await peer.send(STREAM)
        await peer.gone()

    async with serving(handle, tls=LOCAL) as upstream, client(ssl_context=trusting) as transport:
        call = asyncio.create_task(transport.open(upstream.post()))
        if ending == "abort":
            (await call).abort()
        else:
            await upstream.until_asked()
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
        await upstream.until_live(0)
        assert transport.open_connections == 0


async def test_c11_a_slow_reader(trusting):
    async def handle(peer):
        await peer.request()
        await peer.send(STREAM + chunked(*[b"x" * 65536] * 64))
        await peer.gone()

    async with serving(handle, tls=LOCAL) as upstream, client(ssl_context=trusting, high_water_bytes=65536) as t:
        response = await t.open(upstream.post())
        await asyncio.sleep(0.03)
        assert sum(map(len, response.pieces)) < 1_000_000
        assert len(await body_of(response)) == 64 * 65536


async def test_the_default_context_is_made_once_and_only_for_https():
    async with serving(answering) as upstream, client() as transport:
        await fetch(transport, upstream.get())
        assert transport._ssl_context is None
        assert transport._get_ssl_context() is transport._get_ssl_context()
        assert transport._get_ssl_context().verify_mode is ssl.CERT_REQUIRED
        assert transport._get_ssl_context().check_hostname
