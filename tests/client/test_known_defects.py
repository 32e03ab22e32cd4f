"""What client libraries have shipped to their users, defect by defect, and the rules that were learnt from it.

The first half is req_llm's public reports, a test for each, named by the number of the issue (or the version that
mended it); the second is the rules, by number. Each test fails where the defect is put in.
"""

from __future__ import annotations

import ast
import asyncio
import gc
import json
import socket
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import penstock
from penstock.canon.events import Custom
from penstock.dialects import CLIENT_DIALECTS
from penstock.testing import Call, Pace, Reply, Turns, Upstream
from tests.client.simulated import ENDLESS, MODEL, TEXT, check_closed, client_of
from tests.dialects.test_bedrock import EVENTSTREAM, message
from tests.scripted_upstream import Exchange, ScriptedUpstream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SRC = Path(penstock.__file__).parent
DONE = b"data: [DONE]\n\n"


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream(Reply(text=TEXT)) as upstream:
        yield upstream


@contextmanager
def scripted(script: Callable[[Exchange], Any]) -> Iterator[ScriptedUpstream]:
    upstream = ScriptedUpstream()
    upstream.script = script
    try:
        yield upstream
    finally:
        upstream.close()


def at(upstream: ScriptedUpstream, **options: Any) -> penstock.Client:
    return penstock.Client(upstreams={"here": upstream.url}, **options)


def frame(delta: dict[str, Any] | None = None, finish: str | None = None, **more: Any) -> bytes:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    data = json.dumps({"id": "c", "object": "chat.completion.chunk", "model": "m", "choices": choices, **more})
    return f"data: {data}\n\n".encode()


def call(index: int | None = 0, *, arguments: str | None = "", **more: Any) -> dict[str, Any]:
    """A fragment of a tool call."""
    made: dict[str, Any] = {"function": {"arguments": arguments, **more.pop("function", {})}, **more}
    return {"tool_calls": [made if index is None else {"index": index, **made}]}


def replayed(*frames: bytes, sizes: int | None = None, dialect: str = "openai-chat") -> penstock.Stream:
    return penstock.replay(b"".join(frames), dialect=dialect, sizes=sizes)


USAGE = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}

# --- reports ----------------------------------------------------------------------------------------------------------


def test_c2_req_llm_12_an_item_is_delivered_before_the_next_is_sent() -> None:
    was_read = threading.Event()

    def script(exchange: Exchange) -> None:
        exchange.begin()
        exchange.chunk(frame({"content": "one"}))
        if was_read.wait(10):
            exchange.chunk(frame({"content": " two"}))
        exchange.chunk(frame({}, "stop") + DONE)
        exchange.end()

    with scripted(script) as upstream, at(upstream).stream("here:m", "Hi") as stream:
        texts = stream.text
        assert next(texts) == "one"
        was_read.set()
        assert list(texts) == [" two"]


@pytest.mark.parametrize("dialect", sorted({*CLIENT_DIALECTS} - {"openai-completions"}))
def test_req_llm_39_a_stream_of_every_dialect_has_content(dialect: str, upstream: Upstream) -> None:
    with penstock.stream("here:m", "Hi", base_url=upstream.url_for(dialect), dialect=dialect) as stream:
        assert "".join(stream.text) == TEXT


@pytest.mark.parametrize("status", [400, 401, 404, 422, 429, 500, 503])
@pytest.mark.parametrize("body", [frame({"content": "Hi"}, "stop") + DONE, b""])
def test_req_llm_65_and_940_a_refusal_is_never_read_as_a_stream(status: int, body: bytes) -> None:
    """Not when it says that it is one, and not when it says nothing at all."""

    def script(exchange: Exchange) -> None:
        exchange.begin("text/event-stream", f"{status} No")
        exchange.chunk(body)
        exchange.end()

    with scripted(script) as upstream, pytest.raises(penstock.StatusError) as caught:
        at(upstream).stream("here:m", "Hi")
    assert caught.value.status == status


