from __future__ import annotations

import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.telemetry.record import CallRecord, compact_line, word
from tests.telemetry.script import example

FIELDS = [
    "request_id", "time", "dialect_in", "dialect_out", "route", "model_requested", "model", "target", "provider",
    "stream", "synthetic", "attempts", "attempted", "recovered", "pathologies", "outcome", "finish_reason",
    "error_type",
    "http_status",
    "prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens", "usage_source", "ttfb_ms", "ttft_ms",
    "duration_ms", "itl_p50_ms", "itl_p95_ms", "itl_max_ms", "prompt_tps", "generation_tps", "timings_source",
    "context_used", "context_total", "context_percent", "chunks", "bytes_out", "heartbeats", "bytes_after_disconnect",
    "key_name", "cost", "concurrent", "queued_ms", "trace_id", "span_id", "parent_span_id", "sampled",
]  # fmt: skip

LINE = "model=Qwen3-14B tokens=125/42 tps=850.5/75.2 ctx:15.2% ttft=38ms dur=1.2s end=complete finish=stop"


def test_the_record_is_these_fields_in_this_order() -> None:
    assert list(CallRecord.__struct_fields__) == FIELDS


def test_every_field_is_described() -> None:
    described = set(re.findall(r"`(\w+)`", CallRecord.__doc__ or ""))
    assert set(FIELDS) <= described


def test_the_compact_line() -> None:
    assert compact_line(example()) == LINE


def test_c6_what_nobody_reported_prints_as_a_dash() -> None:
    record = CallRecord(request_id="r", time=0.0, model_requested="fast", stream=True, outcome="cancelled")
    assert compact_line(record) == "model=fast tokens=-/- tps=-/- ctx:- ttft=- dur=- end=cancelled finish=- error=-"


def test_the_compact_line_says_why_and_how_often() -> None:
    record = example(outcome="timeout", error_type="timeout_idle", finish_reason=None, attempts=3)
    assert compact_line(record).endswith(" end=timeout finish=- error=timeout_idle attempts=3")


@pytest.mark.parametrize(
    ("ms", "printed"),
    [
        (0.0, "0.0ms"), (0.6, "0.6ms"), (9.94, "9.9ms"), (9.96, "10ms"), (38.2, "38ms"), (999.4, "999ms"),
        (999.6, "1.0s"), (1234.0, "1.2s"), (61_000.0, "61.0s"), (float("nan"), "-"), (float("inf"), "-"), (None, "-"),
    ],
)  # fmt: skip
def test_a_duration_has_the_decimals_that_mean_something(ms: float | None, printed: str) -> None:
    assert f" ttft={printed} " in compact_line(example(ttft_ms=ms))


@pytest.mark.parametrize(
    ("name", "printed"),
    [
        ("qwen3:8b", "qwen3:8b"),
        ("models/gemini-3", "models/gemini-3"),
        ("通义千问", "通义千问"),
        ("a b", "a\\x20b"),
        ("a\nmodel=b", "a\\x0amodel\\x3db"),
        ('a"b\\', "a\\x22b\\x5c"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\u2028\u202e\xa0\x85", "\\u2028\\u202e\\xa0\\x85"),
        ("\ud800\U000e0001", "\\ud800\\U000e0001"),
        ("m" * 81, "m" * 80 + "…"),
        ("", "-"),
    ],
)
def test_c13_a_word_is_one_word(name: str, printed: str) -> None:
    assert word(name) == printed


@given(st.text(st.characters() | st.sampled_from(" \t\r\n\"'=\\\x1b\x85\u2028\u202e"), max_size=200))
def test_c13_no_name_can_forge_a_field_or_a_line(name: str) -> None:
    line = compact_line(example(model=name, finish_reason=name, outcome="truncated", error_type=name))
    assert line.isprintable()
    assert len(line.splitlines()) == 1
    assert re.findall(r"(\w+)[=:]", re.sub(r"(model|finish|error)=\S*", r"\1=", line)) == [
        "model", "tokens", "tps", "ctx", "ttft", "dur", "end", "finish", "error",
    ]  # fmt: skip
    assert " ".join(line.split(" ")[1:4]) == "tokens=125/42 tps=850.5/75.2 ctx:15.2%"


def test_a_record_survives_json() -> None:
    assert msgspec.json.decode(msgspec.json.encode(example(cost=0.01)), type=CallRecord) == example(cost=0.01)
