"""Cohere v2 on the wire, as typed structs and tables. Counts may be floats."""

from __future__ import annotations

from typing import Any

import msgspec

from penstock.canon.events import FinishReason
from penstock.canon.usage import Usage, whole

#: this dialect's name, and the key of what only it says in `ChatRequest.extras`
OWN = "cohere"


class Content(msgspec.Struct, gc=False):
    type: Any = None
    text: Any = None
    thinking: Any = None


class Message(msgspec.Struct, gc=False):
    content: Content | list[Any] | None = None
    tool_plan: Any = None
    tool_calls: Any = None
    citations: Any = None


class DeltaBody(msgspec.Struct, gc=False):
    message: Message | None = None
    finish_reason: Any = None
    usage: Any = None
    error: Any = None


class StreamEvent(msgspec.Struct, gc=False):
    type: Any = None
    id: Any = None
    index: Any = None
    delta: DeltaBody | None = None


decode_event = msgspec.json.Decoder(StreamEvent).decode

FINISH_REASONS: dict[str, FinishReason] = {
    "COMPLETE": "stop",
    "STOP_SEQUENCE": "stop_sequence",
    "MAX_TOKENS": "length",
    "TOOL_CALL": "tool_calls",
}

#: the endings that are failures, and what each would have been as a status
FAILURES = {"ERROR": 500, "TIMEOUT": 504}


def read_usage(raw: dict[str, Any]) -> Usage:
    """What was processed, not what is billed: `tokens`, inclusive of the cached ones."""
    tokens = raw.get("tokens")
    tokens = tokens if isinstance(tokens, dict) else {}
    prompt, output = whole(tokens.get("input_tokens")), whole(tokens.get("output_tokens"))
    total = None if prompt is None or output is None else prompt + output
    return Usage(input=prompt, input_cached=whole(raw.get("cached_tokens")), output=output, total=total, raw=raw)
