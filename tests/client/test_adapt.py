"""`adapt`: other sources with our life cycle, on live, slow, failing and infinite ones. What an item means is in
`test_adapt_shapes`, the SDKs themselves are in `test_adapt_sdks`."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import itertools
import queue
import sqlite3
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

import penstock
from penstock.client.sources import Aborted, AsyncSource, ThreadSource
from penstock.telemetry.exporters.sqlite import SqliteExporter
from tests.virtual_clock import on_virtual_time

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from penstock.client.hooks import StreamEnd

LAST = {"content": "!", "finish_reason": "stop", "usage": {"prompt_tokens": 5, "completion_tokens": 3}}


def words(*said: str) -> list[dict[str, Any]]:
    return [{"content": word} for word in said]


class Live:
    """A source of which everything is known: what was asked of it, where, and whether it was closed."""

    def __init__(self, items: Any, *, fails: BaseException | None = None, ends: bool = True) -> None:
        self.given: list[Any] = []
        self.closed = threading.Event()
        self.blocked = threading.Event()
        self.threads: set[str] = set()
        self._items = iter(items)
        self._fails = fails
        self._ends = ends

    def __iter__(self) -> Iterator[Any]:
        try:
            for item in self._items:
                self.threads.add(threading.current_thread().name)
                self.given.append(item)
                yield item
            if self._fails is not None:
                raise self._fails
            if not self._ends:
                self.blocked.set()
                self.closed.wait(30.0)
        finally:
            self.threads.add(threading.current_thread().name)
            self.closed.set()

    async def __aiter__(self) -> AsyncIterator[Any]:
        try:
            for item in self._items:
                await asyncio.sleep(0)
                self.given.append(item)
                yield item
            if self._fails is not None:
                raise self._fails
            if not self._ends:
                self.blocked.set()
                await asyncio.Event().wait()
        finally:
            self.closed.set()


class SyncOnly:
    def __init__(self, live: Live) -> None:
        self._live = live

    def __iter__(self) -> Iterator[Any]:
        return iter(self._live)


class AsyncOnly:
    def __init__(self, live: Live) -> None:
        self._live = live

    def __aiter__(self) -> AsyncIterator[Any]:
        return aiter(self._live)


def sync_of(live: Live, **how: Any) -> penstock.Stream:
    return penstock.adapt(SyncOnly(live), **how)


def check_closed(live: Live) -> None:
    assert live.closed.wait(5.0)


# --- what the original broke ------------------------------------------------------------------------------------------


def test_c3_the_item_with_the_finish_reason_is_kept_with_its_text_and_usage() -> None:
    with sync_of(Live([*words("Hel", "lo"), LAST])) as stream:
        chunks = list(stream.chunks())
    assert "".join(chunk.content for chunk in chunks) == "Hello!"
    assert chunks[-1].finish_reason == "stop"
    assert chunks[-1].usage == {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": None}
    assert stream.response.outcome == "complete"


def test_c3_usage_that_comes_after_the_finish_reason_is_kept() -> None:
    after = {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 1, "total_tokens": 8}}
    items = [{"choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"}]}, after]
    response = sync_of(Live(items)).response
    assert response.usage is not None
    assert (response.text, response.usage.total) == ("Hi", 8)


def test_c2_items_are_asked_for_one_at_a_time() -> None:
    live = Live({"content": f"{number} "} for number in itertools.count())
    with sync_of(live) as stream:
        assert live.given == []
        text = stream.text
        for number in range(3):
            assert next(text) == f"{number} "
            assert len(live.given) == number + 1
    check_closed(live)
    assert len(live.given) == 3


async def test_c2_async_items_are_asked_for_one_at_a_time() -> None:
    live = Live({"content": f"{number} "} for number in itertools.count())
    async with penstock.adapt(AsyncOnly(live)) as stream:
        text = aiter(stream.text)
        for number in range(3):
            assert await anext(text) == f"{number} "
            assert len(live.given) == number + 1
    check_closed(live)
    assert stream.response.outcome == "cancelled"


def test_c8_a_sync_source_that_blocks_runs_into_the_idle_clock() -> None:
    live = Live(words("one"), ends=False)
    began = time.monotonic()
    with sync_of(live, timeout=0.2) as stream, pytest.raises(penstock.StreamingTimeout) as caught:
        list(stream.text)
    live.closed.set()  # what nothing could wake
    assert 0.15 < time.monotonic() - began < 5.0
    assert (caught.value.kind, caught.value.clock, caught.value.after_s) == ("streaming_timeout", "idle", 0.2)
    assert caught.value.partial is not None
    assert caught.value.partial.text == "one"
    assert caught.value.partial.outcome == "timeout"


@on_virtual_time
async def test_c8_the_idle_clock_of_an_async_source_is_exact_and_closes_it() -> None:
    live = Live(words("one"), ends=False)
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with penstock.adapt(AsyncOnly(live), timeout=3600.0) as stream:
        stream._session.call.now = loop.time
        stream._session.call.began = began
        with pytest.raises(penstock.StreamingTimeout):
            _ = [piece async for piece in stream.text]
    assert loop.time() - began == pytest.approx(3600.0, abs=0.01)
    assert live.closed.is_set()


@on_virtual_time
async def test_c8_time_that_the_consumer_takes_is_not_the_sources() -> None:
    loop = asyncio.get_running_loop()
    async with penstock.adapt(AsyncOnly(Live([*words("one", "two"), LAST])), timeout=5.0) as stream:
        stream._session.call.now = loop.time
        await asyncio.sleep(60.0)
        async for _ in stream.text:
            await asyncio.sleep(60.0)
    assert stream.response.outcome == "complete"


@on_virtual_time
async def test_c8_items_without_content_do_not_satisfy_the_clock() -> None:
    async def pinging() -> AsyncIterator[dict[str, Any]]:
        yield {"content": "one"}
        while True:
            await asyncio.sleep(1.0)
            yield {"content": ""}

    loop = asyncio.get_running_loop()
    async with penstock.adapt(pinging(), timeout=10.0) as stream:
        stream._session.call.now = loop.time
        with pytest.raises(penstock.StreamingTimeout):
            _ = [piece async for piece in stream.text]


@pytest.mark.parametrize("is_async", [False, True])
def test_c4_what_a_source_raises_is_an_error_of_ours_with_all_that_came_before(is_async: bool) -> None:
    failure = ZeroDivisionError("division by zero")
    live = Live(words("one", " two"), fails=failure)
    read: list[str] = []
    with pytest.raises(penstock.StreamingError) as caught:
        asyncio.run(read_async(penstock.adapt(AsyncOnly(live)), read)) if is_async else read_sync(sync_of(live), read)
    assert read == ["one", " two"]
    assert caught.value.__cause__ is failure
    assert caught.value.kind == "streaming_error"
    assert "ZeroDivisionError: division by zero" in str(caught.value)
    assert caught.value.partial is not None
    assert (caught.value.partial.text, caught.value.partial.outcome) == ("one two", "upstream_error")
    check_closed(live)


def read_sync(stream: penstock.Stream, into: list[str]) -> None:
    for text in stream.text:
        into.append(text)  # noqa: PERF402


async def read_async(stream: penstock.AsyncStream, into: list[str]) -> None:
    async with stream:
        async for text in stream.text:
            into.append(text)  # noqa: PERF401


def test_c4_a_source_that_ends_without_a_finish_reason_is_truncated() -> None:
    live = Live(words("one"))
    with pytest.raises(penstock.Truncated):
        list(sync_of(live).text)
    check_closed(live)


def test_c4_what_a_source_raises_after_its_proved_end_takes_nothing_away() -> None:
    response = sync_of(Live([*words("Hi"), LAST], fails=ConnectionResetError())).response
    assert (response.text, response.outcome) == ("Hi!", "complete")


@on_virtual_time
async def test_c4_a_source_that_never_ends_after_its_proved_end_is_complete() -> None:
    live = Live([*words("Hi"), LAST], ends=False)
    stream = penstock.adapt(AsyncOnly(live), timeout=60.0)
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with stream:
        stream._session.call.now = loop.time
        assert "".join([piece async for piece in stream.text]) == "Hi!"
    assert stream.response.outcome == "complete"
    assert loop.time() - began < 6.0
    assert live.closed.is_set()


# --- the source is closed on every path -------------------------------------------------------------------------------


def drop(stream: penstock.Stream) -> None:
    next(iter(stream.text))


def leave(stream: penstock.Stream) -> None:
    with stream:
        for _ in stream.text:
            break


def cancel(stream: penstock.Stream) -> None:
    for _ in stream.text:
        stream.cancel()


def leave_unread(stream: penstock.Stream) -> None:
    with stream:
        pass


def fail(stream: penstock.Stream) -> None:
    with pytest.raises(ZeroDivisionError), stream:
        _ = [1 / 0 for _ in stream.text]


@pytest.mark.parametrize("read", [leave, cancel, leave_unread, fail])
def test_c13_an_infinite_source_is_closed_in_the_thread_that_read_it(read: Callable[[penstock.Stream], None]) -> None:
    live = Live({"content": "x"} for _ in itertools.count())
    ends: list[StreamEnd] = []
    closing = ClosedLive(live)
    stream = penstock.adapt(closing)
    stream.on_end(ends.append)
    read(stream)
    assert closing.is_closed.wait(5.0)
    assert [end.response.outcome for end in ends] == ["cancelled"]
    assert live.threads <= {"penstock-adapt"}


class ClosedLive(SyncOnly):
    """As the SDKs' streams: an iterable with a `close` of its own."""

    def __init__(self, live: Live) -> None:
        super().__init__(live)
        self.is_closed = threading.Event()

    def close(self) -> None:
        self.is_closed.set()


