"""`adapt` on the streams of real SDKs, sync and async, before a simulator that is live, slow, failing or endless.

What each test looks at in the end is the simulator: whether the SDK's own connection was closed.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, ExitStack
from typing import TYPE_CHECKING, Any

import anthropic
import ollama
import openai
import pytest

import penstock
from penstock.testing import Call, Reply, Upstream
from tests.client.simulated import ENDLESS, TEXT, check_closed, now

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

ASKED: Any = [{"role": "user", "content": "Hi"}]

#: Opens a stream of one SDK at the simulator; what is to be closed later is put on the stack.
Open = Callable[[Upstream, ExitStack], Iterable[Any]]


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream(Reply(text=TEXT, calls=(Call("now", {"a": 1}),))) as upstream:
        yield upstream


def openai_client(upstream: Upstream, opened: ExitStack) -> openai.OpenAI:
    return opened.enter_context(openai.OpenAI(base_url=upstream.url, api_key="k", max_retries=0))


def anthropic_client(upstream: Upstream, opened: ExitStack) -> anthropic.Anthropic:
    return opened.enter_context(anthropic.Anthropic(base_url=upstream.root, api_key="k", max_retries=0))


def openai_chat(upstream: Upstream, opened: ExitStack) -> Iterable[Any]:
    client = openai_client(upstream, opened)
    options: Any = {"stream_options": {"include_usage": True}}
    return client.chat.completions.create(model="m", messages=ASKED, stream=True, **options)


def openai_helper(upstream: Upstream, opened: ExitStack) -> Iterable[Any]:
    client = openai_client(upstream, opened)
    return opened.enter_context(client.chat.completions.stream(model="m", messages=ASKED))


def openai_responses(upstream: Upstream, opened: ExitStack) -> Iterable[Any]:
    return openai_client(upstream, opened).responses.create(model="m", input="Hi", stream=True)


def anthropic_messages(upstream: Upstream, opened: ExitStack) -> Iterable[Any]:
    client = anthropic_client(upstream, opened)
    return client.messages.create(model="m", messages=ASKED, max_tokens=100, stream=True)


def anthropic_helper(upstream: Upstream, opened: ExitStack) -> Iterable[Any]:
    client = anthropic_client(upstream, opened)
    return opened.enter_context(client.messages.stream(model="m", messages=ASKED, max_tokens=100))


def ollama_chat(upstream: Upstream, opened: ExitStack) -> Iterable[Any]:
    return ollama.Client(host=upstream.root).chat(model="m", messages=ASKED, stream=True)


SDKS: list[Open] = [openai_chat, openai_helper, openai_responses, anthropic_messages, anthropic_helper]
#: Those whose streams tell their connection, so that a thread that waits in them can be woken.
each_sdk = pytest.mark.parametrize("sdk", SDKS)


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


@pytest.mark.parametrize("sdk", [*SDKS, ollama_chat])
def test_live(sdk: Open, upstream: Upstream, opened: ExitStack) -> None:
    with penstock.adapt(sdk(upstream, opened)) as stream:
        chunks = list(stream.chunks(metadata=True))
    response = stream.response
    assert "".join(chunk.content for chunk in chunks) == response.text == TEXT
    assert [(call.name, call.arguments) for call in response.tool_calls] == [("now", {"a": 1})]
    assert (response.outcome, chunks[-1].finish_reason) == ("complete", "tool_calls")
    if sdk is not openai_helper:  # which asks for none
        assert response.usage is not None
        assert (response.usage.input, response.usage.output) == (9, 3)
    assert chunks[0].chunk_metadata is not None
    assert chunks[0].chunk_metadata.provider == sdk.__name__.partition("_")[0].replace("ollama", "m")
    assert response.timing is not None
    assert response.timing.ttft_ms is not None


@each_sdk
def test_infinite(sdk: Open, upstream: Upstream, opened: ExitStack) -> None:
    upstream.says(ENDLESS)
    with penstock.adapt(sdk(upstream, opened)) as stream:
        assert len(list(itertools.islice(stream.text, 20))) == 20
        left_at = now()
    check_closed(upstream.seen[0], since=left_at)
    assert stream.response.outcome == "cancelled"


@each_sdk
def test_c8_slow(sdk: Open, upstream: Upstream, opened: ExitStack) -> None:
    """The SDK waits for ten minutes; our clock ends it, and wakes the thread that waits."""
    upstream.says(Reply(text=TEXT, faults=("stall-after-2",)))
    began = now()
    with (
        penstock.adapt(sdk(upstream, opened), timeout=1.0) as stream,
        pytest.raises(penstock.StreamingTimeout) as caught,
    ):
        list(stream.text)
    assert caught.value.partial is not None
    assert caught.value.partial.text == "one two"
    check_closed(upstream.seen[0], since=began)
    assert not [thread for thread in threading.enumerate() if thread.name == "penstock-adapt"]


@each_sdk
def test_c7_cancel_from_a_thread_wakes_a_reader_that_waits_in_the_sdk(
    sdk: Open, upstream: Upstream, opened: ExitStack
) -> None:
    upstream.says(Reply(text=TEXT, faults=("stall-after-2",)))
    stream = penstock.adapt(sdk(upstream, opened))
    read: list[str] = []
    reading = threading.Thread(target=lambda: read.extend(stream.text))
    reading.start()
    until = time.monotonic() + 10.0
    while stream._session.response().text != "one two" and time.monotonic() < until:
        time.sleep(0.005)
    cancelled_at = now()
    stream.cancel()
    reading.join(5.0)
    assert not reading.is_alive()
    assert "".join(read) == "one two"
    check_closed(upstream.seen[0], since=cancelled_at)
    assert stream.response.outcome == "cancelled"


@each_sdk
def test_c4_failing(sdk: Open, upstream: Upstream, opened: ExitStack) -> None:
    upstream.says(Reply(text=TEXT, faults=("cut-after-2",)))
    with penstock.adapt(sdk(upstream, opened)) as stream, pytest.raises(penstock.Truncated) as caught:
        list(stream.text)
    assert caught.value.partial is not None
    assert (caught.value.partial.text, caught.value.partial.outcome) == ("one two", "truncated")


@each_sdk
def test_c4_ending_without_the_providers_own_end(sdk: Open, upstream: Upstream, opened: ExitStack) -> None:
    """The SDKs end such a stream as if all were well."""
    upstream.says(Reply(text=TEXT, faults=("end-after-2",)))
    with penstock.adapt(sdk(upstream, opened)) as stream, pytest.raises(penstock.Truncated):
        list(stream.text)


def test_c4_an_error_inside_the_stream_keeps_its_code(upstream: Upstream, opened: ExitStack) -> None:
    upstream.says(Reply(text=TEXT, faults=("error-openai",)))
    with pytest.raises(penstock.StreamedError) as caught:
        list(penstock.adapt(openai_chat(upstream, opened)))
    assert caught.value.kind == "streaming_error"
    assert isinstance(caught.value.__cause__, openai.APIError)
    assert caught.value.partial is not None
    assert caught.value.partial.text == "one two"


# --- async ------------------------------------------------------------------------------------------------------------


@pytest.fixture
async def aopened() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as opened:
        yield opened


async def openai_async(upstream: Upstream, opened: AsyncExitStack) -> AsyncIterable[Any]:
    client = await opened.enter_async_context(openai.AsyncOpenAI(base_url=upstream.url, api_key="k", max_retries=0))
    return await client.chat.completions.create(model="m", messages=ASKED, stream=True)


async def anthropic_async(upstream: Upstream, opened: AsyncExitStack) -> AsyncIterable[Any]:
    client = await opened.enter_async_context(
        anthropic.AsyncAnthropic(base_url=upstream.root, api_key="k", max_retries=0)
    )
    return await client.messages.create(model="m", messages=ASKED, max_tokens=100, stream=True)


ASYNC_SDKS: list[Callable[[Upstream, AsyncExitStack], Awaitable[AsyncIterable[Any]]]] = [openai_async, anthropic_async]
each_async_sdk = pytest.mark.parametrize("sdk", ASYNC_SDKS)


@each_async_sdk
async def test_live_async(sdk: Any, upstream: Upstream, aopened: AsyncExitStack) -> None:
    async with penstock.adapt(sdk(upstream, aopened)) as stream:
        text = "".join([piece async for piece in stream.text])
    assert text == stream.response.text == TEXT
    assert [call.arguments for call in stream.response.tool_calls] == [{"a": 1}]


@each_async_sdk
async def test_infinite_async(sdk: Any, upstream: Upstream, aopened: AsyncExitStack) -> None:
    upstream.says(ENDLESS)
    async with penstock.adapt(sdk(upstream, aopened)) as stream:
        async for _ in stream.text:
            break
        left_at = now()
    await asyncio.to_thread(check_closed, upstream.seen[0], since=left_at)


@each_async_sdk
async def test_c8_slow_async(sdk: Any, upstream: Upstream, aopened: AsyncExitStack) -> None:
    upstream.says(Reply(text=TEXT, faults=("stall-after-2",)))
    began = now()
    async with penstock.adapt(sdk(upstream, aopened), timeout=1.0) as stream:
        with pytest.raises(penstock.StreamingTimeout):
            _ = [piece async for piece in stream.text]
    await asyncio.to_thread(check_closed, upstream.seen[0], since=began)


@each_async_sdk
async def test_c4_failing_async(sdk: Any, upstream: Upstream, aopened: AsyncExitStack) -> None:
    upstream.says(Reply(text=TEXT, faults=("cut-after-2",)))
    async with penstock.adapt(sdk(upstream, aopened)) as stream:
        with pytest.raises(penstock.Truncated) as caught:
            _ = [piece async for piece in stream.text]
    assert caught.value.partial is not None
    assert caught.value.partial.text == "one two"


async def test_a_refusal_is_an_error_with_its_status(upstream: Upstream, aopened: AsyncExitStack) -> None:
    upstream.says(Reply(faults=("status-429",)))
    with pytest.raises(penstock.StatusError) as caught:
        async with penstock.adapt(openai_async(upstream, aopened)) as stream:
            await anext(stream)
    assert (caught.value.status, caught.value.kind) == (429, "rate_limited")


async def test_recovery_asks_another_sdk(upstream: Upstream, aopened: AsyncExitStack) -> None:
    upstream.says(Reply(faults=("silent",)))

    def other(error: penstock.PenstockError) -> Any:
        assert isinstance(error, penstock.StreamingTimeout)
        upstream.says(Reply(text=TEXT))
        return anthropic_async(upstream, aopened)

    # long enough for an SDK that is made meanwhile, beside whatever else runs
    async with penstock.adapt(openai_async(upstream, aopened), timeout=1.5, recovery=other) as stream:
        assert "".join([piece async for piece in stream.text]) == TEXT
    assert stream.response.attempts == 2
    await asyncio.to_thread(check_closed, upstream.seen[0])
