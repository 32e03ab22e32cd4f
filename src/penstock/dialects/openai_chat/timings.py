"""What servers of this dialect tell of their own clocks → `Timings`. Pure; nothing is worked out that nobody told.

llama.cpp: `timings`. vLLM: `metrics` (with `--enable-per-request-metrics`; its time to the first token is more than the
prompt's, so it is not taken for it). Groq: seconds in `usage`. Cerebras: seconds in `time_info`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from penstock.canon.events import Timings
from penstock.canon.usage import whole

if TYPE_CHECKING:
    from penstock.canon.usage import Usage


def read_timings(timings: dict[str, Any]) -> Timings:
    """llama.cpp's own clock."""
    return Timings(
        prompt_tokens=whole(timings.get("prompt_n")),
        cached_tokens=whole(timings.get("cache_n")),
        prompt_ms=_number(timings.get("prompt_ms")),
        prompt_per_second=_number(timings.get("prompt_per_second")),
        predicted_tokens=whole(timings.get("predicted_n")),
        predicted_ms=_number(timings.get("predicted_ms")),
        predicted_per_second=_number(timings.get("predicted_per_second")),
    )


def read_metrics(metrics: dict[str, Any]) -> Timings | None:
    """vLLM's: milliseconds from the first token to the last, and the mean between two."""
    took_ms, gap_ms = _number(metrics.get("generation_time_ms")), _number(metrics.get("mean_itl_ms"))
    rate = _number(metrics.get("tokens_per_second"))
    if rate is None and gap_ms:
        rate = 1e3 / gap_ms
    return None if took_ms is None and rate is None else Timings(predicted_ms=took_ms, predicted_per_second=rate)


def read_durations(spent: dict[str, Any], usage: Usage | None) -> Timings | None:
    """Groq's and Cerebras's: seconds for the prompt and for the reply, of the tokens that `usage` counts."""
    prompt_s, reply_s = _number(spent.get("prompt_time")), _number(spent.get("completion_time"))
    if prompt_s is None and reply_s is None:
        return None
    evaluated = usage.input if usage is not None else None
    if usage is not None and evaluated is not None and usage.input_cached is not None:
        evaluated = max(evaluated - usage.input_cached, 0)
    return Timings(
        prompt_tokens=evaluated,
        cached_tokens=usage.input_cached if usage is not None else None,
        prompt_ms=None if prompt_s is None else prompt_s * 1e3,
        predicted_tokens=usage.output if usage is not None else None,
        predicted_ms=None if reply_s is None else reply_s * 1e3,
    )


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