def test_c13_a_stream_that_is_dropped_closes_its_source() -> None:
    live = Live({"content": "x"} for _ in itertools.count())
    stream = sync_of(live)
    drop(stream)
    with pytest.warns(ResourceWarning, match="was left open"):
        del stream
    check_closed(live)


async def test_c13_no_task_and_no_thread_is_left_after_many_streams() -> None:
    gc.collect()  # others' clients end by a task of their own
    before, tasks = threading.active_count(), asyncio.all_tasks()
    for _ in range(20):
        async with penstock.adapt(AsyncOnly(Live({"content": "x"} for _ in itertools.count()))) as stream:
            await anext(stream)
        async with penstock.aadapt(SyncOnly(Live({"content": "x"} for _ in itertools.count()))) as blocking:
            await anext(blocking)
    gc.collect()
    until = time.monotonic() + 5.0
    while threading.active_count() > before and time.monotonic() < until:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    assert threading.active_count() <= before
    assert asyncio.all_tasks() <= tasks


async def test_a_reader_that_gives_up_one_read_loses_no_item() -> None:
    async def slow() -> AsyncIterator[dict[str, Any]]:
        for word in ("one ", "two ", "three"):
            await asyncio.sleep(0.05)
            yield {"content": word}
        yield {"finish_reason": "stop"}

    read, given_up = [], 0
    async with penstock.adapt(slow()) as stream:
        view = aiter(stream.text)
        while True:
            try:
                read.append(await asyncio.wait_for(anext(view), 0.02))
            except TimeoutError:
                given_up += 1
            except StopAsyncIteration:
                break
    assert "".join(read) == "one two three"
    assert given_up >= 3


