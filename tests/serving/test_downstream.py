"""The one writer of a streamed answer: heartbeats between events, never inside one. The clock costs no time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from penstock.serving.downstream import MAX_ASIDES, Downstream
from penstock.streams.handler import Call
from tests.virtual_clock import START, now, on_virtual_time

if TYPE_CHECKING:
    from collections.abc import Iterator

    from penstock.serving.asgi import Message

BEAT = b": keep-alive\n\n"


class Client:
    """An ASGI server's `send`: one message at a time, and, while `reads` is not set, none goes through."""

    faults: ClassVar[list[str]] = []

    def __init__(self) -> None:
        self.messages: list[tuple[float, Message]] = []
        self.reads = asyncio.Event()
        self.reads.set()
        self._busy = False

    async def send(self, message: Message) -> None:
        if self._busy or not self._allows(message):
            self.faults.append(f"{'two writers at once' if self._busy else 'out of order'}: {message}")
        self._busy = True
        self.messages.append((now() - START, message))
        try:
            await asyncio.sleep(0)
            await self.reads.wait()
        finally:
            self._busy = False

    def _allows(self, message: Message) -> bool:
        if not self.messages:
            return bool(message["type"] == "http.response.start")
        last = self.messages[-1][1]
        return message["type"] == "http.response.body" and last.get("more_body", True) is True

    @property
    def written(self) -> list[bytes]:
        return [message["body"] for _, message in self.messages if message["type"] == "http.response.body"]

    @property
    def beats(self) -> list[float]:
        return [round(at, 2) for at, message in self.messages if message.get("body") == BEAT]


@pytest.fixture(autouse=True)
def _in_order() -> Iterator[None]:
    """Whoever wrote out of order: it fails the test, and not a task that nobody waits for."""
    Client.faults.clear()
    yield
    assert Client.faults == []


