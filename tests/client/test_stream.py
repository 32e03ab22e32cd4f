"""The life of a stream in a program's hands, at a simulator on a real socket: its readers and its one ending."""

from __future__ import annotations

import asyncio
import gc
import random
import signal
import threading
import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

import penstock
from penstock.client.hooks import StreamEnd
from penstock.testing import Call, Reply, Upstream
from tests.client.simulated import ENDLESS, MODEL, TEXT, check_closed, client_of, now

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream(Reply(text=TEXT)) as upstream:
        yield upstream


class Ends(list[StreamEnd]):
    """What `on_end` was told, and a way to wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self._came = threading.Condition()

    def __call__(self, end: StreamEnd) -> None:
        with self._came:
            self.append(end)
            self._came.notify_all()

    def only(self) -> StreamEnd:
        with self._came:
            assert self._came.wait_for(lambda: self, 10.0), "on_end was not called"
        gc.collect()
        assert len(self) == 1
        return self[0]


async def until_it_has_said(stream: penstock.AsyncStream, text: str) -> None:
    async with asyncio.timeout(10.0):
        while stream._session.response().text != text:  # noqa: ASYNC110
            await asyncio.sleep(0.001)


# --- every ending is told once ----------------------------------------------------------------------------------------


def read_all(stream: penstock.Stream) -> None:
    assert "".join(stream.text) == TEXT


def read_into_an_error(stream: penstock.Stream) -> None:
    with pytest.raises(penstock.Truncated):
        list(stream.text)


def leave_on_break(stream: penstock.Stream) -> None:
    with stream:
        for _ in stream.text:
            break


def cancel(stream: penstock.Stream) -> None:
    for _ in stream.text:
        stream.cancel()


def close_twice(stream: penstock.Stream) -> None:
    stream.close()
    stream.close()


def raise_inside(stream: penstock.Stream) -> None:
    with suppress(ZeroDivisionError), stream:
        next(iter(stream.text))
        raise ZeroDivisionError


#: how it is read → what the simulator says, how it ends
ENDINGS: dict[str, tuple[Callable[[penstock.Stream], None], Reply, str]] = {
    "complete": (read_all, Reply(text=TEXT), "complete"),
    "error": (read_into_an_error, Reply(text=TEXT, faults=("cut-after-2",)), "truncated"),
    "break": (leave_on_break, ENDLESS, "cancelled"),
    "cancel": (cancel, ENDLESS, "cancelled"),
    "close": (close_twice, ENDLESS, "cancelled"),
    "an exception of the reader's": (raise_inside, ENDLESS, "cancelled"),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_c6_the_end_is_told_once_however_it_comes(ending: str, upstream: Upstream) -> None:
    read, reply, outcome = ENDINGS[ending]
    upstream.says(reply)
    ends, hooked = Ends(), Ends()
    stream = client_of(upstream, hooks=penstock.Hooks(on_end=hooked)).stream(MODEL, "Hi")
    stream.on_end(ends)
    read(stream)
    stream.close()
    for told in (ends.only(), hooked.only()):
        assert told.response.outcome == outcome
        assert told.record is not None
        assert told.record.outcome == outcome
        assert (told.error is not None) is (outcome == "truncated")
    if outcome == "cancelled":
        check_closed(upstream.seen[0])


async def test_c6_the_end_is_told_once_however_many_close_it(upstream: Upstream) -> None:
    upstream.says(ENDLESS)
    ends, hooked = Ends(), Ends()
    async with client_of(upstream, hooks=penstock.Hooks(on_end=hooked)).astream(MODEL, "Hi") as stream:
        stream.on_end(ends)
        await anext(stream)
        await asyncio.gather(*(stream.aclose() for _ in range(3)))
        await stream.aclose()
    late = Ends()
    stream.on_end(late)
    assert {told.only().response.outcome for told in (ends, hooked, late)} == {"cancelled"}


def test_c13_a_stream_that_is_dropped_is_warned_of_closed_and_told_of(upstream: Upstream) -> None:
    upstream.says(ENDLESS)
    ends = Ends()
    stream = client_of(upstream).stream(MODEL, "Hi")
    stream.on_end(ends)
    dropped_at = now()
    with pytest.warns(ResourceWarning, match=r"<Stream sim:m open> was left open; use `with`"):
        del stream
    check_closed(upstream.seen[0], since=dropped_at)
    assert ends.only().response.outcome == "cancelled"


async def test_c13_an_async_stream_that_is_dropped_goes_at_once_without_the_garbage_collector(
    upstream: Upstream,
) -> None:
    upstream.says(ENDLESS)
    ends = Ends()
    gc.disable()
    try:
        stream = client_of(upstream).astream(MODEL, "Hi")
        stream.on_end(ends)
        async for _ in stream.text:
            break
        with pytest.warns(ResourceWarning, match=r"AsyncStream sim:m open> was left open; use `async with`"):
            del stream
        await asyncio.sleep(0)
        await asyncio.to_thread(check_closed, upstream.seen[0])
        assert ends.only().response.outcome == "cancelled"
    finally:
        gc.enable()


def test_c13_a_stream_whose_loop_has_gone_is_told_of_all_the_same(upstream: Upstream) -> None:
    upstream.says(ENDLESS)
    ends = Ends()

    async def begin() -> penstock.AsyncStream:
        stream = client_of(upstream).astream(MODEL, "Hi")
        await anext(stream)
        stream.on_end(ends)
        return stream

    stream = asyncio.run(begin())
    with pytest.warns(ResourceWarning):  # noqa: PT031
        del stream
        assert ends.only().response.outcome == "cancelled"


def test_the_loop_of_a_view_keeps_its_stream(upstream: Upstream) -> None:
    assert "".join(client_of(upstream).stream(MODEL, "Hi").text) == TEXT


def test_a_stream_that_nobody_began_is_dropped_in_silence(upstream: Upstream) -> None:
    ends = Ends()
    stream = client_of_in_a_loop(upstream, ends)
    del stream
    gc.collect()
    assert (ends, upstream.seen) == ([], [])


def client_of_in_a_loop(upstream: Upstream, ends: Ends) -> penstock.AsyncStream:
    async def made() -> penstock.AsyncStream:
        stream = client_of(upstream).astream(MODEL, "Hi")
        stream.on_end(ends)
        return stream

    return asyncio.run(made())


# --- cancelling -------------------------------------------------------------------------------------------------------


async def test_c7_cancel_from_another_task_ends_a_reader_that_waits(upstream: Upstream) -> None:
    upstream.says(Reply(text=TEXT, faults=("stall-after-2",)))
    async with client_of(upstream).astream(MODEL, "Hi") as stream:
        read: list[str] = []

        async def reading() -> None:
            read.extend([piece async for piece in stream.text])

        task = asyncio.create_task(reading())
        await until_it_has_said(stream, "one two")
        for _ in range(3):
            stream.cancel()
        await asyncio.wait_for(task, 5.0)
    assert "".join(read) == "one two"
    assert stream.response.outcome == "cancelled"
    check_closed(upstream.seen[0])


async def test_c7_cancel_from_a_thread_ends_a_call_that_still_waits_for_its_answer(upstream: Upstream) -> None:
    upstream.says(Reply(faults=("silent",)))
    stream = client_of(upstream).astream(MODEL, "Hi")
    began = now()

    def cancel() -> None:
        upstream.wait_for()
        for _ in range(3):
            stream.cancel()

    threading.Thread(target=cancel).start()
    async with stream:
        assert [piece async for piece in stream.text] == []
    assert stream.response.outcome == "cancelled"
    check_closed(upstream.seen[0], since=began)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


def test_c7_whenever_a_stream_is_cancelled_it_ends_once_and_in_one_of_two_ways(upstream: Upstream) -> None:
    upstream.says(Reply(text=tuple("abcdefgh"), pace=penstock.testing.Pace(fixed="1ms")))
    chances = random.Random(0)
    outcomes = Counter[str | None]()
    with client_of(upstream) as client:
        for _ in range(30):
            ends = Ends()
            stream = client.stream(MODEL, "Hi")
            stream.on_end(ends)
            cursor = stream.cursor()
            cancelling = threading.Timer(chances.uniform(0.0, 0.02), stream.cancel)
            cancelling.start()
            text = "".join(stream.text)
            cancelling.join()
            end = ends.only()
            assert end.error is None
            assert text == end.response.text == "".join(cursor.text)
            assert (text == "abcdefgh") or end.response.outcome == "cancelled"
            outcomes[end.response.outcome] += 1
    assert set(outcomes) <= {"complete", "cancelled"}
    assert outcomes["cancelled"] > 0


async def test_cancel_before_anything_was_sent_sends_nothing(upstream: Upstream) -> None:
    ends, hooked = Ends(), Ends()
    stream = client_of(upstream, hooks=penstock.Hooks(on_end=hooked)).astream(MODEL, "Hi")
    stream.on_end(ends)
    stream.cancel()
    async with stream:
        assert [event async for event in stream] == []
    assert stream.response.outcome == "cancelled"
    assert ends.only().record is None
    assert (hooked, upstream.seen) == ([], [])


def test_cancel_after_the_end_changes_nothing(upstream: Upstream) -> None:
    stream = client_of(upstream).stream(MODEL, "Hi")
    read_all(stream)
    stream.cancel()
    assert stream.response.outcome == "complete"


async def test_a_reader_that_gave_up_one_read_comes_back_for_it(upstream: Upstream) -> None:
    upstream.says(Reply(text=TEXT, faults=("late-done-100",)))
    async with client_of(upstream).astream(MODEL, "Hi") as stream:
        events: list[penstock.canon.events.Event] = []
        timeouts = 0
        while True:
            try:
                events.append(await asyncio.wait_for(anext(stream), 0.02))
            except TimeoutError:
                timeouts += 1
            except StopAsyncIteration:
                break
    assert timeouts >= 2
    assert isinstance(events[-1], penstock.Finish)
    assert stream.response.outcome == "complete"


async def test_a_task_that_is_cancelled_takes_its_stream_along(upstream: Upstream) -> None:
    upstream.says(ENDLESS)
    ends = Ends()

    async def reading() -> None:
        async with client_of(upstream).astream(MODEL, "Hi") as stream:
            stream.on_end(ends)
            async for _ in stream:
                pass

    task = asyncio.create_task(reading())
    await asyncio.to_thread(upstream.wait_for)
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    end = ends.only()
    assert (end.response.outcome, end.error) == ("cancelled", None)
    await asyncio.to_thread(check_closed, upstream.seen[0])


async def test_closing_in_one_task_ends_the_reader_in_another_quietly(upstream: Upstream) -> None:
    upstream.says(Reply(text=TEXT, faults=("stall-after-2",)))
    stream = client_of(upstream).astream(MODEL, "Hi")

    async def reading() -> str:
        return "".join([piece async for piece in stream.text])

    task = asyncio.create_task(reading())
    await until_it_has_said(stream, "one two")
    await stream.aclose()
    assert await asyncio.wait_for(task, 5.0) == "one two"
    assert stream.response.outcome == "cancelled"


def test_ctrl_c_interrupts_a_program_that_waits_and_closes_the_connection(upstream: Upstream) -> None:
    upstream.says(Reply(text=TEXT, faults=("stall-after-2",)))
    main = threading.main_thread().ident
    assert main is not None

    def interrupt() -> None:
        upstream.wait_for()
        while stream._session.response().text != "one two":
            time.sleep(0.005)
        signal.pthread_kill(main, signal.SIGINT)

    with pytest.raises(KeyboardInterrupt), client_of(upstream).stream(MODEL, "Hi") as stream:  # noqa: PT012
        threading.Thread(target=interrupt, daemon=True).start()
        list(stream.text)
    check_closed(upstream.seen[0])
    assert stream.response.outcome == "cancelled"


def test_ctrl_c_during_a_whole_call_cancels_it(upstream: Upstream) -> None:
    upstream.says(Reply(text=TEXT, faults=("stall-after-2",)))
    main = threading.main_thread().ident
    assert main is not None

    def interrupt() -> None:
        upstream.wait_for()
        signal.pthread_kill(main, signal.SIGINT)

    interrupting = threading.Thread(target=interrupt)
    interrupting.start()
    with pytest.raises(KeyboardInterrupt):
        client_of(upstream).generate(MODEL, "Hi")
    interrupting.join()
    check_closed(upstream.seen[0])


# --- readers ----------------------------------------------------------------------------------------------------------


async def test_cursors_read_the_same_reply_each_for_itself(upstream: Upstream) -> None:
    upstream.says(Reply(text=TEXT, reasoning="Let me count.", calls=(Call("now"),)))
    async with client_of(upstream).astream(MODEL, "Hi") as stream:
        thinking, events, calls = stream.cursor(), stream.cursor(), stream.cursor()

        async def text() -> str:
            return "".join([piece async for piece in stream.text])

        async def thoughts() -> str:
            return "".join([piece async for piece in thinking.reasoning])

        async def all_events() -> Counter[type]:
            return Counter([type(event) async for event in events])

        got = await asyncio.gather(text(), thoughts(), all_events())
        assert got[0] == TEXT
        assert got[1] == "Let me count."
        assert got[2][penstock.Finish] == 1
        # Nobody has read this one yet: what it missed is kept for it.
        assert [call.name async for call in calls.tool_calls] == ["now"]
    assert len(upstream.seen) == 1


def test_cursors_in_threads_of_their_own(upstream: Upstream) -> None:
    upstream.says(Reply(text=[f"{n} " for n in range(300)]))  # type: ignore[arg-type]
    with client_of(upstream).stream(MODEL, "Hi") as stream:
        read: list[str] = []
        threads = [
            threading.Thread(target=lambda cursor: read.append("".join(cursor.text)), args=(stream.cursor(),))
            for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        text = "".join(stream.text)
        for thread in threads:
            thread.join(10.0)
    assert text == "".join(f"{n} " for n in range(300))
    assert read == [text] * 3


async def test_c11_a_cursor_that_falls_too_far_behind_says_so_and_holds_up_nobody(upstream: Upstream) -> None:
    upstream.says(Reply(text=tuple(f"{n} " for n in range(50)), faults=("bytewise",)))
    async with client_of(upstream).astream(MODEL, "Hi") as stream:
        slow, patient = stream.cursor(buffer=10), stream.cursor(buffer=1000)
        assert len("".join([piece async for piece in stream.text]).split()) == 50
        assert len("".join([piece async for piece in patient.text]).split()) == 50
        got: list[str] = []
        with pytest.raises(penstock.CursorLagged, match="more than 10 events behind"):  # noqa: PT012
            async for piece in slow.text:
                got.append(piece)  # noqa: PERF401
    assert 0 < len(got) <= 10
    assert got[0] == "0 "


async def test_a_cursor_is_made_before_the_reading_begins(upstream: Upstream) -> None:
    async with client_of(upstream).astream(MODEL, "Hi") as stream:
        cursor = stream.cursor()
        await anext(stream)
        with pytest.raises(penstock.AlreadyConsumed, match="before you begin"):
            stream.cursor()
        assert "".join([piece async for piece in cursor.text]) == TEXT
        with pytest.raises(penstock.AlreadyConsumed):
            cursor.chunks()


async def test_c11_nothing_is_kept_for_a_cursor_that_was_dropped(upstream: Upstream) -> None:
    async with client_of(upstream).astream(MODEL, "Hi") as stream:
        cursor = stream.cursor()
        assert len(stream._session._readers) == 2
        del cursor
        gc.collect()
        assert len(stream._session._readers) == 1


async def test_an_error_reaches_every_cursor(upstream: Upstream) -> None:
    upstream.says(Reply(text=TEXT, faults=("cut-after-2",)))
    async with client_of(upstream).astream(MODEL, "Hi") as stream:
        for reader in (stream, stream.cursor(), stream.cursor()):
            with pytest.raises(penstock.Truncated):
                _ = [piece async for piece in reader.text]


# --- what is known of it ----------------------------------------------------------------------------------------------


def test_c6_usage_finish_and_timing_are_known_as_soon_as_they_are(upstream: Upstream) -> None:
    upstream.says(Reply(text=tuple("abcdefgh"), pace=penstock.testing.Pace(fixed="5ms")))
    with client_of(upstream).stream(MODEL, "Hi") as stream:
        assert (stream.usage, stream.finish) == (None, None)
        seen = []
        for _ in stream.text:
            assert stream.timing is not None
            seen.append(stream.timing)
        timing = stream.timing
    assert seen[0].ttft_ms is not None
    assert (seen[0].duration_ms, seen[0].itl_p50_ms, seen[0].stalls) == (None, None, None)
    assert timing is not None
    assert stream.usage is not None
    assert (stream.usage.input, stream.usage.output) == (9, 3)
    assert stream.finish is not None
    assert stream.finish.reason == "stop"
    for known in (timing.ttfb_ms, timing.itl_p50_ms, timing.itl_p95_ms, timing.itl_max_ms, timing.duration_ms):
        assert known is not None
    assert timing.ttfb_ms is not None
    assert timing.ttft_ms is not None
    assert timing.ttfb_ms <= timing.ttft_ms <= (timing.duration_ms or 0)
    assert (timing.stalls, timing.stalled_ms) == (0, 0.0)
    assert timing.timings_source == "client"
    assert (timing.generation_tps or 0) > 0
    assert stream.response.timing == timing


# --- callbacks --------------------------------------------------------------------------------------------------------


def test_process_calls_back_and_returns_the_response(upstream: Upstream) -> None:
    upstream.says(Reply(text=TEXT, reasoning="Hm.", calls=(Call("now"),)))
    told: dict[str, list[Any]] = {"text": [], "reasoning": [], "calls": [], "end": []}
    response = (
        client_of(upstream)
        .stream(MODEL, "Hi")
        .process(
            on_text=told["text"].append,
            on_reasoning=told["reasoning"].append,
            on_tool_call=told["calls"].append,
            on_end=told["end"].append,
        )
    )
    assert "".join(told["text"]) == response.text == TEXT
    assert "".join(told["reasoning"]) == "Hm."
    assert [call.name for call in told["calls"]] == ["now"]
    (end,) = told["end"]
    assert end.response == response
    assert end.response.outcome == "complete"


async def test_process_awaits_what_is_to_be_awaited(upstream: Upstream) -> None:
    told: list[str] = []

    async def say(piece: str) -> None:
        await asyncio.sleep(0)
        told.append(piece)

    async def over(end: StreamEnd) -> None:
        await asyncio.sleep(0)
        told.append(str(end.response.outcome))

    response = await client_of(upstream).astream(MODEL, "Hi").process(on_text=say, on_end=over)
    assert told == [*TEXT.replace(" ", "\0 ").split("\0"), "complete"]
    assert response.text == TEXT


@pytest.mark.parametrize("is_async", [False, True])
def test_a_callback_that_raises_ends_the_stream_and_on_end_comes_once(is_async: bool, upstream: Upstream) -> None:
    upstream.says(ENDLESS)
    ends: list[StreamEnd] = []

    def fail(piece: str) -> None:
        raise ZeroDivisionError(piece)

    client = client_of(upstream)

    async def run() -> None:
        await client.astream(MODEL, "Hi").process(on_text=fail, on_end=ends.append)

    with pytest.raises(ZeroDivisionError):
        asyncio.run(run()) if is_async else client.stream(MODEL, "Hi").process(on_text=fail, on_end=ends.append)
    assert [(end.response.outcome, type(end.error)) for end in ends] == [("cancelled", ZeroDivisionError)]
    check_closed(upstream.seen[0])


@pytest.mark.parametrize("reply", [Reply(text=TEXT), Reply(text=TEXT, faults=("cut-after-2",))], ids=["well", "failed"])
def test_what_on_end_raises_hides_nothing(reply: Reply, upstream: Upstream) -> None:
    upstream.says(reply)
    ends: list[StreamEnd] = []

    def fail(end: StreamEnd) -> None:
        ends.append(end)
        raise ZeroDivisionError

    with pytest.raises(penstock.Truncated if reply.faults else ZeroDivisionError) as caught:
        client_of(upstream).stream(MODEL, "Hi").process(on_end=fail)
    assert len(ends) == 1
    assert getattr(caught.value, "__notes__", []) == (
        ["on_end raised as well: ZeroDivisionError"] if reply.faults else []
    )


async def test_process_that_is_cancelled_tells_of_it(upstream: Upstream) -> None:
    upstream.says(ENDLESS)
    ends: list[StreamEnd] = []
    task = asyncio.create_task(client_of(upstream).astream(MODEL, "Hi").process(on_end=ends.append))
    await asyncio.to_thread(upstream.wait_for)
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [end.response.outcome for end in ends] == ["cancelled"]


def test_a_coroutine_function_where_nothing_awaits_it_is_refused(upstream: Upstream) -> None:
    async def late(_: object) -> None: ...

    with client_of(upstream).stream(MODEL, "Hi") as stream:
        for give in (
            lambda: stream.on_end(late),  # type: ignore[arg-type]
            lambda: stream.process(on_text=late),
            lambda: stream.process(on_end=late),
            lambda: penstock.Hooks(on_end=late),  # type: ignore[arg-type]
        ):
            with pytest.raises(penstock.ConfigError, match="coroutine function"):
                give()