def test_c4_req_llm_940_the_first_ending_is_the_ending() -> None:
    """An error and then a proper end, in one read or in several; a proper end and then an error."""
    error = b'data: {"error":{"message":"It broke.","code":500}}\n\n'
    end = frame({}, "stop") + DONE
    for sizes in (None, 1, 7):
        stream = replayed(frame({"content": "Hi"}), error, end, sizes=sizes)
        with pytest.raises(penstock.StreamedError):
            list(stream)
        with pytest.raises(penstock.StreamedError) as caught:
            stream.response  # noqa: B018
        assert caught.value.partial is not None
        assert (caught.value.partial.outcome, caught.value.partial.text) == ("upstream_error", "Hi")
        assert replayed(frame({"content": "Hi"}), end, error, sizes=sizes).response.outcome == "complete"


def test_c4_req_llm_280_an_error_in_the_middle_is_in_the_stream_and_in_the_result(upstream: Upstream) -> None:
    upstream.says(Reply(text=TEXT, faults=("error-openai-2",)))
    with client_of(upstream).stream(MODEL, "Hi") as stream:
        with pytest.raises(penstock.StreamedError) as read:
            list(stream)
        with pytest.raises(penstock.StreamedError) as folded:
            stream.response  # noqa: B018
    assert folded.value is read.value
    assert read.value.partial is not None
    assert (read.value.partial.text, read.value.partial.outcome) == ("one two", "upstream_error")


def test_req_llm_177_a_second_reading_is_refused_and_never_empty(upstream: Upstream) -> None:
    upstream.says(Reply(text=(), calls=(Call("now", {}),)))
    with client_of(upstream).stream(MODEL, "Hi") as stream:
        list(stream.text)
        with pytest.raises(penstock.AlreadyConsumed, match="cursor"):
            list(stream.tool_calls)
        assert [each.name for each in stream.response.tool_calls] == ["now"]  # nothing was lost


def test_c8_req_llm_116_a_healthy_stream_may_take_longer_than_any_pause(upstream: Upstream) -> None:
    upstream.says(Reply(text=("x",) * 25, pace=Pace(fixed=0.02)))
    timeouts = penstock.Timeouts(first_content=0.4, idle=0.4, silence=0.4)
    with client_of(upstream, timeouts=timeouts).stream(MODEL, "Hi") as stream:
        timing = stream.response.timing
    assert timing is not None
    assert timing.duration_ms is not None
    assert timing.duration_ms > 400
    assert stream.response.outcome == "complete"


def test_req_llm_319_cancelling_what_has_died_already_is_nothing(upstream: Upstream) -> None:
    upstream.says(Reply(text=TEXT, faults=("reset-after-1",)))
    stream = client_of(upstream).stream(MODEL, "Hi")
    with pytest.raises(penstock.Truncated):
        list(stream)
    for _ in range(3):
        stream.cancel()
        stream.close()
    with pytest.raises(penstock.Truncated):
        stream.response  # noqa: B018


def test_c13_req_llm_492_and_824_nothing_is_left_of_many_streams(upstream: Upstream) -> None:
    """However they end: read, left, failed, refused."""
    endings = ((), ("cut-after-2",), ("status-500",), ("endless",))

    def use(client: penstock.Client, faults: tuple[str, ...]) -> None:
        upstream.says(Reply(text=TEXT, faults=faults))
        with suppress(penstock.UpstreamError), client.stream(MODEL, "Hi") as stream:
            next(iter(stream.text))
            if "endless" not in faults:
                _ = stream.response

    def files() -> int:
        return sum(1 for _ in Path("/proc/self/fd").iterdir())

    def streams() -> int:
        gc.collect()
        return sum(isinstance(each, penstock.Stream | penstock.AsyncStream) for each in gc.get_objects())

    with client_of(upstream) as client:
        for faults in endings:
            use(client, faults)
        before = files(), streams()
        for _ in range(15):
            for faults in endings:
                use(client, faults)
        for seen in upstream.seen:
            seen.wait_over()
        assert streams() <= before[1]
        until = time.monotonic() + 10  # the simulator's sockets are in this process as well, and end when they end
        while files() > before[0] + 2 and time.monotonic() < until:
            time.sleep(0.01)
        assert files() <= before[0] + 2


