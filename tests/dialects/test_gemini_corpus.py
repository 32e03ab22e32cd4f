"""Every recorded Gemini stream at hand: what it means, at every way of cutting it, cut short, and said again."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.canon.errors import Truncated
from penstock.canon.events import Custom, Part, Reasoning, Text
from penstock.dialects.base import Mark
from penstock.dialects.gemini import ARRAY, DIALECT
from penstock.framing.document import DocumentFraming
from penstock.framing.json_array import JSONArrayFraming
from penstock.framing.sse import SSEFraming
from tests.corpus import Recording, each, needs_corpus, recordings
from tests.invariants import Driven, check_events, drive

#: the one recording whose reply never says why it ended
UNPROVED = "firebase-gemini/vertexai__streaming-success-quotes-escaped"


def replay(recording: Recording, reads: list[bytes]) -> Driven:
    framing = JSONArrayFraming() if recording.framing == "json-array" else SSEFraming()
    return drive(framing, DIALECT.decoder(document=False, provider="google"), reads)


@each("gemini")
def test_a_recording_means_what_is_expected_of_it(recording: Recording):
    driven = replay(recording, [recording.data])
    if recording.name == UNPROVED:
        assert isinstance(driven.error, Truncated)
    else:
        assert driven.error is None
    check_events(driven.events, complete=driven.error is None)
    response, expected = driven.response, recording.expected
    assert response.text == expected["text"]
    assert response.reasoning == expected["reasoning"]
    assert [(call.name, call.arguments) for call in response.tool_calls] == [
        (call["name"], call["arguments"]) for call in expected["tool_calls"]
    ]
    assert (response.finish.raw if response.finish else None) == expected["finish_reason_raw"]
    assert (response.usage.raw if response.usage else None) == expected["usage_raw"]
    assert (response.model, response.response_id) == (expected["model"], expected["response_id"])


@each("gemini")
def test_c3_every_way_of_cutting_gives_the_same_events(recording: Recording):
    whole = replay(recording, [recording.data])
    for way, reads in recording.cuts().items():
        assert replay(recording, reads).events == whole.events, way


@each("gemini")
def test_c4_no_prefix_is_complete(recording: Recording):
    """Only with the whole chunk that has the `finishReason`, or the blocked prompt, is a reply proved."""
    data = recording.data
    at = max(data.find(b'"finishReason"'), data.find(b'"blockReason"'))  # one recording gives its reason every time
    for end in sorted({*range(0, max(at, 0), max(len(data) // 60, 1)), *range(max(at - 20, 0), max(at, 0))}):
        driven = replay(recording, [data[:end]])
        assert isinstance(driven.error, Truncated), data[:end][-40:]
        check_events(driven.events, complete=False)


@each("gemini")
def test_an_array_that_comes_at_once_says_the_same(recording: Recording):
    """Pathology 18: JSON though a stream was asked for. A list of chunks is as good a document as one response."""
    if recording.framing != "json-array":
        return
    driven = drive(DocumentFraming(), DIALECT.decoder(document=True, provider="google"), [recording.data])
    assert driven.error is None
    assert driven.response == replay(recording, [recording.data]).response


@each("gemini")
def test_the_bracket_that_closes_an_array_is_its_terminator(recording: Recording):
    driven = replay(recording, [recording.data])
    assert driven.marks == ([Mark.TERMINATOR] if recording.framing == "json-array" else [])


def said(part: Part) -> Part | tuple[str, dict[str, Any]]:
    """A part, and what is said about it by name: the order of that is nothing, and a document has none."""
    if isinstance(part, Text) and part.annotations:
        return part.text, {name: value for each in part.annotations for name, value in each.items()}
    return part


@pytest.mark.parametrize("form", ["sse", "json-array", "document"])
@each("gemini")
def test_a_recording_said_again_by_us_says_the_same(recording: Recording, form: str):
    """events → our wire → events: signatures, citations and Google's own parts with them."""
    sent = replay(recording, [recording.data])
    if sent.error is not None:
        return
    if form == "document":
        data = DIALECT.write_document(sent.response, model=None, request_id="req", created=0)
        again = drive(DocumentFraming(), DIALECT.decoder(document=True, provider="google"), [data])
    else:
        dialect = ARRAY if form == "json-array" else DIALECT
        encoder = dialect.encoder(model=None, include_usage=True, request_id="req", created=0)
        data = b"".join(encoder.encode([event]) for event in sent.events)
        framing = JSONArrayFraming() if form == "json-array" else SSEFraming()
        again = drive(framing, dialect.decoder(document=False, provider="google"), [data])
    assert again.error is None
    check_events(again.events, complete=True)
    ours, got = sent.response, again.response
    assert [said(part) for part in got.parts] == [said(part) for part in ours.parts]
    assert got.finish == ours.finish
    assert (got.model or None, got.response_id) == (ours.model, ours.response_id or "req")
    if ours.usage is not None and ours.usage.input is not None:
        assert got.usage is not None
        for name in ("input", "input_cached", "output", "output_reasoning", "total"):
            assert getattr(got.usage, name) == getattr(ours.usage, name), name


@needs_corpus
def test_quirk_signatures_on_texts_calls_and_empty_parts_are_all_kept():
    signed: set[str] = set()
    for recording in recordings("gemini"):
        response = replay(recording, [recording.data]).response
        signed |= {"call" for call in response.tool_calls if call.signature}
        signed |= {"empty" for part in response.parts if isinstance(part, Reasoning) and part.signature}
        signed |= {part.kind for part in response.parts if isinstance(part, Custom) and "thoughtSignature" in part.raw}
        assert recording.data.count(b'"thoughtSignature"') == sum(
            bool(getattr(part, "signature", None)) or (isinstance(part, Custom) and "thoughtSignature" in part.raw)
            for part in response.parts
        )
    assert signed == {"call", "empty", "executable_code"}
