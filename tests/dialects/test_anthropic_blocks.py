"""Every kind of block and delta of Anthropic's wire: read, kept, and written again as it was.

quirk: 12 block kinds incl. server_tool_use, *_tool_result, mcp_*, compaction, redacted_thinking; 7 delta kinds.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from penstock.dialects import client_dialect
from penstock.framing.sse import SSEFraming
from tests.invariants import Driven, check_events, drive

MESSAGES, CHAT = client_dialect("anthropic-messages"), client_dialect("openai-chat")

CITATION = {"type": "char_location", "cited_text": "Hi", "document_index": 0}
RESULT = {"tool_use_id": "srvtoolu_1", "content": [{"type": "web_search_result", "url": "https://x.test"}]}

#: (as it opens, its deltas, as it is when it is whole)
BLOCKS: list[tuple[dict[str, Any], list[dict[str, Any]], dict[str, Any]]] = [
    (
        {"type": "text", "text": ""},
        [{"type": "text_delta", "text": "Hi"}, {"type": "citations_delta", "citation": CITATION}],
        {"type": "text", "text": "Hi", "citations": [CITATION]},
    ),
    (
        {"type": "thinking", "thinking": "", "signature": ""},
        [
            {"type": "thinking_delta", "thinking": "Hm", "estimated_tokens": 1},
            {"type": "signature_delta", "signature": "EqQB"},
        ],
        {"type": "thinking", "thinking": "Hm", "signature": "EqQB"},
    ),
    (
        {"type": "redacted_thinking", "data": "opaque"},
        [],
        {"type": "redacted_thinking", "data": "opaque"},
    ),
    (
        {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}},
        [{"type": "input_json_delta", "partial_json": piece} for piece in ("", '{"a"', ": 1}")],
        {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": 1}},
    ),
    (
        {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}},
        [{"type": "input_json_delta", "partial_json": '{"query": "x"}'}],
        {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}},
    ),
    (
        {"type": "mcp_tool_use", "id": "mcptoolu_1", "name": "g", "server_name": "s", "input": {"b": 2}},
        [],
        # a call that the provider executed: whose server it was has no place between two dialects
        {"type": "server_tool_use", "id": "mcptoolu_1", "name": "g", "input": {"b": 2}},
    ),
    *(
        ({"type": kind, **RESULT}, [], {"type": kind, **RESULT})
        for kind in (
            "web_search_tool_result",
            "web_fetch_tool_result",
            "code_execution_tool_result",
            "bash_code_execution_tool_result",
            "text_editor_code_execution_tool_result",
            "tool_search_tool_result",
            "advisor_tool_result",
            "mcp_tool_result",
        )
    ),
    (
        {"type": "container_upload", "file_id": "file_1"},
        [],
        {"type": "container_upload", "file_id": "file_1"},
    ),
    (
        {"type": "compaction", "content": None},
        [
            {"type": "compaction_delta", "content": "So far: "},
            {"type": "compaction_delta", "content": "Hi.", "encrypted_content": "gAAA"},
        ],
        {"type": "compaction", "content": "So far: Hi.", "encrypted_content": "gAAA"},
    ),
]

each_block = pytest.mark.parametrize(("opening", "deltas", "whole"), BLOCKS, ids=[block[0]["type"] for block in BLOCKS])


def event(type_: str, **fields: Any) -> bytes:
    return f"event: {type_}\ndata: {json.dumps({'type': type_, **fields})}\n\n".encode()


def stream(*blocks: tuple[dict[str, Any], list[dict[str, Any]], Any], ends: Any = None) -> bytes:
    usage = {"input_tokens": 9, "output_tokens": 1}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "c", "content": [], "usage": usage}
    frames = [event("message_start", message=message)]
    for index, (opening, deltas, _) in enumerate(blocks):
        frames.append(event("content_block_start", index=index, content_block=opening))
        frames += [event("content_block_delta", index=index, delta=delta) for delta in deltas]
        frames.append(event("content_block_stop", index=index))
    for delta, used in ends or [({"stop_reason": "end_turn"}, {"output_tokens": 5})]:
        frames.append(event("message_delta", delta=delta, usage=used))
    return b"".join([*frames, event("message_stop")])


def read(data: bytes) -> Driven:
    driven = drive(SSEFraming(), MESSAGES.decoder(document=False), [data])
    check_events(driven.events, complete=driven.error is None)
    assert driven.error is None
    return driven


def written_again(data: bytes) -> bytes:
    encoder = MESSAGES.encoder(model=None, include_usage=True, request_id="r", created=0)
    return encoder.encode(read(data).events)


def document(data: bytes) -> dict[str, Any]:
    return json.loads(MESSAGES.write_document(read(data).response, model=None, request_id="r", created=0))


@each_block
def test_quirk_a_block_of_each_kind_is_kept(opening: Any, deltas: Any, whole: Any):
    data = stream((opening, deltas, whole))
    assert document(data)["content"] == [whole]
    assert document(written_again(data))["content"] == [whole]


def test_quirk_blocks_of_all_kinds_in_one_message():
    data = written_again(stream(*BLOCKS))
    assert document(data)["content"] == [whole for _, _, whole in BLOCKS]
    indexes = [
        json.loads(line[6:])["index"] for line in data.decode().splitlines() if '"content_block_start"' in line[:40]
    ]
    assert indexes == list(range(len(BLOCKS)))


@each_block
def test_no_block_of_anthropics_own_disturbs_a_client_of_another_dialect(opening: Any, deltas: Any, whole: Any):
    text: Any = ({"type": "text", "text": ""}, [{"type": "text_delta", "text": "Yes."}], None)
    encoder = CHAT.encoder(model=None, include_usage=True, request_id="r", created=0)
    said = encoder.encode(read(stream((opening, deltas, whole), text)).events)
    again = drive(SSEFraming(), CHAT.decoder(document=False), [said])
    assert again.error is None
    assert again.response.text.endswith("Yes.")
    assert [call.name for call in again.response.tool_calls] == (["f"] if opening["type"] == "tool_use" else [])


def test_more_than_one_message_delta_is_one_end():
    ends = [
        ({"stop_reason": None}, {"output_tokens": 3}),
        ({"stop_reason": "max_tokens", "stop_sequence": None}, {"output_tokens": 7, "cache_read_input_tokens": 4}),
        ({"stop_reason": None}, {"output_tokens": None}),
    ]
    found = document(stream(BLOCKS[0], ends=ends))
    assert (found["stop_reason"], found["usage"]["output_tokens"]) == ("max_tokens", 7)
    assert found["usage"]["cache_read_input_tokens"] == 4
    again = written_again(stream(BLOCKS[0], ends=ends))
    assert again.count(b"event: message_delta") == 1
    assert document(again)["usage"] == found["usage"]


@pytest.mark.parametrize(
    "ends",
    [
        {"stop_reason": "pause_turn", "stop_sequence": None},
        {"stop_reason": "stop_sequence", "stop_sequence": "###"},
        {"stop_reason": "model_context_window_exceeded", "stop_sequence": None},
        {"stop_reason": "compaction", "stop_sequence": None},
        {
            "stop_reason": "refusal",
            "stop_sequence": None,
            "stop_details": {"type": "refusal", "category": "cyber", "explanation": "No."},
        },
    ],
    ids=lambda ends: ends["stop_reason"],
)
def test_what_an_end_says_is_said_again(ends: dict[str, Any]):
    data = stream(BLOCKS[0], ends=[(ends, {"output_tokens": 5})])
    for found in (document(data), document(written_again(data))):
        assert {key: found[key] for key in ends} == ends


def test_pathology_25_no_message_stop_is_no_end():
    """The analogue of a Responses stream without its last event."""
    whole = stream(BLOCKS[0])
    driven = drive(SSEFraming(), MESSAGES.decoder(document=False), [whole.replace(event("message_stop"), b"")])
    assert driven.error is not None
    assert driven.error.kind == "truncated"
    encoder = MESSAGES.encoder(model=None, include_usage=True, request_id="r", created=0)
    said = encoder.encode(driven.events) + encoder.error(driven.error)
    assert b"message_stop" not in said
    assert said.rstrip().rpartition(b"\n\n")[2].startswith(b"event: error\n")
