"""C5 of the worker: whatever is narrated beside a job cannot delay, reorder or end its tokens."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.canon.events import Progress
from penstock.transport.memory import Hang, Pause
from penstock.worker.events import frame, narration
from penstock.worker.narration import BURST, EVERY_S, Narration
from tests.virtual_clock import START, now, on_virtual_time
from tests.worker.scripted import END, Bench, paced, progress, reply, token

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from penstock.streams.handler import Call, Handler, Layer
    from penstock.streams.stream import EventStream

    Say = Callable[[Progress], None]
    Source = Callable[[Say], Awaitable[None]]

WORDS = [f"word{number} " for number in range(12)]


class Unspeakable(Progress, frozen=True):
    """What cannot be written down."""

    def __getattribute__(self, name: str) -> Any:
        if name == "message":
            raise RuntimeError("a source's own fault")
        return super().__getattribute__(name)


# --- the sources: what a layer, or an engine, may do with `call.narrate` ----------------------------------------------


async def never_starts(say: Say) -> None:
    await asyncio.Event().wait()


async def never_ends(say: Say) -> None:
    for number in range(10**9):
        say(Progress("thinking", number))
        await asyncio.sleep(0.001)


async def floods(say: Say) -> None:
    while True:
        for number in range(2000):
            say(Progress("thinking", number, message="x" * 1000))
        await asyncio.sleep(0.01)


async def floods_stages(say: Say) -> None:
    number = 0
    while True:
        number += 1
        say(Progress(f"stage {number}"))
        await asyncio.sleep(0)
        if number % 50 == 0:
            await asyncio.sleep(0.01)


async def raises(say: Say) -> None:
    say(Progress("thinking"))
    raise RuntimeError("a source's own fault")


async def raises_when_read(say: Say) -> None:
    while True:
        say(Unspeakable("thinking"))
        await asyncio.sleep(0.01)


async def refuses_to_be_cancelled(say: Say) -> None:
    stop = 0
    while stop < 20:
        try:
            await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            stop += 1
        say(Progress("thinking", stop))


SOURCES = {
    source.__name__: source
    for source in (
        never_starts,
        never_ends,
        floods,
        floods_stages,
        raises,
        raises_when_read,
        refuses_to_be_cancelled,
    )
}


class Beside:
    """A layer that lets sources run beside each call, from before its first token to long after its end."""

    def __init__(self, *sources: Source) -> None:
        self._sources = sources
        self.tasks: list[asyncio.Task[None]] = []

    def layer(self, inner: Handler) -> Handler:
        @asynccontextmanager
        async def handle(call: Call) -> AsyncIterator[EventStream]:
            assert call.narrate is not None
            for source in self._sources:
                self.tasks.append(asyncio.ensure_future(source(call.narrate)))
            async with inner(call) as stream:
                yield stream

        return handle

    async def stop(self) -> None:
        for task in self.tasks:
            while not task.done():
                task.cancel()
                await asyncio.sleep(0.02)
            if not task.cancelled():
                task.exception()


async def played(*layers: Layer, connected: bool) -> tuple[list[tuple[float, str]], list[str], bytes]:
    """Each token with its moment, the kinds of all events, and all that was read."""
    bench = Bench(paced(WORDS, 0.1), *layers)
    reader = bench.listen(await bench.submit(), connected=connected)
    await reader.ended()
    assert bench.busy == 0
    return (
        list(zip(reader.moments("token"), [event["t"] for event in reader.of("token")], strict=True)),
        reader.kinds,
        (reader.body),
    )


@pytest.mark.parametrize("connected", [False, True])
@pytest.mark.parametrize("name", SOURCES)
def test_c5_a_narration_source_cannot_delay_reorder_or_end_the_tokens(name: str, connected: bool) -> None:
    @on_virtual_time
    async def play() -> None:
        alone, _, _ = await played(connected=connected)
        began = now()
        beside = Beside(SOURCES[name])
        tokens, kinds, _ = await played(beside.layer, connected=connected)
        shift = began - START
        assert [at - shift for at, _ in tokens] == pytest.approx([at for at, _ in alone])
        assert [text for _, text in tokens] == [text for _, text in alone] == WORDS
        assert kinds[0] == "started"
        assert kinds[-2:] == ["end", "[DONE]"]
        assert kinds.count("end") == 1
        assert "narration" not in kinds[kinds.index("token") :]
        assert kinds.count("narration") <= BURST + 0.1 / EVERY_S + 1
        await beside.stop()

    play()


@given(
    st.lists(st.tuples(st.sampled_from([0.0, 0.0, 0.001, 0.05, 0.3]), st.integers(1, 40)), max_size=20),
    st.booleans(),
    st.sampled_from(["goes on", "raises", "waits"]),
)
def test_c5_whatever_a_source_says_and_when_the_tokens_are_the_same(
    bursts: list[tuple[float, int]], connected: bool, then: str
) -> None:
    async def source(say: Say) -> None:
        number = 0
        for wait_s, count in bursts:
            await asyncio.sleep(wait_s)
            for _ in range(count):
                number += 1
                say(Progress(f"stage {number % 3}", number))
        if then == "raises":
            raise RuntimeError
        if then == "waits":
            await asyncio.Event().wait()

    @on_virtual_time
    async def play() -> None:
        beside = Beside(source)
        tokens, kinds, _ = await played(beside.layer, connected=connected)
        assert [text for _, text in tokens] == WORDS
        assert [at for at, _ in tokens] == pytest.approx([0.1 * (number + 1) for number in range(len(WORDS))])
        assert kinds[-2:] == ["end", "[DONE]"]
        assert "narration" not in kinds[kinds.index("token") :]
        await beside.stop()

    play()


@on_virtual_time
async def test_c5_a_layer_that_narrates_what_cannot_be_written_loses_that_alone():
    def telling(inner: Handler) -> Handler:
        def handle(call: Call) -> Any:
            assert call.narrate is not None
            call.narrate(Unspeakable("thinking"))
            return inner(call)

        return handle

    tokens, kinds, _ = await played(telling, connected=True)
    assert [text for _, text in tokens] == WORDS
    assert kinds[-2:] == ["end", "[DONE]"]


@on_virtual_time
async def test_c5_narration_waits_for_no_client_that_does_not_read():
    """What is narrated meanwhile is dropped: the tokens come next, and not a heap of old news."""
    beside = Beside(never_ends)
    bench = Bench(reply(Pause(5), token("a"), *END), beside.layer)
    reader = bench.listen(await bench.submit(), connected=True)
    await asyncio.sleep(0.5)
    reader.reads.clear()
    told = reader.kinds.count("narration")
    await asyncio.sleep(4)
    reader.reads.set()
    await reader.ended()
    assert reader.kinds.count("narration") - told <= 2 + 1 / EVERY_S  # one was on its way, then the half second left
    assert reader.text == "a"
    await beside.stop()


@on_virtual_time
async def test_c5_narration_belongs_to_its_job_alone():
    def telling(inner: Handler) -> Handler:
        def handle(call: Call) -> Any:
            assert call.narrate is not None
            call.narrate(Progress("private", message=f"of {call.request_id}"))
            return inner(call)

        return handle

    bench = Bench(reply(Pause(1), token("a"), *END), telling, slots=5)
    readers = [bench.listen(await bench.submit(), connected=True) for _ in range(5)]
    for reader in readers:
        await reader.ended()
    ids = [reader.of("started")[0]["job_id"] for reader in readers]
    assert len(set(ids)) == 5
    for reader, job_id in zip(readers, ids, strict=True):
        assert {event["job_id"] for event in reader.of("narration")} == {job_id}
    told = [event["human"] for reader in readers for event in reader.of("narration") if event["stage"] == "private"]
    assert len(set(told)) == 5


@on_virtual_time
async def test_c5_narration_stops_with_its_job():
    said: list[Say] = []

    def keeping(inner: Handler) -> Handler:
        def handle(call: Call) -> Any:
            assert call.narrate is not None
            said.append(call.narrate)
            return inner(call)

        return handle

    bench = Bench(reply(Hang()), keeping)
    job_id = await bench.submit()
    reader = bench.listen(job_id)
    await asyncio.sleep(0.1)
    await bench.ask("DELETE", f"/v1/jobs/{job_id}")
    before = await reader.ended()
    said[0](Progress("late"))
    await asyncio.sleep(1)
    assert reader.events == before
    assert (await bench.listen(job_id).ended())[-1] == "[DONE]"


@on_virtual_time
async def test_who_joins_before_the_first_token_is_told_the_last_thing_that_was_narrated():
    bench = Bench(reply(progress(1, 3), Pause(1), progress(2, 3), Pause(1), token("a"), *END))
    job_id = await bench.submit()
    await asyncio.sleep(1.5)
    reader = bench.listen(job_id)
    await reader.ended()
    assert [event["human"] for event in reader.of("narration")] == ["prompt 2 of 3"]


@on_virtual_time
async def test_the_engines_own_progress_is_narrated():
    bench = Bench(reply(progress(0, 3000), Pause(1), progress(1200, 3000), Pause(1), token("a"), progress(9, 9), *END))
    reader = bench.listen(await bench.submit())
    await reader.ended()
    assert [event["human"] for event in reader.of("narration")] == ["prompt 0 of 3,000", "prompt 1,200 of 3,000"]


# --- its bounds ------------------------------------------------------------------------------------------------------


@on_virtual_time
async def test_a_burst_passes_then_one_at_a_time_and_the_newest_in_place_of_the_others():
    told: list[tuple[float, int | None]] = []
    narrating = Narration(lambda each: told.append((round(now() - START, 3), each.done)))
    for number in range(1000):
        narrating.say(Progress("flood", number))
    assert [done for _, done in told] == list(range(BURST))
    await asyncio.sleep(EVERY_S * 1.5)
    ((at, done),) = told[BURST:]
    assert at == pytest.approx(EVERY_S)
    assert done == 999
    await asyncio.sleep(10)
    for number in range(1000):
        narrating.say(Progress("flood", number))
    assert len(told) == 2 * BURST + 1
    narrating.stop()
    await asyncio.sleep(1)
    assert len(told) == 2 * BURST + 1


@on_virtual_time
async def test_what_was_just_said_is_not_said_again():
    told: list[Progress] = []
    narrating = Narration(told.append)
    for _ in range(3):
        narrating.say(Progress("loading", message="m"))
    assert len(told) == 1


def test_c5_a_narration_that_cannot_be_passed_on_is_lost_and_its_words_are_not_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    @on_virtual_time
    async def play() -> None:
        told: list[Progress] = []

        def tell(each: Progress) -> None:
            if each.stage == "bad":
                raise ValueError("the prompt was: secret")
            told.append(each)

        narrating = Narration(tell)
        narrating.say(Progress("bad"))
        narrating.say(Progress("good"))
        assert [each.stage for each in told] == ["good"]

    play()
    assert "ValueError" in caplog.text
    assert "secret" not in caplog.text


def test_a_narration_says_how_far_it_is() -> None:
    written = frame(narration("job", Progress("prompt", 1200, 3000)))
    assert json.loads(written[6:]) == {
        "type": "narration",
        "job_id": "job",
        "stage": "prompt",
        "done": 1200,
        "total": 3000,
        "human": "prompt 1,200 of 3,000",
    }
