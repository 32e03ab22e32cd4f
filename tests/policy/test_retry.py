"""The same target again: when, after what pause, and never after content. The clock costs no time."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.canon.errors import (
    ConnectError,
    EmptyReply,
    InvalidRequest,
    KeyRejected,
    NotAStream,
    Overloaded,
    PenstockError,
    ProtocolError,
    RateLimited,
    ServerFault,
    StatusError,
    StreamedError,
    TimedOut,
    Truncated,
)
from penstock.canon.events import BlockEnd, BlockStart, Delta, Finish, Progress, Reasoning, Start, Text, UsageUpdate
from penstock.canon.usage import Usage
from penstock.policy.retry import Retry, is_empty
from penstock.streams.clocks import Timeouts
from penstock.transport.memory import Break, Hang, Pause, Reply
from tests.dialects.chat_wire import chunk, sse
from tests.policy.network import HELLO, NOTHING, Network, read, refused, streamed, told
from tests.streams.replies import DONE, END, HEL, PING, ROLE
from tests.virtual_clock import START, now, on_virtual_time

FAILED_FRAME = sse({"error": {"message": "Too bad", "code": 503}})
REFUSED_FRAME = sse({"error": {"message": "No such thing", "code": 400}})
USAGE = sse({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}})

REPEATED: dict[str, tuple[Reply, str]] = {
    "no connection": (Reply(error=ConnectError("m")), "connect"),
    "closed without an answer": (Reply(opening=(Break(),)), "connect"),
    "a connection that never comes": (Reply(error=TimedOut("connect", 5)), "timeout_connect"),
    "408": (refused(408), "status"),
    "409": (refused(409), "status"),
    "429": (refused(429), "rate_limited"),
    "500": (refused(500), "server_fault"),
    "502": (refused(502), "server_fault"),
    "503": (refused(503), "overloaded"),
    "529": (refused(529), "overloaded"),
    "no content in time": (streamed(ROLE, Hang()), "timeout_first_content"),
    "silence": (Reply(opening=(Hang(),)), "timeout_silence"),
    "an end before content": (streamed(ROLE), "truncated"),
    "a break before content": (streamed(ROLE, Break()), "truncated"),
    "nothing at all": (streamed(), "truncated"),
    "an error frame first": (streamed(FAILED_FRAME), "streamed_error"),
    "an error frame before content": (streamed(ROLE, PING, Pause(1), FAILED_FRAME), "streamed_error"),
    "an empty reply": (NOTHING, "empty_reply"),
    "an empty document": (
        Reply(
            headers={"content-type": "application/json"},
            chunks=(b'{"choices": [{"message": {"role": "assistant", "content": ""}, "finish_reason": "stop"}]}',),
        ),
        "empty_reply",
    ),
}
FIRST_CONTENT = Timeouts(first_content=40, silence=30)


def clocks(name: str) -> Timeouts:
    return Timeouts(first_content=20, silence=30) if name == "no content in time" else FIRST_CONTENT


@pytest.mark.parametrize("name", REPEATED)
def test_c9_what_may_do_better_is_asked_again(name: str):
    @on_virtual_time
    async def run() -> None:
        failure, cause = REPEATED[name]
        network = Network(a=[failure, failure, HELLO], timeouts=clocks(name))
        call = network.call()
        assert await network.ask(call) == "Hello"
        assert told(call) == [("a:m", cause), ("a:m", cause), ("a:m", None)]
        assert network.order == "aaa"
        assert [response.ended for response in network.transport.responses][-1] == "released"
        assert None not in [response.ended for response in network.transport.responses]
        assert all(attempt.took_s is not None for attempt in call.attempts)

    run()


@pytest.mark.parametrize("name", [name for name in REPEATED if not name.startswith("an empty")])
def test_c1_as_often_as_policy_says_and_then_the_last_failure_is_told(name: str):
    @on_virtual_time
    async def run() -> None:
        failure, cause = REPEATED[name]
        network = Network(a=failure, retry=Retry(attempts=4), timeouts=clocks(name))
        call = network.call()
        with pytest.raises(PenstockError) as raised:
            await network.ask(call)
        assert len(network.asked) == 4
        assert (raised.value.error_type, raised.value.attempt, raised.value.target) == (cause, 4, "a:m")

    run()


NOT_REPEATED: dict[str, tuple[Reply, type[PenstockError]]] = {
    "a redirect": (refused(302), StatusError),
    "400": (refused(400), StatusError),
    "401": (refused(401), KeyRejected),
    "402": (refused(402), KeyRejected),
    "403": (refused(403), KeyRejected),
    "404": (refused(404), StatusError),
    "413": (refused(413), StatusError),
    "422": (refused(422), StatusError),
    "no credit, which no waiting cures": (refused(429, b'{"error": {"code": "insufficient_quota"}}'), KeyRejected),
    "too long a prompt": (refused(400, b'{"error": {"code": "context_length_exceeded"}}'), StatusError),
    "an error frame that says 400": (streamed(REFUSED_FRAME), StreamedError),
    "garbage": (streamed(b"data: {x\n\n"), ProtocolError),
    "a page": (Reply(headers={"content-type": "text/html"}, chunks=(b"<html>",)), NotAStream),
}


@pytest.mark.parametrize("name", NOT_REPEATED)
def test_c1_what_a_second_time_cannot_mend_is_asked_once(name: str):
    @on_virtual_time
    async def run() -> None:
        reply, kind = NOT_REPEATED[name]
        network = Network(a=reply)
        with pytest.raises(kind):
            await network.ask()
        assert network.asked == [(0, "a")]

    run()


@pytest.mark.parametrize("rest", [(), (Break(),), (FAILED_FRAME,), (b"data: {x\n\n",), (Hang(),)])
def test_c9_nothing_is_repeated_after_content(rest: tuple[Any, ...]):
    @on_virtual_time
    async def run() -> None:
        network = Network(a=[streamed(ROLE, HEL, *rest), HELLO])
        with pytest.raises(PenstockError):
            await network.ask()
        assert network.order == "a"

    run()


@on_virtual_time
async def test_c1_one_attempt_is_no_retry():
    network = Network(a=[refused(503), HELLO], retry=Retry(attempts=1))
    with pytest.raises(Overloaded):
        await network.ask()
    assert network.order == "a"


@on_virtual_time
async def test_what_is_ours_is_not_repeated():
    """A request that cannot be sent was not sent."""

    def refuse(request: Any) -> Reply:
        raise InvalidRequest("m")

    network = Network(a=HELLO)
    network.transport._reply_to = refuse
    with pytest.raises(InvalidRequest):
        await network.ask()
    assert len(network.transport.requests) == 1


# --- what the client sees --------------------------------------------------------------------------------------------


@on_virtual_time
async def test_c9_a_second_attempt_leaves_one_start():
    network = Network(a=[streamed(ROLE, PING, Pause(1), FAILED_FRAME), HELLO])
    async with network.handler(network.call()) as stream:
        events = [event async for batch in stream for event in batch.events]
    assert sum(isinstance(event, Start) for event in events) == 1
    assert sum(isinstance(event, Finish) for event in events) == 1
    assert stream.attempt == 2
    assert stream.is_complete


@on_virtual_time
async def test_c2_the_last_attempt_holds_nothing_back():
    """Nobody could ask again, so what comes before content is the caller's at once."""
    late = streamed(ROLE, Pause(7), HEL, END)
    network = Network(a=[late], retry=Retry(attempts=1))
    async with network.handler(network.call()):
        assert now() == START
    network = Network(a=[late])
    async with network.handler(network.call()):
        assert now() == START + 7
    network = Network(a=[refused(503), late], retry=Retry(attempts=2))
    async with network.handler(network.call()):
        assert now() == START + 7.5