class Connected:
    """A connection that takes what it is given while the client reads, as `serving.connection.Connection` does."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.chunks: list[bytes] = []
        self.heads_held = 0

    def hold_head(self) -> None:
        self.heads_held += 1

    def write_chunk(self, data: bytes) -> bool:
        if not self.client.reads.is_set():
            return False
        self.chunks.append(data)
        return True


def a_call() -> Call:
    return Call(request_id="req_1", model="m", stream=True, now=now)


def to(client: Client, call: Call, *, heartbeat_s: float | None = 15.0, connection: Any = None) -> Downstream:
    return Downstream(
        client.send,
        call,
        content_type="text/event-stream",
        heartbeat=BEAT,
        heartbeat_s=heartbeat_s,
        connection=connection,
    )


def timers() -> list[Any]:
    loop: Any = asyncio.get_running_loop()
    return [timer for timer in loop._scheduled if not timer.cancelled()]


# --- the answer ------------------------------------------------------------------------------------------------------


@on_virtual_time
async def test_c2_headers_leave_with_the_first_content():
    client, call = Client(), a_call()
    down = to(client, call)
    down.add_headers([(b"x-penstock-target", b"up:m")])
    assert not down.started
    assert client.messages == []
    await down.write(b"data: a\n\n")
    start = client.messages[0][1]
    assert (start["status"], call.http_status) == (200, 200)
    assert dict(start["headers"]) == {
        b"content-type": b"text/event-stream",
        b"x-request-id": b"req_1",
        b"cache-control": b"no-cache, no-transform",
        b"x-accel-buffering": b"no",
        b"x-penstock-target": b"up:m",
    }
    await down.write(b"data: b\n\n")
    await down.end(b"data: [DONE]\n\n")
    assert client.written == [b"data: a\n\n", b"data: b\n\n", b"data: [DONE]\n\n"]
    assert (call.sent.bytes_out, call.sent.is_whole, call.sent.heartbeats) == (32, True, 0)


@on_virtual_time
async def test_an_answer_may_be_its_end_alone():
    client, call = Client(), a_call()
    await to(client, call).end(b"data: [DONE]\n\n")
    assert client.written == [b"data: [DONE]\n\n"]
    assert client.messages[-1][1].get("more_body", False) is False
    assert call.sent.bytes_out == 14


# --- heartbeats ------------------------------------------------------------------------------------------------------


@on_virtual_time
async def test_heartbeats_come_while_nothing_else_does():
    """Pathology 22."""
    client, call = Client(), a_call()
    down = to(client, call)
    await asyncio.sleep(50)
    assert client.messages[0][1]["type"] == "http.response.start", "the first heartbeat brings the headers"
    assert client.beats == [15, 30, 45]
    await down.write(b"data: a\n\n")
    await asyncio.sleep(20)
    await down.end()
    assert client.beats == [15, 30, 45, 65]
    assert call.sent.heartbeats == 4
    assert call.sent.bytes_out == 4 * len(BEAT) + 9


@on_virtual_time
async def test_a_write_puts_the_heartbeat_off():
    client = Client()
    down = to(client, a_call())
    for _ in range(20):
        await asyncio.sleep(14)
        await down.write(b"data: a\n\n")
    await down.end()
    assert client.beats == []


@on_virtual_time
async def test_a_write_that_does_not_wait_puts_the_heartbeat_off():
    client, call = Client(), a_call()
    connection = Connected(client)
    down = to(client, call, connection=connection)
    assert not down.write_now(b"data: a\n\n", now()), "the head has not left"
    await down.write(b"data: a\n\n")
    assert connection.heads_held == 1
    for _ in range(20):
        await asyncio.sleep(14)
        assert down.write_now(b"data: b\n\n", now())
    assert connection.chunks == [b"data: b\n\n"] * 20
    assert client.beats == []
    assert call.sent.bytes_out == 21 * 9
    await down.end()


@on_virtual_time
async def test_c11_a_write_that_must_wait_is_not_written_now():
    client = Client()
    connection = Connected(client)
    down = to(client, a_call(), connection=connection)
    await down.write(b"data: a\n\n")
    client.reads.clear()
    assert not down.write_now(b"data: b\n\n", now())
    assert connection.chunks == []
    down.stop()


@on_virtual_time
async def test_no_heartbeat_while_a_write_waits_for_the_client():
    client = Client()
    down = to(client, a_call())
    client.reads.clear()
    writing = asyncio.create_task(down.write(b"data: a\n\n"))
    await asyncio.sleep(100)
    assert client.beats == []
    client.reads.set()
    await writing
    await asyncio.sleep(16)
    assert client.beats != []
    await down.end()


@on_virtual_time
async def test_a_write_waits_for_a_heartbeat_that_is_under_way():
    client = Client()
    down = to(client, a_call())
    client.reads.clear()
    await asyncio.sleep(20)
    writing = asyncio.create_task(down.write(b"data: a\n\n"))
    await asyncio.sleep(1)
    assert not down.write_now(b"data: b\n\n", now())
    client.reads.set()
    await writing
    await down.end()
    assert client.written == [BEAT, b"data: a\n\n", b""]


@on_virtual_time
async def test_c11_heartbeats_do_not_pile_up_while_the_client_reads_nothing():
    client = Client()
    down = to(client, a_call())
    client.reads.clear()
    await asyncio.sleep(1000)
    client.reads.set()
    await asyncio.sleep(1)
    assert len(client.beats) <= 2
    await down.end()


@pytest.mark.parametrize("heartbeat_s", [None])
def test_no_heartbeats_where_none_are_wanted(heartbeat_s: float | None):
    @on_virtual_time
    async def run() -> None:
        client = Client()
        down = to(client, a_call(), heartbeat_s=heartbeat_s)
        await asyncio.sleep(1000)
        await down.end()
        assert client.beats == []

    run()


@pytest.mark.parametrize("how", ["end", "stop"])
def test_timers_stop_with_the_answer(how: str):
    @on_virtual_time
    async def run() -> None:
        client = Client()
        down = to(client, a_call())
        await asyncio.sleep(16)
        if how == "end":
            await down.end()
        else:
            down.stop()
            down.stop()
        assert timers() == []
        beats = client.beats
        await asyncio.sleep(1000)
        assert client.beats == beats

    run()


@on_virtual_time
async def test_one_timer_whatever_is_written():
    client = Client()
    down = to(client, a_call())
    armed = timers()
    for _ in range(100):
        await down.write(b"data: a\n\n")
    assert timers() == armed
    assert len(armed) == 1
    await down.end()


# --- what is said beside the stream ----------------------------------------------------------------------------------


@on_virtual_time
async def test_c5_asides_are_said_in_order_and_together():
    client, call = Client(), a_call()
    down = to(client, call)
    for k in range(3):
        down.aside(b"data: %d\n\n" % k)
    await asyncio.sleep(0.1)
    assert client.written == [b"data: 0\n\ndata: 1\n\ndata: 2\n\n"]
    await down.end()
    assert (call.sent.heartbeats, call.sent.bytes_out) == (0, 27)


@on_virtual_time
async def test_c5_asides_are_bounded_and_never_waited_for():
    client = Client()
    down = to(client, a_call())
    for _ in range(MAX_ASIDES * 2):
        down.aside(b"x\n\n")
    await asyncio.sleep(0.1)
    assert client.written == [b"x\n\n" * MAX_ASIDES]
    await down.end()


@on_virtual_time
async def test_c5_an_aside_is_dropped_while_a_write_waits():
    client = Client()
    down = to(client, a_call())
    client.reads.clear()
    writing = asyncio.create_task(down.write(b"data: a\n\n"))
    await asyncio.sleep(1)
    down.aside(b"data: aside\n\n")
    client.reads.set()
    await writing
    await asyncio.sleep(1)
    await down.end()
    assert client.written == [b"data: a\n\n", b""]


@on_virtual_time
async def test_nothing_is_said_after_the_end():
    client = Client()
    down = to(client, a_call())
    await down.end(b"data: [DONE]\n\n")
    down.aside(b"data: late\n\n")
    await asyncio.sleep(100)
    assert client.written == [b"data: [DONE]\n\n"]


@on_virtual_time
async def test_nothing_is_said_while_the_end_is_being_written():
    """An end that has not begun the answer yet is two messages: nothing comes between them."""
    client = Client()
    down = to(client, a_call())
    client.reads.clear()
    ending = asyncio.create_task(down.end(b"data: [DONE]\n\n"))
    await asyncio.sleep(1)
    down.aside(b"data: late\n\n")
    await asyncio.sleep(1)
    client.reads.set()
    await ending
    await asyncio.sleep(1)
    assert client.written == [b"data: [DONE]\n\n"]


@on_virtual_time
async def test_c7_a_writer_that_is_cancelled_leaves_nothing_behind():
    client = Client()
    down = to(client, a_call())
    client.reads.clear()
    writing = asyncio.create_task(down.write(b"data: a\n\n"))
    await asyncio.sleep(20)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    down.stop()
    assert timers() == []
    assert asyncio.all_tasks() == {asyncio.current_task()}


@on_virtual_time
async def test_c9_what_was_to_be_said_beside_a_refusal_is_not_said_after_it():
    """The heartbeat fell due in the very turn in which the upstream failed, and the answer is a status."""
    client, call = Client(), a_call()
    down = to(client, call)
    down.aside(BEAT)
    down.stop()
    call.sent.is_whole = True
    await client.send({"type": "http.response.start", "status": 502, "headers": []})
    await client.send({"type": "http.response.body", "body": b"{}"})
    await asyncio.sleep(60)
    assert client.written == [b"{}"]
    assert call.sent.heartbeats == 0
