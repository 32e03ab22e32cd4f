"""Bytes of one response in, batches and one true ending out."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from penstock.canon.errors import (
    MalformedFrame,
    PenstockError,
    ProtocolError,
    StreamedError,
    TimedOut,
    Truncated,
)
from penstock.canon.events import Delta, Finish, Progress
from penstock.canon.response import Response, fold
from penstock.canon.wire import ConnectionLost
from penstock.dialects.base import Mark
from penstock.streams.clocks import AFTER_FINISH_S, Timeouts
from penstock.streams.stream import MAX_PREAMBLE_BYTES
from penstock.transport.memory import MemoryResponse
from penstock.transport.memory import Reply as Answer
from tests.dialects.chat_wire import said, sse
from tests.invariants import check_events
from tests.streams.replies import (
    DONE,
    END,
    ERROR,
    HEL,
    LO,
    PING,
    ROLE,
    Break,
    Hang,
    Pause,
    of,
    reply_to,
    script,
)
from tests.virtual_clock import START, now, on_virtual_time

if TYPE_CHECKING:
    from penstock.streams.batch import Batch
    from penstock.streams.stream import Reply


class Heard:
    """What a reader got of a reply: batches, and how it ended."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.error: PenstockError | None = None

    @property
    def response(self) -> Response:
        return fold([event for batch in self.batches for event in batch.events])

    @property
    def raw(self) -> bytes:
        return b"".join(batch.raw for batch in self.batches)


async def heard_of(reply: Reply, *, begin: bool | None = None) -> Heard:
    """Read it to its end; `begin` is `hold` where the reply is begun first."""
    heard = Heard()
    try:
        if begin is not None:
            await reply.begin(hold=begin)
        async for batch in reply:
            heard.batches.append(batch)
    except PenstockError as error:
        heard.error = error
    check_events([event for batch in heard.batches for event in batch.events], complete=reply.is_complete)
    assert reply.is_complete == (heard.error is None)
    reply.close()
    return heard


# --- batches ---------------------------------------------------------------------------------------------------------


@on_virtual_time
async def test_c2_one_read_is_one_batch():
    reply = of(ROLE + HEL, LO, END + DONE)
    heard = await heard_of(reply)
    assert heard.raw == ROLE + HEL + LO + END + DONE
    assert [batch.raw for batch in heard.batches] == [ROLE + HEL, LO, END + DONE]
    assert heard.response.text == "Hello"
    assert [batch.is_last for batch in heard.batches] == [False, False, True]


@on_virtual_time
async def test_a_batch_knows_its_moment_and_whether_it_commits():
    heard = await heard_of(of(ROLE, Pause(2), PING, HEL, Pause(3), END))
    assert [(batch.at - START, batch.has_content) for batch in heard.batches] == [
        (0, False),
        (2, False),
        (2, True),
        (5, False),
        (5, True),
    ]


@on_virtual_time
async def test_marks_say_which_frame_they_mean():
    (batch,) = (await heard_of(of(HEL + END + sse({"choices": [], "usage": {"prompt_tokens": 1}}) + DONE + LO))).batches
    assert batch.marks == [(2, Mark.USAGE), (3, Mark.TERMINATOR), (4, Mark.AFTER)]


@pytest.mark.parametrize("size", [1, 2, 7, 64, 10_000])
def test_c3_the_same_events_for_every_way_of_cutting(size: int):
    @on_virtual_time
    async def run() -> None:
        wire = ROLE + PING + HEL + LO + END + DONE
        heard = await heard_of(of(*(wire[at : at + size] for at in range(0, len(wire), size))))
        assert heard.error is None
        assert heard.raw == wire
        assert [event for batch in heard.batches for event in batch.events if isinstance(event, Delta)] == [
            Delta(0, "Hel"),
            Delta(0, "lo"),
        ]

    run()


@on_virtual_time
async def test_a_read_that_completes_no_frame_is_no_batch():
    heard = await heard_of(of(HEL[:5], HEL[5:], END))
    assert [batch.raw for batch in heard.batches] == [HEL, END, b""]
    assert isinstance(heard.batches[-1].events[-1], Finish)


