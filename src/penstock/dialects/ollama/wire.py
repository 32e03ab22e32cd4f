"""Ollama on the wire, as typed structs and tables. Durations are nanoseconds; a count of zero is left out.

Fields that are seen malformed in the wild are `Any`: a decoder must never fail on a `content: null`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from penstock.canon.events import FinishReason, Timings
from penstock.canon.usage import Usage, whole

#: this dialect's name, and the key of what only it says in `ChatRequest.extras`
OWN = "ollama"


class Message(msgspec.Struct, gc=False):
    content: Any = None
    thinking: Any = None
    tool_calls: Any = None


class Line(msgspec.Struct, gc=False):
    """One line of `/api/chat` (`message`) or `/api/generate` (`response`, `thinking`), or the one document."""

    model: Any = None
    created_at: Any = None
    message: Message | None = None
    response: Any = None
    thinking: Any = None
    done: Any = None
    done_reason: Any = None
    error: Any = None
    prompt_eval_count: Any = None
    eval_count: Any = None
    total_duration: Any = None
    load_duration: Any = None
    prompt_eval_duration: Any = None
    eval_duration: Any = None
    remote_model: Any = None
    remote_host: Any = None


decode_line = msgspec.json.Decoder(Line).decode

COUNTS = ("prompt_eval_count", "eval_count")
DURATIONS = ("total_duration", "load_duration", "prompt_eval_duration", "eval_duration")

#: `load` and `unload` answer a request without a prompt
FINISH_REASONS: dict[str, FinishReason] = {"stop": "stop", "length": "length", "load": "stop", "unload": "stop"}


def finish_word(reason: FinishReason) -> str:
    """This wire has two words; a call is a `stop` with calls."""
    return "length" if reason in ("length", "context_full") else "stop"


def read_usage(line: Line) -> Usage | None:
    if all(getattr(line, name) is None for name in COUNTS):
        return None
    raw = {name: getattr(line, name) for name in (*COUNTS, *DURATIONS) if getattr(line, name) is not None}
    prompt, output = whole(line.prompt_eval_count), whole(line.eval_count)
    total = None if prompt is None or output is None else prompt + output
    return Usage(input=prompt, output=output, total=total, raw=raw)


def read_timings(line: Line) -> Timings | None:
    """The server's own clock, in milliseconds."""
    prompt_ms, predicted_ms = _ms(line.prompt_eval_duration), _ms(line.eval_duration)
    if prompt_ms is None and predicted_ms is None:
        return None
    prompt, predicted = whole(line.prompt_eval_count), whole(line.eval_count)
    return Timings(
        prompt_tokens=prompt,
        prompt_ms=prompt_ms,
        prompt_per_second=_rate(prompt, prompt_ms),
        predicted_tokens=predicted,
        predicted_ms=predicted_ms,
        predicted_per_second=_rate(predicted, predicted_ms),
    )


def write_ending(usage: Usage | None, timings: Timings | None) -> dict[str, int]:
    """Counts and durations that are known."""
    written: dict[str, int | None] = {}
    if timings is not None:
        written["prompt_eval_duration"] = _ns(timings.prompt_ms)
        written["eval_duration"] = _ns(timings.predicted_ms)
    if usage is not None:
        written["prompt_eval_count"] = usage.input
        written["eval_count"] = usage.output
    return {name: value for name, value in written.items() if value}


def _ms(ns: Any) -> float | None:
    count = whole(ns)
    return None if count is None else count / 1e6


def _ns(ms: float | None) -> int | None:
    return None if ms is None else round(ms * 1e6)


def _rate(tokens: int | None, ms: float | None) -> float | None:
    return tokens / ms * 1000 if tokens is not None and ms else None
