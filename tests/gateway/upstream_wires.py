"""What upstreams of each dialect send: a text, a tool call after a text, a failure half way. Plain JSON, by hand.

Nothing of the package's own writes these bytes, so that a mistake in it cannot hide in its tests.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.upstreams import Answer
from tests.wires import CHAT, MESSAGES

if TYPE_CHECKING:
    from collections.abc import Sequence

JSON = dict[str, Any]

PIECES = ["Hello ", "you ", "🐎"]
ARGUMENTS = {"at": "sea", "deep": 3}
USAGE = (123, 45)


@dataclass(frozen=True)
class UpstreamWire:
    """`mount` is its base URL's path. `asked_tool` finds the first tool's name in the request that it got."""

    name: str
    mount: str
    path: str
    text: Answer
    thought: Answer
    tool: Answer
    failure: Answer
    refusal: Answer

    def tools_of(self, body: bytes) -> list[str]:
        asked = json.loads(body)
        match self.name:
            case "openai-chat" | "ollama":
                return [tool["function"]["name"] for tool in asked["tools"]]
            case "gemini":
                return [tool["name"] for tool in asked["tools"][0]["functionDeclarations"]]
        return [tool["name"] for tool in asked["tools"]]


def _sse(*frames: bytes, **more: Any) -> Answer:
    return Answer(frames, **more)


def _data(*chunks: JSON, end: str = "\n\n") -> list[bytes]:
    return [f"data: {json.dumps(chunk, ensure_ascii=False)}{end}".encode() for chunk in chunks]


def _lines(*lines: JSON) -> Answer:
    return Answer([json.dumps(line).encode() + b"\n" for line in lines], content_type="application/x-ndjson")


def _refused(status: int, body: JSON) -> Answer:
    return Answer([json.dumps(body).encode()], status=status, content_type="application/json")


# --- Responses ------------------------------------------------------------------------------------------------------


def _responses(*events: JSON) -> Answer:
    frames = []
    for number, event in enumerate(events):
        said = {**event, "sequence_number": number}
        frames.append(f"event: {event['type']}\ndata: {json.dumps(said, ensure_ascii=False)}\n\n".encode())
    return _sse(*frames)


def _response(status: str, output: Sequence[JSON] = (), **more: Any) -> JSON:
    return {
        "id": "resp_7", "object": "response", "created_at": 7, "model": "real-1", "status": status,
        "output": list(output), **more,
    }  # fmt: skip


_RESPONSES_USAGE = {"input_tokens": USAGE[0], "output_tokens": USAGE[1], "total_tokens": sum(USAGE)}


def _message_item(text: str, index: int = 0) -> list[JSON]:
    where = {"item_id": f"msg_{index}", "output_index": index, "content_index": 0}
    item = {"type": "message", "id": f"msg_{index}", "role": "assistant", "status": "in_progress", "content": []}
    part = {"type": "output_text", "text": "", "annotations": []}
    done = {**part, "text": text}
    return [
        {"type": "response.output_item.added", "output_index": index, "item": item},
        {"type": "response.content_part.added", **where, "part": part},
        *(
            {"type": "response.output_text.delta", **where, "delta": piece}
            for piece in (PIECES if text == "".join(PIECES) else [text])
        ),
        {"type": "response.output_text.done", **where, "text": text},
        {"type": "response.content_part.done", **where, "part": done},
        {
            "type": "response.output_item.done",
            "output_index": index,
            "item": {**item, "status": "completed", "content": [done]},
        },
    ]


def _call_item(index: int) -> list[JSON]:
    raw = json.dumps(ARGUMENTS)
    item = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "look", "arguments": ""}
    item["status"] = "in_progress"
    done = {**item, "arguments": raw, "status": "completed"}
    where = {"item_id": "fc_1", "output_index": index}
    return [
        {"type": "response.output_item.added", "output_index": index, "item": item},
        {"type": "response.function_call_arguments.delta", **where, "delta": raw[:5]},
        {"type": "response.function_call_arguments.delta", **where, "delta": raw[5:]},
        {"type": "response.function_call_arguments.done", **where, "arguments": raw},
        {"type": "response.output_item.done", "output_index": index, "item": done},
    ]


def _thought_item() -> list[JSON]:
    where = {"item_id": "rs_1", "output_index": 0, "summary_index": 0}
    item = {"type": "reasoning", "id": "rs_1", "summary": []}
    part = {"type": "summary_text", "text": "Let me see."}
    return [
        {"type": "response.output_item.added", "output_index": 0, "item": item},
        {"type": "response.reasoning_summary_part.added", **where, "part": {"type": "summary_text", "text": ""}},
        {"type": "response.reasoning_summary_text.delta", **where, "delta": "Let me see."},
        {"type": "response.reasoning_summary_text.done", **where, "text": "Let me see."},
        {"type": "response.reasoning_summary_part.done", **where, "part": part},
        {"type": "response.output_item.done", "output_index": 0, "item": {**item, "summary": [part]}},
    ]


_BEGUN = [
    {"type": "response.created", "response": _response("in_progress")},
    {"type": "response.in_progress", "response": _response("in_progress")},
]


def _completed(*events: JSON) -> list[JSON]:
    """These events, and the last one, which says every item again."""
    output = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    response = _response("completed", output, usage=_RESPONSES_USAGE)
    return [*_BEGUN, *events, {"type": "response.completed", "response": response}]


_RESPONSES_WIRE = UpstreamWire(
    "openai-responses",
    "/responses/v1",
    "/responses/v1/responses",
    text=_responses(*_completed(*_message_item("".join(PIECES)))),
    thought=_responses(*_completed(*_thought_item(), *_message_item("".join(PIECES), 1))),
    tool=_responses(*_completed(*_message_item("Let me see"), *_call_item(1))),
    failure=_responses(
        *_BEGUN,
        *_message_item("".join(PIECES))[:5],
        {
            "type": "response.failed",
            "response": _response("failed", error={"code": "server_error", "message": "It broke."}),
        },
    ),
    refusal=_refused(
        429, {"error": {"message": "Too fast.", "type": "rate_limit_error", "code": "rate_limit_exceeded"}}
    ),
)


# --- Gemini ---------------------------------------------------------------------------------------------------------


def _gemini(*parts: list[JSON], last: JSON | None = None) -> Answer:
    head = {"modelVersion": "real-1", "responseId": "g7"}
    chunks: list[JSON] = [
        {"candidates": [{"index": 0, "content": {"role": "model", "parts": part}}], **head} for part in parts
    ]
    usage = {"promptTokenCount": USAGE[0], "candidatesTokenCount": USAGE[1], "totalTokenCount": sum(USAGE)}
    stop = {"candidates": [{"index": 0, "finishReason": "STOP"}], "usageMetadata": usage, **head}
    return _sse(*_data(*chunks, stop if last is None else last, end="\r\n\r\n"))


_TEXTS = [[{"text": piece}] for piece in PIECES]

_GEMINI_WIRE = UpstreamWire(
    "gemini",
    "/gemini/v1beta",
    "/gemini/v1beta/models/real-1:streamGenerateContent",
    text=_gemini(*_TEXTS),
    thought=_gemini([{"text": "Let me see.", "thought": True}], *_TEXTS),
    tool=_gemini([{"text": "Let me see"}], [{"functionCall": {"name": "look", "args": ARGUMENTS}}]),
    failure=_gemini(*_TEXTS, last={"error": {"code": 503, "message": "It broke.", "status": "UNAVAILABLE"}}),
    refusal=_refused(429, {"error": {"code": 429, "message": "Too fast.", "status": "RESOURCE_EXHAUSTED"}}),
)


# --- Ollama ---------------------------------------------------------------------------------------------------------


def _ollama_line(message: JSON, **more: Any) -> JSON:
    said = {"role": "assistant", "content": "", **message}
    return {"model": "real-1", "created_at": "2026-11-20T10:00:00.123456Z", "message": said, "done": False, **more}


_OLLAMA_DONE = _ollama_line(
    {}, done=True, done_reason="stop", total_duration=9_000_000, prompt_eval_count=USAGE[0], eval_count=USAGE[1]
)
_OLLAMA_TEXTS = [_ollama_line({"content": piece}) for piece in PIECES]

_OLLAMA_WIRE = UpstreamWire(
    "ollama",
    "/ollama",
    "/ollama/api/chat",
    text=_lines(*_OLLAMA_TEXTS, _OLLAMA_DONE),
    thought=_lines(_ollama_line({"thinking": "Let me see."}), *_OLLAMA_TEXTS, _OLLAMA_DONE),
    tool=_lines(
        _ollama_line({"content": "Let me see"}),
        _ollama_line({"tool_calls": [{"function": {"name": "look", "arguments": ARGUMENTS}}]}),
        _OLLAMA_DONE,
    ),
    failure=_lines(*_OLLAMA_TEXTS, {"error": "It broke."}),
    refusal=_refused(429, {"error": "Too fast."}),
)


# --- the two of `tests.wires` ---------------------------------------------------------------------------------------


_RAW = json.dumps(ARGUMENTS)


def _messages_thought() -> list[bytes]:
    start, _ = MESSAGES.opening()
    event = MESSAGES.event
    return [
        start,
        event("content_block_start", index=0, content_block={"type": "thinking", "thinking": "", "signature": ""}),
        event("content_block_delta", index=0, delta={"type": "thinking_delta", "thinking": "Let me see."}),
        event("content_block_delta", index=0, delta={"type": "signature_delta", "signature": "EqQB"}),
        event("content_block_stop", index=0),
        event("content_block_start", index=1, content_block={"type": "text", "text": ""}),
        *(
            event("content_block_delta", index=1, delta={"type": "text_delta", "text": piece}) for piece in PIECES
        ),
        event("content_block_stop", index=1),
        MESSAGES.usage(USAGE, "end_turn"),
        MESSAGES.terminator,
    ]  # fmt: skip


_CHAT_WIRE = UpstreamWire(
    "openai-chat",
    CHAT.mount,
    CHAT.upstream_path,
    text=_sse(*CHAT.opening(), *map(CHAT.text, PIECES), *CHAT.closing(USAGE)),
    thought=_sse(
        *CHAT.opening(),
        CHAT.chunk({"reasoning_content": "Let me see."}),
        *map(CHAT.text, PIECES),
        *CHAT.closing(USAGE),
    ),
    tool=_sse(
        *CHAT.opening(),
        CHAT.text("Let me see"),
        *CHAT.call("look", [_RAW[:5], _RAW[5:]]),
        *CHAT.closing(USAGE, "tool_calls"),
    ),
    failure=_sse(*CHAT.opening(), *map(CHAT.text, PIECES), CHAT.error("server_error", "It broke.")),
    refusal=_refused(429, {"error": {"message": "Too fast.", "type": "rate_limit_error", "param": None, "code": None}}),
)

_MESSAGES_WIRE = UpstreamWire(
    "anthropic-messages",
    MESSAGES.mount,
    MESSAGES.upstream_path,
    text=_sse(*MESSAGES.opening(), *map(MESSAGES.text, PIECES), *MESSAGES.closing(USAGE)),
    thought=_sse(*_messages_thought()),
    tool=_sse(
        *MESSAGES.opening(),
        MESSAGES.text("Let me see"),
        *MESSAGES.call("look", [_RAW[:5], _RAW[5:]]),
        *MESSAGES.closing(USAGE, "tool_calls"),
    ),
    failure=_sse(*MESSAGES.opening(), *map(MESSAGES.text, PIECES), MESSAGES.error("overloaded_error", "It broke.")),
    refusal=_refused(429, {"type": "error", "error": {"type": "rate_limit_error", "message": "Too fast."}}),
)

UPSTREAM_WIRES = {wire.name: wire for wire in (_CHAT_WIRE, _RESPONSES_WIRE, _MESSAGES_WIRE, _GEMINI_WIRE, _OLLAMA_WIRE)}