def test_c7_req_llm_779_a_consumer_that_dies_takes_its_connection_along(upstream: Upstream) -> None:
    upstream.says(ENDLESS)
    client = client_of(upstream)

    def consume() -> None:
        with suppress(ZeroDivisionError), client.stream(MODEL, "Hi") as stream:
            for _ in stream:
                raise ZeroDivisionError

    thread = threading.Thread(target=consume)
    thread.start()
    thread.join()
    check_closed(upstream.wait_for(1))


async def test_frontman_428_no_pool_is_exhausted_by_streams_that_are_open(upstream: Upstream) -> None:
    upstream.says(ENDLESS)
    async with client_of(upstream) as client:
        streams = [client.astream(MODEL, "Hi") for _ in range(64)]
        await asyncio.gather(*(stream.__aenter__() for stream in streams))
        assert await asyncio.gather(*(anext(stream.text) for stream in streams)) == ["one"] * 64
        await asyncio.gather(*(stream.aclose() for stream in streams))


def test_req_llm_113_a_long_prompt_arrives_whole(upstream: Upstream) -> None:
    prompt = "word " * 200_000
    assert client_of(upstream).generate(MODEL, prompt).text == TEXT
    assert json.loads(upstream.seen[0].body)["messages"][0]["content"] == prompt


def test_c1_frontman_1066_a_connection_that_died_while_nobody_used_it_fails_no_call() -> None:
    """Its end may be on the way when the next request is: where nobody can tell, only who may ask again does so."""

    def script(exchange: Exchange) -> None:
        exchange.begin()
        exchange.chunk(frame({"content": "Hi"}, "stop") + DONE)
        exchange.end()
        exchange.connection.shutdown(socket.SHUT_RDWR)  # it had promised to stay

    with scripted(script) as upstream, at(upstream, retry=penstock.Retry(2, backoff=0.001)) as client:
        replies = [client.generate("here:m", "Hi") for _ in range(20)]
    assert [reply.text for reply in replies] == ["Hi"] * 20
    assert len(upstream.executions) <= sum(reply.attempts for reply in replies)  # nothing ran that is not counted


@pytest.mark.parametrize("sizes", [None, *range(1, 40)])
def test_c3_req_llm_767_usage_after_the_finish_reason_is_kept_wherever_reads_end(sizes: int | None) -> None:
    stream = replayed(frame({"content": "Hi"}), frame({}, "stop"), frame(usage=USAGE), DONE, sizes=sizes)
    usage = stream.response.usage
    assert usage is not None
    assert (usage.input, usage.output, usage.total) == (9, 3, 12)


def test_c3_req_llm_718_and_761_an_empty_fragment_is_a_fragment() -> None:
    """Of a tool without parameters there is nothing but empty ones; between others they change nothing."""
    opened = frame(call(id="a", function={"name": "now"}))
    (bare,) = replayed(opened, frame(call()), frame(call()), frame({}, "tool_calls"), DONE).response.tool_calls
    assert (bare.raw, bare.arguments, bare.error) == ("", {}, None)
    pieces = ('{"ci', "", 'ty": "Ro', "", 'me"}')
    frames = (frame(call(arguments=piece)) for piece in pieces)
    (full,) = replayed(opened, *frames, frame({}, "tool_calls"), DONE).response.tool_calls
    assert full.arguments == {"city": "Rome"}


@pytest.mark.parametrize("sizes", [None, 1, 11])
def test_c3_req_llm_1_17_1_the_fragment_that_comes_with_the_calls_name_is_kept(sizes: int | None) -> None:
    opened = frame(call(id="a", function={"name": "look"}, arguments='{"at": '))
    stream = replayed(opened, frame(call(arguments="1}")), frame({}, "tool_calls"), DONE, sizes=sizes)
    assert [each.arguments for each in stream.response.tool_calls] == [{"at": 1}]


@pytest.mark.parametrize("sizes", [1, 2, 3, 5])
def test_c3_req_llm_1_0_a_character_that_is_cut_by_a_read_is_whole(sizes: int) -> None:
    text = "naïve 🌧️ 東京"
    raw = b'data: {"id":"c","model":"m","choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n' % text.encode()
    assert replayed(raw, frame({}, "stop"), DONE, sizes=sizes).response.text == text


