"""Proxies: a small real one, which tunnels, asks for a password, refuses, or misbehaves."""

import asyncio
import base64
import contextlib
import ssl

import pytest
import trustme

from penstock.canon.errors import ConnectError, TimedOut
from penstock.canon.wire import HttpRequest
from tests.transport.raw import answering, client, fetch, open_sockets, serving, until_open_sockets, unused_port

AUTHORITY = trustme.CA()


@pytest.fixture
def trusting():
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    return context


def server_context(*names):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert(*names).configure_cert(context)
    return context


LOCAL = server_context("127.0.0.1", "localhost")


async def pump(reader, writer):
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def tunnelling(peer):
    """A proxy that goes wherever it is asked to, except for names, which it takes for this machine."""
    seen = await peer.request()
    assert seen.method == "CONNECT"
    reader, writer = await asyncio.open_connection("127.0.0.1", int(seen.target.rpartition(":")[2]))
    await peer.send(b"HTTP/1.1 200 Connection established\r\nvia: proxy\r\n\r\n")
    try:
        await asyncio.gather(pump(reader, peer.writer), pump(peer.reader, writer))
    finally:
        writer.transport.abort()
        await asyncio.sleep(0)


def through(proxy, **more):
    return {"HTTP_PROXY": proxy.url(), "HTTPS_PROXY": proxy.url(), **more}


async def test_http_goes_through_a_tunnel_and_keeps_it():
    async with serving(tunnelling) as proxy, serving(answering) as upstream:
        async with client(environ=through(proxy)) as transport:
            for _ in range(3):
                assert await fetch(transport, upstream.post(), connect_s=2) == b"ok"
            assert (proxy.accepted, upstream.accepted, len(upstream.seen)) == (1, 1, 3)
            (asked,) = proxy.seen
            assert asked.target == asked.headers["host"] == f"127.0.0.1:{upstream.port}"
            assert "proxy-authorization" not in asked.headers
            assert upstream.seen[0].target == "/"
        await proxy.until_live(0)


async def test_https_goes_through_a_tunnel(trusting):
    async with serving(tunnelling) as proxy, serving(answering, tls=LOCAL) as upstream:
        async with client(environ=through(proxy), ssl_context=trusting) as transport:
            for _ in range(2):
                assert await fetch(transport, HttpRequest("GET", f"https://localhost:{upstream.port}/")) == b"ok"
            assert (proxy.accepted, upstream.accepted) == (1, 1)
            assert proxy.seen[0].target == f"localhost:{upstream.port}", "the proxy resolves the name"
        await upstream.until_live(0)


async def test_a_proxy_that_speaks_tls(trusting):
    async with (
        serving(tunnelling, tls=LOCAL) as proxy,
        serving(answering) as upstream,
        client(environ=through(proxy), ssl_context=trusting) as transport,
    ):
        assert await fetch(transport, upstream.post()) == b"ok"
        assert proxy.accepted == 1


async def test_the_proxy_gets_its_password_and_the_upstream_does_not():
    async with serving(tunnelling) as proxy, serving(answering) as upstream:
        url = f"http://user:open%20sesame@127.0.0.1:{proxy.port}"
        async with client(environ={"http_proxy": url}) as transport:
            assert await fetch(transport, upstream.post()) == b"ok"
            scheme, token = proxy.seen[0].headers["proxy-authorization"].split()
            assert (scheme, base64.b64decode(token)) == ("Basic", b"user:open sesame")
            assert "proxy-authorization" not in upstream.seen[0].headers
            assert "sesame" not in repr(transport._pools) + repr(transport._proxies.__slots__)


@pytest.mark.parametrize(
    ("status", "fix"), [(b"407 Proxy Authentication Required", "user:password"), (b"403 Forbidden", "NO_PROXY")]
)
async def test_a_proxy_that_refuses_is_named_without_its_password(status, fix):
    async def handle(peer):
        await peer.request()
        await peer.send(b"HTTP/1.1 " + status + b"\r\ncontent-length: 2\r\n\r\nno")
        await peer.gone()

    async with (
        serving(handle) as proxy,
        client(environ={"HTTP_PROXY": f"http://user:sesame@127.0.0.1:{proxy.port}"}) as transport,
    ):
        with pytest.raises(ConnectError, match=fix) as caught:
            await transport.open(HttpRequest("GET", "http://upstream.example/"))
        assert f"The proxy 127.0.0.1:{proxy.port} refused to connect to upstream.example:80" in str(caught.value)
        assert "sesame" not in repr(caught.value) + str(caught.value)
        await proxy.until_live(0)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 2",
        b"220 smtp.example ESMTP\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"a" * 70_000,
        b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    ],
)
async def test_a_proxy_that_misbehaves(answer):
    sockets = open_sockets()

    async def handle(peer):
        await peer.request()
        await peer.send(answer)
        if len(answer) > 10:
            await peer.gone()

    async with serving(handle) as proxy, client(environ=through(proxy)) as transport:
        with pytest.raises(ConnectError, match=r"^The proxy 127\.0\.0\.1"):
            await transport.open(HttpRequest("GET", "http://upstream.example/"))
        await proxy.until_live(0)
    await until_open_sockets(sockets)


async def test_a_proxy_that_is_not_there():
    with unused_port() as port:
        async with client(environ={"HTTPS_PROXY": f"127.0.0.1:{port}"}) as transport:
            with pytest.raises(ConnectError, match=rf"^Nothing listens on the proxy 127\.0\.0\.1:{port}\. Start the"):
                await transport.open(HttpRequest("GET", "https://upstream.example/"))


async def test_a_certificate_is_checked_through_a_tunnel(trusting):
    async with serving(tunnelling) as proxy, serving(answering, tls=server_context("other.example")) as upstream:
        async with client(environ=through(proxy), ssl_context=trusting) as transport:
            with pytest.raises(ConnectError, match=r"certificate of localhost:\d+ is not trusted"):
                await transport.open(HttpRequest("GET", f"https://localhost:{upstream.port}/"))
        await proxy.until_live(0)


@pytest.mark.parametrize("end", ["cancel", "clock"])
async def test_c7_waiting_for_the_proxy_can_be_given_up(end):
    async def handle(peer):
        await peer.request()
        await peer.gone()

    async with serving(handle) as proxy, client(environ=through(proxy)) as transport:
        request = HttpRequest("GET", "http://upstream.example/")
        call = asyncio.create_task(transport.open(request, connect_s=0.03 if end == "clock" else None))
        await proxy.until_asked()
        if end == "cancel":
            call.cancel()
        with pytest.raises(TimedOut if end == "clock" else asyncio.CancelledError):
            await call
        await proxy.until_live(0)


async def test_c7_a_handshake_in_a_tunnel_can_be_given_up(trusting):
    greeted = asyncio.Event()

    async def handle(peer):
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\n")
        await peer.reader.read(1)
        greeted.set()
        await peer.gone()

    async with serving(handle) as proxy, client(environ=through(proxy), ssl_context=trusting) as transport:
        call = asyncio.create_task(transport.open(HttpRequest("GET", "https://upstream.example/")))
        await greeted.wait()
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        assert call.cancelled()
        await proxy.until_live(0)


async def test_no_proxy_goes_direct():
    async with (
        serving(tunnelling) as proxy,
        serving(answering) as upstream,
        client(environ=through(proxy, NO_PROXY="127.0.0.0/8")) as transport,
    ):
        assert await fetch(transport, upstream.post()) == b"ok"
        assert (proxy.accepted, upstream.accepted) == (0, 1)
