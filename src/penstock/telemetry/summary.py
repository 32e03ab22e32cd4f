"""What many records come to, by model: how many, how they ended, how fast. Pure.

A figure that no record has is None. A percentile is that of the records which have the figure: the value at the nearest
rank, so it is one that was measured.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, TypeVar

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from penstock.telemetry.record import CallRecord

T = TypeVar("T", int, float)


class Summary(Struct, frozen=True):
    """Of one model, or of all. Rates are tokens per second, times milliseconds, cost US dollars."""

    name: str
    calls: int
    outcomes: dict[str, int]
    prompt_tokens: int | None
    completion_tokens: int | None
    ttft_p50_ms: float | None
    ttft_p95_ms: float | None
    duration_p50_ms: float | None
    duration_p95_ms: float | None
    generation_tps_p50: float | None
    cost: float | None

    @property
    def failed(self) -> int:
        """What its client did not want to end so: everything but `complete` and `cancelled`."""
        return sum(number for outcome, number in self.outcomes.items() if outcome not in ("complete", "cancelled"))


def summarised(records: Sequence[CallRecord], name: str = "all") -> Summary:
    ttft, duration = _known(it.ttft_ms for it in records), _known(it.duration_ms for it in records)
    return Summary(
        name=name,
        calls=len(records),
        outcomes=dict(Counter(it.outcome for it in records)),
        prompt_tokens=_sum(it.prompt_tokens for it in records),
        completion_tokens=_sum(it.completion_tokens for it in records),
        ttft_p50_ms=percentile(ttft, 50),
        ttft_p95_ms=percentile(ttft, 95),
        duration_p50_ms=percentile(duration, 50),
        duration_p95_ms=percentile(duration, 95),
        generation_tps_p50=percentile(_known(it.generation_tps for it in records), 50),
        cost=_sum(it.cost for it in records),
    )


def by_model(records: Iterable[CallRecord]) -> list[Summary]:
    """A summary of each, the busiest first."""
    found: dict[str, list[CallRecord]] = defaultdict(list)
    for record in records:
        found[record.model or record.model_requested].append(record)
    return sorted((summarised(each, name) for name, each in found.items()), key=lambda it: (-it.calls, it.name))


def percentile(values: Sequence[float], percent: float) -> float | None:
    """The value at the nearest rank. None of none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)] if ordered else None


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _sum(values: Iterable[T | None]) -> T | None:
    known = [value for value in values if value is not None]
    return sum(known[1:], known[0]) if known else None
