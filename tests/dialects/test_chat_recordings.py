"""Every recorded OpenAI chat stream at hand: what it means, at every way of cutting it, cut short, and translated."""

from __future__ import annotations

from typing import Any

import msgspec

from penstock.canon.errors import StreamedError, Truncated
from penstock.canon.response import Response
from penstock.dialects import dialect as dialect_of
from penstock.framing.sse import SSEFraming
from tests.corpus import Recording, each
from tests.invariants import Driven, check_events, drive

CHAT, MESSAGES = dialect_of("openai-chat"), dialect_of("anthropic-messages")

#: Where `expected` and we differ, and why we are right.
ENDINGS = {
    # [DONE] without any finish_reason, after a reply of no tokens: proves nothing.
    "req_llm/openrouter__minimax_minimax_m1__object_streaming": Truncated,
    # The last line is llama.cpp's old `error:` field, which `expected` does not read.
    "ruby_llm/chat_with_extended_thinking_gpustack_qwen3_streams_thinking_content_when_available": StreamedError,
}


def replay(reads: list[bytes]) -> Driven:
    return drive(SSEFraming(), CHAT.decoder(document=False, provider="upstream"), reads)


def arguments_of(call: Any) -> Any:
    given = call["arguments"]
    return msgspec.json.decode(given) if isinstance(given, str) and given else given or {}


@each("openai-chat")
def test_a_recording_means_what_is_expected_of_it(recording: Recording) -> None:
    driven, expected = replay([recording.data]), recording.expected
    response = driven.response
    if ending := next((ending for name, ending in ENDINGS.items() if recording.name.startswith(name)), None):
        assert isinstance(driven.error, ending)
    elif expected["error"]:
        assert isinstance(driven.error, StreamedError)
        assert driven.error.message == expected["error"]["message"]
    else:
        # A finish_reason proves the end, whether or not a [DONE] follows (cerebras sends none).
        assert driven.error is None
        assert response.finish is not None
        assert response.finish.raw == expected["finish_reason_raw"]
    check_events(driven.events, complete=driven.error is None)
    assert response.text == (expected["text"] or "")
    assert response.reasoning == (expected["reasoning"] or "")
    assert (response.refusal or "") == (expected.get("refusal") or "")
    assert [(call.id, call.name, call.arguments) for call in response.tool_calls] == [
        (call["id"], call["name"], arguments_of(call)) for call in expected["tool_calls"]
    ]
    assert (response.usage.raw if response.usage else None) == expected["usage_raw"]
    assert (response.model, response.response_id) == (expected["model"], expected["response_id"])


@each("openai-chat")
def test_c3_every_way_of_cutting_gives_the_same_events(recording: Recording) -> None:
    whole = replay([recording.data])
    for way, reads in recording.cuts().items():
        if way == "1 bytes" and len(recording.data) > 60_000:
            continue  # the larger ones are cut into 2, 7 and 64, which takes long enough
        cut = replay(reads)
        assert cut.events == whole.events, way
        assert type(cut.error) is type(whole.error), way


@each("openai-chat")
def test_c4_no_prefix_before_the_finish_reason_is_complete(recording: Recording) -> None:
    data = recording.data
    if replay([data]).error is not None:
        return  # never complete, so no prefix of it can be
    end = first_proof(data)
    line_ends = [k for k in range(end) if data[k] == 0x0A]
    spread = line_ends[:: max(len(line_ends) // 20, 1)]
    for cut in sorted({at + step for at in spread for step in (-9, 0, 1, 2)} | set(range(max(end - 40, 0), end))):
        if cut < end:
            driven = replay([data[: max(cut, 0)]])
            assert isinstance(driven.error, Truncated), data[:cut][-60:]


def first_proof(data: bytes) -> int:
    """Where the JSON of the frame that proves the ending is whole."""
    framing, decoder, at = SSEFraming(), CHAT.decoder(document=False), 0
    for frame in framing.feed(data) + framing.close():
        decoder.decode(frame, [])
        if decoder.proved:
            return at + len(frame.raw.rstrip())
        at += len(frame.raw)
    raise AssertionError("never proved")


@each("openai-chat")
def test_a_recording_survives_the_other_dialect_and_its_own(recording: Recording) -> None:
    driven = replay([recording.data])
    if driven.error is not None:
        return
    # Anthropic's dialect has no refusal apart from its text.
    for dialect in (CHAT,) if driven.response.refusal else (CHAT, MESSAGES):
        encoder = dialect.encoder(model=None, include_usage=True, request_id="r", created=1)
        again = drive(SSEFraming(), dialect.decoder(document=False), [encoder.encode(driven.events)])
        assert again.error is None
        assert meaning(again.response) == meaning(driven.response)


def meaning(response: Response) -> tuple[Any, ...]:
    usage, finish = response.usage, response.finish
    return (
        response.text,
        response.reasoning,
        [(call.name, call.arguments) for call in response.tool_calls],
        finish.reason if finish else None,
        (usage.input or 0, usage.output or 0) if usage else (0, 0),
    )
