"""Every recorded OpenAI chat stream at hand: what it means, at every way of cutting it, and cut short."""

from __future__ import annotations

import json
from typing import Any

from penstock.canon.errors import StreamedError, Truncated
from penstock.canon.events import KeepAlive, Start
from penstock.dialects.base import Mark
from penstock.dialects.openai_chat import DIALECT
from penstock.framing.sse import SSEFraming
from tests.corpus import Recording, each, needs_corpus, recordings
from tests.invariants import Driven, check_events, drive

#: `expected` says that no terminal marker was seen, since Cerebras sent no `[DONE]`; but its finish_reason is there,
#: and that is what proves an end.
PROVED_WITHOUT_DONE = "req_llm/cerebras__qwen_3_235b_a22b_instruct_2507__object_streaming"

#: `[DONE]` after a chunk without content or finish_reason: the provider gave nothing, which is no complete reply.
DONE_PROVES_NOTHING = "req_llm/openrouter__minimax_minimax_m1__object_streaming"

#: It ends in an SSE field `error:`, as old llama.cpp wrote it; `expected` was folded by a program that skips such
#: fields, and so it knows no error.
ERROR_FIELD = "ruby_llm/chat_with_extended_thinking_gpustack_qwen3_streams_thinking_content_when_available"

#: Larger recordings are not cut at every byte or two: it is the same test, for seconds.
SMALL_BYTES = 60_000


def replay(reads: list[bytes]) -> Driven:
    return drive(SSEFraming(), DIALECT.decoder(document=False, provider="someone"), reads)


def finishes(recording: Recording) -> bool:
    return recording.name not in (DONE_PROVES_NOTHING, ERROR_FIELD) and recording.expected["error"] is None


@each("openai-chat")
def test_a_recording_means_what_is_expected_of_it(recording: Recording):
    driven = replay([recording.data])
    expected = recording.expected
    check_events(driven.events, complete=finishes(recording))
    response = driven.response
    assert response.text == expected["text"]
    assert response.reasoning == expected["reasoning"]
    assert (response.refusal or "") == (expected["refusal"] or "")
    if finishes(recording):
        assert driven.error is None
        assert [(call.name, call.arguments) for call in response.tool_calls] == [
            (call["name"], call["arguments"]) for call in expected["tool_calls"]
        ]
        # An id that a provider did not give is made.
        given = [call["id"] or made.id for call, made in zip(expected["tool_calls"], response.tool_calls, strict=True)]
        assert [call.id for call in response.tool_calls] == given
        assert all(given)
        assert response.finish is not None
        assert response.finish.raw == expected["finish_reason_raw"]
        assert (response.usage.raw if response.usage else None) == expected["usage_raw"]
    assert (response.model or None, response.response_id or None) == (
        expected["model"] or None,
        expected["response_id"] or None,
    )


@each("openai-chat")
def test_c4_a_recording_that_failed_says_so(recording: Recording):
    error, expected = replay([recording.data]).error, recording.expected["error"]
    if recording.name == DONE_PROVES_NOTHING:
        assert isinstance(error, Truncated)
    elif recording.name == ERROR_FIELD:
        assert isinstance(error, StreamedError)
        assert error.message.startswith("failed to decode, try again")
    elif expected is None:
        assert error is None
        assert recording.expected["terminal_marker_seen"] is (recording.name != PROVED_WITHOUT_DONE)
    else:
        assert isinstance(error, StreamedError)
        assert error.message == expected["message"]
        assert error.status == expected.get("status_code", expected["code"])


@each("openai-chat")
def test_c3_every_way_of_cutting_gives_the_same_events(recording: Recording):
    whole = replay([recording.data])
    for way, reads in recording.cuts().items():
        if len(recording.data) > SMALL_BYTES and way in ("1 bytes", "2 bytes"):
            continue
        driven = replay(reads)
        assert driven.events == whole.events, way
        assert driven.marks == whole.marks, way
        assert type(driven.error) is type(whole.error), way


