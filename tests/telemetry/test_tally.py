from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from penstock.canon.errors import ConnectError, NoTargetLeft, RateLimited
from penstock.canon.events import (
    BlockEnd,
    BlockStart,
    Delta,
    Finish,
    KeepAlive,
    Reasoning,
    Start,
    Text,
    Timings,
    ToolCall,
    UsageUpdate,
)
from penstock.canon.key import Key
from penstock.canon.price import Price
from penstock.canon.usage import Usage
from penstock.streams.handler import Attempt, Call
from penstock.streams.stream import EventStream
from penstock.telemetry.record import CallRecord
from penstock.telemetry.recorder import recorded
from tests.telemetry.script import (
    CLOSE,
    FIRST,
    OPEN,
    TARGET,
    WHOLE,
    Clock,
    Refusal,
    failing,
    new_call,
    read_all,
    record_of,
    refusing,
    upstream,
    wire,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from penstock.canon.target import Target


async def test_c6_unknown_is_null_never_zero() -> None:
    record = await record_of(WHOLE)
    unknown = {
        "dialect_in", "route", "http_status", "prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens",
        "usage_source", "itl_p50_ms", "itl_p95_ms", "itl_max_ms", "prompt_tps", "generation_tps", "timings_source",
        "context_used", "context_total", "context_percent", "key_name", "cost", "error_type", "queued_ms", "trace_id",
        "span_id", "parent_span_id", "recovered",
    }  # fmt: skip
    assert {name for name in CallRecord.__struct_fields__ if getattr(record, name) is None} == unknown


async def test_c6_a_call_that_got_nowhere_knows_nothing() -> None:
    record = await failing(refusing(ConnectError("")), read_all, ConnectError, Clock())
    assert (record.target, record.model, record.dialect_out, record.ttfb_ms, record.ttft_ms) == (None,) * 5
    assert record.attempts == 0


async def test_the_moments_are_those_of_the_network_reads() -> None:
    clock = Clock()
    preamble = wire(Start("Qwen3-14B"), KeepAlive("ping"), BlockStart(0, "text"), Delta(0, ""))

    async def dawdle(stream: EventStream) -> None:
        async for _ in stream:
            clock.at += 10.0  # the consumer's own time is nobody's latency

    record = await record_of(
        (0.020, preamble),
        (0.030, wire(Delta(0, "a"))),
        (0.010, wire(Delta(0, "b"), Delta(0, "c"))),
        (0.500, wire(KeepAlive("ping"))),
        CLOSE + wire(Finish("stop")),
        clock=clock,
    )
    assert record.ttfb_ms == pytest.approx(20)
    assert record.ttft_ms == pytest.approx(50)
    assert record.duration_ms == pytest.approx(560)
    assert record.chunks == 3
    assert record.itl_max_ms == pytest.approx(10)
    assert (record.model, record.finish_reason) == ("Qwen3-14B", "stop")

    record = await record_of((0.050, FIRST + CLOSE + wire(Finish("stop"))), clock=clock, body=dawdle)
    assert record.ttft_ms == pytest.approx(50)
    assert record.duration_ms == pytest.approx(10_050)


async def test_a_tool_calls_opener_is_content() -> None:
    opener = wire(Start(), BlockStart(0, "tool_call", "c1", "weather"))
    rest = wire(BlockEnd(0, ToolCall("c1", "weather", "", {})), Finish("tool_calls"))
    record = await record_of((0.025, opener), (1.0, rest))
    assert record.ttft_ms == pytest.approx(25)
    assert (record.chunks, record.finish_reason) == (0, "tool_calls")


async def test_inter_token_latency_is_by_nearest_rank() -> None:
    gaps = [0.010] * 18 + [0.100, 0.250]
    steps = [(gap, wire(Delta(0, "x"))) for gap in gaps]
    record = await record_of(FIRST, *steps, CLOSE + wire(Finish("stop")))
    assert record.itl_p50_ms == pytest.approx(10)
    assert record.itl_p95_ms == pytest.approx(100)
    assert record.itl_max_ms == pytest.approx(250)


USAGE = Usage(input=125, input_cached=100, output=42, output_reasoning=2, cost=0.0125)


async def test_c6_usage_is_the_last_that_was_reported() -> None:
    record = await record_of(
        FIRST + wire(UsageUpdate(Usage(input=125, output=1)), UsageUpdate(USAGE)) + CLOSE + wire(Finish("stop")),
        context_window=lambda target, model: 1000 if target is TARGET else None,
    )
    assert (record.prompt_tokens, record.completion_tokens, record.usage_source) == (125, 42, "reported")
    assert (record.cached_tokens, record.reasoning_tokens, record.cost) == (100, 2, 0.0125)
    assert (record.context_used, record.context_total) == (167, 1000)
    assert record.context_percent == pytest.approx(16.7)


async def test_c6_the_servers_own_timings_come_first() -> None:
    timings = Timings(
        prompt_tokens=25, cached_tokens=100, prompt_per_second=850.5, predicted_tokens=42, predicted_per_second=75.2
    )
    record = await record_of(FIRST, (1.0, wire(Delta(0, "b"), timings) + CLOSE + wire(Finish("stop", usage=USAGE))))
    assert (record.prompt_tps, record.generation_tps, record.timings_source) == (850.5, 75.2, "server")


async def test_c6_timings_stand_in_for_usage_that_nobody_sent() -> None:
    timings = Timings(prompt_tokens=25, cached_tokens=100, prompt_ms=50.0, predicted_tokens=42, predicted_ms=500.0)
    record = await record_of(FIRST + wire(timings) + CLOSE + wire(Finish("stop")))
    assert (record.prompt_tokens, record.completion_tokens, record.cached_tokens) == (125, 42, 100)
    assert record.usage_source == "reported"
    assert record.prompt_tps == pytest.approx(500)
    assert record.generation_tps == pytest.approx(84)


async def test_c6_without_a_servers_clock_the_reads_tell_the_rate() -> None:
    usage = Usage(input=125, output=42)
    record = await record_of(
        (3.0, FIRST), (0.5, wire(Delta(0, "b"))), CLOSE + wire(Finish("stop", usage=usage)), call=None
    )
    assert record.generation_tps == pytest.approx(82)  # 41 tokens after the first, in half a second
    assert (record.prompt_tps, record.timings_source) == (None, "client")


@pytest.mark.parametrize(
    ("thought", "rate"), [("", 82.0), ("hm", 2082.0)], ids=["hidden: not in that time", "streamed: counted"]
)
async def test_c6_reasoning_that_was_hidden_is_not_counted_into_the_rate(thought: str, rate: float) -> None:
    reasoning = wire(BlockStart(1, "reasoning"), Delta(1, thought), BlockEnd(1, Reasoning(thought, signature="s")))
    usage = Usage(output=1042, output_reasoning=1000)
    record = await record_of(
        (3.0, OPEN + reasoning + wire(Delta(0, "a"))),
        (0.5, wire(Delta(0, "b"))),
        CLOSE + wire(Finish("stop", usage=usage)),
    )
    assert record.generation_tps == pytest.approx(rate)


@pytest.mark.parametrize(
    "timings",
    [
        Timings(prompt_per_second=float("inf"), predicted_per_second=float("nan")),
        Timings(prompt_tokens=5, prompt_ms=0.0, predicted_tokens=0, predicted_ms=0.0),
        Timings(prompt_per_second=-1.0),
        Timings(prompt_tokens=10**400, prompt_ms=1.0, predicted_tokens=-3, predicted_ms=1.0),
        Timings(),
    ],
)
async def test_c6_a_rate_that_is_no_number_is_unknown(timings: Timings) -> None:
    clock = Clock()
    records: list[CallRecord] = []

    @asynccontextmanager
    async def handle(call: Call) -> AsyncIterator[EventStream]:
        async with upstream(WHOLE, clock=clock)(call) as stream:
            stream.through(lambda source: adding(source, timings))
            yield stream

    async def adding(source: Any, extra: Timings) -> AsyncIterator[Any]:
        async for batch in source:
            batch.events.insert(1, extra)
            yield batch

    async with recorded(records.append)(handle)(new_call(clock)) as stream:
        await read_all(stream)
    (record,) = records
    assert (record.prompt_tps, record.generation_tps, record.timings_source) == (None, None, None)


async def test_c6_one_read_gives_no_rate() -> None:
    record = await record_of(FIRST + CLOSE + wire(Finish("stop", usage=USAGE)))
    assert (record.generation_tps, record.timings_source) == (None, None)


async def test_c12_a_document_served_as_a_stream_is_marked_synthetic() -> None:
    body = b"\n".join(line.removeprefix(b"data: ") for line in WHOLE.split(b"\n\n"))
    clock = Clock()
    record = await record_of((0.3, body), document=True, clock=clock)
    assert (record.outcome, record.stream, record.synthetic) == ("complete", True, True)
    record = await record_of((0.3, body), document=True, clock=clock, call=new_call(clock, stream=False))
    assert (record.stream, record.synthetic) == (False, False)
    assert record.ttft_ms == pytest.approx(300)


async def test_what_the_call_knows_is_on_its_record() -> None:
    class Spoken:
        name = "anthropic-messages"

    clock = Clock()
    call = new_call(clock, route="/v1/messages", dialect=Spoken())

    async def serve(stream: EventStream) -> None:
        await read_all(stream)
        call.http_status = 200
        call.sent.bytes_out, call.sent.heartbeats, call.sent.bytes_after_disconnect = 1234, 2, 56
        call.key = Key(name="team-a")

    call.attempts.append(Attempt("other:m", 503, "overloaded"))
    record = await record_of(WHOLE, clock=clock, call=call, body=serve)
    assert (record.request_id, record.time) == ("r1", call.began_unix)
    assert (record.dialect_in, record.dialect_out, record.route) == (
        "anthropic-messages",
        "openai-chat",
        "/v1/messages",
    )
    assert (record.model_requested, record.model, record.target) == ("fast", "Qwen3-14B", "local:qwen3")
    assert (record.provider, record.attempts, record.http_status, record.key_name) == ("llamacpp", 2, 200, "team-a")
    assert (record.bytes_out, record.heartbeats, record.bytes_after_disconnect) == (1234, 2, 56)


async def test_the_status_of_a_refusal_is_known_before_it_is_sent() -> None:
    class Spoken:
        name = "openai-chat"

    limited = refusing(RateLimited("", status=429))
    record = await failing(limited, read_all, RateLimited, Clock(), dialect=Spoken())
    assert record.http_status == 429
    record = await failing(limited, read_all, RateLimited, Clock())
    assert record.http_status is None  # a call of the library is answered by no status


async def test_the_target_of_a_failed_call_is_the_last_that_was_tried() -> None:
    def fallen_back(call: Call) -> Refusal:
        call.attempts += [Attempt("a:m"), Attempt("b:m")]
        return Refusal(NoTargetLeft("", attempts=("a:m", "b:m"), status=502))

    record = await failing(fallen_back, read_all, NoTargetLeft, Clock())
    assert (record.target, record.attempts) == ("b:m", 2)


async def test_calls_in_flight_are_counted() -> None:
    clock = Clock()
    records: list[CallRecord] = []
    handler = recorded(records.append)(upstream(WHOLE, clock=clock))
    async with handler(new_call(clock, request_id="a")) as first:
        async with handler(new_call(clock, request_id="b")) as second:
            await read_all(second)
        await read_all(first)
    async with handler(new_call(clock, request_id="c")) as third:
        await read_all(third)
    assert [(record.request_id, record.concurrent) for record in records] == [("b", 2), ("a", 1), ("c", 1)]


async def test_c11_names_are_bounded_and_can_be_stored() -> None:
    clock = Clock()
    long = wire(Start("m" * 5000, "é"), BlockStart(0, "text"), Delta(0, "a"), BlockEnd(0, Text("a")), Finish("stop"))
    record = await record_of(
        long, clock=clock, call=new_call(clock, model="\ud800", request_id="x" * 999), max_frame_bytes=9999
    )
    assert (record.model, record.model_requested, record.provider) == ("m" * 256, "?", "é")
    assert len(record.request_id) == 256


USED = Usage(input=1000, input_cached=400, output=500)
PRICE = Price(input=2.0, output=8.0, cached=0.5)


def told(usage: Usage) -> tuple[bytes, bytes]:
    return FIRST, wire(Delta(0, "b")) + CLOSE + wire(UsageUpdate(usage), Finish("stop", None, usage))


async def test_a_cost_is_computed_by_the_price_of_the_model_that_answered() -> None:
    asked: list[tuple[str, str]] = []

    def price(target: Target, model: str) -> Price | None:
        asked.append((target.upstream, model))
        return PRICE

    record = await record_of(*told(USED), price=price)
    assert record.cost == pytest.approx((600 * 2 + 400 * 0.5 + 500 * 8) / 1e6)
    assert asked == [("local", "Qwen3-14B")]


async def test_else_by_that_of_the_model_that_was_asked_for() -> None:
    record = await record_of(*told(USED), price=lambda _, model: {"qwen3": PRICE}.get(model))
    assert record.cost is not None


async def test_the_providers_own_cost_wins() -> None:
    used = Usage(input=1000, output=500, cost=0.0)
    assert (await record_of(*told(used), price=lambda *_: PRICE)).cost == 0.0


async def test_c6_without_a_price_or_a_count_there_is_no_cost() -> None:
    assert (await record_of(*told(USED), price=lambda *_: None)).cost is None
    assert (await record_of(*told(USED), price=lambda *_: Price(input=2.0))).cost is None
    assert (await record_of(*told(Usage(output=5)), price=lambda *_: PRICE)).cost is None
    assert (await record_of(WHOLE, price=lambda *_: PRICE)).cost is None


async def test_c5_a_price_that_cannot_be_looked_up_costs_the_call_nothing() -> None:
    def broken(target: Target, model: str) -> Price | None:
        raise OSError("the file is gone")

    record = await record_of(*told(USED), price=broken)
    assert (record.outcome, record.cost) == ("complete", None)
