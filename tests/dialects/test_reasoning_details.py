"""OpenRouter's `reasoning_details` go out to a client of Anthropic's dialect and come back as they were."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.canon.events import Reasoning
from penstock.canon.target import Target
from penstock.dialects import client_dialect
from penstock.dialects.signatures import packed, unpacked
from penstock.framing.document import DocumentFraming
from penstock.framing.sse import SSEFraming
from tests.corpus import needs_corpus, recordings
from tests.invariants import drive

CHAT, MESSAGES = client_dialect("openai-chat"), client_dialect("anthropic-messages")
ROUTER = Target("router", "https://openrouter.test/v1", "openai-chat", model="m-1")

DETAILS: list[dict[str, Any]] = [
    {"type": "reasoning.text", "text": "Hm. ", "format": "anthropic-claude-v1", "index": 0},
    {"type": "reasoning.text", "text": "", "signature": "Eq=QB/+", "format": "anthropic-claude-v1", "index": 0},
    {"type": "reasoning.encrypted", "data": "gAAA", "id": "rs_1", "index": 1},
]


def through_a_client(events: Any, *, document: bool) -> bytes:
    """What the chat upstream is sent in the next turn by a client that got these events as messages."""
    if document:
        response = drive(SSEFraming(), CHAT.decoder(document=False), [events]).response
        content = json.loads(MESSAGES.write_document(response, model=None, request_id="r", created=0))["content"]
    else:
        found = drive(SSEFraming(), CHAT.decoder(document=False), [events]).events
        encoder = MESSAGES.encoder(model=None, include_usage=True, request_id="r", created=0)
        content = _as_the_client_keeps_it(encoder.encode(found))
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": content},
        {"role": "user", "content": "And?"},
    ]
    asked = MESSAGES.parse_request(json.dumps({"model": "m", "max_tokens": 9, "messages": messages}).encode())
    return CHAT.build_request(asked, ROUTER).body


def _as_the_client_keeps_it(stream: bytes) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    for line in stream.decode().splitlines():
        event = json.loads(line[6:]) if line.startswith("data: ") else {}
        if event.get("type") == "content_block_start":
            blocks.append(event["content_block"])
        elif event.get("type") == "content_block_delta":
            for key, value in event["delta"].items():
                if key == "partial_json":
                    blocks[-1]["raw"] = blocks[-1].get("raw", "") + value
                elif key != "type":
                    blocks[-1][key] += value
    for block in blocks:
        if raw := block.pop("raw", None):
            block["input"] = json.loads(raw)
    return blocks


def chunk(**delta: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": None}
    return b"data: %b\n\n" % json.dumps({"id": "gen-1", "model": "m", "choices": [choice]}).encode()


LAST = b'data: {"id":"gen-1","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'


@pytest.mark.parametrize("document", [False, True], ids=["stream", "document"])
@pytest.mark.parametrize("details", [DETAILS, DETAILS[2:]], ids=["with words", "without a word"])
def test_details_come_home(details: list[dict[str, Any]], document: bool):
    words = {"reasoning": "Hm. "} if details is DETAILS else {}
    stream = chunk(role="assistant", **words, reasoning_details=details) + chunk(content="4") + LAST
    body = json.loads(through_a_client(stream, document=document))
    said = body["messages"][1]
    assert (said["content"], said["reasoning_details"]) == ("4", details)


@needs_corpus
@pytest.mark.parametrize("document", [False, True], ids=["stream", "document"])
def test_quirk_the_details_of_every_recording_come_home(document: bool):
    """quirk: `reasoning_details` repeats `delta.reasoning`, and must be kept for the round trip."""
    checked = 0
    for recording in recordings("openai-chat"):
        if b'"reasoning_details"' not in recording.data:
            continue
        driven = drive(SSEFraming(), CHAT.decoder(document=False), [recording.data])
        if driven.error is not None:
            continue
        checked += 1
        sent = [detail for part in driven.response.parts if isinstance(part, Reasoning) for detail in part.details]
        body = json.loads(through_a_client(recording.data, document=document))
        assert body["messages"][1].get("reasoning_details", []) == sent, recording.name
    assert checked > 20


def test_they_are_no_proof_for_anthropic():
    stream = chunk(reasoning="Hm. ", reasoning_details=DETAILS) + chunk(content="4") + LAST
    response = drive(SSEFraming(), CHAT.decoder(document=False), [stream]).response
    document = MESSAGES.write_document(response, model=None, request_id="r", created=0)
    thought = json.loads(document)["content"][0]
    assert thought["signature"].startswith("penstock.openai-chat.")
    messages = [{"role": "assistant", "content": [thought]}, {"role": "user", "content": "And?"}]
    asked = MESSAGES.parse_request(json.dumps({"model": "m", "max_tokens": 9, "messages": messages}).encode())
    built = MESSAGES.build_request(asked, Target("claude", "https://a.test/v1", "anthropic-messages"))
    assert (json.loads(built.body)["messages"], built.dropped) == (
        [{"role": "user", "content": "And?"}],
        ("reasoning",),
    )
    again = drive(DocumentFraming(), MESSAGES.decoder(document=True), [document]).response.parts[0]
    assert again == Reasoning("Hm. ", thought["signature"], signed_by="anthropic-messages"), (
        "opaque to a client of ours"
    )


@given(st.lists(st.dictionaries(st.text(), st.text() | st.integers(0, 99) | st.none(), max_size=3), max_size=3))
def test_what_is_packed_is_unpacked(details: list[Any]):
    word = packed(tuple(details))
    assert word.isascii()
    assert word.replace("_", "a").replace("-", "a").isalnum()
    assert unpacked(word) == tuple(details)


@given(st.text(max_size=20))
def test_what_was_never_packed_does_no_harm(word: str):
    unpacked(word)
