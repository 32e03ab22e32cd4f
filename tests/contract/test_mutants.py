"""The mutations fit the source as it is, and whoever runs them tells a test that noticed from one that did not.

Running them all takes minutes, and is a command: `scripts/mutants`.
"""

from __future__ import annotations

import json
from collections import Counter

import pytest

from tests.contract import mutants
from tests.contract.mutants import check, checked, judged, main, prove, tried
from tests.contract.mutations import MUTATIONS, DoesNotApply, Mutation


def test_each_promise_is_broken_in_two_ways_at_least() -> None:
    ways = Counter(mutation.promise for mutation in MUTATIONS)
    assert set(ways) == {f"C{number}" for number in range(1, 14)}
    assert min(ways.values()) >= 2, ways


def test_each_mutation_has_a_name_of_its_own() -> None:
    assert len({mutation.name for mutation in MUTATIONS}) == len(MUTATIONS)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=[mutation.name for mutation in MUTATIONS])
def test_a_mutation_applies_and_its_test_is_there(mutation: Mutation) -> None:
    """Where this fails, the source has changed: write the mutation anew, and see that its test still catches it."""
    check(mutation)


# --- the runner -------------------------------------------------------------------------------------------------------


def a_mutation(name: str, old: str, new: str) -> Mutation:
    """Of what a test of milliseconds looks at."""
    return Mutation(
        name, "", "framing/sse.py", old, new, "framing/test_sse.py::test_c4_an_event_that_the_end_cuts_is_told_apart"
    )


CAUGHT = a_mutation("c4-a", ", unterminated=True)", ", unterminated=False)")
SURVIVES = a_mutation("c4-b", ", unterminated=True)", ", unterminated=bool(held))")
BROKEN = a_mutation("c4-c", ", unterminated=True)", ", unterminated=nobody_knows)")


def test_a_text_that_is_gone_is_said_loudly() -> None:
    gone = a_mutation("c4-d", "this text is not there", "")
    with pytest.raises(DoesNotApply, match=r"framing/sse\.py holds its text 0 times"):
        gone.applied("source")
    assert checked([gone]) == 1
    outcome = tried(gone)
    assert (outcome.verdict, "holds its text 0 times" in outcome.why) == ("broken", True)


@pytest.mark.process
def test_a_mutant_is_caught_and_a_broken_one_proves_nothing() -> None:
    outcome = tried(CAUGHT)
    assert (outcome.verdict, outcome.why.partition(":")[0]) == ("caught", "AssertionError")
    outcome = tried(BROKEN)
    assert (outcome.verdict, "nobody_knows" in outcome.why) == ("broken", True)


@pytest.mark.process
def test_a_survivor_fails_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert prove([SURVIVES], jobs=1, as_json=True) == 1
    printed = capsys.readouterr()
    (row,) = json.loads(printed.out)
    assert (row["name"], row["verdict"]) == ("c4-b", "survived")
    assert "1 mutants, 0 caught" in printed.err


def a_report(phase: str = "call", raised: str = "AssertionError", text: str = "") -> dict[str, object]:
    return {"test": "t", "phase": phase, "passed": False, "raised": [raised], "message": "no", "text": text}


PASSED = {"test": "t", "phase": "call", "passed": True, "raised": [], "message": "", "text": ""}


@pytest.mark.parametrize(
    ("reports", "verdict"),
    [
        ([a_report()], "caught"),
        ([PASSED, a_report(raised="TimeoutError")], "caught"),
        ([{**a_report(raised="ValueError"), "message": "not enough values to unpack (expected 1, got 0)"}], "caught"),
        ([PASSED], "survived"),
        ([], "broken"),
        ([a_report(phase="setup")], "broken"),
        ([PASSED, a_report(phase="teardown")], "broken"),
        ([a_report(raised="KeyError")], "broken"),
        ([a_report(text="ImportError: no module")], "broken"),
        ([a_report(), a_report(phase="teardown", text="E  NameError: name 'x' is not defined")], "broken"),
    ],
)
def test_only_an_assertion_or_waiting_in_vain_is_a_catch(reports: list[dict[str, object]], verdict: str) -> None:
    assert judged(reports, "1 error")[0] == verdict


def test_a_test_that_fails_without_a_mutation_proves_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(mutants, "unmutated", lambda mutations: ["tests/x.py::test_c3_y: assert False"])
    assert prove([CAUGHT], jobs=1, as_json=False) == 1
    assert "Fails without any mutation: tests/x.py::test_c3_y" in capsys.readouterr().err


def test_the_table_as_a_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list", "--json", "--promise", "c4"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["promise"] for row in rows} == {"C4"}
    assert "verdict" not in rows[0]
    assert main(["--list", "--promise", "C14"]) == 2
    assert "No mutation fits" in capsys.readouterr().err