@pytest.mark.parametrize(
    ("dialect", "fault"),
    [
        ("anthropic-messages", "error-anthropic"),
        ("openai-responses", "error-responses"),
        ("openai-chat", "error-groq"),
        ("openai-chat", "error-openrouter"),
        ("gemini", "error-gemini"),
        ("ollama", "error-ollama"),
    ],
)
def test_c4_req_llm_661_977_and_1061_an_error_frame_ends_the_stream_with_its_words(
    dialect: str, fault: str, upstream: Upstream
) -> None:
    upstream.says(Reply(text=TEXT, faults=(f"{fault}-2",)))
    with pytest.raises(penstock.StreamedError, match=r"It broke\.") as caught:
        penstock.generate("here:m", "Hi", base_url=upstream.url_for(dialect), dialect=dialect)
    assert caught.value.partial is not None
    assert caught.value.partial.text.startswith("one two")


def test_c2_req_llm_720_geminis_array_is_read_as_it_comes() -> None:
    was_read = threading.Event()

    def piece(text: str, **more: Any) -> bytes:
        return json.dumps({"candidates": [{"content": {"role": "model", "parts": [{"text": text}]}, **more}]}).encode()

    def script(exchange: Exchange) -> None:
        exchange.begin("application/json")
        exchange.chunk(b"[" + piece("one"))
        if was_read.wait(10):
            exchange.chunk(b",\r\n" + piece(" two", finishReason="STOP"))
        exchange.chunk(b"]")
        exchange.end()

    with scripted(script) as upstream, at(upstream).stream("here:m", "Hi", dialect="gemini") as stream:
        texts = stream.text
        assert next(texts) == "one"
        was_read.set()
        assert list(texts) == [" two"]


def test_c11_req_llm_823_whoever_does_not_read_stops_the_upstream(upstream: Upstream) -> None:
    """By the sockets' own backpressure: what is held here has a bound, and the upstream waits."""
    upstream.says(Reply(text=("x" * 10_000,) * 20, faults=("endless",)))
    with client_of(upstream).stream(MODEL, "Hi") as stream:
        next(iter(stream.text))
        seen = upstream.wait_for(1)
        until, before = time.monotonic() + 10, -1
        while seen.written_bytes != before and time.monotonic() < until:
            before = seen.written_bytes
            time.sleep(0.1)
        assert seen.written_bytes == before < 20_000_000


@pytest.mark.parametrize("fault", ["cut-after-2", "reset-after-2", "end-after-2", "no-finish"])
def test_c4_req_llm_941_and_945_a_clean_stop_is_proved_or_is_none(fault: str, upstream: Upstream) -> None:
    upstream.says(Reply(text=TEXT, faults=(fault,)))
    with pytest.raises(penstock.Truncated) as caught:
        client_of(upstream).generate(MODEL, "Hi")
    assert caught.value.partial is not None
    assert (caught.value.partial.outcome, caught.value.partial.finish) == ("truncated", None)


