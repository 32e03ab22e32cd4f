"""Events of several attempts as those of one: whatever was told, whatever follows, every promise holds."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.canon.events import (
    BlockEnd,
    BlockStart,
    Delta,
    Event,
    Finish,
    Progress,
    Reasoning,
    Refusal,
    Start,
    Text,
    ToolCall,
    UsageUpdate,
)
from penstock.canon.response import fold
from penstock.canon.usage import Usage
from penstock.streams.recovery import Continued, Restarted, Told
from tests.dialects.streams import interleaved, of, pieces_of_text
from tests.invariants import check_events


def spoken(*kinds: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from(kinds).flatmap(
        lambda kind: pieces_of_text.map(lambda pieces: (kind("".join(pieces)), pieces))
    )


CALL = st.just((ToolCall("c", "look", "{}", {}), ["{}"]))
REPEATABLE = interleaved(Start("first"), spoken(Text, Reasoning, Refusal))
ANYTHING = interleaved(Start("second"), st.one_of(spoken(Text, Reasoning, Refusal), CALL))
END = Finish("stop")


def told(events: list[Event]) -> Told:
    found = Told()
    for event in events:
        found.note([event])
    return found


def cut(events: list[Event], sizes: list[int]) -> list[list[Event]]:
    found, rest = [], list(events)
    for size in sizes:
        found.append(rest[:size])
        rest = rest[size:]
    return [*found, rest]


def parts(events: list[Event]) -> list[Any]:
    return [event.part for event in events if isinstance(event, BlockEnd)]


@given(REPEATABLE, st.data(), ANYTHING, st.lists(st.integers(1, 5), max_size=5))
def test_c9_a_reply_that_begins_anew_is_one_stream(
    first: list[Event], data: st.DataObject, second: list[Event], sizes: list[int]
):
    before = first[: data.draw(st.integers(1, len(first)))]
    joint = Restarted(told(before))
    after = [joint.join(batch) for batch in cut([*second, END], sizes)]
    whole = [*before, *(event for batch in after for event in batch)]
    check_events(whole, complete=True)
    assert sum(isinstance(event, Start) for event in whole) == 1
    assert whole[0] == Start("first")
    assert parts(whole)[-len(parts(second)) or len(parts(whole)) :] == parts(second)
    assert fold(whole).text == fold(before).text + fold(second).text


@given(pieces_of_text, st.sampled_from(["", " ", "\n\n"]), ANYTHING, st.lists(st.integers(1, 5), max_size=5))
def test_c9_a_text_that_goes_on_is_one_stream(pieces: list[str], space: str, second: list[Event], sizes: list[int]):
    before: list[Event] = [Start("first"), BlockStart(0, "text"), *(Delta(0, piece) for piece in pieces)]
    before += [Delta(0, space)] if space else []
    known = told(before)
    joint = Continued(known)
    assert known.text is not None
    assert (joint.prefill, known.text) == (known.text.rstrip(), "".join(pieces) + space)
    after: list[Event] = []
    for batch in cut([*second, END], sizes):
        joined = joint.join(batch)
        known.note(joined)
        after += joined
    whole = [*before, *after]
    check_events(whole, complete=True)
    assert fold(whole).text.startswith(known.text or "".join(pieces))
    calls = [part for part in parts(second) if isinstance(part, ToolCall)]
    assert [part for part in parts(whole) if isinstance(part, ToolCall)] == calls


SAID: list[Event] = [Start("m"), BlockStart(0, "text"), Delta(0, "One ")]


def continued(*second: Event, before: list[Event] | None = None) -> list[Event]:
    joint = Continued(told(before or SAID))
    return joint.join([Start("n"), *second])


def test_a_text_goes_on_in_its_own_block():
    assert continued(*of(0, Text("two"), "two"), END) == [Delta(0, "two"), BlockEnd(0, Text("One two")), END]


@pytest.mark.parametrize("pieces", [["two"], [" two"], [" ", "two"], ["", " two"]])
def test_white_space_is_said_once(pieces: list[str]):
    """It was left out of what the other attempt was given, and most say it again."""
    found = continued(*of(0, Text("".join(pieces)), *pieces), END)
    assert "".join(event.text for event in found if type(event) is Delta) == "two"


def test_white_space_that_was_not_said_is_kept():
    found = continued(*of(0, Text("\n\ntwo"), "\n\ntwo"), END)
    assert found[0] == Delta(0, "\n\ntwo")
    assert continued(*of(0, Text("  two"), "  two"), END)[0] == Delta(0, " two")


def test_thoughts_about_words_that_were_said_are_left_out():
    found = continued(*of(0, Reasoning("Hm."), "Hm."), *of(1, Text("two"), "two"), END)
    assert found == [Delta(0, "two"), BlockEnd(0, Text("One two")), END]


def test_a_call_may_follow():
    call = ToolCall("c", "look", "{}", {})
    found = continued(*of(0, Text("two"), "two"), *of(1, call, "{}"), END)
    assert found[2:] == [*of(1, call, "{}"), END]
    assert continued(*of(0, call, "{}"), END) == [BlockEnd(0, Text("One ")), *of(1, call, "{}"), END]


def test_nothing_was_missing_but_the_end():
    usage = UsageUpdate(Usage(9, output=0))
    assert continued(usage, END) == [usage, BlockEnd(0, Text("One ")), END]


def test_a_text_may_be_continued_twice():
    known = told(SAID)
    joint = Continued(known)
    known.note(joint.join([Start("n"), BlockStart(0, "text"), Delta(0, "two ")]))
    assert known.text == "One two "
    again = Continued(known)
    assert again.join(of(0, Text("three"), "three"))[-1] == BlockEnd(0, Text("One two three"))


@pytest.mark.parametrize(
    ("events", "may_be_restarted", "text"),
    [
        ([Start("m")], True, None),
        (SAID, True, "One "),
        ([*SAID, BlockEnd(0, Text("One "))], True, None),
        ([*SAID, BlockEnd(0, Text("One ")), *of(1, Text("a"), "a")], True, None),
        ([Start("m"), *of(0, Reasoning("a"), "a"), BlockStart(1, "text")], True, None),
        ([Start("m"), BlockStart(0, "refusal"), Delta(0, "No")], True, None),
        ([Start("m"), Progress("prompt"), BlockStart(0, "text")], True, ""),
        ([*SAID, BlockStart(1, "tool_call", "c", "look")], False, None),
        ([*SAID, *of(1, ToolCall("c", "look", "{}", {}), "{}")], False, None),
        ([Start("m"), BlockStart(0, "custom")], False, None),
        ([*SAID, BlockEnd(0, Text("One ")), END], False, None),
    ],
)
def test_what_can_be_taken_up(events: list[Event], may_be_restarted: bool, text: str | None):
    found = told(events)
    assert (found.may_be_restarted, found.text) == (may_be_restarted, text)
