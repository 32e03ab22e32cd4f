from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.telemetry.gaps import EXACT, STALL_S, Gaps


def summary(gaps: list[float]) -> tuple[float | None, float | None, float | None]:
    kept = Gaps()
    for gap in gaps:
        kept.add(gap)
    return kept.summary_ms()


def nearest_rank(gaps: list[float], percent: int) -> float:
    return sorted(gaps)[-(-percent * len(gaps) // 100) - 1] * 1e3


def test_c6_no_gap_no_number() -> None:
    """Pathology 43."""
    assert summary([]) == (None, None, None)


def test_one_gap_is_all_three() -> None:
    assert summary([0.5]) == (500.0, 500.0, 500.0)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=50))
def test_quantiles_of_a_usual_reply_are_exact(gaps: list[float]) -> None:
    assert summary(gaps) == (nearest_rank(gaps, 50), nearest_rank(gaps, 95), max(gaps) * 1e3)


@given(st.lists(st.floats(1e-3, 100), min_size=7, max_size=7, unique=True), st.integers(0, 6))
def test_c11_quantiles_of_an_endless_reply_are_close_and_bounded(cycle: list[float], turn: int) -> None:
    gaps = (cycle[turn:] + cycle[:turn]) * (EXACT // 2)
    p50, p95, longest = summary(gaps)
    assert p50 == pytest.approx(nearest_rank(gaps, 50), rel=1 / 62)
    assert p95 == pytest.approx(nearest_rank(gaps, 95), rel=1 / 62)
    assert longest == max(gaps) * 1e3


def test_a_provider_that_sends_in_pairs_shows_both_of_its_gaps() -> None:
    p50, p95, longest = summary([0.0, 0.040] * (EXACT * 2))
    assert p50 == pytest.approx(0.0, abs=0.01)
    assert p95 == pytest.approx(40, rel=1 / 62)
    assert longest == pytest.approx(40)


@given(st.lists(st.floats(0, 3), min_size=1, max_size=20), st.sampled_from([1, EXACT]))
def test_stalls_are_the_gaps_of_a_second_or_more(gaps: list[float], times: int) -> None:
    kept = Gaps()
    for gap in gaps * times:
        kept.add(gap)
    stalls = [gap for gap in gaps * times if gap >= STALL_S]
    number, stalled_ms = kept.stalls()
    assert number == len(stalls)
    assert stalled_ms == pytest.approx(sum(stalls) * 1e3)


def test_no_gap_is_not_the_same_as_no_stall() -> None:
    assert Gaps().stalls() == (None, None)