def test_c4_req_llm_1033_bedrocks_exceptions_are_errors() -> None:
    said = message("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "Hi"}})
    broke = message("modelStreamErrorException", {"message": "It broke."}, "exception")
    stream = penstock.replay(said + broke, dialect="bedrock", content_type=EVENTSTREAM)
    with pytest.raises(penstock.StreamedError, match=r"It broke\."):
        list(stream)


def test_req_llm_122_and_182_a_model_of_another_endpoint_is_asked_there(
    upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overlay = tmp_path / "providers.toml"
    overlay.write_text(f'[openai]\nurl = "{upstream.url}"\n')
    monkeypatch.setenv("PENSTOCK_PROVIDERS", str(overlay))
    for model in ("gpt-5.6", "gpt-5-pro"):
        assert penstock.generate(f"openai:{model}", "Hi", key="k").text == TEXT
    assert [seen.path for seen in upstream.seen] == ["/v1/chat/completions", "/v1/responses"]


def test_req_llm_1_9_an_attempt_begins_with_nothing_of_the_one_before() -> None:
    """Neither its preamble, nor its usage, nor the half of a frame that it ended in."""
    first = frame({"role": "assistant", "content": ""}, usage={**USAGE, "prompt_tokens": 1000}) + b'data: {"id":"c"'

    def script(exchange: Exchange) -> None:
        exchange.begin()
        if len(server.executions) == 1:
            exchange.chunk(first)
            exchange.reset()
            return
        exchange.chunk(frame({"content": "Hi"}) + frame({}, "stop") + frame(usage=USAGE) + DONE)
        exchange.end()

    again = penstock.Retry(2, backoff=0.001)
    with scripted(script) as server, at(server, retry=again).stream("here:m", "Hi") as stream:
        events = list(stream)
    response = stream.response
    assert (response.text, response.attempts) == ("Hi", 2)
    assert response.usage is not None
    assert response.usage.input == 9
    assert sum(isinstance(event, penstock.Start) for event in events) == 1


def test_req_llm_1054_what_a_stream_is_told_a_whole_reply_is_told_too(upstream: Upstream) -> None:
    options: Any = {
        "system": "Be brief.", "max_tokens": 9, "temperature": 0.5, "top_p": 0.9, "stop": ["x"], "seed": 3, "user": "u",
        "presence_penalty": 0.1, "frequency_penalty": 0.2, "tools": [penstock.Tool("look")], "tool_choice": "auto",
        "extra": {"openai-chat": {"logit_bias": {"5": 1}}},
    }  # fmt: skip
    client = client_of(upstream)
    client.generate(MODEL, "Hi", **options)
    with client.stream(MODEL, "Hi", **options) as stream:
        list(stream)
    one, other = (json.loads(seen.body) for seen in upstream.seen)
    assert one == other
    assert one["logit_bias"] == {"5": 1}


# --- rules ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("view", ["text", "reasoning", "tool_calls", "chunks"])
def test_c4_rule_1_no_view_hides_an_error(view: str, upstream: Upstream) -> None:
    upstream.says(Reply(text=TEXT, faults=("cut-after-2",)))
    with client_of(upstream).stream(MODEL, "Hi") as stream, pytest.raises(penstock.Truncated):
        list(stream.chunks() if view == "chunks" else getattr(stream, view))


async def test_rule_2_a_refusal_is_raised_before_anything_is_read(upstream: Upstream) -> None:
    upstream.says(Reply(faults=("status-401",)))
    with pytest.raises(penstock.KeyRejected):
        client_of(upstream).stream(MODEL, "Hi")
    with pytest.raises(penstock.KeyRejected):
        await client_of(upstream).astream(MODEL, "Hi").__aenter__()
    assert len(upstream.seen) == 2


@pytest.mark.parametrize(
    ("faults", "outcome"),
    [
        ((), "complete"),
        (("no-done",), "complete"),
        (("end-after-2",), "truncated"),
        (("error-openai-2",), "upstream_error"),
        (("stall-after-2",), "timeout"),
        (("endless",), "cancelled"),
    ],
)
def test_c4_rule_3_there_is_one_ending_and_only_the_providers_terminal_makes_it_complete(
    faults: tuple[str, ...], outcome: str, upstream: Upstream
) -> None:
    upstream.says(Reply(text=TEXT, faults=faults))
    ends: list[penstock.StreamEnd] = []
    timeouts = penstock.Timeouts(idle=0.1 if outcome == "timeout" else 60)
    client = client_of(upstream, hooks=penstock.Hooks(on_end=ends.append), timeouts=timeouts)
    with suppress(penstock.UpstreamError), client.stream(MODEL, "Hi") as stream:
        for k, _ in enumerate(stream):
            if outcome == "cancelled" and k == 3:
                break
    assert [end.response.outcome for end in ends] == [outcome]
    assert ends[0].record is not None
    assert ends[0].record.outcome == outcome


def test_c7_rule_4_break_closes_and_a_stream_without_with_is_warned_of(upstream: Upstream) -> None:
    upstream.says(ENDLESS)
    client = client_of(upstream)
    with client.stream(MODEL, "Hi") as stream:
        for _ in stream.text:
            break
    check_closed(upstream.wait_for(1))
    with pytest.warns(ResourceWarning, match="with"):
        next(client.stream(MODEL, "Hi").text)
    check_closed(upstream.wait_for(2))


@pytest.mark.parametrize("where", ["task", "thread"])
async def test_c7_rule_5_cancel_comes_from_anywhere_and_the_reader_ends_quietly(where: str, upstream: Upstream) -> None:
    upstream.says(Reply(text=TEXT, faults=("stall-after-2",)))
    async with client_of(upstream).astream(MODEL, "Hi") as stream:
        has_begun = asyncio.Event()
        read = asyncio.ensure_future(_all_of(stream.text, has_begun))
        await has_begun.wait()
        if where == "task":
            stream.cancel()
        else:
            threading.Thread(target=stream.cancel).start()
        assert "".join(await read).startswith("one")
    assert stream.response.outcome == "cancelled"


async def _all_of(texts: Any, has_begun: asyncio.Event) -> list[str]:
    found = []
    async for text in texts:
        found.append(text)
        has_begun.set()
    return found


def test_rule_6_nothing_is_yielded_in_a_finally() -> None:
    found = [
        f"{path.relative_to(SRC)}:{node.lineno}"
        for path in SRC.rglob("*.py")
        for tried in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(tried, ast.Try)
        for last in tried.finalbody
        for node in ast.walk(last)
        if isinstance(node, ast.Yield | ast.YieldFrom)
    ]
    assert found == []


@pytest.mark.parametrize(("fault", "clock"), [("pings-0", "first_content"), ("pings-2", "idle")])
def test_c8_rule_7_signs_of_life_are_no_content(fault: str, clock: str, upstream: Upstream) -> None:
    upstream.says(Reply(text=TEXT, faults=(fault,)))
    limits: dict[str, float] = {"first_content": 15, "idle": 15, clock: 0.2}
    timeouts = penstock.Timeouts(**limits, silence=15, total=20)
    seen: list[object] = []
    with pytest.raises(penstock.TimedOut) as caught, client_of(upstream, timeouts=timeouts).stream(MODEL, "Hi") as it:
        seen.extend(it)
    assert caught.value.clock == clock
    assert not any(isinstance(event, penstock.KeepAlive) for event in seen)


def test_rule_7_whoever_passes_signs_of_life_on_is_told_of_them(upstream: Upstream) -> None:
    """One after each piece of content; no view has them, and a stream of nothing else is as silent as before."""
    said = frame({"role": "assistant", "content": ""}) + b"".join(
        frame({"content": piece}) + b": still here\n\n" for piece in ("one", " two")
    )

    def script(exchange: Exchange) -> None:
        exchange.begin()
        exchange.chunk(said + frame({}, "stop") + DONE)
        exchange.end()

    with scripted(script) as server:
        with at(server, keep_alives=True).stream("here:m", "Hi") as stream:
            events = list(stream)
        assert [event.source for event in events if isinstance(event, penstock.KeepAlive)][-2:] == ["comment"] * 2
        assert stream.response.text == "one two"
        with at(server, keep_alives=True).stream("here:m", "Hi") as stream:
            assert list(stream.text) == ["one", " two"]
        with at(server).stream("here:m", "Hi") as stream:
            assert not any(isinstance(event, penstock.KeepAlive) for event in stream)
    pings = [{"type": "ping"}, {"type": "message_stop"}]
    begun = {"type": "message_start", "message": {"id": "m", "model": "m", "role": "assistant", "usage": {}}}
    ended = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}}
    with penstock.Client(keep_alives=True).adapt([begun, pings[0], ended, pings[1]]) as adapted:
        assert sum(isinstance(event, penstock.KeepAlive) for event in adapted) == 1


