"""The next target: for which failures, in which order, and what is told when none is left."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from penstock.canon.errors import (
    ConnectError,
    ContentRefused,
    ContextTooLong,
    NoTargetLeft,
    Overloaded,
    PenstockError,
    RateLimited,
    ServerFault,
    StatusError,
    TimedOut,
    Unsupported,
)
from penstock.canon.target import Target
from penstock.policy.breaker import Breaker
from penstock.policy.retry import Retry
from penstock.policy.routing import Destination
from penstock.streams.clocks import Timeouts
from penstock.transport.memory import Break, Hang, Pause, Reply
from tests.dialects.chat_wire import sse
from tests.policy.network import HELLO, NOTHING, Network, read, refused, streamed, told
from tests.streams.replies import DONE, END, HEL, ROLE
from tests.virtual_clock import START, now, on_virtual_time

ONCE = Retry(attempts=1)
UNKNOWN_MODEL = refused(404, b'{"error": {"code": "model_not_found"}}')
TOO_LONG = refused(400, b'{"error": {"code": "context_length_exceeded", "message": "Too long"}}')
NO_CREDIT = refused(429, b'{"error": {"code": "insufficient_quota"}}')

ELSEWHERE: dict[str, Reply] = {
    "no connection": Reply(error=ConnectError("m")),
    "no content in time": streamed(Hang()),
    "429": refused(429),
    "429 for an hour": refused(429, retry_after="3600"),
    "503": refused(503),
    "an end before content": streamed(ROLE),
    "a break before content": streamed(ROLE, Break()),
    "an error frame": streamed(ROLE, sse({"error": {"message": "m", "code": 500}})),
    "an error frame that says 401": streamed(ROLE, sse({"error": {"message": "m", "code": 401}})),
    "a rejected key": refused(401),
    "no credit": NO_CREDIT,
    "403": refused(403),
    "an unknown model": UNKNOWN_MODEL,
    "another path": refused(405),
    "a redirect": refused(302),
    "too long a prompt": TOO_LONG,
    "a page": Reply(headers={"content-type": "text/html"}, chunks=(b"<html>",)),
    "garbage": streamed(b"data: {x\n\n"),
    "an empty reply": NOTHING,
}


@pytest.mark.parametrize("attempts", [1, 3])
@pytest.mark.parametrize("name", ELSEWHERE)
def test_c9_where_the_next_target_could_do_better_it_is_asked(name: str, attempts: int):
    @on_virtual_time
    async def run() -> None:
        network = Network(
            a=ELSEWHERE[name], b=HELLO, retry=Retry(attempts=attempts), timeouts=Timeouts(first_content=20)
        )
        call = network.call()
        async with network.handler(call) as stream:
            assert await read(stream) == "Hello"
            assert network.in_flight() == 1
        assert call.attempts[-1].error is None
        assert network.order.strip("a") == "b"
        assert (str(call.target), str(stream.target)) == ("b:m", "b:m")
        assert stream.attempt == len(call.attempts) == len(network.asked)
        assert network.in_flight() == 0

    run()


NOWHERE: dict[str, Reply] = {
    "400": refused(400),
    "413": refused(413),
    "422": refused(422),
    "a refused content": refused(400, b'{"error": {"code": "content_filter"}}'),
    "an error frame that says 400": streamed(ROLE, sse({"error": {"message": "m", "code": 400}})),
}


@pytest.mark.parametrize("name", NOWHERE)
def test_what_is_wrong_with_the_request_is_asked_nobody_else(name: str):
    @on_virtual_time
    async def run() -> None:
        network = Network(a=NOWHERE[name], b=HELLO)
        with pytest.raises(PenstockError) as raised:
            await network.ask()
        assert network.order == "a"
        assert raised.value.status in (400, 413, 422)
        assert network.in_flight() == 0

    run()


@on_virtual_time
async def test_each_target_has_its_own_attempts():
    network = Network(a=refused(503), b=[refused(500), HELLO], c=HELLO)
    assert await network.ask() == "Hello"
    assert network.order == "aaabb"
    assert [at for at, _ in network.asked] == [0, 0.5, 1.5, 1.5, 2.0]


@on_virtual_time
async def test_nobody_waits_for_a_target_that_wants_time_while_there_is_another():
    network = Network(a=refused(429, retry_after="10"), b=refused(429, retry_after="10"))
    with pytest.raises(NoTargetLeft):
        await network.ask()
    assert network.asked[:3] == [(0, "a"), (0, "b"), (10, "b")]


@on_virtual_time
async def test_a_target_that_has_taken_its_time_is_not_given_it_twice():
    network = Network(a=streamed(ROLE, Hang()), b=HELLO, timeouts=Timeouts(first_content=20))
    assert await network.ask() == "Hello"
    assert network.asked == [(0, "a"), (20, "b")]


@on_virtual_time
async def test_c9_after_content_nobody_else_is_asked():
    network = Network(a=streamed(ROLE, HEL), b=HELLO)
    with pytest.raises(PenstockError):
        await network.ask()
    assert network.order == "a"


@on_virtual_time
async def test_c2_only_the_last_attempt_at_the_last_target_holds_nothing_back():
    late = streamed(ROLE, Pause(7), HEL, END + DONE)
    network = Network(a=refused(503), b=late, retry=ONCE)
    async with network.handler(network.call()):
        assert now() == START
    network = Network(a=late, b=HELLO, retry=ONCE)
    async with network.handler(network.call()):
        assert now() == START + 7


@on_virtual_time
async def test_what_one_dialect_cannot_say_another_may():
    """Nothing was sent: not expressing a request is no attempt."""
    network = Network(a=HELLO, b=HELLO)
    strange = Target("s", "http://s/v1", "straico", "m")
    network.says["s"] = [HELLO]
    call = network.call()

    def layer(inner: Any) -> Any:
        def handle(call: Any) -> Any:
            if call.target is strange:
                raise Unsupported("m", param="tools")
            return inner(call)

        return handle

    from penstock.policy.fallback import fallback
    from penstock.policy.upstream import upstream

    handler = fallback(network.breakers)(layer(upstream(network.transport, Timeouts())))
    call.targets = (strange, network.targets[1])
    async with handler(call) as stream:
        assert await read(stream) == "Hello"
    assert told(call) == [("b:m", None)]
    call = network.call()
    call.targets = (strange,)
    with pytest.raises(Unsupported):
        async with handler(call):
            pass


@on_virtual_time
async def test_c8_the_total_clock_asks_nobody_else():
    network = Network(a=streamed(ROLE, Hang()), b=HELLO, timeouts=Timeouts(first_content=None, total=20))
    with pytest.raises(TimedOut) as raised:
        await network.ask()
    assert (raised.value.clock, network.order) == ("total", "a")


@on_virtual_time
async def test_c7_a_client_that_leaves_ends_the_walk():
    network = Network(a=refused(503), b=streamed(ROLE, Hang()), retry=ONCE)
    call = network.call()
    asking = asyncio.create_task(network.ask(call))
    await asyncio.sleep(1)
    assert network.in_flight() == 1
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert network.in_flight() == 0
    assert network.transport.responses[-1].ended == "aborted"
    assert network.states() == {"a": "closed", "b": "closed"}


# --- when none is left -----------------------------------------------------------------------------------------------


async def nobody(**says: Any) -> PenstockError:
    with pytest.raises(PenstockError) as raised:
        await Network(retry=ONCE, timeouts=Timeouts(first_content=20), **says).ask()
    return raised.value


@on_virtual_time
async def test_when_none_is_left_every_attempt_is_named():
    network = Network(a=refused(500), b=streamed(), retry=Retry(attempts=2))
    with pytest.raises(NoTargetLeft) as raised:
        await network.ask()
    assert raised.value.attempts == (
        "a:m server_fault (500)", "a:m server_fault (500)", "b:m truncated", "b:m truncated",
    )  # fmt: skip
    for line in raised.value.attempts:
        assert line in str(raised.value)


@pytest.mark.parametrize(
    ("a", "b", "status"),
    [
        ("503", "429", 429),
        ("429", "no connection", 429),
        ("no connection", "503", 503),
        ("503", "no content in time", 503),
        ("no content in time", "a rejected key", 504),
        ("an unknown model", "no connection", 502),
        ("a rejected key", "an empty reply", 200),
        ("a rejected key", "an unknown model", 401),
        ("no connection", "a page", 502),
    ],
)
def test_the_status_is_the_most_telling_one(a: str, b: str, status: int):
    @on_virtual_time
    async def run() -> None:
        for first, second in ((a, b), (b, a)):
            if status == 200 and second != "an empty reply":
                continue
            if status == 200:
                assert await Network(a=ELSEWHERE[first], b=ELSEWHERE[second], retry=ONCE).ask() == ""
                continue
            error = await nobody(a=ELSEWHERE[first], b=ELSEWHERE[second])
            assert isinstance(error, NoTargetLeft)
            expected = {401: (401, 404)}.get(status, (status,))
            assert error.status in expected

    run()


@on_virtual_time
async def test_who_may_come_back_is_told_when_the_first_is_ready():
    error = await nobody(a=refused(429, retry_after="60"), b=refused(503, retry_after="40"), c=refused(500))
    assert isinstance(error, NoTargetLeft)
    assert (error.status, error.retry_after_s) == (429, 40)
    assert error.attempt == 1


@on_virtual_time
async def test_what_only_the_caller_can_mend_is_told_as_it_was():
    """Its client acts on the code: it makes the prompt shorter."""
    error = await nobody(a=TOO_LONG, b=refused(404))
    assert isinstance(error, ContextTooLong)
    assert json.loads(error.body)["error"]["message"] == "Too long"
    error = await nobody(a=refused(503), b=refused(400))
    assert type(error) is StatusError
    error = await nobody(a=refused(503), b=refused(400, b'{"error": {"code": "content_filter"}}'))
    assert isinstance(error, ContentRefused)


@on_virtual_time
async def test_one_target_alone_speaks_for_itself():
    error = await nobody(a=refused(503, b'{"error": {"message": "Not today"}}'))
    assert isinstance(error, Overloaded)
    assert error.message == "Not today"


# --- breakers --------------------------------------------------------------------------------------------------------


@on_virtual_time
async def test_a_target_that_keeps_failing_is_passed_by_for_its_cooldown():
    network = Network(a=refused(503), b=HELLO, retry=ONCE, breaker=Breaker(3, 30))
    for _ in range(5):
        assert await network.ask() == "Hello"
    assert network.order == "ababab" + "bb"
    assert network.states() == {"a": "open", "b": "closed"}
    await asyncio.sleep(29)
    assert await network.ask() == "Hello"
    assert network.order[-1] == "b"
    await asyncio.sleep(1)
    assert network.states()["a"] == "half_open"
    assert await network.ask() == "Hello"
    assert network.order[-2:] == "ab", "it was probed, and is not well"
    assert network.states()["a"] == "open"
    network.says["a"] = [HELLO]
    await asyncio.sleep(31)
    assert await network.ask() == "Hello"
    assert network.order[-1] == "a"
    assert network.states()["a"] == "closed"


@on_virtual_time
async def test_one_call_at_a_time_probes():
    slow = streamed(ROLE, Pause(5), HEL, END + DONE)
    network = Network(a=[refused(500), slow, HELLO], b=HELLO, retry=ONCE, breaker=Breaker(1, 10))
    await network.ask()
    await asyncio.sleep(10)
    asking = [asyncio.create_task(network.ask()) for _ in range(4)]
    await asyncio.sleep(1)
    assert sorted(network.order[2:]) == ["a", "b", "b", "b"]
    await asyncio.sleep(10)
    assert {task.result() for task in asking} == {"Hello", "Hel"}
    assert await network.ask() == "Hello"
    assert network.order[-1] == "a"


@on_virtual_time
async def test_c7_a_probe_whose_client_leaves_makes_way_for_the_next():
    network = Network(a=[refused(500), streamed(ROLE, Hang()), HELLO], b=HELLO, retry=ONCE, breaker=Breaker(1, 10))
    await network.ask()
    await asyncio.sleep(10)
    probing = asyncio.create_task(network.ask())
    await asyncio.sleep(1)
    assert network.states()["a"] == "half_open"
    probing.cancel()
    await asyncio.sleep(0)
    assert await network.ask() == "Hello"
    assert network.order[-1] == "a"


@on_virtual_time
async def test_nobody_is_refused_for_a_breakers_sake():
    """The only target there is, or all of them that do not work, are asked all the same."""
    alone = Network(a=[refused(500)] * 3 + [HELLO], retry=ONCE, breaker=Breaker(1, 1000))
    for _ in range(3):
        with pytest.raises(ServerFault):
            await alone.ask()
    assert alone.states() == {"a": "open"}
    assert await alone.ask() == "Hello"
    assert alone.states() == {"a": "closed"}
    both = Network(a=[refused(500)] * 2 + [HELLO], b=refused(500), retry=ONCE, breaker=Breaker(1, 1000))
    for _ in range(2):
        with pytest.raises(NoTargetLeft):
            await both.ask()
    assert both.states() == {"a": "open", "b": "open"}
    assert await both.ask() == "Hello"


@pytest.mark.parametrize("name", ["a rejected key", "an unknown model", "an empty reply", "too long a prompt"])
def test_a_target_that_answers_works(name: str):
    @on_virtual_time
    async def run() -> None:
        network = Network(a=ELSEWHERE[name], b=HELLO, retry=ONCE, breaker=Breaker(2, 1000))
        for _ in range(5):
            await network.ask()
        assert network.order == "ab" * 5
        assert network.states()["a"] == "closed"

    run()


@on_virtual_time
async def test_a_clients_own_limit_says_nothing_of_its_target():
    """Where each client gives a key of its own, one that has used it up must not shut out the others."""
    network = Network(a=HELLO)
    for forwards, expected in ((True, "closed"), (False, "open")):
        target = Target(f"t{forwards}", "http://t/v1", "openai-chat", "m", forward_auth=forwards)
        health = network.breakers.of(target)
        for _ in range(10):
            health.begin(network)
            health.failed(network, RateLimited("m", status=429))
            health.end(network)
        assert health.breaker == expected


@on_virtual_time
async def test_streams_that_never_end_well_open_a_breaker_too():
    network = Network(a=streamed(ROLE, HEL), b=HELLO, retry=ONCE, breaker=Breaker(3, 1000))
    for _ in range(3):
        with pytest.raises(PenstockError):
            await network.ask()
    assert network.states()["a"] == "open"
    assert await network.ask() == "Hello"


@on_virtual_time
async def test_failures_are_counted_in_a_row():
    network = Network(a=[refused(500), HELLO] * 10, b=HELLO, retry=ONCE, breaker=Breaker(2, 1000))
    for _ in range(20):
        await network.ask()
    assert network.states()["a"] == "closed"
    (state, _) = network.breakers.states()
    assert state.failures == 0


@on_virtual_time
async def test_without_a_limit_no_breaker_opens():
    network = Network(a=refused(500), b=HELLO, retry=ONCE, breaker=Breaker(failures=None))
    for _ in range(50):
        await network.ask()
    assert network.states()["a"] == "closed"


@on_virtual_time
async def test_what_breakers_tell():
    network = Network(a=refused(500), b=HELLO, retry=ONCE, breaker=Breaker(1, 30))
    async with network.handler(network.call()):
        await asyncio.sleep(10)
        first, second = network.breakers.states()
        assert (first.target, first.breaker, first.in_flight, first.failures, first.probe_in_s) == (
            "a:m", "open", 0, 1, 20,
        )  # fmt: skip
        assert (second.breaker, second.in_flight, second.probe_in_s) == ("closed", 1, None)


def test_one_target_in_two_lists_has_one_breaker():
    network = Network(a=HELLO)
    twin = Target("a", "http://a/v1", "openai-chat", "m")
    assert network.breakers.of(twin) is network.breakers.of(network.targets[0])
    assert Destination((twin,)).first is twin