async def test_an_async_source_keeps_its_context_from_item_to_item() -> None:
    """As instrumentation does it: a token that is set before an item is reset after it."""
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)

    async def instrumented() -> AsyncIterator[dict[str, Any]]:
        for word in words("a", "b", "c"):
            token = variable.set(1)
            yield word
            variable.reset(token)
        yield {"finish_reason": "stop"}

    async with penstock.adapt(instrumented()) as stream:
        first = await asyncio.create_task(anext_of(stream))
        assert isinstance(first, penstock.Start)
        assert len([event async for event in stream]) > 3
    assert stream.response.text == "abc"


async def anext_of(stream: penstock.AsyncStream) -> object:
    return await anext(stream)


async def test_an_awaitable_of_a_source_is_awaited_when_it_is_read() -> None:
    asked = []

    async def create() -> AsyncOnly:
        asked.append(True)
        return AsyncOnly(Live([*words("Hi"), LAST]))

    stream = penstock.adapt(create())
    assert asked == []
    async with stream:
        assert "".join([piece async for piece in stream.text]) == "Hi!"


class Between:
    """A source whose thread is stopped between being asked for an item and reading it, where `abort` then comes."""

    def __init__(self) -> None:
        self.wanted: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self.was_taken = threading.Event()
        self.may_go_on = threading.Event()

    def put(self, wanted: bool) -> None:
        self.wanted.put(wanted)

    def get(self) -> bool:
        wanted = self.wanted.get()
        self.was_taken.set()
        self.may_go_on.wait(10.0)
        return wanted


