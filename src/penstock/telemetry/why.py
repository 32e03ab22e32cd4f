"""Why each figure of a record has its value, or none: what `telemetry.log.debug` adds to a line.

Pure. Nothing is said but what follows from the record itself, and names of others are words that can forge nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.telemetry.record import PATHOLOGIES, duration, rate, word

if TYPE_CHECKING:
    from penstock.telemetry.record import AttemptRecord, CallRecord


def why(record: CallRecord) -> dict[str, str]:
    """A sentence by figure, in the order of the line."""
    found = {
        "tokens": _tokens(record),
        "prompt_tps": _prompt_rate(record),
        "generation_tps": _generation_rate(record),
        "ctx": _context(record),
        "ttft": _first_token(record),
        "gaps": _gaps(record),
        "end": _ending(record),
        "cost": _cost(record),
    }
    if record.queued_ms is not None:
        found["queued"] = f"{duration(record.queued_ms)} in line for a place; in ttft and dur as well"
    if record.attempts > 1 or any(attempt.cause is not None for attempt in record.attempted):
        found["attempts"] = "; ".join(_attempt(attempt) for attempt in record.attempted)
    if record.pathologies:
        found["pathologies"] = "; ".join(PATHOLOGIES[name] for name in record.pathologies)
    return found


def _tokens(record: CallRecord) -> str:
    if record.usage_source is None:
        return f"none: the upstream reported no usage{_unended(record)}, and nothing is estimated"
    said = [
        name
        for name in ("prompt", "completion", "cached", "reasoning")
        if getattr(record, f"{name}_tokens") is not None
    ]
    return f"reported by the upstream: {', '.join(said)}"


def _prompt_rate(record: CallRecord) -> str:
    if record.prompt_tps is not None:
        return "by the server's clock, without the tokens that it had cached"
    if record.timings_source == "server":
        return "none: the server's timings leave it out"
    return "none: only a server's clock can tell, and this one told nothing"


def _generation_rate(record: CallRecord) -> str:
    if record.timings_source == "server":
        return (
            "by the server's clock" if record.generation_tps is not None else "none: the server's timings leave it out"
        )
    if record.generation_tps is not None:
        return "by our clock: the tokens after the first, by the time from the first content to the last"
    if record.completion_tokens is None:
        return "none: nobody reported how many tokens there were"
    if record.synthetic or not record.stream:
        return "none: the reply came as one document, so nobody saw it being made"
    if record.itl_max_ms is None:
        return "none: all content came with one read"
    return "none: there were fewer than two tokens, or no time between them"


def _context(record: CallRecord) -> str:
    if record.context_percent is not None:
        return f"{record.context_used} tokens of {record.context_total}, as the target's owner or server states them"
    if record.context_used is None:
        return "none: the tokens are not known"
    return f"none: {record.context_used} tokens, and nobody states the size of the target's context"


def _first_token(record: CallRecord) -> str:
    if record.ttft_ms is None:
        return "none: no content came"
    said = "from the call's beginning to the read of the first content"
    if record.ttfb_ms is not None:
        said += f"; the first frame came after {duration(record.ttfb_ms)}"
    return f"{said}, and {record.attempts - 1} attempts before it are in it" if record.attempts > 1 else said


def _gaps(record: CallRecord) -> str:
    if record.itl_p50_ms is None:
        return f"none: {record.chunks} pieces of content came with fewer than two reads"
    times = [duration(ms) for ms in (record.itl_p50_ms, record.itl_p95_ms, record.itl_max_ms)]
    return f"median {times[0]}, p95 {times[1]}, longest {times[2]}, between reads that brought {record.chunks} pieces"


_ENDINGS = {
    "complete": "the provider's own end came",
    "truncated": "the bytes ended without the provider's own end",
    "upstream_error": "the upstream failed",
    "timeout": "a clock ran out",
    "cancelled": "the client left, or we ended it",
    "capped": "a limit was reached",
}


def _ending(record: CallRecord) -> str:
    said = _ENDINGS[record.outcome]
    if record.outcome == "complete":
        return f"{said}: {word(record.finish_reason)}"
    said = f"{said}: {word(record.error_type)}, answered with {record.http_status or 'no status'}"
    if record.bytes_after_disconnect:
        said += f"; {record.bytes_after_disconnect} bytes had come for nobody"
    return said


def _cost(record: CallRecord) -> str:
    if record.cost is not None:
        return f"${record.cost:.6f}, as the upstream reported it or else by the catalogue's prices"
    if record.usage_source is None:
        return "none: the tokens are not known"
    return "none: the upstream reported none, and no price of this model is known"


def _attempt(attempt: AttemptRecord) -> str:
    said = f"{word(attempt.target)} {attempt.status or 'without an answer'}"
    if attempt.cause is None:
        return f"{said}, which gave the reply"
    return f"{said}, {word(attempt.cause)}, {duration(attempt.wasted_ms)} in vain"


def _unended(record: CallRecord) -> str:
    return "" if record.outcome == "complete" else " before it ended"


def why_lines(record: CallRecord) -> str:
    """Below the record's own line, a line for each figure; each begins with its line's end."""
    return "".join([f"\n    {name:<14} {_rate_of(record, name)}{text}" for name, text in why(record).items()])


def _rate_of(record: CallRecord, name: str) -> str:
    """The figure itself, where the line above shows two of them in one."""
    value = getattr(record, name, None)
    return f"{rate(value)}, " if name.endswith("_tps") and value is not None else ""