def proof_at(data: bytes) -> int:
    """Where the JSON ends that holds the last finish_reason needed; the end of all where there is none."""
    seen: set[int] = set()
    finished: set[int] = set()
    at = 0
    for line in data.splitlines(keepends=True):
        at += len(line)
        body = line.strip().removeprefix(b"data:").strip()
        if not body.startswith(b"{"):
            continue
        for choice in json.loads(body).get("choices") or []:
            seen.add(choice["index"])
            if choice.get("finish_reason") not in (None, "", "null"):
                finished.add(choice["index"])
        if seen and seen == finished:
            return at - len(line) + len(line.rstrip())
    return len(data) + 1


@each("openai-chat")
def test_c4_no_prefix_is_complete(recording: Recording):
    """Only with the whole of the chunk that says finish_reason in hand is a reply proved."""
    data, end = recording.data, proof_at(recording.data)
    framing, decoder = SSEFraming(), DIALECT.decoder(document=False)
    for line in data[: end - 1].splitlines(keepends=True):
        for frame in framing.feed(line):
            try:
                decoder.decode(frame, [])
            except StreamedError:
                assert not finishes(recording)
                return
        assert not decoder.proved, line
    # Ended for good: around line ends, evenly spread, and at the last bytes of the proof.
    line_ends = [k for k, byte in enumerate(data[:end]) if byte == 0x0A]
    count = max(3, min(20, 1_000_000 // len(data)))
    spread = line_ends[:: max(len(line_ends) // count, 1)]
    last = min(end, len(data) + 1)
    for cut in sorted(
        {at + step for at in spread for step in (-9, 0, 1, 2) if at + step < last} | {last - 2, last - 1}
    ):
        driven = replay([data[: max(cut, 0)]])
        assert isinstance(driven.error, Truncated), data[:cut][-40:]
        check_events(driven.events, complete=False)
    if finishes(recording):
        assert replay([data[:end]]).error is None


@each("openai-chat")
def test_a_recording_read_by_our_client_through_our_encoder_says_the_same(recording: Recording):
    """events → chat's wire → events: the same reply."""
    driven = replay([recording.data])
    if not finishes(recording):
        return
    encoder = DIALECT.encoder(model=None, include_usage=True, request_id="r", created=0)
    again = replay([encoder.encode(driven.events)])
    assert again.error is None
    sent, got = driven.response, again.response
    assert got.text == sent.text
    assert got.reasoning == sent.reasoning
    assert got.refusal == sent.refusal
    assert got.tool_calls == sent.tool_calls
    assert got.finish is not None
    assert sent.finish is not None
    assert got.finish.reason == sent.finish.reason
    assert (got.model or None, got.response_id) == (sent.model, sent.response_id or "chatcmpl-r")
    for name in ("input", "input_cached", "input_cache_write", "output", "output_reasoning"):
        assert getattr(got.usage, name, None) == getattr(sent.usage, name, None), name


@each("openai-chat")
def test_what_comes_after_done_is_marked(recording: Recording):
    if isinstance(replay([recording.data]).error, StreamedError):
        return
    driven = replay([recording.data + b"data: [DONE]\n\n" + recording.data])
    assert Mark.TERMINATOR in driven.marks
    after = driven.marks[driven.marks.index(Mark.TERMINATOR) + 1 :]
    assert after
    assert set(after) == {Mark.AFTER}
    assert driven.events == replay([recording.data]).events


@each("openai-chat")
def test_liveness_never_comes_before_the_start(recording: Recording):
    driven = replay([b": proxy\n\ndata: ping\n\n", recording.data])
    if driven.events:
        assert isinstance(driven.events[0], Start)
        assert not isinstance(driven.events[1], KeepAlive) or b"\n\n: " in recording.data


def kinds(response: Any) -> list[str]:
    return [type(part).__name__ for part in response.parts]


@needs_corpus
def test_the_recordings_hold_every_kind_of_part():
    found: set[str] = set()
    for recording in recordings("openai-chat"):
        found |= set(kinds(replay([recording.data]).response))
    assert found >= {"Text", "Reasoning", "ToolCall"}
