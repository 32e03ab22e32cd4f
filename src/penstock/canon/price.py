"""What tokens cost: a price per million, and the arithmetic on what a call used.

A cost is computed only where every token that was used has a price; anything else is None, never 0 and never a part.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from msgspec import Meta, Struct

if TYPE_CHECKING:
    from penstock.canon.usage import Usage

Dollars = Annotated[float, Meta(ge=0, le=1e6)]


class Price(Struct, frozen=True, forbid_unknown_fields=True):
    """US dollars per million tokens. None: nobody said."""

    #: input that was read anew
    input: Dollars | None = None
    #: output, thinking included
    output: Dollars | None = None
    #: input that came from the provider's cache
    cached: Dollars | None = None
    #: input that was put into the provider's cache
    cache_write: Dollars | None = None


def cost(usage: Usage, price: Price) -> float | None:
    """US dollars. Cached tokens that nobody reported are taken as none; a total that nobody reported has no cost."""
    if usage.input is None or usage.output is None:
        return None
    cached, written = usage.input_cached or 0, usage.input_cache_write or 0
    plain = usage.input - cached - written
    if plain < 0:
        return None
    total = 0.0
    for tokens, rate in (
        (plain, price.input),
        (cached, price.cached),
        (written, price.cache_write),
        (usage.output, price.output),
    ):
        if tokens and rate is None:
            return None
        total += tokens * (rate or 0.0)
    return total / 1e6
