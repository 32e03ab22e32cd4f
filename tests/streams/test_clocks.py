"""C8: the clocks of one attempt, each with its own limit and its own error, on a clock that costs no time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from penstock.canon.errors import TimedOut
from penstock.streams.clocks import AFTER_FINISH_S, Clocks, Timeouts
from tests.virtual_clock import START, now, on_virtual_time

if TYPE_CHECKING:
    from penstock.canon.errors import ClockName

NONE = Timeouts(connect=None, first_content=None, idle=None, silence=None, total=None)


class Watched:
    """Clocks, and what they said and when."""

    def __init__(self, limits: Timeouts = NONE, *, began: float = START, **changed: float | None) -> None:
        fields = {name: getattr(limits, name) for name in limits.__struct_fields__} | changed
        self.clocks = Clocks(Timeouts(**fields), now=now, began=began)
        self.fired: list[tuple[ClockName | None, float, float]] = []
        self.clocks.watch(lambda clock, limit_s: self.fired.append((clock, limit_s, round(now() - START, 1))))
        self.clocks.resume()

    def read(self, *, content: bool = False, proved: bool = False, held_s: float = 0) -> None:
        self.clocks.has_read(now(), content, proved)
        if not held_s:
            self.clocks.resume()

    async def reading_every(self, seconds: float, times: int, *, content: bool = False) -> None:
        for _ in range(times):
            await asyncio.sleep(seconds)
            self.read(content=content)


@on_virtual_time
async def test_c8_first_content_runs_out():
    watched = Watched(first_content=120, idle=60)
    await asyncio.sleep(1000)
    assert watched.fired == [("first_content", 120, 120)]


@on_virtual_time
async def test_c8_idle_runs_between_contents():
    """Pathology 20."""
    watched = Watched(first_content=120, idle=60)
    await watched.reading_every(50, 10, content=True)
    await asyncio.sleep(1000)
    assert watched.fired == [("idle", 60, 560)]


@pytest.mark.parametrize("others", [{"first_content": 120}, {"silence": 300}, {"total": 600}, {}])
def test_c8_idle_runs_out_on_time_whatever_the_others_are(others: dict[str, Any]):
    """It begins with the first content, when the timer may stand at something later, or at nothing."""

    @on_virtual_time
    async def run() -> None:
        watched = Watched(idle=20, **others)
        await asyncio.sleep(5)
        watched.read(content=True)
        await asyncio.sleep(1000)
        assert watched.fired == [("idle", 20, 25)]

    run()


@on_virtual_time
async def test_c8_silence_is_broken_by_any_byte():
    watched = Watched(silence=60)
    await watched.reading_every(50, 10)
    await asyncio.sleep(1000)
    assert watched.fired == [("silence", 60, 560)]


@on_virtual_time
async def test_c8_pings_satisfy_no_content_clock():
    watched = Watched(first_content=120, idle=60, silence=60)
    await watched.reading_every(10, 30)
    assert watched.fired == [("first_content", 120, 120)]


@on_virtual_time
async def test_c8_pings_do_not_put_idle_off():
    watched = Watched(first_content=120, idle=60, silence=60)
    await watched.reading_every(10, 1, content=True)
    await watched.reading_every(10, 30)
    assert watched.fired == [("idle", 60, 70)]


@on_virtual_time
async def test_c8_total_counts_from_the_call_and_counts_everything():
    watched = Watched(total=100, began=START - 40)
    for _ in range(100):
        await asyncio.sleep(1)
        watched.clocks.has_read(now(), True, False)  # and the consumer holds it
    assert watched.fired == [("total", 100, 60)]


@on_virtual_time
async def test_c8_what_the_consumer_holds_counts_for_nothing_else():
    watched = Watched(first_content=120, idle=60, silence=60)
    watched.read(content=True, held_s=1000)
    await asyncio.sleep(1000)
    assert watched.fired == []
    watched.clocks.resume()
    await asyncio.sleep(59)
    assert watched.fired == []
    await asyncio.sleep(2)
    assert [(clock, limit) for clock, limit, _ in watched.fired] in ([("idle", 60)], [("silence", 60)])


@on_virtual_time
async def test_c8_a_consumer_that_holds_a_preamble_has_not_spent_its_first_content():
    watched = Watched(first_content=120)
    await asyncio.sleep(100)
    watched.read(held_s=1000)
    await asyncio.sleep(1000)
    watched.clocks.resume()
    await asyncio.sleep(19)
    assert watched.fired == []
    await asyncio.sleep(2)
    assert [clock for clock, _, _ in watched.fired] == ["first_content"]


@on_virtual_time
async def test_c8_the_first_to_run_out_is_the_one_that_is_named():
    watched = Watched(first_content=120, silence=60, total=30)
    await asyncio.sleep(1000)
    assert [clock for clock, _, _ in watched.fired] == ["total"]


@on_virtual_time
async def test_a_clock_that_is_not_set_never_runs_out():
    """Pathology 21."""
    watched = Watched()
    await asyncio.sleep(1_000_000)
    assert watched.fired == []


@on_virtual_time
async def test_after_a_proved_finish_only_a_little_is_waited_for():
    watched = Watched(first_content=120, idle=60, silence=60, total=2)
    await asyncio.sleep(1)
    watched.read(content=True, proved=True)
    await asyncio.sleep(1000)
    assert watched.fired == [(None, AFTER_FINISH_S, 1 + AFTER_FINISH_S)]


@on_virtual_time
async def test_after_a_proved_finish_each_read_is_given_time():
    watched = Watched(idle=60)
    watched.read(content=True, proved=True)
    for _ in range(4):
        await asyncio.sleep(AFTER_FINISH_S - 1)
        watched.read(proved=True)
    assert watched.fired == []


@on_virtual_time
async def test_stopped_clocks_are_silent_and_leave_no_timer():
    watched = Watched(first_content=120)
    watched.clocks.stop()
    watched.clocks.stop()
    await asyncio.sleep(1000)
    assert watched.fired == []
    assert not _timers()


@on_virtual_time
async def test_c2_a_read_arms_no_timer():
    watched = Watched(first_content=120, idle=60, silence=60)
    armed = _timers()
    for _ in range(100):
        watched.read(content=True)
    assert _timers() == armed
    assert len(armed) == 1


def _timers() -> list[Any]:
    loop: Any = asyncio.get_running_loop()
    return [timer for timer in loop._scheduled if not timer.cancelled()]


# --- while the answer is opened --------------------------------------------------------------------------------------


def limits(**set_: float) -> Clocks:
    return Watched(NONE, **set_).clocks


@on_virtual_time
async def test_what_opens_in_time_is_given_back():
    clocks = limits(first_content=10)
    assert await clocks.guard(asyncio.sleep(9, "open")) == "open"
    clocks.stop()


@pytest.mark.parametrize("clock", ["first_content", "silence", "total"])
def test_c8_opening_too_slowly_is_cancelled(clock: str):
    @on_virtual_time
    async def run() -> None:
        closed = asyncio.Event()

        async def opening() -> None:
            try:
                await asyncio.sleep(1000)
            finally:
                closed.set()

        with pytest.raises(TimedOut) as raised:
            await limits(**{clock: 10}).guard(opening())
        assert (raised.value.clock, raised.value.after_s) == (clock, 10)
        assert now() == pytest.approx(START + 10, abs=0.01)
        assert closed.is_set()
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0

    run()


@on_virtual_time
async def test_c7_a_cancellation_from_outside_goes_on():
    clocks = limits(first_content=10)
    task = asyncio.create_task(clocks.guard(asyncio.sleep(1000)))
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    clocks.stop()


@on_virtual_time
async def test_c7_a_cancellation_from_outside_wins_over_a_clock_of_the_same_moment():
    clocks = limits(first_content=10)
    task = asyncio.create_task(clocks.guard(asyncio.sleep(1000)))
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_at(START + 10, task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task
    clocks.stop()


@on_virtual_time
async def test_an_error_of_the_opening_is_its_own():
    async def opening() -> None:
        raise OSError("no route")

    clocks = limits(first_content=10)
    with pytest.raises(OSError, match="no route"):
        await clocks.guard(opening())
    clocks.stop()


@on_virtual_time
async def test_opening_is_part_of_the_time_to_first_content():
    clocks = limits(first_content=10)
    fired: list[tuple[Any, float]] = []
    await clocks.guard(asyncio.sleep(6))
    clocks.watch(lambda clock, limit_s: fired.append((clock, round(now() - START, 1))))
    clocks.resume()
    await asyncio.sleep(100)
    assert fired == [("first_content", 10)]


@pytest.mark.parametrize("reads", [True, False])
def test_c8_what_came_while_the_loop_was_held_up_is_read_before_a_clock_is_believed(reads: bool):
    @on_virtual_time
    async def run() -> None:
        held_up_s = 0.0
        clocks = Clocks(Timeouts(idle=60, silence=60), now=lambda: now() + held_up_s, began=START)
        fired: list[str | None] = []
        clocks.watch(lambda clock, limit_s: fired.append(clock))
        clocks.resume()
        clocks.has_read(now(), has_content=True, proved=False)
        clocks.resume()
        await asyncio.sleep(50)
        held_up_s = 90.0  # the timer that is due in ten seconds comes a minute and a half too late
        await asyncio.sleep(10.005)
        assert fired == []
        if reads:
            clocks.has_read(now() + held_up_s, has_content=True, proved=False)
            clocks.resume()
        await asyncio.sleep(30)
        assert fired == ([] if reads else ["idle"])
        clocks.stop()

    run()
