"""What many records come to."""

from __future__ import annotations

import pytest

from penstock.telemetry.summary import by_model, percentile, summarised
from tests.telemetry.script import example


@pytest.mark.parametrize(
    ("values", "percent", "value"),
    [
        ([], 50, None),
        ([7.0], 95, 7.0),
        ([3.0, 1.0, 2.0], 50, 2.0),
        ([1.0, 2.0], 50, 1.0),
        (list(map(float, range(1, 101))), 95, 95.0),
    ],
)
def test_a_percentile_is_a_value_that_was_measured(values: list[float], percent: float, value: float | None):
    assert percentile(values, percent) == value


def test_c6_unknown_is_left_out_and_never_0():
    told = summarised(
        [example(ttft_ms=None, prompt_tokens=None, cost=None), example(ttft_ms=8.0, prompt_tokens=None, cost=None)]
    )
    assert (told.ttft_p50_ms, told.prompt_tokens, told.cost) == (8.0, None, None)


def test_models_are_apart_the_busiest_first_and_a_call_without_an_answer_is_its_requested_ones():
    records = [
        example(model="b", outcome="complete"),
        example(model="a", outcome="complete", completion_tokens=5),
        example(model=None, model_requested="a", outcome="timeout", completion_tokens=None),
        example(model="a", outcome="cancelled", completion_tokens=2),
    ]
    busy, other = by_model(records)
    assert (busy.name, busy.calls, busy.failed, busy.outcomes) == (
        "a", 3, 1, {"complete": 1, "timeout": 1, "cancelled": 1}
    )  # fmt: skip
    assert (busy.completion_tokens, other.name) == (7, "b")
    assert summarised(records).calls == 4