async def test_c7_a_source_that_was_asked_and_has_not_begun_to_read_is_not_read_after_all() -> None:
    live = Live(words("one"), ends=False)
    source = ThreadSource(SyncOnly(live))
    between = Between()
    source._wanted = between  # type: ignore[assignment]
    asked = asyncio.create_task(source.next())
    await asyncio.to_thread(between.was_taken.wait, 10.0)
    source.abort()
    between.may_go_on.set()
    with pytest.raises(Aborted):
        await asked
    await source.closed()
    assert source._asked.over.is_set()
    assert live.given == []


class AsyncClosed(AsyncOnly):
    """As the SDKs' async streams: an iterable with a `close` to await."""

    def __init__(self, live: Live) -> None:
        super().__init__(live)
        self.is_closed = False

    async def close(self) -> None:
        self.is_closed = True


@pytest.mark.parametrize("steps", [0, 1, 2])
async def test_c13_an_async_source_is_closed_however_early_it_is_aborted(steps: int) -> None:
    closing = AsyncClosed(Live(words("one"), ends=False))
    source = AsyncSource(closing)
    asked = asyncio.create_task(source.next())
    for _ in range(steps):
        await asyncio.sleep(0)
    source.abort()
    with pytest.raises(Aborted):
        await asked
    await source.closed()
    assert closing.is_closed


# --- recovery ---------------------------------------------------------------------------------------------------------


def test_c9_before_content_recovery_is_invisible() -> None:
    broken, whole = Live([{"model": "a", "content": ""}], fails=ConnectionResetError()), Live([*words("Hi"), LAST])
    errors: list[penstock.PenstockError] = []

    def again(error: penstock.PenstockError) -> SyncOnly:
        errors.append(error)
        return SyncOnly(whole)

    stream = sync_of(broken, recovery=again)
    events = list(stream)
    assert [type(event) for event in events].count(penstock.Start) == 1
    assert not any(isinstance(event, penstock.Progress) for event in events)
    assert stream.response.text == "Hi!"
    assert stream.response.attempts == 2
    assert [type(error) for error in errors] == [penstock.Truncated]
    check_closed(broken)
    check_closed(whole)


def test_c9_after_content_the_seam_is_marked_and_nothing_is_said_twice() -> None:
    def go_on(error: penstock.PenstockError) -> SyncOnly:
        assert error.partial is not None
        assert error.partial.text == "one"
        return SyncOnly(Live([*words(" two"), LAST]))

    stream = sync_of(Live(words("one"), fails=ConnectionResetError()), recovery=go_on)
    events = list(stream)
    (seam,) = [event for event in events if isinstance(event, penstock.Progress)]
    assert seam.stage == "recovered"
    starts = [event.i for event in events if isinstance(event, penstock.BlockStart)]
    ends = [event.i for event in events if isinstance(event, penstock.BlockEnd)]
    assert (starts, ends) == ([0, 1], [0, 1])
    assert stream.response.text == "one two!"
    assert stream.response.outcome == "complete"


