from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.telemetry.exporters.log import PIPE_BUF, LogExporter
from penstock.telemetry.record import OUTCOMES, PATHOLOGIES, AttemptRecord, CallRecord, compact_line
from penstock.telemetry.why import why, why_lines
from tests.telemetry.script import example

if TYPE_CHECKING:
    from penstock.telemetry.exporters.log import Format


def test_a_good_call() -> None:
    assert why(example()) == {
        "tokens": "reported by the upstream: prompt, completion",
        "prompt_tps": "by the server's clock, without the tokens that it had cached",
        "generation_tps": "by the server's clock",
        "ctx": "167 tokens of 1100, as the target's owner or server states them",
        "ttft": "from the call's beginning to the read of the first content",
        "gaps": "none: 42 pieces of content came with fewer than two reads",
        "end": "the provider's own end came: stop",
        "cost": "none: the upstream reported none, and no price of this model is known",
    }


@pytest.mark.parametrize(
    ("fields", "figure", "reason"),
    [
        ({"timings_source": None}, "generation_tps", "by our clock"),
        ({"generation_tps": None, "completion_tokens": None}, "generation_tps", "nobody reported how many"),
        ({"generation_tps": None, "synthetic": True}, "generation_tps", "one document"),
        ({"generation_tps": None, "stream": False}, "generation_tps", "one document"),
        ({"generation_tps": None}, "generation_tps", "one read"),
        ({"generation_tps": None, "itl_max_ms": 1.0}, "generation_tps", "fewer than two tokens"),
        ({"prompt_tps": None}, "prompt_tps", "none: only a server's clock can tell"),
    ],
)
def test_c6_why_a_rate_is_what_it_is(fields: dict[str, Any], figure: str, reason: str) -> None:
    assert reason in why(example(**{"timings_source": None, **fields}))[figure]


def test_c6_unknown_is_said_to_be_and_why() -> None:
    found = why(CallRecord(request_id="r", time=0.0, model_requested="m", stream=True, outcome="timeout"))
    assert found["tokens"].startswith("none: the upstream reported no usage before it ended")
    assert found["ctx"] == "none: the tokens are not known"
    assert found["ttft"] == "none: no content came"
    assert found["end"] == "a clock ran out: -, answered with no status"
    assert found["cost"] == "none: the tokens are not known"


def test_attempts_and_pathologies_are_told_one_by_one() -> None:
    tried = (
        AttemptRecord(target="a:m", status=503, cause="overloaded", wasted_ms=12.0),
        AttemptRecord(target="b:m", status=200),
    )
    found = why(example(attempts=2, attempted=tried, pathologies=("after_end", "no_terminator"), queued_ms=20.0))
    assert found["attempts"] == "a:m 503, overloaded, 12ms in vain; b:m 200, which gave the reply"
    assert found["pathologies"] == f"{PATHOLOGIES['after_end']}; {PATHOLOGIES['no_terminator']}"
    assert found["ttft"].endswith("and 1 attempts before it are in it")
    assert found["queued"] == "20ms in line for a place; in ttft and dur as well"


@pytest.mark.parametrize("format", ["pretty", "compact", "json"])
def test_the_log_says_it_below_each_line_and_only_when_told(format: Format) -> None:
    def written(debug: bool) -> str:
        stream = io.StringIO()
        LogExporter(stream, format=format, debug=debug).export([example()])
        return stream.getvalue()

    plain, told = written(debug=False), written(debug=True)
    if format == "json":
        assert "why" not in plain
        assert msgspec.json.decode(told)["why"] == why(example())
        assert msgspec.json.decode(told, type=CallRecord) == example()
    else:
        assert told == plain.rstrip("\n") + why_lines(example()) + "\n"
        assert "\n    generation_tps 75.2, by the server's clock\n" in told
    if format == "compact":
        assert plain == compact_line(example()) + "\n"


@given(
    st.sampled_from(OUTCOMES),
    st.builds(
        dict,
        model_requested=st.text(max_size=30),
        finish_reason=st.none() | st.text(max_size=30),
        error_type=st.none() | st.text(max_size=30),
        attempted=st.lists(
            st.builds(AttemptRecord, target=st.text(max_size=300), cause=st.none() | st.text(max_size=300)), max_size=4
        ).map(tuple),
        pathologies=st.lists(st.sampled_from(sorted(PATHOLOGIES)), unique=True).map(tuple),
    ),
)
def test_c13_no_name_forges_a_line(outcome: Any, fields: dict[str, Any]) -> None:
    record = example(outcome=outcome, attempts=len(fields["attempted"]), **fields)
    text = why_lines(record)
    assert text.count("\n") == len(why(record))
    assert all(line.isprintable() for line in text.split("\n"))
    assert len(text.encode()) < PIPE_BUF, "a line and its reasons are one write"
