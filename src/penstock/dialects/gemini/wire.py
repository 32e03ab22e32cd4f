"""Gemini on the wire, as typed structs and tables.

Fields that are seen malformed in the wild are `Any`: a decoder must never fail on a `text: null` or a usage of strings.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

import msgspec

from penstock.canon.events import FinishReason, Reasoning, ToolCall
from penstock.canon.usage import Usage, whole
from penstock.dialects.base import finished_call
from penstock.dialects.signatures import marked, unmarked

#: the dialect's name: of its extras, and of the signatures that are its own
OWN = "gemini"


class Part(msgspec.Struct, gc=False, rename="camel"):
    """The kinds that a stream is made of. A part of another kind has none of these, and is read again as it came."""

    text: Any = None
    thought: Any = None
    thought_signature: Any = None
    function_call: Any = None


class Content(msgspec.Struct, gc=False):
    parts: list[Part] | None = None


class Candidate(msgspec.Struct, gc=False, rename="camel"):
    content: Content | None = None
    finish_reason: Any = None
    index: Any = None
    finish_message: Any = None
    continuation_token: Any = None
    citation_metadata: Any = None
    grounding_metadata: Any = None
    url_context_metadata: Any = None
    logprobs_result: Any = None


class Chunk(msgspec.Struct, gc=False, rename="camel"):
    """One `GenerateContentResponse`."""

    candidates: list[Candidate] | None = None
    prompt_feedback: Any = None
    usage_metadata: Any = None
    model_version: Any = None
    response_id: Any = None
    error: Any = None


decode_chunk = msgspec.json.Decoder(Chunk).decode

#: what is said about a candidate's text: struct field → member on the wire
ANNOTATIONS = {
    "citation_metadata": "citationMetadata",
    "grounding_metadata": "groundingMetadata",
    "url_context_metadata": "urlContextMetadata",
    "logprobs_result": "logprobsResult",
}

# --- how a reply ends -----------------------------------------------------------------------------------------------

#: the words that say nothing
UNFINISHED = frozenset({"", "null", "FINISH_REASON_UNSPECIFIED", "BLOCK_REASON_UNSPECIFIED"})
#: … as SDKs spell the same of a blocked prompt
UNBLOCKED = UNFINISHED | {"BLOCKED_REASON_UNSPECIFIED"}

FINISH_REASONS: dict[str, FinishReason] = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "SAFETY": "content_filter",
    "RECITATION": "content_filter",
    "BLOCKLIST": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "SPII": "content_filter",
    "MODEL_ARMOR": "content_filter",
    "IMAGE_SAFETY": "content_filter",
    "IMAGE_PROHIBITED_CONTENT": "content_filter",
    "IMAGE_RECITATION": "content_filter",
    "IMAGE_OTHER": "content_filter",
    "CONTINUATION": "pause",
    "NO_IMAGE": "other",
    "ESCALATION": "other",
    "PUP_LIMITED_DISABLED": "other",
}

#: … and back. An unknown reason is a `STOP` on this wire.
FINISH_WORDS: dict[FinishReason, str] = {
    "length": "MAX_TOKENS",
    "context_full": "MAX_TOKENS",
    "content_filter": "SAFETY",
    "refusal": "SAFETY",
    "pause": "CONTINUATION",
}

#: The model failed: what came is no answer, however it is called.
FAILURES = frozenset(
    {
        "MALFORMED_FUNCTION_CALL",
        "MALFORMED_RESPONSE",
        "UNEXPECTED_TOOL_CALL",
        "TOO_MANY_TOOL_CALLS",
        "MISSING_THOUGHT_SIGNATURE",
        "LANGUAGE",
        "OTHER",
    }
)

#: the raw reason of a reply whose prompt was blocked: this, and the block's own reason
PROMPT_BLOCKED = "PROMPT_BLOCKED:"


def finish_reason(raw: str) -> FinishReason:
    return "content_filter" if raw.startswith(PROMPT_BLOCKED) else FINISH_REASONS.get(raw, "other")


def finish_word(reason: FinishReason, raw: str | None, *, has_refusal: bool) -> str:
    """Gemini's own word where there is one, else the word for our reason. A call ends with `STOP` here."""
    if raw is not None and FINISH_REASONS.get(raw) == reason:
        return raw
    word = FINISH_WORDS.get(reason, "STOP")
    return "SAFETY" if word == "STOP" and has_refusal else word


