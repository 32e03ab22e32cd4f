import asyncio

import pytest

from penstock.canon.errors import ConnectError, TimedOut
from penstock.canon.wire import HttpRequest
from penstock.transport.base import ConnectionLost, HttpResponse, Transport
from penstock.transport.memory import Break, Hang, MemoryTransport, Pause, Reply
from tests.transport.raw import body_of
from tests.virtual_clock import on_virtual_time

ASK = HttpRequest("POST", "http://upstream/v1/chat/completions", (), b"{}")


async def test_plays_status_headers_and_chunks():
    transport = MemoryTransport(Reply(status=201, headers={"Content-Type": "text/event-stream"}, chunks=[b"a", b"b"]))
    response = await transport.open(ASK)
    assert (response.status, response.headers) == (201, {"content-type": "text/event-stream"})
    assert [await response.read() for _ in range(4)] == [b"a", b"b", b"", b""]
    response.release()
    assert transport.requests == [ASK]
    assert [r.ended for r in transport.responses] == ["released"]


async def test_is_a_transport():
    transport: Transport = MemoryTransport(Reply())
    response: HttpResponse = await transport.open(ASK, connect_s=1)
    assert await response.read() == b""
    await transport.aclose()
    with pytest.raises(ConnectError, match="closed"):
        await transport.open(ASK)


async def test_one_reply_serves_every_request():
    transport = MemoryTransport(Reply(chunks=[b"x"]))
    assert [await body_of(await transport.open(ASK)) for _ in range(3)] == [b"x"] * 3


async def test_replies_in_order_and_no_more():
    transport = MemoryTransport([Reply(status=500), Reply(chunks=[b"x"])])
    assert [(await transport.open(ASK)).status for _ in range(2)] == [500, 200]
    with pytest.raises(LookupError):
        await transport.open(ASK)


async def test_a_function_answers_by_request():
    transport = MemoryTransport(lambda request: Reply(chunks=[request.body]))
    assert await body_of(await transport.open(ASK)) == b"{}"


@on_virtual_time
async def test_a_pause_takes_the_loops_time():
    loop = asyncio.get_running_loop()
    response = await MemoryTransport(Reply(chunks=[b"a", Pause(0.02), b"b"])).open(ASK)
    begin = loop.time()
    assert await response.read() == b"a"
    assert loop.time() - begin < 0.01
    assert await response.read() == b"b"
    assert loop.time() - begin >= 0.019


@on_virtual_time
async def test_a_cancelled_read_does_not_begin_its_pause_again():
    loop = asyncio.get_running_loop()
    response = await MemoryTransport(Reply(chunks=[Pause(0.03), b"a"])).open(ASK)
    begin = loop.time()
    for _ in range(2):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await response.read()
    assert await response.read() == b"a"
    assert loop.time() - begin < 0.045


async def test_break_is_a_lost_connection_after_what_came_before():
    response = await MemoryTransport(Reply(chunks=[b"a", Break("reset")])).open(ASK)
    assert await response.read() == b"a"
    for _ in range(2):
        with pytest.raises(ConnectionLost, match="reset"):
            await response.read()


async def test_break_before_the_headers():
    with pytest.raises(ConnectError):
        await MemoryTransport(Reply(opening=[Pause(0.001), Break()])).open(ASK)


async def test_hang_before_the_headers_can_be_cancelled():
    transport = MemoryTransport(Reply(opening=[Hang()]))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.005):
            await transport.open(ASK)
    assert transport.requests == [ASK]
    assert transport.responses == []


async def test_an_error_instead_of_an_answer():
    with pytest.raises(TimedOut):
        await MemoryTransport(Reply(error=TimedOut("connect", 5))).open(ASK)


@pytest.mark.parametrize("how", ["abort", "release", "aclose"])
async def test_ending_wakes_a_reader_that_hangs(how):
    transport = MemoryTransport(Reply(chunks=[Hang()]))
    response = await transport.open(ASK)
    reader = asyncio.create_task(response.read())
    await asyncio.sleep(0)
    if how == "aclose":
        await transport.aclose()
    else:
        getattr(response, how)()
    with pytest.raises(ConnectionLost):
        await reader
    assert response.ended == ("released" if how == "release" else "aborted")


async def test_the_first_ending_counts():
    response = await MemoryTransport(Reply(chunks=[b"a"])).open(ASK)
    assert await body_of(response) == b"a"
    response.release()
    response.abort()
    assert response.ended == "released"
    assert await response.read() == b""
