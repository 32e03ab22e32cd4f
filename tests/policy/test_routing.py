"""Which target a model's name leads to."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from penstock.canon.errors import NoTargetLeft, UnknownModel
from penstock.canon.target import Target
from penstock.policy.retry import Retry
from penstock.policy.routing import MAX_SESSIONS, Destination, Routes, _Sessions, is_pattern
from penstock.transport.memory import Pause
from tests.policy.network import HELLO, Network, refused, streamed
from tests.streams.replies import DONE, END, HEL, ROLE
from tests.virtual_clock import on_virtual_time


def target(name: str) -> Target:
    return Target(name, "http://127.0.0.1:9/v1", "openai-chat")


def to(*names: str, **more: Any) -> Destination:
    return Destination(tuple(target(name) for name in names), **more)


TABLE = {
    "*": to("any"),
    "claude-*": to("claude"),
    "claude-opus-*": to("opus"),
    "claude-opus-5": to("exact"),
    "gpt-?": to("gpt"),
    "[ab]-x": to("set"),
}


@pytest.mark.parametrize(
    ("model", "found"),
    [
        ("claude-opus-5", "exact"),
        ("claude-opus-6", "opus"),
        ("claude-haiku", "claude"),
        ("gpt-5", "gpt"),
        ("gpt-55", "any"),
        ("a-x", "set"),
        ("CLAUDE-haiku", "any"),
        ("", "any"),
        ("*", "any"),
        ("claude-*", "claude"),
    ],
)
def test_the_exact_name_first_then_the_longest_pattern(model: str, found: str):
    for table in (TABLE, dict(reversed(TABLE.items()))):
        assert Routes(table).find(model).first.upstream == found


def test_an_unknown_model_is_told_what_is_known():
    routes = Routes({"fast": to("a"), "claude-*": to("b"), "big": to("c")})
    with pytest.raises(UnknownModel) as raised:
        routes.find("slow")
    assert str(raised.value) == "There is no model `slow` here. Known: big, fast."
    assert (raised.value.param, raised.value.status, raised.value.code) == ("model", 404, "model_not_found")


def test_nothing_at_all_is_known():
    with pytest.raises(UnknownModel, match="none by name"):
        Routes({}).find("m")


def test_what_a_table_says_of_itself():
    routes = Routes(TABLE)
    assert routes.names == ["claude-opus-5"]
    assert {each.upstream for each in routes.open_targets} == {"any", "claude", "opus", "gpt", "set"}
    assert [is_pattern(name) for name in ("a", "a*", "a?", "[a]")] == [False, True, True, True]


# --- several targets -------------------------------------------------------------------------------------------------


def first_of(network: Network) -> str:
    return network.order[-1]


@on_virtual_time
async def test_in_order_the_first_that_works_is_asked():
    network = Network(a=HELLO, b=HELLO)
    for _ in range(10):
        await network.ask()
    assert network.order == "a" * 10


@on_virtual_time
async def test_by_weight_each_has_its_share():
    network = Network(a=HELLO, b=HELLO, c=HELLO, choice="weighted", weights=(7, 2, 1))
    for _ in range(1000):
        await network.ask()
    shares = Counter(network.order)
    assert 630 <= shares["a"] <= 770
    assert 140 <= shares["b"] <= 260
    assert 60 <= shares["c"] <= 140


@on_virtual_time
async def test_the_others_are_left_to_fall_back_on():
    for choice in ("weighted", "least_busy"):
        network = Network(a=refused(404), b=refused(404), c=HELLO, choice=choice)
        for _ in range(20):
            assert await network.ask() == "Hello"
        assert set(network.order) == set("abc")


@on_virtual_time
async def test_the_least_busy_is_asked():
    slow = streamed(ROLE, HEL, Pause(50), END + DONE)
    network = Network(a=slow, b=slow, c=slow, choice="least_busy", weights=(2, 1, 1))
    asking = []
    for _ in range(8):
        asking.append(asyncio.create_task(network.ask()))
        await asyncio.sleep(1)
    assert Counter(network.order) == {"a": 4, "b": 2, "c": 2}
    await asyncio.gather(*asking)
    assert network.in_flight() == 0


@pytest.mark.parametrize("choice", ["weighted", "least_busy"])
def test_a_session_stays_where_it_is_answered(choice: str):
    @on_virtual_time
    async def run() -> None:
        network = Network(a=HELLO, b=HELLO, c=HELLO, choice=choice)
        found = {}
        for session in map(str, range(30)):
            await network.ask(network.call(headers={"x-session-id": session}))
            found[session] = first_of(network)
        assert set(found.values()) == set("abc")
        for session in map(str, range(30)):
            await network.ask(network.call(headers={"x-session-id": session}))
            assert first_of(network) == found[session]

    run()


@on_virtual_time
async def test_a_session_moves_with_its_answer_and_stays_there():
    network = Network(a=[refused(404), HELLO], b=[refused(404), HELLO], choice="weighted", retry=Retry(attempts=1))
    call = network.call(headers={"x-session-id": "s"})
    with pytest.raises(NoTargetLeft):
        await network.ask(call)
    await network.ask(network.call(headers={"x-session-id": "s"}))
    first = first_of(network)
    network.says[first] = [refused(404), HELLO]
    await network.ask(network.call(headers={"x-session-id": "s"}))
    second = first_of(network)
    assert second != first
    for _ in range(5):
        await network.ask(network.call(headers={"x-session-id": "s"}))
        assert first_of(network) == second


@on_virtual_time
async def test_every_process_draws_alike_for_a_new_session():
    found = []
    for seed in range(5):
        network = Network(a=HELLO, b=HELLO, c=HELLO, choice="weighted", seed=seed)
        for session in map(str, range(20)):
            await network.ask(network.call(headers={"x-session-id": session}))
        found.append(network.order)
    assert len(set(found)) == 1


@on_virtual_time
async def test_in_order_a_session_changes_nothing():
    """The first is preferred: whoever fell back on the second comes home."""
    network = Network(a=[refused(404), HELLO], b=HELLO)
    for _ in range(3):
        await network.ask(network.call(headers={"x-session-id": "s"}))
    assert network.order == "abaa"


def test_c11_sessions_are_forgotten_the_least_lately_asked_first():
    sessions = _Sessions()
    for number in range(MAX_SESSIONS + 5):
        sessions.answered(("m", str(number)), target("a"))
        sessions.answered(("m", "0"), target("a"))
    assert len(sessions._last) == MAX_SESSIONS
    assert ("m", "0") in sessions._last
    assert ("m", "1") not in sessions._last


@on_virtual_time
async def test_c11_of_a_sessions_id_only_the_beginning_is_kept():
    network = Network(a=HELLO, b=HELLO, choice="weighted")
    for _ in range(5):
        await network.ask(network.call(headers={"x-session-id": "s" * 100_000}))
    assert len(set(network.order)) == 1
