"""The canonical events: what a stream means, in whatever dialect it came.

Order, tested on every recording: `Start` first and once; block numbers `i` unique and increasing, never reopened;
every `Delta` between its `BlockStart` and `BlockEnd` (blocks may interleave); all blocks closed before `Finish`;
joined deltas equal the part that `BlockEnd` carries; `Finish` last and once, and only on the provider's own terminal.
A failure is no event: it is an exception that carries what had arrived.
"""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from penstock.canon.usage import Usage

BlockKind = Literal["text", "reasoning", "tool_call", "tool_result", "refusal", "source", "file", "custom"]
FinishReason = Literal[
    "stop", "stop_sequence", "length", "context_full", "tool_calls", "content_filter", "refusal", "pause", "other"
]


# --- the finished parts ---------------------------------------------------------------------------------------------


class Text(Struct, frozen=True, tag="text"):
    text: str
    annotations: tuple[Any, ...] = ()


class Reasoning(Struct, frozen=True, tag="reasoning"):
    """`signature` and `redacted` are opaque, and mean something to the dialect `signed_by` alone, None where nobody
    knows whose they are; `details` is OpenRouter's form."""

    text: str
    signature: str | None = None
    redacted: str | None = None
    details: tuple[Any, ...] = ()
    signed_by: str | None = None


class ToolCall(Struct, frozen=True, tag="tool_call"):
    """`raw` is the argument text as it came; `arguments` is None and `error` says why when it is not a JSON object.

    An empty `raw` means no arguments: `{}`. A `server` call is executed by the provider, not by the caller.
    `signature` is Gemini's: it must come back with the call.
    """

    id: str
    name: str
    raw: str
    arguments: dict[str, Any] | None = None
    error: str | None = None
    server: bool = False
    signature: str | None = None


class Refusal(Struct, frozen=True, tag="refusal"):
    text: str


class Custom(Struct, frozen=True, tag="custom"):
    """A block that we have no better word for: kept whole (`raw`), under the provider's own `kind`."""

    kind: str
    raw: Any = None


Part = Text | Reasoning | ToolCall | Refusal | Custom


# --- the events -----------------------------------------------------------------------------------------------------


class Start(Struct, frozen=True, tag="start"):
    model: str | None = None
    provider: str | None = None
    response_id: str | None = None
    warnings: tuple[str, ...] = ()


class BlockStart(Struct, frozen=True, tag="block_start"):
    i: int
    kind: BlockKind
    id: str | None = None
    name: str | None = None
    server: bool = False
    signature: str | None = None


class Delta(Struct, frozen=True, gc=False, tag="delta"):
    """The only hot event: a piece of text, of reasoning, of a refusal, or of a tool call's argument JSON."""

    i: int
    text: str


class BlockEnd(Struct, frozen=True, tag="block_end"):
    i: int
    part: Part


class Annotation(Struct, frozen=True, tag="annotation"):
    """Something said about block `i` (citations, logprobs), in the provider's own shape."""

    i: int
    data: Any


class UsageUpdate(Struct, frozen=True, tag="usage"):
    """Cumulative: the last one is the truth."""

    usage: Usage


class Timings(Struct, frozen=True, tag="timings"):
    """The server's own clock, where it has one (llama.cpp `timings`). Milliseconds and tokens; None: not reported."""

    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    prompt_ms: float | None = None
    prompt_per_second: float | None = None
    predicted_tokens: int | None = None
    predicted_ms: float | None = None
    predicted_per_second: float | None = None


class Progress(Struct, frozen=True, tag="progress"):
    """Narration: what the server does before and beside the content (`loading`, `queued`, `prompt`)."""

    stage: str
    done: int | None = None
    total: int | None = None
    message: str | None = None


class KeepAlive(Struct, frozen=True, tag="keep_alive"):
    """Liveness (`comment`, `ping`, `empty`); never content."""

    source: str


class Finish(Struct, frozen=True, tag="finish"):
    reason: FinishReason
    raw_reason: str | None = None
    usage: Usage | None = None
    metadata: dict[str, Any] = {}


Event = Start | BlockStart | Delta | BlockEnd | Annotation | UsageUpdate | Timings | Progress | KeepAlive | Finish


def is_content(event: Event) -> bool:
    """Whether the event commits the stream: something the caller asked for, which cannot be unsaid."""
    kind = type(event)
    if kind is Delta:
        return bool(event.text)  # type: ignore[union-attr]
    if kind is BlockEnd:
        return not is_blank(event.part)  # type: ignore[union-attr]
    return kind is Finish or (kind is BlockStart and event.kind not in _SILENT_OPENERS)  # type: ignore[union-attr]


def is_blank(part: Part) -> bool:
    """Whether a finished part holds nothing: no word, and nothing that would have to come back with the next turn."""
    if isinstance(part, Reasoning):
        return not (part.text or part.redacted or part.signature or part.details)
    return isinstance(part, Text | Refusal) and not part.text


# A text block opens before its first word; a tool call says its name when it opens.
_SILENT_OPENERS = frozenset({"text", "reasoning", "refusal"})