@on_virtual_time
async def test_c12_a_document_is_a_stream():
    body = b'{"choices":[{"message":{"content":"Hi"},"finish_reason":"stop"}]}'
    reply = reply_to(MemoryResponse(Answer(headers={"content-type": "application/json"}, chunks=(body[:9], body[9:]))))
    heard = await heard_of(reply)
    assert reply.framing == "document"
    assert heard.response.text == "Hi"


# --- endings ---------------------------------------------------------------------------------------------------------


@on_virtual_time
async def test_c4_complete():
    response = script(HEL, END + DONE)
    heard = await heard_of(reply_to(response))
    assert heard.error is None
    assert response.ended == "released"


@on_virtual_time
async def test_c4_a_finish_reason_and_the_connections_end_are_complete():
    response = script(HEL, END)
    assert (await heard_of(reply_to(response))).error is None
    assert response.ended == "released"


@on_virtual_time
async def test_c4_a_reset_after_the_finish_is_complete():
    """Pathology 23."""
    heard = await heard_of(of(HEL, END, Break()))
    assert heard.error is None
    assert heard.response.text == "Hello"[:3]


@on_virtual_time
async def test_c4_a_cut_before_the_terminal_is_truncated():
    response = script(HEL, LO)
    heard = await heard_of(reply_to(response))
    assert isinstance(heard.error, Truncated)
    assert (heard.error.target, heard.response.text) == ("up:m", "Hello")
    assert response.ended == "aborted"


@on_virtual_time
async def test_c4_a_broken_connection_is_truncated_and_says_why():
    """Pathology 23."""
    heard = await heard_of(of(HEL, LO[:9], Break("reset by peer")))
    assert isinstance(heard.error, Truncated)
    assert isinstance(heard.error.__cause__, ConnectionLost)
    assert heard.response.text == "Hel"
    assert heard.raw == HEL


@pytest.mark.parametrize("steps", [(), (Break(),), (b"",)])
def test_c4_no_byte_at_all_is_truncated(steps: tuple[bytes | Break, ...]):
    @on_virtual_time
    async def run() -> None:
        assert isinstance((await heard_of(of(*steps))).error, Truncated)

    run()


@on_virtual_time
async def test_c3_what_came_before_an_error_in_the_same_read_is_given_first():
    heard = await heard_of(of(HEL + LO + ERROR + END + DONE))
    assert isinstance(heard.error, StreamedError)
    assert heard.response.text == "Hello"
    assert heard.raw == HEL + LO + ERROR, "nothing that comes after an error is passed on"
    assert heard.batches[0].marks == [(2, Mark.ERROR)]


@on_virtual_time
async def test_c4_an_error_before_any_content():
    heard = await heard_of(of(ROLE, ERROR))
    assert isinstance(heard.error, StreamedError)
    assert heard.error.status == 429


@on_virtual_time
async def test_a_frame_that_is_none_of_the_dialects_is_not_passed_on():
    heard = await heard_of(of(HEL + b"data: Bad Gateway\n\n" + LO))
    assert isinstance(heard.error, MalformedFrame)
    assert heard.raw == HEL


@on_virtual_time
async def test_c4_a_last_frame_without_its_blank_line_counts_when_it_is_whole():
    assert (await heard_of(of(HEL, END.rstrip()))).error is None
    heard = await heard_of(of(HEL, END.rstrip()[:-1]))
    assert isinstance(heard.error, Truncated)
    assert heard.raw == HEL


@on_virtual_time
async def test_an_error_is_raised_again_and_an_end_stays_an_end():
    reply = of(HEL)
    heard = await heard_of(reply)
    for _ in range(2):
        with pytest.raises(Truncated) as raised:
            await anext(reply)
        assert raised.value is heard.error
    whole = of(HEL, END)
    await heard_of(whole)
    for _ in range(2):
        with pytest.raises(StopAsyncIteration):
            await anext(whole)


@on_virtual_time
async def test_done_ends_a_reply_whose_connection_stays_open():
    """Pathology 2."""
    response = script(HEL, END + DONE, Hang())
    heard = await heard_of(reply_to(response))
    assert heard.error is None
    assert response.ended == "released"


# --- cancelling ------------------------------------------------------------------------------------------------------


