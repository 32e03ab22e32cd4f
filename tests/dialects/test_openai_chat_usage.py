"""OpenAI chat in, usage out: wherever in the stream it comes, and whoever's counts they are."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.canon.usage import Usage
from tests.dialects.chat_wire import DONE, STOP, USAGE, chunk, decoded, finish_of, said, sse, told


def counts(prompt: int, completion: int, total: int | None) -> dict[str, Any]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total}


@pytest.mark.parametrize(
    "payloads",
    [
        [chunk(choices=[], usage=USAGE), said("a"), STOP],
        [said("a", usage=USAGE), chunk(finish="stop", usage=USAGE)],
        [said("a", usage=None), chunk(finish="stop", usage=USAGE)],
        [said("a"), chunk(finish="stop", usage=USAGE)],
        [said("a"), STOP, chunk(choices=[], usage=USAGE)],
        [said("a"), STOP, chunk(choices=[], usage=USAGE), chunk(choices=[], usage=USAGE)],
        [said("a"), {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "usage": USAGE}]}],
        [said("a"), chunk(finish="stop", x_groq={"id": "req", "usage": USAGE})],
        [said("a"), chunk(finish="stop", usage=USAGE, x_groq={"usage": USAGE})],
    ],
    ids=["first", "every", "null before", "with the finish", "after it", "twice", "in a choice", "x_groq", "both"],
)
def test_usage_wherever_it_comes(payloads: list[dict[str, Any]]):
    driven = decoded(sse(*payloads) + DONE)
    assert driven.response.usage == Usage(input=9, output=2, total=11, raw=USAGE)


def test_usage_that_never_comes_is_none():
    assert finish_of(told(said("a"))).usage is None
    assert finish_of(told(said("a", usage={}))).usage is None


def test_usage_is_cumulative_and_never_added():
    first = {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10, "cost": 0.1}
    last = {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14, "cost": None}
    usage = told(said("a", usage=first), said("b", usage=last)).response.usage
    assert usage == Usage(input=9, output=5, total=14, cost=0.1, raw={**last, "cost": 0.1})


@pytest.mark.parametrize("usage", ["none", 5, [1]])
def test_usage_of_odd_types_is_none(usage: Any):
    assert told(said("a", usage=usage)).response.usage is None


@pytest.mark.parametrize(
    ("raw", "usage"),
    [
        (
            {
                **counts(9, 5, None),
                "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2},
                "completion_tokens_details": {"reasoning_tokens": 3},
            },
            Usage(input=9, input_cached=4, input_cache_write=2, output=5, output_reasoning=3),
        ),
        (
            {"prompt_tokens": 9, "prompt_cache_hit_tokens": 6, "prompt_cache_miss_tokens": 3},
            Usage(input=9, input_cached=6),
        ),
        # xAI leaves reasoning out of completion_tokens, and its total says so
        (
            {**counts(9, 2, 14), "completion_tokens_details": {"reasoning_tokens": 3}},
            Usage(input=9, output=5, output_reasoning=3, total=14),
        ),
        (
            {**counts(9, 5, 14), "completion_tokens_details": {"reasoning_tokens": 3}},
            Usage(input=9, output=5, output_reasoning=3, total=14),
        ),
        ({"prompt_tokens": "9", "completion_tokens": -1, "total_tokens": True, "cost": "free"}, Usage()),
        ({"prompt_tokens": 9.0, "prompt_tokens_details": None, "completion_tokens_details": []}, Usage(input=9)),
    ],
    ids=["details", "DeepSeek", "xAI", "not xAI", "odd", "floats"],
)
def test_usage_dialects(raw: dict[str, Any], usage: Usage):
    got = told(chunk(choices=[], usage=raw), said("a")).response.usage
    assert got is not None
    names = ("input", "input_cached", "input_cache_write", "output", "output_reasoning", "total", "cost")
    assert [getattr(got, name) for name in names] == [getattr(usage, name) for name in names]
    assert got.raw == raw