@on_virtual_time
async def test_c2_progress_that_the_client_asked_for_is_not_held_back():
    """What an upstream tells of the prompt is of use while it works, and of none with the first word."""
    told_so = sse(chunk({}, prompt_progress={"total": 9, "cache": 0, "processed": 3, "time_ms": 5}))
    network = Network(a=streamed(told_so, Pause(7), HEL, END), profiles={"a": "llamacpp"})
    async with network.handler(network.call()) as stream:
        assert now() == START
        assert await read(stream) == "Hel"
    network = Network(a=streamed(told_so, Pause(7), HEL, END), profiles={"a": "llamacpp"})
    narrated: list[Progress] = []
    began = now()
    async with network.handler(network.call(narrate=narrated.append)):
        assert now() == began + 7
    assert [(progress.done, progress.total) for progress in narrated] == [(3, 9)]


@on_virtual_time
async def test_c9_an_empty_reply_that_stays_empty_is_handed_on():
    """It may be true: some models have nothing to say after a tool's result."""
    network = Network(a=NOTHING)
    call = network.call()
    assert await network.ask(call) == ""
    assert told(call) == [("a:m", "empty_reply"), ("a:m", "empty_reply"), ("a:m", None)]


@on_virtual_time
async def test_an_empty_reply_says_what_it_cost():
    network = Network(a=[streamed(ROLE, END, USAGE + DONE), HELLO])
    call = network.call()
    assert await network.ask(call) == "Hello"
    assert [attempt.tokens for attempt in call.attempts] == [4, None]
    assert network.transport.responses[0].ended == "released", "its connection can be used again"


