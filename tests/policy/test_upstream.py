"""The leaf: one attempt at one target, over a network that plays a script."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from penstock.canon.errors import (
    ConnectError,
    ContextTooLong,
    KeyRejected,
    NotAStream,
    PenstockError,
    RateLimited,
    ServerFault,
    StatusError,
    StreamedError,
    TimedOut,
    Truncated,
)
from penstock.canon.events import Progress
from penstock.canon.request import ChatRequest, Message
from penstock.canon.response import fold
from penstock.canon.target import Secret, Target
from penstock.dialects import client_dialect
from penstock.policy.breaker import Breakers
from penstock.policy.routing import Destination, Routes, routed
from penstock.policy.upstream import MAX_ERROR_BODY_BYTES, upstream
from penstock.streams.clocks import Timeouts
from penstock.streams.handler import Call, compose
from penstock.transport.memory import Break, Hang, MemoryTransport, Pause, Reply
from tests.dialects.chat_wire import said, sse
from tests.streams.replies import DONE, END, ERROR, HEL, LO, PING, ROLE
from tests.virtual_clock import START, now, on_virtual_time

if TYPE_CHECKING:
    from penstock.streams.stream import EventStream

KEY = "sk-live-1234567890"
TARGET = Target("up", "http://127.0.0.1:9/v1", "openai-chat", "m", Secret(KEY))
REQUEST = ChatRequest("m", (Message.of("user", "Hi"),), stream=True)


def streamed(*chunks: Any) -> Reply:
    return Reply(headers={"content-type": "text/event-stream"}, chunks=chunks)


def refused(status: int, body: bytes = b"", **headers: str) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status=status, headers=named, chunks=(body,) if body else ())


def a_call(**fields: Any) -> Call:
    return Call(request_id="r", model="m", stream=True, request=REQUEST, target=TARGET, now=now, **fields)


async def read(stream: EventStream) -> str:
    return fold([event async for batch in stream for event in batch.events]).text


def told(call: Call) -> list[tuple[str, int | None, str | None]]:
    return [(attempt.target, attempt.status, attempt.error) for attempt in call.attempts]


async def fails(
    reply: Reply, call: Call | None = None, timeouts: Timeouts | None = None
) -> tuple[Any, MemoryTransport]:
    """The error that opening the stream raised, and the network afterwards."""
    transport = MemoryTransport(reply)
    call = call or a_call()
    with pytest.raises(PenstockError) as raised:
        async with upstream(transport, timeouts or Timeouts())(call):
            pass
    assert len(transport.requests) == 1
    assert told(call) == [("up:m", call.attempts[0].status, raised.value.error_type)]
    assert (raised.value.target, raised.value.attempt) == ("up:m", len(call.attempts))
    return raised.value, transport


# --- an answer that streams ------------------------------------------------------------------------------------------


@on_virtual_time
async def test_c1_one_attempt_is_one_request():
    transport, call = MemoryTransport(streamed(ROLE, HEL, LO, END + DONE)), a_call()
    async with upstream(transport, Timeouts())(call) as stream:
        assert await read(stream) == "Hello"
        assert stream.is_complete
    (request,) = transport.requests
    assert (request.method, request.url) == ("POST", "http://127.0.0.1:9/v1/chat/completions")
    assert dict(request.headers)["authorization"] == f"Bearer {KEY}"
    assert json.loads(request.body)["model"] == "m"
    assert told(call) == [("up:m", 200, None)]
    assert transport.responses[0].ended == "released"
    assert (stream.target, stream.dialect, stream.status, stream.attempt) == (TARGET, "openai-chat", 200, 1)


@on_virtual_time
async def test_a_call_of_the_same_dialect_is_forwarded_as_it_came():
    body = b'{ "messages":[{"new":1}], "model":"m","stream":true,"stream_options":{"include_usage":true} }'
    ours = client_dialect("openai-chat")
    call = Call(
        request_id="r",
        model="m",
        stream=True,
        dialect=ours,
        head=ours.read_head(body),
        body=body,
        headers={"openai-beta": "x", "cookie": "c"},
        target=TARGET,
        now=now,
    )
    transport = MemoryTransport(streamed(HEL, END))
    async with upstream(transport, Timeouts())(call):
        pass
    assert transport.requests[0].body == body
    assert dict(transport.requests[0].headers)["openai-beta"] == "x"
    assert "cookie" not in dict(transport.requests[0].headers)


@on_virtual_time
async def test_c12_an_answer_that_does_not_stream_is_a_stream():
    body = b'{"choices":[{"message":{"content":"Hi"},"finish_reason":"stop"}]}'
    transport = MemoryTransport(Reply(headers={"content-type": "application/json"}, chunks=(body,)))
    async with upstream(transport, Timeouts())(a_call()) as stream:
        assert stream.is_document
        assert await read(stream) == "Hi"


@on_virtual_time
async def test_the_stack_reads_from_top_to_bottom():
    transport, call = MemoryTransport(streamed(HEL, END)), a_call()
    call.target = None
    handler = compose(upstream(transport, Timeouts()), routed(Routes({"m": Destination((TARGET,))}), Breakers()))
    async with handler(call) as stream:
        assert await read(stream) == "Hel"
    assert call.target is TARGET


@on_virtual_time
async def test_narration_goes_to_who_asked_for_it():
    told: list[Progress] = []
    loading = sse({**said(""), "prompt_progress": {"processed": 3, "total": 9}})
    call = a_call(narrate=told.append)
    call.may_be_asked_again = True
    async with upstream(MemoryTransport(streamed(loading, Pause(5), HEL, END)), Timeouts())(call):
        assert told == [Progress("prompt", 3, 9)]


# --- an answer that does not -----------------------------------------------------------------------------------------


@on_virtual_time
async def test_c4_status_comes_before_parsing():
    error, transport = await fails(refused(401, b"<html>Unauthorized</html>", content_type="text/html"))
    assert type(error) is KeyRejected
    assert (error.status, error.body, error.content_type) == (401, b"<html>Unauthorized</html>", "text/html")
    assert transport.responses[0].ended == "released"


@on_virtual_time
async def test_a_status_that_is_an_event_stream_is_still_an_error():
    """Pathology 45."""
    error, _ = await fails(Reply(status=500, headers={"content-type": "text/event-stream"}, chunks=(HEL, END, DONE)))
    assert type(error) is ServerFault


@on_virtual_time
async def test_a_limit_says_when_to_come_back():
    body = b'{"error":{"message":"Slow down","code":"rate_limit_exceeded"}}'
    error, _ = await fails(refused(429, body, retry_after="7"))
    assert type(error) is RateLimited
    assert (error.message, error.retry_after_s) == ("Slow down", 7.0)


@on_virtual_time
async def test_an_empty_body_is_an_error_all_the_same():
    error, _ = await fails(refused(500))
    assert (type(error), error.body) == (ServerFault, b"")


@pytest.mark.parametrize("status", [100, 199, 204 + 96, 302, 404, 418])
def test_whatever_is_not_2xx(status: int):
    @on_virtual_time
    async def run() -> None:
        error, _ = await fails(refused(status, b'{"error":{"message":"no"}}'))
        assert (type(error), error.status) == (StatusError, status if status >= 400 else 502)

    run()


@on_virtual_time
async def test_the_code_says_more_than_the_status():
    error, _ = await fails(refused(400, b'{"error":{"message":"m","code":"context_length_exceeded"}}'))
    assert type(error) is ContextTooLong


@on_virtual_time
async def test_c13_a_key_that_an_upstream_repeats_is_masked():
    body = f'{{"error":{{"message":"Incorrect API key provided: {KEY}","code":"invalid_api_key"}}}}'.encode()
    error, _ = await fails(refused(401, body))
    assert KEY not in str(error)
    assert KEY.encode() not in error.body
    assert "***" in str(error)


@on_virtual_time
async def test_c11_an_error_body_has_a_bound():
    error, _ = await fails(Reply(status=500, chunks=[b"x" * 10_000] * 100))
    assert len(error.body) == MAX_ERROR_BODY_BYTES


@pytest.mark.parametrize("end", [Break(), Hang()])
def test_an_error_body_that_does_not_end_says_what_it_said(end: Any):
    @on_virtual_time
    async def run() -> None:
        error, transport = await fails(Reply(status=503, chunks=(b'{"error":{"message":"Busy"}}', end)))
        assert error.message == "Busy"
        assert transport.responses[0].ended is not None
        assert now() - START <= 61

    run()


@pytest.mark.parametrize(
    ("reply", "cls"),
    [
        (streamed(), Truncated),
        (streamed(ROLE), Truncated),
        (streamed(ERROR), StreamedError),
        (streamed(b"<html>login</html>"), NotAStream),
        (Reply(headers={"content-type": "application/json"}, chunks=(b'{"ok":true}',)), NotAStream),
        (Reply(error=ConnectError("no route")), ConnectError),
        (Reply(opening=(Break(),)), ConnectError),
        (Reply(error=TimedOut("connect", 5)), TimedOut),
    ],
)
def test_c9_what_fails_before_content_fails_the_call(reply: Reply, cls: type[PenstockError]):
    @on_virtual_time
    async def run() -> None:
        call = a_call()
        call.may_be_asked_again = True
        error, transport = await fails(reply, call)
        assert type(error) is cls
        assert all(response.ended == "aborted" for response in transport.responses)

    run()


@on_virtual_time
async def test_c8_headers_that_never_come_are_too_late_for_first_content():
    error, _ = await fails(Reply(opening=(Hang(),)), timeouts=Timeouts(first_content=30))
    assert isinstance(error, TimedOut)
    assert (error.clock, now()) == ("first_content", START + 30)


@on_virtual_time
async def test_c8_first_content_is_counted_from_the_request():
    call = a_call()
    call.may_be_asked_again = True
    reply = Reply(headers={"content-type": "text/event-stream"}, opening=(Pause(20),), chunks=(PING, Pause(20), HEL))
    error, transport = await fails(reply, call, Timeouts(first_content=30))
    assert isinstance(error, TimedOut)
    assert (error.clock, now()) == ("first_content", START + 30)
    assert transport.responses[0].ended == "aborted"


@on_virtual_time
async def test_attempts_are_counted_on_the_call():
    call = a_call()
    transport = MemoryTransport([refused(503), streamed(HEL, END)])
    handler = upstream(transport, Timeouts())
    with pytest.raises(PenstockError):
        async with handler(call):
            pass
    async with handler(call) as stream:
        await read(stream)
    assert stream.attempt == 2
    assert told(call) == [("up:m", 503, "overloaded"), ("up:m", 200, None)]


# --- leaving ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rest", "kind"),
    [
        ((), "truncated"),
        ((Break(),), "truncated"),
        ((ERROR,), "streamed_error"),
        ((b"data: {x\n\n",), "malformed_frame"),
        ((Hang(),), "timeout_idle"),
    ],
)
def test_an_error_inside_the_stream_is_noted_on_its_attempt(rest: tuple[Any, ...], kind: str):
    @on_virtual_time
    async def run() -> None:
        call, transport = a_call(), MemoryTransport(streamed(HEL, *rest))
        with pytest.raises(PenstockError) as raised:
            async with upstream(transport, Timeouts())(call) as stream:
                await read(stream)
        assert told(call) == [("up:m", 200, kind)]
        assert raised.value.error_type == kind
        assert transport.responses[0].ended == "aborted"

    run()


@on_virtual_time
async def test_c7_who_leaves_early_closes_the_upstream():
    call, transport = a_call(), MemoryTransport(streamed(HEL, LO, END))
    async with upstream(transport, Timeouts())(call) as stream:
        await anext(stream)
    assert transport.responses[0].ended == "aborted"
    assert told(call) == [("up:m", 200, "cancelled")]


@on_virtual_time
async def test_c7_an_error_of_the_readers_own_closes_the_upstream():
    transport = MemoryTransport(streamed(HEL, LO, END))
    with pytest.raises(RuntimeError, match="mine"):
        async with upstream(transport, Timeouts())(a_call()):
            raise RuntimeError("mine")
    assert transport.responses[0].ended == "aborted"


@pytest.mark.parametrize(
    "reply",
    [Reply(opening=(Hang(),)), streamed(Hang()), streamed(HEL, Hang()), Reply(status=500, chunks=(b"x", Hang()))],
    ids=["no headers yet", "no content yet", "in the middle", "in an error's body"],
)
def test_c7_a_cancelled_task_closes_the_upstream(reply: Reply):
    @on_virtual_time
    async def run() -> None:
        transport, call = MemoryTransport(reply), a_call()

        async def ask() -> None:
            async with upstream(transport, Timeouts())(call) as stream:
                await read(stream)

        task = asyncio.create_task(ask())
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert now() == START + 1
        assert all(response.ended == "aborted" for response in transport.responses)
        assert (call.attempts[0].error, call.attempts[0].took_s) == ("cancelled", 1)

    run()


@on_virtual_time
async def test_c7_cancelling_from_another_task():
    transport, call = MemoryTransport(streamed(HEL, Hang())), a_call()
    async with upstream(transport, Timeouts())(call) as stream:
        asyncio.get_running_loop().call_later(1, stream.cancel)
        assert await read(stream) == "Hel"
        assert not stream.is_complete
    assert transport.responses[0].ended == "aborted"
    assert "up:m" in repr(stream)


@on_virtual_time
async def test_no_timer_is_left_behind():
    for reply in (streamed(HEL, END), streamed(HEL), refused(500), Reply(error=ConnectError("m"))):
        try:
            async with upstream(MemoryTransport(reply), Timeouts())(a_call()) as stream:
                await read(stream)
        except PenstockError:
            pass
    loop: Any = asyncio.get_running_loop()
    assert [timer for timer in loop._scheduled if not timer.cancelled()] == []