def test_c9_rule_8_a_second_try_is_seen_by_nobody_and_there_is_none_after_content(upstream: Upstream) -> None:
    client = client_of(upstream, retry=penstock.Retry(3, backoff=0.001))
    upstream.says(Turns(Reply(faults=("error-openai-0",)), Reply(text=TEXT)))
    with client.stream(MODEL, "Hi") as stream:
        events = list(stream)
    assert [type(event).__name__ for event in events].count("Start") == 1
    assert (stream.response.text, stream.response.attempts) == (TEXT, 2)
    upstream.says(Turns(Reply(text=TEXT, faults=("cut-after-1",)), Reply(text=TEXT)))
    with pytest.raises(penstock.Truncated):
        client.generate(MODEL, "Hi")
    assert len(upstream.seen) == 3


@pytest.mark.parametrize("sizes", [None, 1])
def test_c3_rule_9_what_opens_a_block_and_what_ends_the_message_may_hold_content(sizes: int | None) -> None:
    first = frame({"role": "assistant", "content": "Hel"})
    last = frame({"content": "lo", **call(id="a", function={"name": "now"}, arguments="{}")}, "tool_calls", usage=USAGE)
    response = replayed(first, last, DONE, sizes=sizes).response
    assert (response.text, [each.name for each in response.tool_calls]) == ("Hello", ["now"])
    assert response.usage is not None
    assert response.usage.total == 12


