"""Limits on work, on virtual time: places and the line before them, what a minute holds, and nothing left over."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.canon.errors import PenstockError, Saturated, ServerFault, TimedOut
from penstock.canon.key import Key
from penstock.canon.request import ChatRequest, Message
from penstock.canon.target import Target
from penstock.policy.limits import MAX_RETRY_S, MINUTE_S, Gate, Limits, Quota, Rules, Window
from penstock.policy.upstream import upstream
from penstock.streams.clocks import Timeouts
from penstock.streams.handler import Call, compose
from penstock.transport.memory import MemoryTransport, Pause, Reply
from tests.streams.replies import END, HEL, LO
from tests.virtual_clock import START, now, on_virtual_time

if TYPE_CHECKING:
    from collections.abc import Callable

    from penstock.canon.events import Progress
    from penstock.streams.handler import Handler

REQUEST = ChatRequest("m", (Message.of("user", "Hi"),), stream=True)
UNLIMITED = Timeouts(None, None, None, None, None)


def target(name: str = "up") -> Target:
    return Target(name, f"http://{name}/v1", "openai-chat", "m")


class Bench:
    """Calls through both layers to upstreams that take `lasts_s` each. `log` is what happened, in order."""

    def __init__(self, rules: Rules, *, lasts_s: float = 10.0, status: int = 200) -> None:
        self.limits = Limits(rules, now=now)
        answer = Reply(
            status=status, headers={"content-type": "text/event-stream"}, chunks=(HEL, Pause(lasts_s), LO, END)
        )
        self.transport = MemoryTransport(answer)
        leaf = upstream(self.transport, UNLIMITED)
        self.handler: Handler = compose(leaf, self.limits.admitted, self.limits.at_upstream)
        self.log: list[tuple[float, str]] = []
        self.calls: dict[str, Call] = {}

    def call(self, name: str, **fields: Any) -> Call:
        fields = {"target": target(), **fields}
        self.calls[name] = Call(request_id=name, model="m", stream=True, request=REQUEST, now=now, **fields)
        return self.calls[name]

    async def ask(self, name: str, **fields: Any) -> None:
        call = self.call(name, **fields)
        try:
            async with self.handler(call) as stream:
                self.log.append((now() - START, f"{name} in"))
                async for _ in stream:
                    pass
            self.log.append((now() - START, f"{name} out"))
        except PenstockError as error:
            self.log.append((now() - START, f"{name} {error.kind}"))

    def start(self, name: str, **fields: Any) -> asyncio.Task[None]:
        return asyncio.get_running_loop().create_task(self.ask(name, **fields))

    def standing(self, name: str) -> Progress:
        waits_for = self.calls[name].waits_for
        assert waits_for is not None
        return waits_for()

    @property
    def state(self) -> list[tuple[int, int]]:
        return [(gate.busy, gate.waiting) for _, _, gate in self.limits.gates]


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


# --- places ----------------------------------------------------------------------------------------------------------


@on_virtual_time
async def test_c11_places_are_held_to_the_end_of_the_body():
    """Not to its beginning: the headers and the first words come at once."""
    bench = Bench(Rules(whole=Quota(concurrency=2), queue=10))
    await asyncio.gather(*(bench.ask(name) for name in "abc"))
    assert bench.log == [(0, "a in"), (0, "b in"), (10, "a out"), (10, "b out"), (10, "c in"), (20, "c out")]
    assert bench.state == [(0, 0)]


@on_virtual_time
async def test_whoever_came_first_goes_first():
    bench = Bench(Rules(whole=Quota(concurrency=1), queue=10), lasts_s=1)
    await asyncio.gather(*(bench.ask(str(n)) for n in range(6)))
    assert [what for _, what in bench.log if what.endswith("in")] == [f"{n} in" for n in range(6)]
    assert bench.calls["5"].queued_s == 5


@on_virtual_time
async def test_nobody_overtakes_the_line():
    """Who comes in the moment a place is free, but not yet taken, goes behind those who wait."""
    bench = Bench(Rules(whole=Quota(concurrency=1), queue=10), lasts_s=1)
    first, second = bench.start("first"), bench.start("second")
    await first
    third = bench.start("third")
    await asyncio.gather(second, third)
    assert [what for _, what in bench.log if what.endswith("in")] == ["first in", "second in", "third in"]


@on_virtual_time
async def test_no_room_is_said_at_once():
    bench = Bench(Rules(whole=Quota(concurrency=1), queue=1))
    running = [bench.start("a"), bench.start("b")]
    await settle()
    with pytest.raises(Saturated) as caught:
        async with bench.handler(bench.call("c")):
            pass
    assert now() == START
    assert str(caught.value) == ("This client answers 1 call at the same time, and 1 wait already. Ask again in 1 s.")
    assert caught.value.retry_after_s == 1.0
    assert len(bench.transport.requests) == 1
    await asyncio.gather(*running)


@on_virtual_time
async def test_without_a_line_nobody_waits():
    bench = Bench(Rules(whole=Quota(concurrency=1)))
    await asyncio.gather(bench.ask("a"), bench.ask("b"))
    assert bench.log == [(0, "a in"), (0, "b saturated"), (10, "a out")]


@on_virtual_time
async def test_when_to_come_back_is_told_by_how_long_calls_took():
    bench = Bench(Rules(whole=Quota(concurrency=2), queue=2), lasts_s=8)
    for name in "abcdefghijklmnopqrst":
        await bench.ask(name)
    running = [bench.start(name) for name in "1234"]
    await settle()
    with pytest.raises(Saturated) as caught:
        async with bench.handler(bench.call("5")):
            pass
    assert caught.value.retry_after_s == pytest.approx(8 * 3 / 2, rel=0.1)
    await asyncio.gather(*running)


@on_virtual_time
async def test_nobody_is_told_to_come_back_in_an_hour():
    bench = Bench(Rules(whole=Quota(concurrency=1)), lasts_s=3600)
    await bench.ask("a")
    running = bench.start("b")
    await settle()
    with pytest.raises(Saturated) as caught:
        async with bench.handler(bench.call("c")):
            pass
    assert caught.value.retry_after_s == MAX_RETRY_S
    await running


@on_virtual_time
async def test_waiting_has_an_end():
    bench = Bench(Rules(whole=Quota(concurrency=1), queue=5, queue_wait_s=3))
    await asyncio.gather(bench.ask("a"), bench.ask("b"))
    assert bench.log == [(0, "a in"), (3, "b saturated"), (10, "a out")]
    assert bench.state == [(0, 0)]
    assert bench.calls["b"].queued_s == 3


@on_virtual_time
async def test_the_whole_calls_clock_runs_in_the_line():
    bench = Bench(Rules(whole=Quota(concurrency=1), queue=5, total_s=2))
    running = bench.start("a")
    await settle()
    with pytest.raises(TimedOut) as caught:
        async with bench.handler(bench.call("b")):
            pass
    assert (now() - START, caught.value.clock, caught.value.after_s) == (2, "total", 2)
    await running


@on_virtual_time
async def test_a_call_waits_no_longer_in_two_lines_than_in_one():
    rules = Rules(per_key=Quota(concurrency=1), upstreams={"up": 1}, queue=5, queue_wait_s=12)
    bench = Bench(rules)
    one, other = Key(name="one"), Key(name="other")
    tasks = [bench.start("a", key=one), bench.start("b", key=other), bench.start("c", key=one)]
    await asyncio.gather(*tasks)
    # c waits 10 s for a's end at its key's line, and at the upstream's only for the 2 s that are left.
    assert bench.log == [(0, "a in"), (10, "a out"), (10, "b in"), (12, "c saturated"), (20, "b out")]
    assert bench.calls["c"].queued_s == pytest.approx(12)


# --- leaving (C7) ----------------------------------------------------------------------------------------------------


@on_virtual_time
async def test_whoever_gives_up_leaves_the_line_at_once():
    bench = Bench(Rules(whole=Quota(concurrency=1), queue=2))
    running, waiting, next_one = bench.start("a"), bench.start("b"), bench.start("c")
    await settle()
    assert bench.state == [(1, 2)]
    assert bench.standing("c").done == 2
    waiting.cancel()
    await settle()
    assert bench.state == [(1, 1)]
    assert bench.standing("c").done == 1
    assert bench.calls["b"].waits_for is None
    await asyncio.gather(running, next_one)
    assert len(bench.transport.requests) == 2


@on_virtual_time
async def test_a_place_that_comes_to_one_who_has_just_left_is_the_next_ones():
    bench = Bench(Rules(whole=Quota(concurrency=1), queue=5))

    async def first() -> None:
        await bench.ask("a")
        second.cancel()  # its place was given to it in this very turn of the loop

    running = asyncio.get_running_loop().create_task(first())
    second, third = bench.start("b"), bench.start("c")
    await asyncio.gather(running, second, third, return_exceptions=True)
    assert second.cancelled()
    assert bench.log == [(0, "a in"), (10, "a out"), (10, "c in"), (20, "c out")]
    assert bench.state == [(0, 0)]


@on_virtual_time
async def test_a_call_that_is_cancelled_gives_its_place_back():
    bench = Bench(Rules(whole=Quota(concurrency=1), queue=5))
    first, second = bench.start("a"), bench.start("b")
    await asyncio.sleep(4)
    first.cancel()
    await second
    assert bench.log == [(0, "a in"), (4, "b in"), (14, "b out")]


@on_virtual_time
async def test_an_attempt_that_fails_gives_its_place_back():
    bench = Bench(Rules(whole=Quota(concurrency=1), upstreams={"up": 1}), status=500)
    for name in "abc":
        with pytest.raises(ServerFault):
            async with bench.handler(bench.call(name)):
                pass
    assert bench.state == [(0, 0), (0, 0)]


@given(st.lists(st.tuples(st.integers(0, 20), st.one_of(st.none(), st.integers(0, 20))), max_size=20))
def test_nothing_is_lost_and_nothing_is_given_twice(arrivals: list[tuple[int, int | None]]) -> None:
    """Whoever comes and leaves whenever: never more than the places, and all of them back at the end."""

    @on_virtual_time
    async def play() -> None:
        bench = Bench(Rules(whole=Quota(concurrency=2), queue=4, queue_wait_s=7), lasts_s=3)
        most = 0

        async def come(name: str, at: int, leaves_after: int | None) -> None:
            nonlocal most
            await asyncio.sleep(at)
            task = bench.start(name)
            if leaves_after is not None:
                await asyncio.sleep(leaves_after)
                task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        async def watch() -> None:
            nonlocal most
            for _ in range(200):
                busy, waiting = bench.state[0]
                assert waiting <= 4
                most = max(most, busy)
                await asyncio.sleep(0.25)

        watching = asyncio.get_running_loop().create_task(watch())
        await asyncio.gather(*(come(str(n), *each) for n, each in enumerate(arrivals)))
        await watching
        assert most <= 2
        assert bench.state == [(0, 0)]
        assert len([what for _, what in bench.log if what.endswith(" in")]) == len(bench.transport.requests)

    play()


# --- where one stands ------------------------------------------------------------------------------------------------


@on_virtual_time
async def test_who_waits_is_told_where_it_stands():
    bench = Bench(Rules(whole=Quota(concurrency=1), queue=5))
    told: list[Progress] = []
    tasks = [bench.start("a"), bench.start("b"), bench.start("c", narrate=told.append)]
    await asyncio.sleep(3)
    (first,) = told
    assert (first.stage, first.done, first.total) == ("queued", 2, 2)
    standing = bench.standing("c")
    assert (standing.done, standing.total, standing.message) == (2, 2, "This client, 3 s")
    await asyncio.sleep(8)
    assert bench.standing("c").done == 1
    await asyncio.gather(*tasks)
    assert bench.calls["c"].waits_for is None
    assert bench.calls["c"].queued_s == 20


@on_virtual_time
async def test_who_listens_is_told_again_whenever_the_line_moves():
    bench = Bench(Rules(whole=Quota(concurrency=1), queue=5))
    told: list[tuple[float, int | None, int | None]] = []

    def listen(progress: Progress) -> None:
        told.append((now() - START, progress.done, progress.total))
        raise ZeroDivisionError  # which is this caller's own affair

    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    tasks = [bench.start("a"), bench.start("b"), bench.start("c")]
    await asyncio.sleep(0)
    last = bench.call("d", narrate=lambda progress: told.append((now() - START, progress.done, progress.total)))
    tasks.append(asyncio.ensure_future(opened(bench, last)))
    await asyncio.sleep(1)
    tasks[2].cancel()
    await asyncio.sleep(1)
    assert told == [(0, 3, 3), (1, 2, 2)]
    last.narrate = listen
    await asyncio.gather(*tasks, return_exceptions=True)
    assert told == [(0, 3, 3), (1, 2, 2), (10, 1, 1)]
    assert bench.state == [(0, 0)]


async def opened(bench: Bench, call: Call) -> None:
    async with bench.handler(call) as stream:
        async for _ in stream:
            pass


# --- by key, by upstream ---------------------------------------------------------------------------------------------


@on_virtual_time
async def test_keys_do_not_wait_on_each_other():
    bench = Bench(Rules(per_key=Quota(concurrency=1), queue=5))
    one, other = Key(name="one"), Key(name="other")
    tasks = [bench.start("1a", key=one), bench.start("1b", key=one), bench.start("2", key=other), bench.start("0")]
    await asyncio.gather(*tasks)
    assert [at for at, what in bench.log if what.endswith("in")] == [0, 0, 0, 10]
    assert bench.log[-1] == (20, "1b out")


@on_virtual_time
async def test_a_key_that_waits_for_itself_takes_no_place_from_others():
    bench = Bench(Rules(whole=Quota(concurrency=2), per_key=Quota(concurrency=1), queue=5))
    one, other = Key(name="one"), Key(name="other")
    tasks = [bench.start("1a", key=one), bench.start("1b", key=one), bench.start("2", key=other)]
    await asyncio.gather(*tasks)
    assert (0, "2 in") in bench.log


@on_virtual_time
async def test_a_keys_own_limits_win_and_change_while_it_runs():
    bench = Bench(Rules(per_key=Quota(concurrency=1)))
    await asyncio.gather(*(bench.ask(f"a{n}", key=Key(name="k", concurrency=3)) for n in range(4)))
    assert [what for _, what in bench.log].count("a3 saturated") == 1
    bench.log.clear()
    await asyncio.gather(*(bench.ask(f"b{n}", key=Key(name="k")) for n in range(2)))
    assert [what for _, what in bench.log] == ["b0 in", "b1 saturated", "b0 out"]


@on_virtual_time
async def test_upstreams_do_not_wait_on_each_other():
    bench = Bench(Rules(upstreams={"up": 1, "other": 1}, queue=5))
    tasks = [
        bench.start("a"),
        bench.start("b"),
        bench.start("c", target=target("other")),
        bench.start("d", target=target("free")),
    ]
    await asyncio.gather(*tasks)
    assert [at for at, what in bench.log if what.endswith("in")] == [0, 0, 0, 10]
    assert bench.log[-1] == (20, "b out")


@on_virtual_time
async def test_while_another_can_be_asked_nobody_waits_at_an_upstream():
    bench = Bench(Rules(upstreams={"up": 1}, queue=5))
    running = bench.start("a")
    await settle()
    call = bench.call("b")
    call.may_be_asked_again = True
    with pytest.raises(Saturated, match="The upstream up answers 1 call at the same time"):
        async with bench.handler(call):
            pass
    await running


@on_virtual_time
async def test_rules_may_change_while_calls_run():
    bench = Bench(Rules(whole=Quota(concurrency=1), upstreams={"up": 1}, queue=9))
    tasks = [bench.start(name) for name in "abcd"]
    await asyncio.sleep(1)
    bench.limits.rules = Rules(whole=Quota(concurrency=3), upstreams={"up": 3}, queue=9)
    await asyncio.sleep(1)
    assert [what for _, what in bench.log] == ["a in", "b in", "c in"]
    bench.limits.rules = Rules()
    await asyncio.sleep(1)
    assert bench.log[-1:] == [(2.0, "d in")]
    await asyncio.gather(*tasks)
    bench.limits.rules = Rules(whole=Quota(concurrency=1))
    assert bench.state == [(0, 0)]


@on_virtual_time
async def test_without_limits_the_layers_are_not_there():
    bench = Bench(Rules(per_key=Quota()))
    called: list[Call] = []

    def leaf(call: Call) -> Any:
        called.append(call)
        return "the leaf's own"

    handler: Callable[[Call], Any] = compose(leaf, bench.limits.admitted, bench.limits.at_upstream)
    assert handler(bench.call("a", key=Key(name="k"))) == "the leaf's own"
    assert bench.limits.gates == []


# --- how much in a minute --------------------------------------------------------------------------------------------


@on_virtual_time
async def test_requests_in_a_minute():
    bench = Bench(Rules(per_key=Quota(requests_per_minute=3)), lasts_s=0)
    key = Key(name="k")
    for name in "abcd":
        await bench.ask(name, key=key)
        await asyncio.sleep(5)
    assert [what for _, what in bench.log if not what.endswith("out")] == ["a in", "b in", "c in", "d saturated"]
    await bench.ask("other's", key=Key(name="other"))
    assert bench.log[-1][1] == "other's out"
    with pytest.raises(Saturated) as caught:
        async with bench.handler(bench.call("e", key=key)):
            pass
    assert caught.value.retry_after_s == pytest.approx(START + 60 - now())
    assert str(caught.value) == "The key `k` may ask 3 times a minute, and has. Ask again in 40 s."
    await asyncio.sleep(caught.value.retry_after_s or 0)
    await bench.ask("f", key=key)
    assert bench.log[-1][1] == "f out"


@on_virtual_time
async def test_what_was_refused_counts_for_nothing():
    bench = Bench(Rules(per_key=Quota(concurrency=1, requests_per_minute=2)))
    key = Key(name="k")
    await asyncio.gather(*(bench.ask(str(n), key=key) for n in range(5)))
    await bench.ask("again", key=key)
    assert bench.log[-1][1] == "again out"
    await bench.ask("third", key=key)
    assert bench.log[-1][1] == "third saturated"


@on_virtual_time
async def test_tokens_in_a_minute():
    """What a stream has reported counts when it is known; the call that goes beyond was not known to."""
    bench = Bench(Rules(per_key=Quota(tokens_per_minute=1000)), lasts_s=0)
    key = Key(name="k")
    await bench.ask("a", key=key)
    bench.limits.spent("k", 700, 200)
    await asyncio.sleep(10)
    await bench.ask("b", key=key)
    bench.limits.spent("k", None, 5000)
    bench.limits.spent("other", 9000, 9000)
    bench.limits.spent(None, 9000, None)
    bench.limits.spent("k", None, None)
    with pytest.raises(Saturated, match="may use 1000 tokens a minute, and has") as caught:
        async with bench.handler(bench.call("c", key=key)):
            pass
    assert caught.value.retry_after_s == 60
    await asyncio.sleep(60)
    await bench.ask("d", key=key)
    assert bench.log[-1][1] == "d out"


@given(
    st.integers(1, 9),
    st.lists(st.tuples(st.one_of(st.integers(0, 63), st.integers(0, 900)), st.booleans()), max_size=60),
)
def test_no_minute_holds_more_than_its_limit(limit: int, steps: list[tuple[int, bool]]) -> None:
    """Whatever comes whenever, in any window of a minute; and who waits as long as it is told is let in."""
    window, at, let_in = Window(), 1000.0, list[float]()
    for pause, is_patient in steps:
        at += pause / 64
        wait_s = window.wait_s(at, limit)
        if wait_s:
            assert wait_s <= MINUTE_S
            if is_patient:
                at += wait_s
                assert window.wait_s(at, limit) == 0
            else:
                continue
        window.add(at, 1)
        let_in.append(at)
    for begin in let_in:
        assert len([moment for moment in let_in if begin <= moment < begin + MINUTE_S]) <= limit


@given(st.lists(st.tuples(st.integers(0, 2000), st.integers(1, 1000)), max_size=300))
def test_a_window_forgets_and_stays_small(steps: list[tuple[int, int]]) -> None:
    window, at, added = Window(), 0.0, []
    for pause, amount in steps:
        at += pause / 64
        window.add(at, amount)
        added.append((at, amount))
        known = sum(amount for moment, amount in added if moment > at - MINUTE_S)
        slot_older = sum(amount for moment, amount in added if moment > at - MINUTE_S - 1)
        assert known <= window.total <= slot_older
        assert len(window._slots) <= 62


def test_its_repr_shows_its_state() -> None:
    gate = Gate("The gateway", 2)
    assert gate.enter()
    assert repr(gate) == "<Gate The gateway: 1 of 2, 0 wait>"
