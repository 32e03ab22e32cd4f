"""From one dialect into another and back: what every wire can say survives, for every recorded stream at hand."""

from __future__ import annotations

import pytest

from penstock.canon.events import Event, FinishReason, Reasoning
from penstock.canon.response import Response
from penstock.dialects import client_dialect
from penstock.framing.document import DocumentFraming
from penstock.framing.sse import SSEFraming
from tests.corpus import Recording, each
from tests.invariants import Driven, check_events, drive

CHAT, MESSAGES = "openai-chat", "anthropic-messages"

#: What becomes of a reason on a wire that has fewer words.
AS_CHAT: dict[FinishReason, FinishReason] = {
    "stop_sequence": "stop",
    "pause": "stop",
    "other": "stop",
    "context_full": "length",
    "refusal": "content_filter",
}
AS_MESSAGES: dict[FinishReason, FinishReason] = {"content_filter": "refusal", "other": "stop"}


def replay(name: str, data: bytes, *, document: bool = False) -> Driven:
    framing = DocumentFraming() if document else SSEFraming()
    driven = drive(framing, client_dialect(name).decoder(document=document, provider="someone"), [data])
    check_events(driven.events, complete=driven.error is None)
    return driven


def written(name: str, events: list[Event]) -> bytes:
    """As a relay writes it: one batch after the other."""
    encoder = client_dialect(name).encoder(model=None, include_usage=True, request_id="r", created=0)
    return b"".join(encoder.encode(events[k : k + 2]) for k in range(0, len(events), 2))


def assert_same(got: Response, sent: Response, reasons: dict[FinishReason, FinishReason]) -> None:
    assert got.text == sent.text or (sent.refusal and got.text == sent.text + sent.refusal)
    assert got.reasoning == sent.reasoning
    assert [(call.name, call.arguments) for call in got.tool_calls] == [
        (call.name, call.arguments) for call in sent.tool_calls
    ]
    assert sent.finish is not None
    assert got.finish is not None
    expected = reasons.get(sent.finish.reason, sent.finish.reason)
    if expected == "stop" and sent.refusal and reasons is AS_MESSAGES:
        expected = "refusal"  # OpenAI says `stop` after a refusal; this wire has a word for it
    assert got.finish.reason == ("tool_calls" if expected == "stop" and sent.tool_calls else expected)
    if sent.usage is None:
        return
    for name in ("input", "input_cached", "input_cache_write", "output", "output_reasoning"):
        count = getattr(sent.usage, name)
        if name == "input_cached" and count and sent.usage.input is not None:
            count = min(count, sent.usage.input)  # one recording says more of the input was cached than there was
        if count is not None:
            assert getattr(got.usage, name) == count, name


@pytest.mark.parametrize("document", [False, True], ids=["stream", "document"])
@each("openai-chat")
def test_chat_as_messages(recording: Recording, document: bool):
    driven = replay(CHAT, recording.data)
    if driven.error is not None:
        return
    sent = driven.response
    if document:
        data = client_dialect(MESSAGES).write_document(sent, model=None, request_id="r", created=0)
    else:
        data = written(MESSAGES, driven.events)
    again = replay(MESSAGES, data, document=document)
    assert again.error is None
    assert_same(again.response, sent, AS_MESSAGES)


@pytest.mark.parametrize("document", [False, True], ids=["stream", "document"])
@each("anthropic-messages")
def test_messages_as_chat(recording: Recording, document: bool):
    driven = replay(MESSAGES, recording.data)
    assert driven.error is None
    sent = driven.response
    if document:
        data = client_dialect(CHAT).write_document(sent, model=None, request_id="r", created=0)
    else:
        data = written(CHAT, driven.events)
    again = replay(CHAT, data, document=document)
    assert again.error is None
    assert_same(again.response, sent, AS_CHAT)
    signed = [part.signature for part in sent.parts if isinstance(part, Reasoning) and part.signature]
    said = [
        detail["signature"]
        for part in again.response.parts
        if isinstance(part, Reasoning)
        for detail in part.details
        if "signature" in detail
    ]
    assert said == signed, "what proves a thought comes back with the next turn"


@each("anthropic-messages")
def test_c4_a_cut_stream_is_cut_in_every_dialect(recording: Recording):
    driven = replay(MESSAGES, recording.data[: recording.data.index(b"event: message_stop")])
    assert driven.error is not None
    encoder = client_dialect(CHAT).encoder(model=None, include_usage=True, request_id="r", created=0)
    again = replay(CHAT, encoder.encode(driven.events) + encoder.error(driven.error))
    assert again.error is not None
    assert again.response.text == driven.response.text
