"""A scripted upstream: real `Reply`, `EventStream` and SSE framing over a wire whose frames are canonical events.

A script is a list of steps, each done by one network read: seconds to let pass, bytes to give (a tuple of both),
an exception to raise, or a function of the reply. After the last step the body ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import msgspec
import pytest

from penstock.canon.errors import StreamedError, Truncated
from penstock.canon.events import BlockEnd, BlockStart, Delta, Event, Finish, Start, Text
from penstock.canon.target import Target
from penstock.canon.wire import ConnectionLost
from penstock.dialects.base import Mark
from penstock.framing.base import Frame, Framing
from penstock.framing.document import DocumentFraming
from penstock.framing.sse import SSEFraming, write_event
from penstock.streams.handler import Attempt, Call, Handler
from penstock.streams.stream import EventStream, Reply
from penstock.telemetry.record import CallRecord
from penstock.telemetry.recorder import recorded

TARGET = Target("local", "http://127.0.0.1:8080/v1", "openai-chat", "qwen3")

Step = bytes | float | tuple[float, bytes] | BaseException | Callable[[Reply], None]

_decode = msgspec.json.Decoder(Event)


def wire(*events: Event) -> bytes:
    return b"".join(write_event(msgspec.json.encode(event)) for event in events)


OPEN = wire(Start("Qwen3-14B", "llamacpp"), BlockStart(0, "text"))
CLOSE = wire(BlockEnd(0, Text("ab")))
FIRST = OPEN + wire(Delta(0, "a"))
WHOLE = OPEN + wire(Delta(0, "a"), Delta(0, "b")) + CLOSE + wire(Finish("stop"))


class Clock:
    """Time that passes when it is told to. Starts at 1000 s, so that a forgotten subtraction shows."""

    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


class EventDecoder:
    def __init__(self) -> None:
        self.proved = self.done = False
        self._finish: Finish | None = None

    def decode(self, frame: Frame, events: list[Event]) -> Mark | None:
        if frame.event == "error":
            raise StreamedError("The model is overloaded.")
        for line in (frame.data or b"").splitlines():
            event = _decode.decode(line)
            if isinstance(event, Finish):
                self._finish = event
                self.proved = self.done = True
            else:
                events.append(event)
        return None

    def close(self, events: list[Event]) -> None:
        if self._finish is None:
            raise Truncated("The stream ended before its end.")
        events.append(self._finish)


class ScriptedResponse:
    status = 200
    headers: Mapping[str, str] = {}

    def __init__(self, steps: list[Step], clock: Clock) -> None:
        self._steps = list(steps)
        self._clock = clock
        self._aborted = asyncio.Event()
        self.reply: Reply | None = None
        self._arrived: bytes | None = None

    def take(self) -> bytes | None:
        data, self._arrived = self._arrived, None
        return data

    async def arrival(self) -> None:
        self._arrived = await self.read()

    async def read(self) -> bytes:
        while self._steps and not self._aborted.is_set():
            step = self._steps.pop(0)
            if isinstance(step, BaseException):
                raise step
            if isinstance(step, tuple):
                self._clock.at += step[0]
                return step[1]
            if isinstance(step, float):
                self._clock.at += step
            elif isinstance(step, bytes):
                return step
            else:
                assert self.reply is not None
                step(self.reply)
                await self._aborted.wait()
        if self._aborted.is_set():
            raise ConnectionLost
        return b""

    def release(self) -> None:
        self._aborted.set()

    def abort(self) -> int:
        self._aborted.set()
        return 0


def hang(reply: Reply) -> None:
    """A step: nothing comes until somebody closes the connection."""


def upstream(
    *steps: Step, clock: Clock, document: bool = False, max_frame_bytes: int = 4096, target: Target = TARGET
) -> Handler:
    """A leaf that answers with this script."""

    def choose(first: bytes, is_all: bool) -> tuple[Framing, EventDecoder]:
        framing: Framing = DocumentFraming() if document else SSEFraming(max_frame_bytes=max_frame_bytes)
        return framing, EventDecoder()

    @asynccontextmanager
    async def handle(call: Call) -> AsyncIterator[EventStream]:
        call.attempts.append(Attempt(str(target)))
        response = ScriptedResponse(list(steps), clock)
        reply = response.reply = Reply(response, choose, now=clock, target=str(target))
        try:
            await reply.begin(hold=True)
            yield EventStream(reply, target=target, dialect=target.dialect)
        finally:
            reply.close()

    return handle


def new_call(clock: Clock, **fields: Any) -> Call:
    return Call(**{"request_id": "r1", "model": "fast", "stream": True, "now": clock, **fields})


def example(**fields: Any) -> CallRecord:
    """A record of a good call, as the compact line's own example has it."""
    values: dict[str, Any] = {
        "request_id": "r1",
        "time": 1_763_683_421.0,
        "model_requested": "fast",
        "model": "Qwen3-14B",
        "target": "local:qwen3",
        "stream": True,
        "attempts": 1,
        "outcome": "complete",
        "finish_reason": "stop",
        "prompt_tokens": 125,
        "completion_tokens": 42,
        "usage_source": "reported",
        "ttft_ms": 38.2,
        "duration_ms": 1234.0,
        "prompt_tps": 850.5,
        "generation_tps": 75.2,
        "timings_source": "server",
        "context_used": 167,
        "context_total": 1100,
        "context_percent": 15.18,
        "chunks": 42,
    }
    return CallRecord(**{**values, **fields})


# --- calls, and what is recorded of them ---

Body = Callable[[EventStream], Awaitable[None]]


async def read_all(stream: EventStream) -> None:
    async for _ in stream:
        pass


async def record_of(
    *steps: Any, call: Call | None = None, clock: Clock | None = None, body: Body = read_all, **options: Any
) -> CallRecord:
    """The one record of a call that this script answers."""
    clock = clock or Clock()
    records: list[CallRecord] = []
    window, price = options.pop("context_window", None), options.pop("price", None)
    handler = recorded(records.append, context_window=window, price=price)(upstream(*steps, clock=clock, **options))
    async with handler(call or new_call(clock)) as stream:
        await body(stream)
    (record,) = records
    return record


async def failing(handler: Handler, body: Body, raised: type[BaseException], clock: Clock, **call: Any) -> CallRecord:
    """The one record of a call out of which this is raised."""
    records: list[CallRecord] = []
    with pytest.raises(raised):
        async with recorded(records.append)(handler)(new_call(clock, **call)) as stream:
            await body(stream)
    (record,) = records
    return record


class Refusal(AbstractAsyncContextManager[EventStream]):
    """What a handler gives that never comes to a stream."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    async def __aenter__(self) -> EventStream:
        raise self._error

    async def __aexit__(self, *raised: object) -> None:
        pass


def refusing(error: BaseException) -> Handler:
    return lambda call: Refusal(error)
