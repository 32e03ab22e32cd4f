"""OpenAI chat on the wire, as typed structs and tables (quirks as counted in recorded provider streams).

Fields that are seen malformed in the wild are `Any`: a decoder must never fail on a `content` list or an `index: null`.
JSON holds no cycles, so the collector need not know of what is read from it (`gc=False`).
"""

from __future__ import annotations

from typing import Any

import msgspec

from penstock.canon.events import FinishReason
from penstock.canon.usage import Usage, whole


class FunctionDelta(msgspec.Struct, gc=False):
    name: Any = None
    arguments: Any = None


class ToolCallDelta(msgspec.Struct, gc=False):
    index: Any = None
    id: Any = None
    function: FunctionDelta | None = None
    custom: Any = None
    extra_content: Any = None


class MessageDelta(msgspec.Struct, gc=False):
    """A `delta`, or the `message` of a document: the same members, all at once."""

    content: Any = None
    reasoning_content: Any = None
    reasoning: Any = None
    reasoning_details: Any = None
    refusal: Any = None
    tool_calls: list[ToolCallDelta] | None = None
    function_call: FunctionDelta | None = None
    annotations: Any = None


class Choice(msgspec.Struct, gc=False):
    index: Any = 0
    delta: MessageDelta | None = None
    message: MessageDelta | None = None
    text: Any = None
    finish_reason: Any = None
    native_finish_reason: Any = None
    logprobs: Any = None
    usage: Any = None
    error: Any = None


class Chunk(msgspec.Struct, gc=False):
    id: Any = None
    model: Any = None
    object: Any = None
    choices: list[Choice] | None = None
    usage: Any = None
    error: Any = None
    timings: Any = None
    prompt_progress: Any = None
    x_groq: Any = None
    metrics: Any = None
    time_info: Any = None
    provider: Any = None
    service_tier: Any = None
    system_fingerprint: Any = None
    verbose: Any = msgspec.field(default=None, name="__verbose")  # llama.cpp, when asked


decode_chunk = msgspec.json.Decoder(Chunk).decode

#: `abort`, `model_length`, `eos` and the rest are servers' own words for the same things.
FINISH_REASONS: dict[str, FinishReason] = {
    "stop": "stop",
    "eos": "stop",
    "length": "length",
    "model_length": "length",
    "max_tokens": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "sensitive": "content_filter",
}

#: … and back. An unknown reason is a `stop` on this wire.
FINISH_WORDS: dict[FinishReason, str] = {
    "length": "length",
    "context_full": "length",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
    "refusal": "content_filter",
}


def read_usage(raw: dict[str, Any]) -> Usage:
    """OpenAI's counts and their relatives' → ours, totals inclusive."""
    prompt_details = _object(raw.get("prompt_tokens_details"))
    completion_details = _object(raw.get("completion_tokens_details"))
    prompt, completion, total = (
        whole(raw.get("prompt_tokens")),
        whole(raw.get("completion_tokens")),
        whole(raw.get("total_tokens")),
    )
    reasoning = whole(completion_details.get("reasoning_tokens"))
    if reasoning and None not in (prompt, completion, total) and total == prompt + completion + reasoning:  # type: ignore[operator]
        # xAI leaves reasoning out of `completion_tokens` and counts it in `total_tokens`.
        completion = completion + reasoning  # type: ignore[operator]
    cached = whole(prompt_details.get("cached_tokens"))
    if cached is None:
        cached = whole(raw.get("prompt_cache_hit_tokens"))  # DeepSeek
    cost = raw.get("cost")
    return Usage(
        input=prompt,
        input_cached=cached,
        input_cache_write=whole(prompt_details.get("cache_write_tokens")),
        output=completion,
        output_reasoning=reasoning,
        total=total,
        cost=float(cost)
        if isinstance(cost, int | float) and not isinstance(cost, bool)
        else None,  # OpenRouter, in US dollars
        raw=raw,
    )


def write_usage(usage: Usage | None) -> dict[str, Any]:
    """Ours → OpenAI's. A count that nobody reported is 0 here, because clients of this wire do sums with it."""
    given = usage or Usage()
    prompt, completion = given.input or 0, given.output or 0
    written: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
    details = {
        key: value
        for key, value in (("cached_tokens", given.input_cached), ("cache_write_tokens", given.input_cache_write))
        if value is not None
    }
    if details:
        written["prompt_tokens_details"] = details
    if given.output_reasoning is not None:
        written["completion_tokens_details"] = {"reasoning_tokens": given.output_reasoning}
    return written


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