@on_virtual_time
async def test_c4_c7_a_cancelled_reply_ends_quietly_with_what_there_is_and_is_not_complete():
    response = script(HEL, Hang())
    reply = reply_to(response)
    reader = asyncio.create_task(_read_all(reply))
    await asyncio.sleep(1)
    for _ in range(3):
        reply.cancel()
    assert [batch.raw for batch in await reader] == [HEL]
    assert response.ended == "aborted"
    assert not reply.is_complete
    assert reply.error is None
    reply.cancel()
    reply.close()
    reply.close()


async def _read_all(reply: Reply) -> list[Batch]:
    return [batch async for batch in reply]


@on_virtual_time
async def test_c4_a_reply_that_was_cancelled_after_its_finish_but_before_its_end_is_not_complete():
    reply = of(HEL, END, Hang())
    reader = asyncio.create_task(_read_all(reply))
    await asyncio.sleep(1)
    reply.cancel()
    await reader
    assert not reply.is_complete


@on_virtual_time
async def test_cancelling_before_the_first_read():
    response = script(HEL, END)
    reply = reply_to(response)
    reply.cancel()
    assert await _read_all(reply) == []
    assert not reply.is_complete
    assert response.ended == "aborted"


@on_virtual_time
async def test_cancelling_after_a_clean_end_changes_nothing():
    response = script(HEL, END + DONE)
    reply = reply_to(response)
    await _read_all(reply)
    reply.cancel()
    assert reply.is_complete
    reply.close()
    assert response.ended == "released"


@on_virtual_time
async def test_cancelling_after_an_error_leaves_the_error():
    reply = of(HEL)
    with pytest.raises(Truncated):
        await _read_all(reply)
    reply.cancel()
    assert isinstance(reply.error, Truncated)
    assert not reply.is_complete


@on_virtual_time
async def test_c4_a_clock_that_runs_out_after_the_caller_cancelled_says_nothing():
    reply = reply_to(script(HEL, Hang()), Timeouts(total=10))
    await anext(reply)
    reply.cancel()
    await asyncio.sleep(100)
    assert await _read_all(reply) == []
    assert reply.error is None
    reply.close()


@on_virtual_time
async def test_a_reader_that_gives_up_one_read_may_come_back():
    reply = of(HEL, Pause(10), END)
    await anext(reply)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await anext(reply)
    assert [batch.raw for batch in await _read_all(reply)] == [END, b""]
    assert reply.is_complete


# --- clocks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "clock", "after_s"),
    [
        ((Hang(),), "silence", 60),
        # Blank lines keep a connection alive before anybody can tell what the reply is (DeepSeek sends such).
        ((b"\n", Pause(50), b"\n", Pause(50), b"\n", Pause(50), b"\n"), "first_content", 120),
        ((b"\n", Pause(50), b"\n", Hang()), "silence", 110),
        ((PING, Pause(50), PING, Pause(50), PING, Pause(50), PING), "first_content", 120),
        ((ROLE, Pause(50), PING, Pause(50), PING, Pause(50), PING), "first_content", 120),
        ((HEL, Pause(50), PING, Pause(50), LO), "idle", 60),
        ((HEL, Pause(50), LO, Hang()), "idle", 110),
        ((HEL, *([Pause(50), LO] * 10)), "total", 200),
    ],
)
def test_c8_each_clock_ends_the_reply_in_its_own_error(steps: tuple[bytes | Pause | Hang], clock: str, after_s: float):
    @on_virtual_time
    async def run() -> None:
        response = script(*steps)
        reply = reply_to(response, Timeouts(first_content=120, idle=60, silence=60, total=200))
        heard = await heard_of(reply)
        assert isinstance(heard.error, TimedOut)
        assert (heard.error.clock, heard.error.target) == (clock, "up:m")
        assert now() == pytest.approx(START + after_s, abs=0.01)
        assert response.ended == "aborted"

    run()


@on_virtual_time
async def test_c8_a_slow_consumer_is_no_slow_upstream():
    reply = reply_to(script(HEL, LO, END + DONE), Timeouts(first_content=120, idle=60, silence=60))
    seen = []
    async for batch in reply:
        seen.append(batch.raw)
        await asyncio.sleep(1000)
    assert seen == [HEL, LO, END + DONE]
    assert reply.is_complete


@on_virtual_time
async def test_c4_after_a_proved_finish_a_hanging_connection_is_complete():
    response = script(HEL, END, Hang())
    heard = await heard_of(reply_to(response, Timeouts()))
    assert heard.error is None
    assert now() == pytest.approx(START + AFTER_FINISH_S, abs=0.01)
    assert response.ended == "aborted"


