from __future__ import annotations

import asyncio
import gc
import weakref
from asyncio import CancelledError
from contextlib import asynccontextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any

import pytest

from penstock.canon.errors import (
    Cancelled,
    ConnectError,
    FrameTooLarge,
    NoTargetLeft,
    RateLimited,
    Saturated,
    StreamedError,
    TimedOut,
    TooLarge,
    Truncated,
)
from penstock.canon.events import Finish
from penstock.canon.target import Target
from penstock.canon.wire import ConnectionLost
from penstock.streams.handler import Call, Handler
from penstock.streams.stream import EventStream
from penstock.telemetry.record import CallRecord
from penstock.telemetry.recorder import recorded
from tests.telemetry.script import (
    CLOSE,
    FIRST,
    WHOLE,
    Body,
    Clock,
    failing,
    hang,
    new_call,
    read_all,
    record_of,
    refusing,
    upstream,
    wire,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


async def leave_early(stream: EventStream) -> None:
    await anext(stream)


async def leave_with_everything(stream: EventStream) -> None:
    async for batch in stream:
        if any(isinstance(event, Finish) for event in batch.events):
            return


async def swallow(stream: EventStream) -> None:
    with suppress(Truncated):
        await read_all(stream)


async def cancel_it(stream: EventStream) -> None:
    await anext(stream)
    stream.cancel()
    await read_all(stream)


async def be_cancelled(stream: EventStream) -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().call_soon(task.cancel)
    await read_all(stream)


async def run_out_of_patience(stream: EventStream) -> None:
    async with asyncio.timeout(0):
        await read_all(stream)


def raising(error: BaseException) -> Body:
    async def body(stream: EventStream) -> None:
        await anext(stream)
        raise error

    return body


TOO_LONG = b"data: " + b"x" * 5000
NOBODY = NoTargetLeft("", attempts=(), status=502)
STREAMED = b"event: error\ndata: {}\n\n"


def idle(reply: Any) -> None:
    reply.expire("idle", 60.0)


#: what the upstream does, what the caller does, what comes out of it, and what is recorded
ENDINGS: dict[str, tuple[Handler | tuple[Any, ...], Body, type[BaseException] | None, str, str | None]] = {
    "read to its end": ((WHOLE,), read_all, None, "complete", None),
    "left with Finish in hand": ((WHOLE,), leave_with_everything, None, "complete", None),
    "cut": ((FIRST,), read_all, Truncated, "truncated", "truncated"),
    "cut, and the caller says nothing": ((FIRST,), swallow, None, "truncated", "truncated"),
    "connection lost": ((FIRST, ConnectionLost()), read_all, Truncated, "truncated", "truncated"),
    "idle": ((FIRST, idle), read_all, TimedOut, "timeout", "timeout_idle"),
    "no connection in time": (refusing(TimedOut("connect", 5)), read_all, TimedOut, "timeout", "timeout_connect"),
    "an error in the stream": ((FIRST, STREAMED), read_all, StreamedError, "upstream_error", "streamed_error"),
    "a bug in reading": ((FIRST, ValueError()), read_all, ValueError, "upstream_error", "ValueError"),
    "no connection": (refusing(ConnectError("")), read_all, ConnectError, "upstream_error", "connect"),
    "429": (refusing(RateLimited("", status=429)), read_all, RateLimited, "upstream_error", "rate_limited"),
    "nobody left": (refusing(NOBODY), read_all, NoTargetLeft, "upstream_error", "no_target_left"),
    "our own limit on work": (refusing(Saturated("")), read_all, Saturated, "upstream_error", "saturated"),
    "a bug in a layer": (refusing(KeyError("x")), read_all, KeyError, "upstream_error", "KeyError"),
    "a frame too large": ((FIRST, TOO_LONG), read_all, FrameTooLarge, "capped", "frame_too_large"),
    "a body too large": (refusing(TooLarge("")), read_all, TooLarge, "capped", "too_large"),
    "EventStream.cancel": ((FIRST, hang), cancel_it, None, "cancelled", "cancelled"),
    "the task is cancelled": ((FIRST, hang), be_cancelled, CancelledError, "cancelled", "cancelled"),
    "cancelled before it began": (refusing(CancelledError()), read_all, CancelledError, "cancelled", "cancelled"),
    "the caller's own clock": ((FIRST, hang), run_out_of_patience, TimeoutError, "cancelled", "TimeoutError"),
    "Cancelled": ((FIRST, hang), raising(Cancelled("")), Cancelled, "cancelled", "cancelled"),
    "GeneratorExit": ((FIRST, hang), raising(GeneratorExit()), GeneratorExit, "cancelled", "cancelled"),
    "the caller breaks off": ((FIRST, hang), leave_early, None, "cancelled", "cancelled"),
    "the caller fails": ((FIRST, hang), raising(OSError()), OSError, "cancelled", "OSError"),
}


@pytest.mark.parametrize("ending", ENDINGS)
async def test_c6_one_record_whatever_the_ending(ending: str) -> None:
    source, body, raised, outcome, error_type = ENDINGS[ending]
    clock = Clock()
    records: list[CallRecord] = []
    handler = recorded(records.append)(upstream(*source, clock=clock) if isinstance(source, tuple) else source)
    with pytest.raises(raised) if raised is not None else nullcontext():
        async with handler(new_call(clock)) as stream:
            await body(stream)
    assert [(record.outcome, record.error_type) for record in records] == [(outcome, error_type)]
    assert (records[0].finish_reason == "stop") == (outcome == "complete")


async def test_c4_the_first_outcome_is_kept() -> None:
    clock = Clock()

    async def fail_to_tell_the_client(stream: EventStream) -> None:
        with suppress(Truncated):
            await read_all(stream)
        clock.at += 5.0
        raise ConnectionResetError

    record = await failing(upstream(FIRST, clock=clock), fail_to_tell_the_client, ConnectionResetError, clock)
    assert (record.outcome, record.error_type) == ("truncated", "truncated")
    assert record.duration_ms == 0.0  # until the ending, not until everybody had left


async def test_c4_a_reply_that_ended_well_stays_complete() -> None:
    clock = Clock()

    async def fail_afterwards(stream: EventStream) -> None:
        await read_all(stream)
        raise ConnectionResetError

    record = await failing(upstream(WHOLE, clock=clock), fail_afterwards, ConnectionResetError, clock)
    assert record.outcome == "complete"


async def test_c4_the_last_batch_must_have_been_taken() -> None:
    """`Finish` was read, but the caller failed to pass its batch on: the client never saw the end."""
    clock = Clock()
    record = await failing(upstream(WHOLE, clock=clock), raising(ConnectionResetError()), ConnectionResetError, clock)
    assert (record.outcome, record.finish_reason) == ("cancelled", "stop")


async def test_a_read_that_was_given_up_may_be_taken_up_again() -> None:
    ready = asyncio.Event()

    @asynccontextmanager
    async def slow(call: Call) -> AsyncIterator[EventStream]:
        async with upstream(FIRST, CLOSE + wire(Finish("stop")), clock=clock)(call) as stream:
            stream.through(Slow)
            yield stream

    class Slow:
        def __init__(self, source: AsyncIterator[Any]) -> None:
            self._source = source

        def __aiter__(self) -> Slow:
            return self

        async def __anext__(self) -> Any:
            await ready.wait()
            return await anext(self._source)

    clock = Clock()
    records: list[CallRecord] = []
    async with recorded(records.append)(slow)(new_call(clock)) as stream:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await anext(stream)
        ready.set()
        await read_all(stream)
    assert [record.outcome for record in records] == ["complete"]


async def test_c5_what_goes_wrong_in_publishing_never_reaches_the_call(caplog: pytest.LogCaptureFixture) -> None:
    def publish(record: CallRecord) -> None:
        raise RuntimeError("full")

    clock = Clock()
    async with recorded(publish)(upstream(WHOLE, clock=clock))(new_call(clock)) as stream:
        await read_all(stream)
    assert "could not be published" in caplog.text


async def test_c5_a_context_size_that_cannot_be_found_costs_that_field_only(caplog: pytest.LogCaptureFixture) -> None:
    def context_window(target: Target, model: str) -> int | None:
        raise OSError("no such file")

    record = await record_of(WHOLE, context_window=context_window)
    assert (record.outcome, record.context_total) == ("complete", None)
    assert "context could not be looked up" in caplog.text


async def test_c13_a_finished_call_leaves_no_cycle() -> None:
    clock = Clock()
    gc.disable()
    try:
        async with recorded(lambda record: None)(upstream(WHOLE, clock=clock))(new_call(clock)) as stream:
            await read_all(stream)
        gone = weakref.ref(stream)
        del stream
        assert gone() is None
    finally:
        gc.enable()
