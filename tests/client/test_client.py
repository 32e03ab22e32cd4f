"""The library over a real socket: the worker in a process of its own, both dialects, sync and async."""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import Any

import pytest

import penstock
from tests.processes import Running

pytestmark = pytest.mark.process

MODEL = "local:tiny"
PROMPT = "Tell me a story"
#: A reply that goes on until somebody stops it.
ENDLESS: dict[str, Any] = {"max_tokens": 100_000, "extra": {"openai-chat": {"ignore_eos": True}}}


@pytest.fixture(params=["openai-chat", "anthropic-messages"])
def at(request: pytest.FixtureRequest, worker: Running) -> dict[str, Any]:
    return {"base_url": f"{worker.url}/v1", "dialect": request.param, "temperature": 0, "max_tokens": 60}


def test_stream_gives_events_in_order(at: dict[str, Any]) -> None:
    events = list(penstock.stream(MODEL, PROMPT, **at))
    assert isinstance(events[0], penstock.Start)
    assert isinstance(events[-1], penstock.Finish)
    text = "".join(event.text for event in events if isinstance(event, penstock.Delta))
    ends = [event.part for event in events if isinstance(event, penstock.BlockEnd)]
    assert ends == [penstock.Text(text)]


def test_the_text_view_is_the_text(at: dict[str, Any]) -> None:
    with penstock.stream(MODEL, PROMPT, **at) as reply:
        text = "".join(reply.text)
    assert text == reply.response.text
    assert text.startswith("Once upon a time")


def test_generate_is_the_same_folded(at: dict[str, Any]) -> None:
    response = penstock.generate(MODEL, PROMPT, **at)
    assert response.text == "".join(penstock.stream(MODEL, PROMPT, **at).text)
    assert response.outcome == "complete"
    assert response.usage is not None
    assert response.usage.output == 60
    assert response.finish is not None
    assert response.finish.reason == "length"
    assert response.attempts == 1
    assert response.timing is not None
    assert response.timing.ttft_ms is not None
    assert response.timing.duration_ms is not None
    assert 0 < response.timing.ttft_ms <= response.timing.duration_ms


def test_tool_calls(at: dict[str, Any]) -> None:
    tool = penstock.Tool("get_weather", "d", {"type": "object", "properties": {"city": {"type": "string"}}})
    with penstock.stream(MODEL, "What is the weather in Paris?", tools=[tool], **at) as reply:
        calls = list(reply.tool_calls)
    assert [(call.name, call.arguments) for call in calls] == [("get_weather", {"city": "Paris"})]
    assert reply.response.tool_calls == tuple(calls)


def test_chunks_hold_the_finish_and_its_usage(at: dict[str, Any]) -> None:
    chunks = list(penstock.stream(MODEL, PROMPT, **at).chunks(metadata=True))
    assert [chunk.finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["length"]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage["completion_tokens"] == 60
    about = [chunk.chunk_metadata for chunk in chunks]
    assert [a.index for a in about if a] == list(range(len(chunks)))
    assert about[0] is not None
    assert about[0].chunk_size == len(chunks[0].content.encode())
    assert about[0].provider == "local"


def test_a_second_reading_raises(at: dict[str, Any]) -> None:
    reply = penstock.stream(MODEL, "Hello", **at)
    assert list(reply)
    for again in (lambda: list(reply), lambda: list(reply.text), lambda: list(reply.tool_calls)):
        with pytest.raises(penstock.AlreadyConsumed):
            again()


def test_messages_in_three_forms(at: dict[str, Any]) -> None:
    forms: list[Any] = [
        "Hello",
        [{"role": "user", "content": "Hello"}],
        [penstock.Message.of("user", "Hello")],
    ]
    assert len({penstock.generate(MODEL, form, **at).text for form in forms}) == 1


def test_c7_break_inside_with_closes_the_socket_at_once(worker: Running) -> None:
    before = len(worker.lines)
    with penstock.stream(MODEL, "Go on.", base_url=f"{worker.url}/v1", **ENDLESS) as reply:
        for _ in reply.text:
            break
    worker.wait_for_line(r'"outcome":"cancelled"', after=before)
    assert reply.response.outcome == "cancelled"


def test_c7_cancel_from_another_thread_ends_the_reader_quietly(worker: Running) -> None:
    reply = penstock.stream(MODEL, "Go on.", base_url=f"{worker.url}/v1", **ENDLESS)
    read = []
    for text in reply.text:
        read.append(text)
        if len(read) == 3:
            for _ in range(2):
                canceller = threading.Thread(target=reply.cancel)
                canceller.start()
                canceller.join()
    assert reply.response.outcome == "cancelled"


async def test_astream_in_the_programs_own_loop(at: dict[str, Any]) -> None:
    async with penstock.astream(MODEL, PROMPT, **at) as reply:
        text = "".join([piece async for piece in reply.text])
    assert text == reply.response.text
    assert (await penstock.agenerate(MODEL, PROMPT, **at)).text == text


async def test_many_streams_at_once(worker: Running) -> None:
    async with penstock.Client(upstreams={"here": f"{worker.url}/v1"}) as client:
        replies = await asyncio.gather(*(client.agenerate("here:tiny", "Hello", temperature=0) for _ in range(12)))
    assert len({reply.text for reply in replies}) == 1
    assert {reply.outcome for reply in replies} == {"complete"}


def test_a_client_keeps_its_upstreams(worker: Running) -> None:
    with penstock.Client(upstreams={"here": f"{worker.url}/v1"}) as client:
        assert client.generate("here:tiny", "Hello", temperature=0).outcome == "complete"


def test_a_status_error_is_raised_before_the_first_iteration(worker: Running) -> None:
    with pytest.raises(penstock.StatusError) as caught:
        penstock.stream(MODEL, "word " * 20_000, base_url=f"{worker.url}/v1")
    assert caught.value.status == 400
    assert caught.value.kind == "context_too_long"


def test_a_refused_connection_says_where() -> None:
    with pytest.raises(penstock.ConnectError, match=r"127\.0\.0\.1:9"):
        penstock.stream(MODEL, "Hello", base_url="http://127.0.0.1:9/v1")


async def test_a_stream_left_open_is_warned_of_and_closed(worker: Running) -> None:
    before = len(worker.lines)
    reply = penstock.astream(MODEL, "Go on.", base_url=f"{worker.url}/v1", **ENDLESS)
    async for _ in reply:
        break
    with pytest.warns(ResourceWarning, match="was left open"):  # noqa: PT031
        del reply
        gc.collect()
    await asyncio.sleep(0)
    await asyncio.to_thread(worker.wait_for_line, r'"outcome":"cancelled"', after=before)
