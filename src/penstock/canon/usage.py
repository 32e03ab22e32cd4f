"""What a call used, in tokens, as the provider reported it. `None` means that nobody said; it is never 0 for that."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterable


class Usage(Struct, frozen=True):
    """Totals are inclusive: `input` holds the cached tokens, `output` the reasoning tokens.

    `cost` is in US dollars: the provider's own where it told one; a finished response may have one by known prices.
    """

    input: int | None = None
    input_cached: int | None = None
    input_cache_write: int | None = None
    output: int | None = None
    output_reasoning: int | None = None
    total: int | None = None
    cost: float | None = None
    raw: dict[str, Any] | None = None


def added(usages: Iterable[Usage | None]) -> Usage | None:
    """What several calls used together. A count that one of them did not report is None: a part is no total."""
    listed = list(usages)
    known = [usage for usage in listed if usage is not None]
    if not known or len(known) < len(listed):
        return None

    def total(field: str) -> Any:
        counts = [getattr(usage, field) for usage in known]
        return None if None in counts else sum(counts)

    return Usage(**{field: total(field) for field in Usage.__struct_fields__ if field != "raw"})


def merge_reported(earlier: dict[str, Any] | None, later: dict[str, Any]) -> dict[str, Any]:
    """Merge two cumulative reports field by field: a later value that is not null wins; nothing is ever added up."""
    if not earlier:
        return dict(later)
    merged = dict(earlier)
    for key, value in later.items():
        if value is None and key in merged:
            continue
        held = merged.get(key)
        merged[key] = merge_reported(held, value) if isinstance(held, dict) and isinstance(value, dict) else value
    return merged


def whole(value: Any) -> int | None:
    """A token count from JSON: whole and not negative, or None. Some providers send floats (Cohere) or strings."""
    if type(value) is int or type(value) is float:
        return int(value) if 0 <= value < inf else None
    return None