def test_c6_rule_10_usage_is_merged_and_never_added() -> None:
    grown = [{"prompt_tokens": 9, "completion_tokens": n, "total_tokens": 9 + n} for n in (1, 2, 3)]
    frames = [frame({"content": "x"}, usage=each) for each in grown]
    usage = replayed(*frames, frame({}, "stop", usage={**USAGE, "prompt_tokens": None}), DONE).response.usage
    assert usage is not None
    assert (usage.input, usage.output) == (9, 3)
    assert replayed(frame({"content": "x"}), frame({}, "stop"), DONE).response.usage is None


def test_c3_rule_11_arguments_are_what_was_said_and_never_an_exception() -> None:
    frames = (
        frame(call(0, id="a", function={"name": "good"}, arguments='{"x": 1}')),
        frame(call(0, id="a", function={"name": "good"})),  # said again: the same call
        frame(call(1, id="b", function={"name": "bad"}, arguments='{"x": ')),
        frame(call(2, function={"name": "nameless"}, arguments="")),
        frame(call(3, id="d", function={"name": "null"}, arguments=None)),
    )
    stream = replayed(*frames, frame({}, "tool_calls"), DONE)
    raw = "".join(event.text for event in stream if isinstance(event, penstock.Delta))
    good, bad, nameless, null = stream.response.tool_calls
    assert raw == '{"x": 1}{"x": '
    assert (good.id, good.arguments, good.error) == ("a", {"x": 1}, None)
    assert (bad.raw, bad.arguments, bad.error is not None) == ('{"x": ', None, True)
    assert (nameless.name, nameless.arguments, bool(nameless.id)) == ("nameless", {}, True)
    assert (null.id, null.arguments) == ("d", {})


def test_rule_12_what_nobody_knows_is_passed_over_and_kept_where_it_can_be() -> None:
    odd = replayed(
        b'event: weather\ndata: {"sunny":true}\n\n',
        frame({"content": "Hi", "mood": {"x": 1}}, phase="new"),
        frame({}, "a_new_reason"),
        DONE,
    )
    assert odd.response.text == "Hi"
    assert odd.response.finish is not None
    assert (odd.response.finish.reason, odd.response.finish.raw) == ("other", "a_new_reason")
    said: list[dict[str, Any]] = [
        {"type": "message_start", "message": {"id": "m", "model": "m", "role": "assistant", "usage": {}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "hologram", "depth": 3}},
        {"type": "content_block_stop", "index": 0},
        {"type": "aurora"},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}},
        {"type": "message_stop"},
    ]
    wire = "".join(f"event: {each['type']}\ndata: {json.dumps(each)}\n\n" for each in said)
    response = penstock.replay(wire.encode(), dialect="anthropic-messages").response
    (part,) = response.parts
    assert isinstance(part, Custom)
    assert (part.kind, part.raw["depth"], response.outcome) == ("hologram", 3, "complete")


@pytest.mark.process
def test_rule_13_a_call_imports_no_sdk_and_no_pydantic() -> None:
    from tests.client.test_replay import STREAM, python

    code = (
        "import sys, penstock\n"
        f"penstock.replay({STREAM!r}, dialect='openai-chat').response\n"
        "print(sorted({'openai', 'anthropic', 'pydantic', 'httpx', 'google', 'requests'} & set(sys.modules)))"
    )
    assert python(code) == "[]"


def test_c2_rule_14_nothing_is_gathered_and_nothing_smoothed(upstream: Upstream) -> None:
    """As many pieces as came, in the pieces in which they came."""
    pieces = ("a", "bc", " ", "def ghi jkl " * 200, "m")
    upstream.says(Reply(text=pieces))
    with client_of(upstream).stream(MODEL, "Hi") as stream:
        assert tuple(stream.text) == pieces
