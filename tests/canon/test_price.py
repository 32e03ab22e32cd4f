"""What tokens cost: each kind at its own price, and nothing where a price or a count is missing."""

from __future__ import annotations

import pytest

from penstock.canon.model import of_model
from penstock.canon.price import Price, cost
from penstock.canon.usage import Usage

FULL = Price(input=3.0, output=15.0, cached=0.3, cache_write=3.75)


@pytest.mark.parametrize(
    ("usage", "price", "dollars"),
    [
        (Usage(input=1_000_000, output=0), FULL, 3.0),
        (Usage(input=0, output=1_000_000), FULL, 15.0),
        (Usage(input=1_000_000, input_cached=1_000_000, output=0), FULL, 0.3),
        (Usage(input=1_000_000, input_cache_write=1_000_000, output=0), FULL, 3.75),
        (Usage(input=1000, input_cached=600, input_cache_write=100, output=50), FULL, 0.002205),
        (Usage(input=10, output=5, output_reasoning=5), FULL, 0.000105),  # output holds the reasoning
        (Usage(input=10, output=5), Price(input=0.0, output=0.0), 0.0),  # a free model costs nothing, which is known
    ],
)
def test_each_kind_has_its_own_price(usage: Usage, price: Price, dollars: float) -> None:
    assert cost(usage, price) == pytest.approx(dollars, abs=1e-12)


@pytest.mark.parametrize(
    ("usage", "price"),
    [
        (Usage(input=10), FULL),
        (Usage(output=10), FULL),
        (Usage(input=10, output=10), Price(input=1.0)),
        (Usage(input=10, output=10), Price(output=1.0)),
        (Usage(input=10, input_cached=1, output=10), Price(input=1.0, output=1.0)),
        (Usage(input=10, input_cache_write=1, output=10), Price(input=1.0, output=1.0, cached=0.1)),
        (Usage(input=10, input_cached=11, output=10), FULL),  # what contradicts itself
    ],
)
def test_c6_what_is_not_known_has_no_cost(usage: Usage, price: Price) -> None:
    assert cost(usage, price) is None


def test_the_name_wins_over_a_pattern_and_the_longer_pattern_over_the_shorter() -> None:
    table = {"*": Price(1.0), "claude-*": Price(2.0), "claude-haiku-*": Price(3.0), "claude-haiku-4-5": Price(4.0)}
    assert [of_model(name, table) for name in ("x", "claude-x", "claude-haiku-4", "claude-haiku-4-5")] == [
        Price(1.0),
        Price(2.0),
        Price(3.0),
        Price(4.0),
    ]
    assert of_model("x", {"y*": Price(1.0)}) is None
