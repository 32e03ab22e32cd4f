"""A stream that breaks after content: taken up where that was asked for, and told as it was where it cannot be."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from penstock.canon.errors import PenstockError, StreamedError, TimedOut, Truncated
from penstock.canon.events import Event, Finish, Start, UsageUpdate
from penstock.canon.request import ChatRequest, Message
from penstock.canon.response import fold
from penstock.canon.target import Target
from penstock.policy.recovery import goes_on
from penstock.policy.retry import Retry
from penstock.streams.clocks import Timeouts
from penstock.streams.handler import Call
from penstock.telemetry.record import CallRecord
from penstock.telemetry.recorder import recorded
from penstock.transport.memory import Break, Hang, Pause
from tests.dialects.chat_wire import call as call_piece
from tests.dialects.chat_wire import calls, chunk, said, sse
from tests.invariants import check_events
from tests.policy.network import HELLO, Network, refused, streamed, told
from tests.streams.replies import DONE, END, HEL, LO, ROLE
from tests.virtual_clock import START, now, on_virtual_time

FAILED_FRAME = sse({"error": {"message": "Too bad", "code": 503}})
ONCE = Retry(attempts=1)
ABLE = {"a": "llamacpp", "b": "llamacpp"}
CALL = sse(calls(call_piece(id="c", name="look", arguments="{")))
THOUGHT = sse(chunk({"reasoning_content": "Hm"}))
USAGE = sse({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}})

BREAKS: dict[str, tuple[tuple[Any, ...], str]] = {
    "an end": ((), "truncated"),
    "a lost connection": ((Break(),), "truncated"),
    "an error frame": ((FAILED_FRAME,), "streamed_error"),
    "no more content": ((Pause(5), Hang()), "timeout_idle"),
}


async def heard(
    network: Network, call: Call, records: list[CallRecord] | None = None
) -> tuple[list[Event], list[str], list[CallRecord]]:
    """The events, the seams, and the record."""
    records = [] if records is None else records
    events: list[Event] = []
    seams: list[str] = []
    try:
        async with recorded(records.append)(network.handler)(call) as stream:
            async for batch in stream:
                if batch.seam is not None:
                    seams.append(batch.seam)
                events += batch.events
            assert stream.is_complete
    except PenstockError:
        check_events(events, complete=False)
        raise
    check_events(events, complete=True)
    return events, seams, records


@pytest.mark.parametrize("name", BREAKS)
def test_c9_restart_says_the_reply_again_behind_a_mark(name: str):
    @on_virtual_time
    async def run() -> None:
        rest, cause = BREAKS[name]
        network = Network(a=[streamed(ROLE, HEL, *rest), HELLO], recovery="restart", timeouts=Timeouts(idle=20))
        call = network.call()
        events, seams, (record,) = await heard(network, call)
        assert fold(events).text == "HelHello"
        assert [part.text for part in fold(events).parts if hasattr(part, "text")] == ["Hel", "Hello"]
        assert seams == [f"penstock: restart at a:m after {cause}"]
        assert sum(isinstance(event, Start) for event in events) == 1
        assert sum(isinstance(event, Finish) for event in events) == 1
        assert told(call) == [("a:m", cause), ("a:m", None)]
        assert (record.outcome, record.recovered, record.attempts) == ("complete", "restart", 2)
        assert record.attempted[0].cause == cause
        assert network.in_flight() == 0
        assert [response.ended for response in network.transport.responses] == ["aborted", "released"]

    run()


@pytest.mark.parametrize("name", BREAKS)
def test_c9_continue_goes_on_where_it_was_cut(name: str):
    @on_virtual_time
    async def run() -> None:
        rest, cause = BREAKS[name]
        network = Network(
            a=[streamed(ROLE, HEL, *rest), streamed(ROLE, LO, END + DONE)],
            recovery="continue",
            profiles=ABLE,
            timeouts=Timeouts(idle=20),
        )
        call = network.call()
        events, seams, (record,) = await heard(network, call)
        assert fold(events).text == "Hello"
        assert len(fold(events).parts) == 1
        assert seams == [f"penstock: continue at a:m after {cause}"]
        assert (record.outcome, record.recovered, record.target) == ("complete", "continue", "a:m")
        first, second = (json.loads(request.body)["messages"] for request in network.transport.requests)
        assert second == [*first, {"role": "assistant", "content": "Hel"}]

    run()


@on_virtual_time
async def test_c9_off_tells_it_as_it_is():
    network = Network(a=[streamed(ROLE, HEL), HELLO], b=HELLO)
    with pytest.raises(Truncated):
        await heard(network, network.call())
    assert network.order == "a"


@pytest.mark.parametrize(
    ("mode", "chunks", "kind"),
    [
        ("restart", (HEL, CALL), Truncated),
        ("restart", (CALL,), Truncated),
        ("restart", (HEL, sse({"error": {"message": "m", "code": 400}})), StreamedError),
        ("restart", (HEL, b"data: {x\n\n"), PenstockError),
        ("continue", (HEL, CALL), Truncated),
        ("continue", (THOUGHT,), Truncated),
        ("continue", (THOUGHT, HEL), Truncated),
    ],
)
def test_what_cannot_be_taken_up_is_told(mode: str, chunks: tuple[bytes, ...], kind: type[PenstockError]):
    """Half a call must never stand beside a whole one; what a second time cannot mend is not asked again."""

    @on_virtual_time
    async def run() -> None:
        network = Network(a=[streamed(ROLE, *chunks), HELLO], recovery=mode, profiles=ABLE)
        with pytest.raises(kind):
            await heard(network, network.call())
        assert network.order == "a"

    run()


@on_virtual_time
async def test_nobody_is_asked_to_continue_who_is_not_known_to():
    network = Network(a=[streamed(ROLE, HEL), HELLO], b=HELLO, recovery="continue")
    with pytest.raises(Truncated):
        await heard(network, network.call())
    assert network.order == "a"
    network = Network(
        a=[streamed(ROLE, HEL), HELLO], b=HELLO, c=streamed(LO, END), recovery="continue", profiles={"c": "llamacpp"}
    )
    call = network.call()
    events, seams, (record,) = await heard(network, call)
    assert (fold(events).text, network.order) == ("Hello", "ac")
    assert seams == ["penstock: continue at c:m after truncated"]
    assert record.target == "c:m"


@on_virtual_time
async def test_the_next_target_takes_it_up_where_the_first_is_gone():
    network = Network(a=[streamed(ROLE, HEL), refused(500)], b=HELLO, recovery="restart", retry=ONCE)
    events, _, (record,) = await heard(network, network.call())
    assert (fold(events).text, network.order) == ("HelHello", "aab")
    assert (record.target, record.attempts) == ("b:m", 3)


@on_virtual_time
async def test_c4_when_nobody_takes_it_up_the_first_failure_has_the_word():
    network = Network(a=[streamed(ROLE, HEL), refused(500)], b=refused(404), recovery="restart", retry=ONCE)
    records: list[CallRecord] = []
    with pytest.raises(Truncated) as raised:
        await heard(network, network.call(), records)
    assert raised.value.attempt == 1
    assert (records[0].outcome, records[0].recovered, records[0].attempts) == ("truncated", None, 3)
    assert network.in_flight() == 0


@on_virtual_time
async def test_c11_a_reply_is_taken_up_so_often_and_no_more():
    network = Network(a=streamed(ROLE, HEL), recovery="restart")
    with pytest.raises(Truncated):
        await heard(network, network.call())
    assert network.order == "aaa"


@on_virtual_time
async def test_a_text_is_continued_twice():
    network = Network(
        a=[streamed(HEL), streamed(LO), streamed(sse(said(" you")), END)], recovery="continue", profiles=ABLE
    )
    events, seams, _ = await heard(network, network.call())
    assert (fold(events).text, len(seams)) == ("Hello you", 2)
    assert json.loads(network.transport.requests[2].body)["messages"][-1]["content"] == "Hello"


@on_virtual_time
async def test_c9_where_nothing_was_said_there_is_no_seam():
    """The last attempt is not held back: it may break with no more than its beginning told."""
    for mode in ("restart", "continue"):
        network = Network(a=[streamed(ROLE, Pause(1)), HELLO], recovery=mode, retry=ONCE)
        events, seams, (record,) = await heard(network, network.call())
        assert (fold(events).text, seams, record.recovered) == ("Hello", [], None)
        assert len(json.loads(network.transport.requests[1].body)["messages"]) == 1


@on_virtual_time
async def test_the_usage_is_that_of_the_last():
    network = Network(a=[streamed(HEL, USAGE), streamed(HEL, LO, END, USAGE, DONE)], recovery="restart")
    events, _, (record,) = await heard(network, network.call())
    assert [event.usage.output for event in events if isinstance(event, UsageUpdate)][-1] == 4
    assert record.completion_tokens == 4


@on_virtual_time
async def test_c8_the_total_clock_ends_what_was_taken_up():
    network = Network(a=[streamed(HEL, Hang())], recovery="restart", timeouts=Timeouts(idle=20, silence=None, total=50))
    with pytest.raises(TimedOut) as raised:
        await heard(network, network.call())
    assert (raised.value.clock, now()) == ("total", START + 50)


@on_virtual_time
async def test_c7_a_client_that_leaves_while_it_is_taken_up_ends_it():
    network = Network(a=[streamed(HEL), refused(503)], recovery="restart", retry=Retry(backoff=8))
    call = network.call()
    asking = asyncio.create_task(heard(network, call))
    await asyncio.sleep(3)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert network.order == "aa"
    assert network.in_flight() == 0


@on_virtual_time
async def test_c7_cancelling_works_before_the_seam_and_behind_it():
    for chunks in ((HEL, Hang()), (HEL,)):
        network = Network(a=[streamed(*chunks), streamed(HEL, Hang())], recovery="restart", timeouts=Timeouts(idle=99))
        async with network.handler(network.call()) as stream:
            asyncio.get_running_loop().call_later(5, stream.cancel)
            events = [event async for batch in stream for event in batch.events]
            assert not stream.is_complete
        assert fold(events).text in ("Hel", "HelHel")
        assert {response.ended for response in network.transport.responses} == {"aborted"}


@on_virtual_time
async def test_a_call_without_a_stream_is_left_alone():
    network = Network(a=[streamed(HEL), HELLO], recovery="restart")
    call = network.call()
    call.stream = False
    with pytest.raises(Truncated):
        await heard(network, call)
    assert network.order == "a"


@on_virtual_time
async def test_a_beginning_that_the_client_gave_stays_one():
    network = Network(a=[streamed(LO), streamed(sse(said("!")), END)], recovery="continue", profiles=ABLE)
    request = ChatRequest("m", (Message.of("user", "Hi"), Message.of("assistant", "Hel")), stream=True)
    call = Call(request_id="r", model="m", stream=True, request=request, now=now)
    await heard(network, call)
    messages = json.loads(network.transport.requests[1].body)["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant"]
    text = messages[1]["content"]
    assert (text if isinstance(text, str) else "".join(part["text"] for part in text)) == "Hello"


@pytest.mark.parametrize(
    ("dialect", "profile", "known"),
    [
        ("anthropic-messages", None, True),
        ("anthropic-messages", "minimax", True),
        ("ollama", None, True),
        ("openai-chat", "llamacpp", True),
        ("openai-chat", "vllm", True),
        ("openai-chat", None, False),
        ("openai-chat", "openai", False),
        ("openai-responses", None, False),
        ("gemini", None, False),
    ],
)
def test_who_is_known_to_go_on(dialect: str, profile: str | None, known: bool):
    assert goes_on(Target("t", "http://t", dialect, profile=profile)) is known


@on_virtual_time
async def test_vllm_is_told_not_to_begin_a_turn():
    network = Network(a=[streamed(HEL), streamed(LO, END)], recovery="continue", profiles={"a": "vllm"})
    await heard(network, network.call())
    bodies = [json.loads(request.body) for request in network.transport.requests]
    assert "continue_final_message" not in bodies[0]
    assert (bodies[1]["continue_final_message"], bodies[1]["add_generation_prompt"]) == (True, False)
