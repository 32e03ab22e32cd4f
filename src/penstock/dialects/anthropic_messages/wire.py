"""Anthropic Messages on the wire, as typed structs and tables.

Fields that are seen malformed in the wild are `Any`: a decoder must never fail on a `text: null` or a usage of strings.
"""

from __future__ import annotations

from typing import Any

import msgspec

from penstock.canon.events import BlockKind, FinishReason, ToolCall
from penstock.canon.usage import Usage, whole
from penstock.dialects.base import finished_call

#: this dialect's name: of its extras, and of the signatures that are its own
OWN = "anthropic-messages"

#: what the version of 2026-10-21 no longer takes, not even at its default value
SAMPLING = ("temperature", "top_p", "top_k")


class DeltaBody(msgspec.Struct, gc=False):
    """The `delta` of a content block or of the message: one struct, so that a frame is decoded in one go."""

    type: str = ""
    text: Any = None
    thinking: Any = None
    partial_json: Any = None
    signature: Any = None
    citation: Any = None
    stop_reason: Any = None
    stop_sequence: Any = None
    stop_details: Any = None
    container: Any = None


class StreamFrame(msgspec.Struct, gc=False):
    type: str | None = None
    index: int | str | None = None
    delta: DeltaBody | None = None
    content_block: dict[str, Any] | None = None
    message: Any = None
    usage: Any = None
    error: Any = None


decode_frame = msgspec.json.Decoder(StreamFrame).decode

#: what a content block is to us; `*_tool_result` is a tool_result, anything else is kept as custom
BLOCK_KINDS: dict[str, BlockKind] = {
    "text": "text",
    "thinking": "reasoning",
    "redacted_thinking": "reasoning",
    "tool_use": "tool_call",
    "server_tool_use": "tool_call",
    "mcp_tool_use": "tool_call",
}

#: the calls that Anthropic executes itself
SERVER_CALLS = frozenset({"server_tool_use", "mcp_tool_use"})

#: blocks of this wire that no other has: passed on to its own clients, kept from nobody else's
OWN_BLOCKS = frozenset({"compaction", "container_upload", "fallback", "search_result"})

CITATIONS = frozenset(
    {
        "char_location",
        "page_location",
        "content_block_location",
        "web_search_result_location",
        "search_result_location",
    }
)

STOP_REASONS: dict[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop_sequence",
    "max_tokens": "length",
    "tool_use": "tool_calls",
    "pause_turn": "pause",
    "refusal": "refusal",
    "model_context_window_exceeded": "context_full",
}

#: … and back. An unknown reason is an `end_turn` on this wire.
STOP_WORDS: dict[FinishReason, str] = {
    "stop": "end_turn",
    "stop_sequence": "stop_sequence",
    "length": "max_tokens",
    "context_full": "model_context_window_exceeded",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
    "refusal": "refusal",
    "pause": "pause_turn",
}


def block_kind(kind: str) -> BlockKind:
    return BLOCK_KINDS.get(kind) or ("tool_result" if kind.endswith("_tool_result") else "custom")


def finish_reason(raw: Any) -> tuple[FinishReason, str | None]:
    """A reply that stopped without saying why has stopped."""
    if not isinstance(raw, str) or not raw:
        return "stop", None
    return STOP_REASONS.get(raw, "other"), raw


def stop_word(reason: FinishReason, raw: str | None, *, has_calls: bool, has_refusal: bool) -> str:
    if reason == "other" and raw == "compaction":  # beta, and this wire's own
        return raw
    word = STOP_WORDS.get(reason, "end_turn")
    if word == "end_turn" and has_calls:
        return "tool_use"
    return "refusal" if word == "end_turn" and has_refusal else word


def call_input(call: ToolCall) -> dict[str, Any]:
    """The `input` object of a call. Text that is no object is kept under `_raw` rather than lost."""
    if call.arguments is not None:
        return call.arguments
    if not call.raw.strip():
        return {}
    parsed = finished_call(call.id, call.name, call.raw).arguments
    return {"_raw": call.raw} if parsed is None else parsed


# --- usage ----------------------------------------------------------------------------------------------------------


def read_usage(raw: dict[str, Any]) -> Usage:
    """Anthropic's counts → ours: its `input_tokens` leaves the cache out, our `input` holds it."""
    fresh = whole(raw.get("input_tokens"))
    cached = whole(raw.get("cache_read_input_tokens"))
    cache_write = whole(raw.get("cache_creation_input_tokens"))
    output = whole(raw.get("output_tokens"))
    details = raw.get("output_tokens_details")
    total_input = None if fresh is None else fresh + (cached or 0) + (cache_write or 0)
    return Usage(
        input=total_input,
        input_cached=cached,
        input_cache_write=cache_write,
        output=output,
        output_reasoning=whole(details.get("thinking_tokens")) if isinstance(details, dict) else None,
        total=None if total_input is None or output is None else total_input + output,
        raw=raw,
    )


def write_usage(usage: Usage | None) -> dict[str, Any]:
    """Ours → Anthropic's, known counts only."""
    if usage is None:
        return {}
    written: dict[str, Any] = {}
    cached, cache_write = usage.input_cached, usage.input_cache_write
    if usage.input is not None:
        # Some servers count more cached tokens than there are in the prompt (Azure's grok): the prompt's total stands.
        cache_write = None if cache_write is None else min(cache_write, usage.input)
        cached = None if cached is None else min(cached, usage.input - (cache_write or 0))
        written["input_tokens"] = usage.input - (cached or 0) - (cache_write or 0)
    counts = {
        "cache_creation_input_tokens": cache_write,
        "cache_read_input_tokens": cached,
        "output_tokens": usage.output,
    }
    written.update({key: count for key, count in counts.items() if count is not None})
    if usage.output_reasoning is not None:
        written["output_tokens_details"] = {"thinking_tokens": usage.output_reasoning}
    return written