# --- pauses ----------------------------------------------------------------------------------------------------------


@on_virtual_time
async def test_pauses_grow_to_their_bound():
    network = Network(a=refused(500), retry=Retry(attempts=6, backoff=1, max_backoff=5))
    with pytest.raises(ServerFault):
        await network.ask()
    assert [at for at, _ in network.asked] == [0, 1, 3, 7, 12, 17]


@given(st.integers(1, 50), st.floats(0, 1))
def test_c11_a_pause_is_bounded_and_loses_at_most_half_of_itself(attempt: int, chance: float):
    policy = Retry(attempts=100, backoff=0.5, max_backoff=8)
    pause = policy.pause(attempt, ServerFault("m", status=500), chance)
    longest = min(0.5 * 2 ** (attempt - 1), 8)
    assert pause is not None
    assert longest / 2 <= pause <= longest


@pytest.mark.parametrize(("asked", "waited"), [("2", 2), ("30", 30), ("0", 0.5), ("0.1", 0.5)])
def test_an_upstream_that_says_when_is_given_its_time(asked: str, waited: float):
    @on_virtual_time
    async def run() -> None:
        network = Network(a=[refused(429, retry_after=asked), HELLO])
        assert await network.ask() == "Hello"
        assert [at for at, _ in network.asked] == [0, waited]

    run()


@pytest.mark.parametrize(
    ("after", "waited"), [("Sun, 06 Nov 1994 08:49:40 GMT", [0, 3]), ("Sun, 06 Nov 1994 08:50:08 GMT", [0])]
)
def test_one_that_says_a_date_is_given_until_then_within_the_bound(after: str, waited: list[float]):
    @on_virtual_time
    async def run() -> None:
        refusal = refused(429, retry_after=after, date="Sun, 06 Nov 1994 08:49:37 GMT")
        network = Network(a=[refusal, HELLO])
        with contextlib.nullcontext() if waited[1:] else pytest.raises(RateLimited):
            assert await network.ask() == "Hello"
        assert [at for at, _ in network.asked] == waited

    run()


@pytest.mark.parametrize("status", [429, 503])
def test_c11_one_that_asks_for_more_than_the_bound_is_not_asked_again(status: int):
    @on_virtual_time
    async def run() -> None:
        network = Network(a=refused(status, retry_after="31"))
        with pytest.raises((RateLimited, Overloaded)) as raised:
            await network.ask()
        assert network.asked == [(0, "a")]
        assert raised.value.retry_after_s == 31, "the client is told"

    run()


def test_whoever_has_to_come_back_does_not_come_back_together():
    policy = Retry()
    error = RateLimited("m", status=429, retry_after_s=10)
    assert policy.pause(1, error, 0.0) == 10
    assert policy.pause(1, error, 1.0) == 10.5


# --- clocks and leaving ----------------------------------------------------------------------------------------------