@on_virtual_time
async def test_no_timer_is_left_behind():
    for steps in ((HEL, END), (HEL,), (ERROR,), (HEL, END + DONE)):
        await heard_of(reply_to(script(*steps), Timeouts()))
    loop = asyncio.get_running_loop()
    assert [timer for timer in loop._scheduled if not timer.cancelled()] == []  # type: ignore[attr-defined]


# --- the beginning ---------------------------------------------------------------------------------------------------


@on_virtual_time
async def test_c9_a_reply_that_is_held_begins_with_its_first_content():
    reply = of(PING, ROLE, Pause(5), PING, HEL, Pause(5), END)
    await reply.begin(hold=True)
    assert now() == START + 5
    heard = await heard_of(reply)
    assert [batch.raw for batch in heard.batches] == [PING, ROLE, PING, HEL, END, b""]


@on_virtual_time
async def test_c2_a_reply_that_is_not_held_begins_with_its_start():
    reply = of(PING, ROLE, Pause(5), HEL, END)
    await reply.begin(hold=False)
    assert now() == START
    assert (await heard_of(reply)).raw == PING + ROLE + HEL + END


@pytest.mark.parametrize("hold", [True, False])
@pytest.mark.parametrize("first", [ERROR, ROLE + ERROR, b"<html>", b"data: {broken\n\n", b"", PING])
def test_c9_a_reply_that_fails_before_it_begins_has_not_begun(first: bytes, hold: bool):
    @on_virtual_time
    async def run() -> None:
        with pytest.raises(PenstockError):
            await of(first).begin(hold=hold)

    run()


@pytest.mark.parametrize("hold", [True, False])
def test_c9_content_and_an_error_in_one_read_have_begun(hold: bool):
    @on_virtual_time
    async def run() -> None:
        heard = await heard_of(of(HEL + ERROR), begin=hold)
        assert heard.response.text == "Hel"
        assert isinstance(heard.error, StreamedError)

    # Not held, it would have begun with `Start`; but all of this read is here, and it ends in an error.
    run()


@on_virtual_time
async def test_c9_an_error_after_a_held_preamble_can_still_be_asked_elsewhere():
    reply = of(ROLE, PING, Pause(5), ERROR)
    with pytest.raises(StreamedError):
        await reply.begin(hold=True)


@on_virtual_time
async def test_a_reply_without_content_that_is_proved_has_begun():
    heard = await heard_of(of(ROLE, END + DONE), begin=True)
    assert heard.error is None
    assert heard.raw == ROLE + END + DONE


@on_virtual_time
async def test_c11_a_preamble_has_a_bound():
    ping = b": " + b"x" * (MAX_PREAMBLE_BYTES // 4) + b"\n\n"
    response = script(*[ping] * 10, HEL)
    reply = reply_to(response)
    with pytest.raises(ProtocolError, match="without content"):
        await reply.begin(hold=True)
    reply.close()
    assert response.ended == "aborted"


@on_virtual_time
async def test_c11_blank_lines_without_end_are_an_error():
    blank = b"\n" * (MAX_PREAMBLE_BYTES // 4)
    reply = reply_to(script(*[blank] * 10, HEL))
    with pytest.raises(ProtocolError, match="nothing but blank lines"):
        await reply.begin(hold=True)


@on_virtual_time
async def test_narration_before_the_beginning_is_told():
    told: list[Progress] = []
    loading = [sse({**said(""), "prompt_progress": {"processed": done, "total": 9}}) for done in (3, 6)]
    reply = of(*loading, HEL, END)
    await reply.begin(told.append, hold=True)
    assert told == [Progress("prompt", 3, 9), Progress("prompt", 6, 9)]
    assert (await heard_of(reply)).response.text == "Hel"


@on_virtual_time
async def test_c4_what_nobody_can_read_after_the_proof_takes_nothing_away():
    heard = await heard_of(of(HEL, END, b"data: {broken\n\n", DONE), begin=True)
    assert heard.error is None
    assert heard.response.text == "Hel"


@on_virtual_time
async def test_c4_what_nobody_can_read_before_the_proof_ends_it():
    heard = await heard_of(of(HEL, b"data: {broken\n\n", END), begin=True)
    assert isinstance(heard.error, ProtocolError)
