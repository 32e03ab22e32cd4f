"""Bedrock Converse on the wire, as tables. Frames carry a padding member `p`, which means nothing."""

from __future__ import annotations

from typing import Any

from penstock.canon.events import FinishReason
from penstock.canon.usage import Usage, whole

#: this dialect's name, and the key of what only it says in `ChatRequest.extras`
OWN = "bedrock"

STOP_REASONS: dict[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop_sequence",
    "max_tokens": "length",
    "model_context_window_exceeded": "context_full",
    "tool_use": "tool_calls",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
}

#: the endings that are failures of the model's
FAILURES = frozenset({"malformed_model_output", "malformed_tool_use"})


def read_usage(raw: dict[str, Any]) -> Usage:
    """`inputTokens` leaves the cache out, our `input` holds it."""
    fresh, output = whole(raw.get("inputTokens")), whole(raw.get("outputTokens"))
    cached = whole(raw.get("cacheReadInputTokens"))
    cache_write = whole(raw.get("cacheWriteInputTokens"))
    total_input = None if fresh is None else fresh + (cached or 0) + (cache_write or 0)
    return Usage(
        input=total_input,
        input_cached=cached,
        input_cache_write=cache_write,
        output=output,
        total=None if total_input is None or output is None else total_input + output,
        raw=raw,
    )