@on_virtual_time
async def test_c8_the_total_clock_spans_all_attempts():
    network = Network(a=streamed(ROLE, Hang()), timeouts=Timeouts(first_content=10, total=25))
    call = network.call()
    with pytest.raises(TimedOut) as raised:
        await network.ask(call)
    assert raised.value.clock == "total"
    assert now() == START + 25
    assert [attempt.error for attempt in call.attempts] == [
        "timeout_first_content", "timeout_first_content", "timeout_total",
    ]  # fmt: skip


@on_virtual_time
async def test_c8_no_pause_is_begun_that_the_total_clock_would_end():
    """What went wrong is told, and told now."""
    network = Network(a=refused(503), retry=Retry(attempts=5, backoff=4), timeouts=Timeouts(total=10))
    with pytest.raises(Overloaded):
        await network.ask()
    assert [at for at, _ in network.asked] == [0, 4]
    assert now() == START + 4


@on_virtual_time
async def test_c8_an_empty_reply_is_handed_on_when_there_is_no_time_to_ask_again():
    network = Network(a=NOTHING, retry=Retry(backoff=4), timeouts=Timeouts(total=3))
    assert await network.ask() == ""
    assert network.order == "a"


@on_virtual_time
async def test_c7_a_client_that_leaves_in_a_pause_ends_it_at_once():
    network = Network(a=refused(503), retry=Retry(backoff=8))
    asking = asyncio.create_task(network.ask())
    await asyncio.sleep(3)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert now() == START + 3
    assert network.asked == [(0, "a")]
    loop: Any = asyncio.get_running_loop()
    assert [timer for timer in loop._scheduled if not timer.cancelled()] == []


@on_virtual_time
async def test_c7_a_client_that_leaves_in_a_second_attempt_closes_it():
    network = Network(a=[refused(503), streamed(ROLE, Hang())])
    call = network.call()
    asking = asyncio.create_task(network.ask(call))
    await asyncio.sleep(3)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert network.transport.responses[1].ended == "aborted"
    assert told(call) == [("a:m", "overloaded"), ("a:m", "cancelled")]
    assert network.in_flight() == 0


@on_virtual_time
async def test_c13_no_call_leaves_a_cycle_behind():
    """An error holds the frames that it passed through; none of them may hold the error."""

    def errors() -> set[int]:
        return {id(found) for found in gc.get_objects() if isinstance(found, PenstockError)}

    gc.collect()
    before = errors()
    gc.disable()
    try:
        for says in ([refused(503), NOTHING, HELLO], [refused(503)], [refused(400)]):
            network = Network(a=list(says), b=list(says))
            with contextlib.suppress(PenstockError):
                await network.ask()
            assert errors() - before == set()
    finally:
        gc.enable()


# --- what says nothing -----------------------------------------------------------------------------------------------

BLANK = [BlockStart(0, "text"), BlockEnd(0, Text(""))]


@pytest.mark.parametrize(
    ("events", "empty"),
    [
        ([Start("m"), Finish("stop")], True),
        ([Start("m"), *BLANK, UsageUpdate(Usage(9, output=0)), Finish("stop")], True),
        ([Start("m"), BlockStart(0, "reasoning"), BlockEnd(0, Reasoning("")), Finish("stop")], True),
        ([Start("m"), Finish("tool_calls")], True),
        ([Start("m"), Finish("other")], True),
        ([Start("m")], False),
        ([Start("m"), Finish("length")], False),
        ([Start("m"), Finish("content_filter")], False),
        ([Start("m"), Finish("refusal")], False),
        ([Start("m"), Finish("stop_sequence")], False),
        ([Start("m"), BlockStart(0, "text"), Delta(0, "a"), Finish("stop")], False),
        ([Start("m"), BlockStart(0, "reasoning"), BlockEnd(0, Reasoning("", signature="s")), Finish("stop")], False),
        ([Start("m"), BlockStart(0, "tool_call", "i", "look"), Finish("tool_calls")], False),
    ],
)
def test_what_is_an_empty_reply(events: list[Any], empty: bool):
    assert is_empty(events) is empty


def test_an_empty_reply_counts_as_retryable():
    assert EmptyReply("m").retryable
    assert Truncated("m").retryable
