"""Quantiles of the gaps between content, in bounded memory.

The first `EXACT` gaps are kept as they are (8 bytes each, allocated as they come), so nearly every reply gets exact
quantiles. Later ones are counted in logarithmic buckets of 1/32 octave: a quantile of a longer reply is within 1.6 %.
No sampling: a provider that sends in pairs would show a sampler one kind of gap only. The maximum is always exact.
"""

from __future__ import annotations

from array import array
from math import ceil, frexp, ldexp
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

#: 8 KiB at most; sorting it takes about 0.1 ms, once, at the end.
EXACT = 1024

#: Slots per power of two; `frexp` gives a mantissa in [0.5, 1), so half of them are used.
_SLOTS = 64

#: A gap of so long is a stall.
STALL_S = 1.0

#: Added before the logarithm, so that it exists: far below what a network's gaps are measured in.
_FLOOR_S = 1e-6


class Gaps:
    """Add seconds; ask once, at the end."""

    __slots__ = ("_buckets", "_exact", "_longest", "_stalled_s", "_stalls")

    def __init__(self) -> None:
        self._exact = array("d")
        self._buckets: dict[int, int] = {}
        self._longest = 0.0  # of those in the buckets, as the next two
        self._stalls = 0
        self._stalled_s = 0.0

    def add(self, gap_s: float) -> None:
        exact = self._exact
        if len(exact) < EXACT:
            exact.append(gap_s)
            return
        slot, buckets = _slot(gap_s), self._buckets
        if slot in buckets:
            buckets[slot] += 1
        else:
            buckets[slot] = 1
        if gap_s > self._longest:
            self._longest = gap_s
        if gap_s >= STALL_S:
            self._stalls += 1
            self._stalled_s += gap_s

    def __len__(self) -> int:
        return len(self._exact) + sum(self._buckets.values())

    def each(self) -> Iterator[tuple[float, int]]:
        """(seconds, how many): each gap that is kept as it was, and the middles of the buckets of the others."""
        for gap_s in self._exact:
            yield gap_s, 1
        for slot, number in self._buckets.items():
            yield _middle(slot), number

    def stalls(self) -> tuple[int | None, float | None]:
        """How many gaps were of `STALL_S` or more, and their sum in milliseconds; None before there was any gap."""
        if not self._exact:
            return None, None
        stalls = [gap_s for gap_s in self._exact if gap_s >= STALL_S]
        return self._stalls + len(stalls), (self._stalled_s + sum(stalls)) * 1e3

    def summary_ms(self) -> tuple[float | None, float | None, float | None]:
        """(p50, p95, max) in milliseconds, by nearest rank: with a few gaps each is a gap that was seen."""
        if not self._exact:
            return None, None, None
        if not self._buckets:
            ordered = sorted(self._exact)
            total = len(ordered)
            return ordered[_rank(0.5, total)] * 1e3, ordered[_rank(0.95, total)] * 1e3, ordered[-1] * 1e3
        buckets = dict(self._buckets)
        for gap_s in self._exact:
            slot = _slot(gap_s)
            buckets[slot] = buckets.get(slot, 0) + 1
        total = sum(buckets.values())
        longest = max(self._longest, max(self._exact))
        return (
            min(_at_rank(buckets, _rank(0.5, total)), longest) * 1e3,
            min(_at_rank(buckets, _rank(0.95, total)), longest) * 1e3,
            longest * 1e3,
        )


def _rank(quantile: float, total: int) -> int:
    return max(ceil(quantile * total) - 1, 0)


def _slot(gap_s: float) -> int:
    mantissa, exponent = frexp(gap_s + _FLOOR_S)
    return exponent * _SLOTS + int(mantissa * _SLOTS)


def _at_rank(buckets: dict[int, int], rank: int) -> float:
    """The middle of the bucket that holds this rank."""
    seen = 0
    slot = 0
    for slot in sorted(buckets):
        seen += buckets[slot]
        if seen > rank:
            break
    return _middle(slot)


def _middle(slot: int) -> float:
    exponent, mantissa = divmod(slot, _SLOTS)
    return ldexp((mantissa + 0.5) / _SLOTS, exponent)
