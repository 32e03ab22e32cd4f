"""Line protocol: what is written is what is read, and no value becomes a point or a field of its own."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.telemetry.line_protocol import FIELDS, MAX_TAG_CHARS, TAGS, point, points
from penstock.telemetry.record import CallRecord
from tests.telemetry.script import example

NOW = 1_763_683_500.25


def read(line: str) -> tuple[str, dict[str, str], dict[str, object], int]:
    """Measurement, tags, fields and moment, as the protocol's own description reads them."""
    head, rest = _split(line, " ", 1, quotes=False)
    fields, moment = _split(rest, " ")
    measurement, *tags = _split(head, ",", quotes=False)
    given = dict(_split(tag, "=", quotes=False) for tag in tags)
    return (
        measurement,
        {name: re.sub(r"\\([,= ])", r"\1", value) for name, value in given.items()},
        {name: _value(value) for name, value in (_split(field, "=", 1) for field in _split(fields, ","))},
        int(moment),
    )


def _split(text: str, at: str, most: int = -1, *, quotes: bool = True) -> list[str]:
    """At what is neither escaped nor inside quotes; in tags a quote is a letter like any other."""
    parts: list[str] = []
    quoted, i, began = False, 0, 0
    while i < len(text):
        if text[i] == "\\":
            i += 2
            continue
        if text[i] == '"' and quotes:
            quoted = not quoted
        elif text[i] == at and not quoted and (most < 0 or len(parts) < most):
            parts.append(text[began:i])
            began = i + 1
        i += 1
    return [*parts, text[began:]]


def _value(text: str) -> object:
    if text in ("true", "false"):
        return text == "true"
    if text.startswith('"'):
        return re.sub(r'\\(["\\])', r"\1", text[1:-1])
    return int(text[:-1]) if text.endswith("i") else float(text)


def test_a_record_is_a_point():
    record = example(time=NOW)
    measurement, tags, fields, moment = read(point(record, 7))
    assert measurement == "llm_request"
    assert moment == 1_763_683_500_250_000_007
    told = {name: getattr(record, name) for name in FIELDS if getattr(record, name) not in (None, ())}
    assert fields == told
    assert tags == {
        tag: str(value).lower() if isinstance(value, bool) else value
        for tag, name in TAGS.items()
        if (value := getattr(record, name)) is not None
    }


def test_every_field_of_the_record_is_in_it_once():
    assert sorted([*FIELDS, *TAGS.values(), "time"]) == sorted(CallRecord.__struct_fields__)
    assert not set(FIELDS) & set(TAGS), "version 3 takes no tag and field of one name"


def test_c6_unknown_is_left_out():
    line = point(CallRecord(request_id="r", time=NOW, model_requested="m", stream=False, outcome="cancelled"))
    _, tags, fields, _ = read(line)
    assert tags == {"outcome": "cancelled", "streaming": "false"}
    assert "prompt_tokens" not in fields
    assert "model" not in fields


@pytest.mark.parametrize(("value", "there"), [(float("nan"), False), (float("inf"), False), (0.5, True)])
def test_only_numbers_are_numbers(value: float, there: bool):
    assert ("ttft_ms" in read(point(example(ttft_ms=value)))[2]) is there


def test_an_integer_that_is_too_large_is_left_out():
    assert "prompt_tokens" not in read(point(example(prompt_tokens=2**63)))[2]


HOSTILE = [
    'm",outcome="x',
    "m,outcome=complete cost=99 1\nllm_request cost=99",
    "m\r\nllm_request,model=x cost=1",
    "back\\",
    "back\\,slash",
    "\\n",
    "🙂 emoji, = and space",
    "\u2028\u0085\x00\x1b[31m",
    "\ud800",
    "#comment",
    "",
    " ",
    "=",
    "x" * 10_000,
]


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_can_forge(name: str):
    check_forgery(name)


@given(st.text(alphabet=st.characters(codec=None) | st.sampled_from(list('\\,= "\n\r#')), max_size=40))
def test_no_text_can_forge(name: str):
    check_forgery(name)


def check_forgery(name: str) -> None:
    record = example(model=name, model_requested=name, key_name=name, error_type=name, time=NOW)
    (line, end) = points([record]).decode().split("\n")
    assert end == ""
    assert "\r" not in line
    _, tags, fields, moment = read(line)
    plain = example(time=NOW)
    assert moment == read(point(plain))[3]
    expected = {tag: name for tag, name in TAGS.items() if tag not in ("model", "key_name") or name}
    assert set(tags) <= set(expected)
    assert {field: value for field, value in fields.items() if field not in ("model_requested", "error_type")} == {
        field: value for field, value in read(point(plain))[2].items() if field not in ("model_requested", "error_type")
    }
    shown = "".join(char if char.isprintable() else "\ufffd" for char in name)
    if name:
        assert tags["model"] == shown[:MAX_TAG_CHARS].replace("\\", "/")
    assert fields["model_requested"] == shown[:1000]


@pytest.mark.parametrize(("precision", "moment"), [("s", 1_763_683_500), ("ms", 1_763_683_500_250)])
def test_coarser_moments(precision: str, moment: int):
    assert read(point(example(time=NOW), 7, precision))[3] == moment


def test_records_of_one_moment_are_points_of_their_own():
    lines = points([example(time=NOW)] * 1000).decode().splitlines()
    assert len({read(line)[3] for line in lines}) == 1000