# --- calls and signatures -------------------------------------------------------------------------------------------


def call_args(call: ToolCall) -> dict[str, Any]:
    """The `args` object of a call. Text that is no object is kept under `_raw` rather than lost."""
    arguments = call.arguments
    if arguments is None:
        arguments = finished_call(call.id, call.name, call.raw).arguments
    return {"_raw": call.raw} if arguments is None else arguments


_REDACTED = "redacted:"


def write_signature(thought: Reasoning) -> str | None:
    """What proves a thought, for the field `thoughtSignature`.

    Gemini's own goes as it is. That of another dialect is marked with its owner, and is base64, because the field is
    one of bytes: clients decode it, keep it, and send it back.
    """
    signature = thought.signature
    if thought.redacted is not None:
        signature = _REDACTED + thought.redacted
    if not signature or thought.signed_by in (None, OWN):
        return signature or None
    return base64.b64encode(marked(signature, thought.signed_by, OWN).encode()).decode()


def read_signature(written: str, text: str) -> Reasoning:
    """The thought that a client sends back with its proof, whosever it is."""
    held, owner = _unmarked(written)
    if held.startswith(_REDACTED) and owner != OWN:
        return Reasoning(text, redacted=held.removeprefix(_REDACTED), signed_by=owner)
    return Reasoning(text, held, signed_by=owner)


def _unmarked(written: str) -> tuple[str, str]:
    plain = written.replace("-", "+").replace("_", "/").rstrip("=")
    try:
        held = base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True).decode("ascii")
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return written, OWN
    signature, owner = unmarked(held, OWN)
    return (written, OWN) if owner == OWN else (signature, owner)


# --- files ----------------------------------------------------------------------------------------------------------

_VIDEOS = ("https://www.youtube.com/", "https://youtube.com/", "https://youtu.be/")


def is_own_file(uri: str) -> bool:
    """Whether Google holds it: of its Files API, or in its storage."""
    return uri.startswith(("gs://", "files/", "https://generativelanguage.googleapis.com/"))


def is_fetched(uri: str) -> bool:
    """Whether Gemini reads it at its address: what Google holds, and YouTube's videos."""
    return is_own_file(uri) or uri.startswith(_VIDEOS)


# --- usage ----------------------------------------------------------------------------------------------------------


def read_usage(raw: dict[str, Any]) -> Usage:
    """Gemini's counts → ours: its prompt leaves out what its tools fetched, its candidates leave out the thoughts."""
    prompt, fetched = whole(raw.get("promptTokenCount")), whole(raw.get("toolUsePromptTokenCount"))
    said, thought = whole(raw.get("candidatesTokenCount")), whole(raw.get("thoughtsTokenCount"))
    given = None if prompt is None and fetched is None else (prompt or 0) + (fetched or 0)
    made = None if said is None and thought is None else (said or 0) + (thought or 0)
    total = whole(raw.get("totalTokenCount"))
    if total is None and given is not None and made is not None:
        total = given + made
    return Usage(given, whole(raw.get("cachedContentTokenCount")), None, made, thought, total, None, raw)


def write_usage(usage: Usage | None) -> dict[str, Any] | None:
    """Ours → Gemini's, known counts only."""
    if usage is None:
        return None
    thought, output, total = usage.output_reasoning, usage.output, usage.total
    if total is None and usage.input is not None and output is not None:
        total = usage.input + output
    counts = {
        "promptTokenCount": usage.input,
        "candidatesTokenCount": None if output is None else max(output - (thought or 0), 0),
        "totalTokenCount": total,
        "cachedContentTokenCount": usage.input_cached,
        "thoughtsTokenCount": thought,
    }
    return {key: count for key, count in counts.items() if count is not None} or None