def test_c9_nothing_is_recovered_once_a_tool_call_has_begun() -> None:
    call = {"index": 0, "id": "c1", "function": {"name": "pay", "arguments": '{"a":'}}
    items = [{"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]}]
    asked: list[object] = []
    with pytest.raises(penstock.Truncated):
        list(sync_of(Live(items), recovery=asked.append))
    assert asked == []


def test_c11_recovery_that_always_fails_has_an_end() -> None:
    asked = []

    def again(error: penstock.PenstockError) -> SyncOnly:
        asked.append(error)
        return SyncOnly(Live([], fails=ConnectionResetError()))

    with pytest.raises(penstock.ConnectError):
        list(sync_of(Live([], fails=ConnectionResetError()), recovery=again))
    assert len(asked) == 3


async def test_recovery_of_an_async_source_may_be_awaited() -> None:
    async def again(error: penstock.PenstockError) -> AsyncOnly:
        await asyncio.sleep(0)
        return AsyncOnly(Live([*words("Hi"), LAST]))

    async with penstock.adapt(AsyncOnly(Live([], fails=TimeoutError())), recovery=again) as stream:
        assert "".join([piece async for piece in stream.text]) == "Hi!"


def test_recovery_that_has_nothing_lets_the_error_through() -> None:
    with pytest.raises(penstock.Truncated):
        list(sync_of(Live(words("one")), recovery=lambda error: None))


# --- a stream like any other ------------------------------------------------------------------------------------------


def test_an_adapted_stream_has_cursors_callbacks_metadata_and_a_record(tmp_path: Path) -> None:
    path = tmp_path / "calls.db"
    with penstock.Client(telemetry=SqliteExporter(path)) as client:
        stream = client.adapt(Live([*words("a", "b"), LAST]).__iter__(), metadata=True, provider="mine")
        cursor = stream.cursor()
        chunks = list(cursor.chunks())
        response = stream.process()
    assert chunks[0].chunk_metadata is not None
    assert (chunks[0].chunk_metadata.provider, chunks[0].chunk_metadata.chunk_size) == ("mine", 1)
    assert [chunk.chunk_metadata.index for chunk in chunks if chunk.chunk_metadata] == [0, 1, 2, 3]
    assert response.text == "ab!"
    store = sqlite3.connect(path)
    assert store.execute("SELECT outcome, target, completion_tokens FROM records").fetchall() == [
        ("complete", "mine", 3)
    ]
    store.close()


def test_the_provider_of_a_chunk_falls_back_to_the_model() -> None:
    chunks = list(sync_of(Live([{"model": "m-1", "content": "x"}, LAST])).chunks(metadata=True))
    assert chunks[0].chunk_metadata is not None
    assert chunks[0].chunk_metadata.provider == "m-1"
    assert chunks[0].chunk_metadata.timestamp == pytest.approx(time.time(), abs=60)


def test_an_error_has_its_status_and_code_where_the_source_tells_them() -> None:
    class RateLimitError(Exception):
        status_code = 429
        body = {"error": {"code": "rate_limit_exceeded", "type": "requests"}}  # noqa: RUF012

    with pytest.raises(penstock.StatusError) as caught:
        list(sync_of(Live([], fails=RateLimitError("slow down"))))
    assert (caught.value.kind, caught.value.code, caught.value.status) == ("rate_limited", "rate_limit_exceeded", 429)
    with pytest.raises(penstock.StreamingError) as inside:
        list(sync_of(Live(words("one"), fails=RateLimitError("slow down"))))
    assert (inside.value.code, inside.value.status) == ("rate_limit_exceeded", 429)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("text", "A str is no stream"),
        ({"content": "x"}, "A dict is no stream"),
        (17, "A int is no stream"),
        (threading.Lock(), "It is a context manager: enter it"),
    ],
)
def test_what_is_no_source_is_refused_at_once(source: Any, said: str) -> None:
    with pytest.raises(penstock.ConfigError, match=said):
        penstock.adapt(source)


def test_an_option_that_does_not_exist_names_the_nearest() -> None:
    options: Any = {"timeot": 3}
    with pytest.raises(penstock.InvalidRequest, match=r"There is no option `timeot`\. Did you mean `timeout`\?"):
        penstock.adapt([], **options)


def test_items_that_nobody_knows_say_what_to_give() -> None:
    for item, said in (
        ("text", "give {'content': text}"),
        (b"data: {}", "penstock.replay"),
        ({"x": 1}, "with x is no"),
    ):
        with pytest.raises(penstock.InvalidRequest, match=said):
            list(penstock.adapt([item]))
