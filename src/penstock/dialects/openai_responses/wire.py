"""OpenAI Responses on the wire, as typed structs and tables.

Fields that are seen malformed or left out in the wild are `Any`: llama.cpp's stream has no `output_index` and no
`sequence_number`, and a decoder needs neither.
"""

from __future__ import annotations

from typing import Any

import msgspec

from penstock.canon.events import FinishReason
from penstock.canon.usage import Usage, whole

#: this dialect's name, and the key of what only it says in `ChatRequest.extras`
OWN = "openai-responses"


class StreamEvent(msgspec.Struct, gc=False):
    """Any event: the members that we read, whichever the event is."""

    type: Any = None
    delta: Any = None
    item_id: Any = None
    output_index: Any = None
    logprobs: Any = None
    item: Any = None
    text: Any = None
    refusal: Any = None
    arguments: Any = None
    input: Any = None
    annotation: Any = None
    response: Any = None
    error: Any = None
    object: Any = None


decode_event = msgspec.json.Decoder(StreamEvent).decode

INCOMPLETE_REASONS: dict[str, FinishReason] = {"max_output_tokens": "length", "content_filter": "content_filter"}

#: … and back. What is not here is `completed`.
INCOMPLETE_WORDS: dict[FinishReason, str] = {
    "length": "max_output_tokens",
    "context_full": "max_output_tokens",
    "content_filter": "content_filter",
    "refusal": "content_filter",
}


def read_usage(raw: dict[str, Any]) -> Usage:
    given, made = _object(raw.get("input_tokens_details")), _object(raw.get("output_tokens_details"))
    return Usage(
        input=whole(raw.get("input_tokens")),
        input_cached=whole(given.get("cached_tokens")),
        input_cache_write=whole(given.get("cache_write_tokens")),
        output=whole(raw.get("output_tokens")),
        output_reasoning=whole(made.get("reasoning_tokens")),
        total=whole(raw.get("total_tokens")),
        raw=raw,
    )


def write_usage(usage: Usage | None) -> dict[str, Any] | None:
    """Ours → theirs. A count that nobody reported is 0, because clients of this wire do sums with it."""
    if usage is None:
        return None
    given, made = usage.input or 0, usage.output or 0
    cached: dict[str, int] = {"cached_tokens": usage.input_cached or 0}
    if usage.input_cache_write is not None:
        cached["cache_write_tokens"] = usage.input_cache_write
    return {
        "input_tokens": given,
        "input_tokens_details": cached,
        "output_tokens": made,
        "output_tokens_details": {"reasoning_tokens": usage.output_reasoning or 0},
        "total_tokens": given + made,
    }


def thought_signature(item: dict[str, Any]) -> str | None:
    """What a reasoning item must come back with: its id and its encrypted content, as one string."""
    encrypted = item.get("encrypted_content")
    if not isinstance(encrypted, str) or not encrypted:
        return None
    id_ = item.get("id")
    return f"{id_ if isinstance(id_, str) else ''}:{encrypted}"


def split_thought_signature(signature: str) -> tuple[str | None, str]:
    id_, _, encrypted = signature.partition(":")
    return id_ or None, encrypted


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
