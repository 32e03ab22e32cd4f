"""Many records as sums by the GenAI conventions: what is counted, and in how many series at most."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.telemetry.counts import MAX_MODELS, MAX_SERIES
from penstock.telemetry.gen_ai import OTHER, Distribution, Sums
from tests.telemetry.script import example


def points(sums: Sums, name: str) -> list[tuple[dict[str, Any], Any]]:
    return next((metric.points for metric in sums.metrics() if metric.name == name), [])


def test_a_value_on_a_bound_is_of_the_bucket_that_it_ends():
    distribution = Distribution((1.0, 2.0))
    for value in (1.0, 1.5, 2.0, 2.5):
        distribution.add(value)
    assert distribution.counts == [1, 2, 1]
    assert (distribution.count, distribution.total, distribution.smallest, distribution.largest) == (4, 7.0, 1.0, 2.5)


def test_c6_what_nobody_reported_is_in_no_metric():
    sums = Sums("both")
    sums.add(example(prompt_tokens=None, completion_tokens=None, cached_tokens=None, reasoning_tokens=None))
    assert not [metric.name for metric in sums.metrics() if "usage" in metric.name]


@pytest.mark.parametrize(("stream", "counted"), [(True, 1), (False, 0)])
def test_the_first_chunk_is_a_streams(stream: bool, counted: int):
    sums = Sums()
    sums.add(example(stream=stream, ttft_ms=5.0))
    assert len(points(sums, "gen_ai.client.operation.time_to_first_chunk")) == counted


def test_c11_a_name_that_a_client_makes_up_makes_no_series():
    sums = Sums()
    for number in range(50):
        sums.add(example(model_requested=f"made-up-{number}", outcome="upstream_error", error_type="unknown_model"))
    told = points(sums, "gen_ai.client.operation.duration")
    assert [attributes["gen_ai.request.model"] for attributes, _ in told] == [OTHER]
    assert told[0][1].count == 50


def test_c11_series_are_bounded_whatever_models_answer():
    sums = Sums()
    for number in range(MAX_SERIES + 50):
        sums.add(example(model_requested=f"m{number % (MAX_MODELS + 10)}", model=f"answers-{number}"))
    told = points(sums, "gen_ai.client.operation.duration")
    assert len(told) == MAX_SERIES + 1
    assert sum(value.count for _, value in told) == MAX_SERIES + 50
    assert len({attributes["gen_ai.request.model"] for attributes, _ in told}) == MAX_MODELS + 1
