"""How it ends: slow readers, release, cancellation, closing. Nothing may be left behind."""

import asyncio
import random

import pytest

from penstock.canon.errors import ConnectError, ProtocolError
from penstock.canon.wire import HttpRequest
from penstock.transport.base import ConnectionLost
from penstock.transport.http1 import Http1Transport
from tests.transport.raw import (
    OK,
    STREAM,
    body_of,
    chunked,
    client,
    fetch,
    open_sockets,
    serving,
    silent_address,
)

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
    sockets = open_sockets()
    with silent_address() as url:
        before = open_sockets()
        async with client(max_connections_per_origin=1) as transport:
            call = asyncio.create_task(transport.open(HttpRequest("GET", url)))
            await asyncio.sleep(0.005)
            (pool,) = transport._pools.values()
            assert pool._connecting == 1
            assert open_sockets() == before + 1
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert pool.is_empty
            await asyncio.sleep(0)
            assert open_sockets() == before
    assert open_sockets() == sockets


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
    with silent_address() as url:
        transport = Http1Transport()
        call = asyncio.create_task(transport.open(HttpRequest("GET", url)))
        await asyncio.sleep(0.005)
        async with asyncio.timeout(1):
            await transport.aclose()
        with pytest.raises(ConnectError, match="closed"):
            await call


# --- leaks -----------------------------------------------------------------------------------------------------------


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
