"""Every recorded Anthropic Messages stream at hand: what it means, at every way of cutting it, and cut short."""

from __future__ import annotations

from penstock.canon.errors import Truncated
from penstock.canon.events import KeepAlive, Reasoning, Start, ToolCall
from penstock.dialects.anthropic_messages import DIALECT
from penstock.dialects.base import Mark
from penstock.framing.sse import SSEFraming
from tests.corpus import Recording, each, needs_corpus, recordings
from tests.invariants import Driven, check_events, drive

STOP = b'data: {"type":"message_stop"'


def replay(reads: list[bytes]) -> Driven:
    return drive(SSEFraming(), DIALECT.decoder(document=False, provider="anthropic"), reads)


def replies(recording: Recording) -> list[bytes]:
    """A recording's replies. One (Vercel's tool search) holds three, spliced: each is a stream of its own."""
    begin = b"event: message_start"
    return [begin + rest for rest in recording.data.split(begin)[1:]]


@each("anthropic-messages")
def test_a_recording_means_what_is_expected_of_it(recording: Recording):
    text, reasoning = "", ""
    calls: list[ToolCall] = []
    for data in replies(recording):
        driven = replay([data])
        assert driven.error is None
        check_events(driven.events, complete=True)
        response = driven.response
        text += response.text
        reasoning += response.reasoning
        calls += response.tool_calls
    expected = recording.expected
    assert text == expected["text"]
    assert reasoning == expected["reasoning"]
    assert [(call.id, call.name, call.arguments) for call in calls] == [
        (call["id"], call["name"], call["arguments"]) for call in expected["tool_calls"]
    ]
    assert response.finish is not None
    assert response.finish.raw == expected["finish_reason_raw"]
    assert response.usage is not None
    assert response.usage.raw == expected["usage_raw"]
    first = replay([replies(recording)[0]]).response
    assert (first.model, first.response_id) == (expected["model"], expected["response_id"])


@each("anthropic-messages")
def test_c3_every_way_of_cutting_gives_the_same_events(recording: Recording):
    whole = replay([recording.data])
    for way, reads in recording.cuts().items():
        assert replay(reads).events == whole.events, way


@each("anthropic-messages")
def test_c4_no_prefix_is_complete(recording: Recording):
    """Only with the whole of `message_stop` in hand is a reply proved."""
    data = replies(recording)[0]
    end = data.index(b"}", data.index(STOP)) + 1
    framing, decoder = SSEFraming(), DIALECT.decoder(document=False)
    for line in data[:end].splitlines(keepends=True)[:-1]:
        for frame in framing.feed(line):
            decoder.decode(frame, [])
        assert not decoder.proved, line
    # Ended for good: around line ends, evenly spread, and at every byte of the last word.
    line_ends = [k for k, byte in enumerate(data[:end]) if byte == 0x0A]
    spread = line_ends[:: max(len(line_ends) // 30, 1)]
    for cut in sorted({at + step for at in spread for step in (-9, 0, 1, 2)} | set(range(end - 60, end))):
        driven = replay([data[: max(cut, 0)]])
        assert isinstance(driven.error, Truncated), data[:cut][-40:]
        check_events(driven.events, complete=False)
    assert replay([data[:end]]).error is None


@each("anthropic-messages")
def test_a_recording_read_by_our_client_through_our_encoder_says_the_same(recording: Recording):
    """events → Anthropic's wire → events: the same reply but for what the wire of another dialect would not have."""
    events = replay([replies(recording)[0]]).events
    encoder = DIALECT.encoder(model=None, include_usage=True, request_id="req", created=0)
    driven = replay([b"".join(encoder.encode([event]) for event in events)])
    assert driven.error is None
    sent, got = fold_of(events), driven.response
    parts = [part for part in sent.parts if not _is_empty_thought(part)]
    assert list(got.parts) == parts
    assert got.finish == sent.finish
    assert (got.model, got.response_id) == (sent.model, sent.response_id)
    assert sent.usage is not None
    assert got.usage is not None
    for name in ("input", "input_cached", "input_cache_write", "output", "total"):
        assert getattr(got.usage, name) == getattr(sent.usage, name), name


def fold_of(events):
    driven = Driven()
    driven.events = list(events)
    return driven.response


def _is_empty_thought(part: object) -> bool:
    return isinstance(part, Reasoning) and not (part.text or part.signature or part.redacted)


@each("anthropic-messages")
def test_what_comes_after_the_end_is_marked(recording: Recording):
    driven = replay([recording.data + b"\n\ndata: [DONE]\n\n" + recording.data])
    assert driven.marks[0] is Mark.TERMINATOR
    assert set(driven.marks[1:]) == {Mark.AFTER}
    assert driven.events == replay([recording.data]).events


@each("anthropic-messages")
def test_liveness_never_comes_before_the_start(recording: Recording):
    driven = replay([b": proxy\n\nevent: ping\ndata: {}\n\n", recording.data])
    assert isinstance(driven.events[0], Start)
    assert not any(isinstance(event, KeepAlive) for event in driven.events[:2])


@needs_corpus
def test_calls_that_the_provider_executed_are_kept_apart_from_the_callers():
    parts = [part for recording in recordings("anthropic-messages") for part in replay([recording.data]).response.parts]
    server = {part.name for part in parts if isinstance(part, ToolCall) and part.server}
    assert server >= {"advisor", "bash_code_execution", "web_fetch"}
