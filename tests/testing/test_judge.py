"""The judge: it finds each defect that was put in, finds none where none is, and never says more than it saw."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from tests.testing.forger import Forger

from penstock.dialects import client_dialect
from penstock.testing.judge import endings, flow
from penstock.testing.judge.asking import Client
from penstock.testing.judge.court import Court
from penstock.testing.judge.gateway import simulator

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from penstock.testing.judge.findings import Finding

    Promise = Callable[[Court], Coroutine[None, None, list[Finding]]]

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


def judged(promise: Promise, defect: str = "", *, patience_s: float = 5.0) -> dict[str, Finding]:
    """What the judge finds of one promise, by case, before a proxy with this defect."""

    async def run(upstream_root: str, url: str) -> list[Finding]:
        async with Client(url, client_dialect("openai-chat"), patience_s=patience_s) as client:
            court = Court(client, upstream)
            court.upstream_dialect = "openai-chat"
            return await promise(court)

    clock_s = 0.3 if promise is endings.four_clocks else 10.0
    with simulator() as upstream, Forger(upstream.root, defect, clock_s=clock_s) as forger:
        return {finding.case: finding for finding in asyncio.run(run(upstream.root, forger.url))}


CUT = "the connection is closed half way"
END = "the body ends half way, as if all were well"

#: the defect, the promise that it breaks, one of the cases in which that is seen, and a word of the evidence
DEFECTS: list[tuple[str, Promise, str, str]] = [
    ("runs-twice", flow.one_execution, "a stream", "executed 2 times"),
    ("asks-again", flow.one_execution, "a stream that breaks after content", "executed 2 times"),
    ("sleeps", flow.at_once, "6 pieces, 150 ms apart, 3 times", "median +2"),
    ("buffers", flow.at_once, "6 pieces, 150 ms apart, 3 times", "held back until the next had been sent"),
    ("unicode-lines", flow.whole_and_in_order, "a plain reply", ""),
    ("cuts-tails", flow.whole_and_in_order, "a plain reply", "came, not"),
    ("adds-done", endings.one_true_ending, CUT, "forged"),
    ("adds-stop", endings.one_true_ending, CUT, "forged: an end as of a whole reply (stop)"),
    ("adds-stop", endings.one_true_ending, END, "forged"),
    ("says-nothing", endings.one_true_ending, END, "without an error and without the dialect's end"),
    ("passes-the-cut", endings.one_true_ending, CUT, "a broken connection, and no word of why"),
    ("error-and-done", endings.one_true_ending, CUT, "an error, and after it"),
    ("hides-errors", endings.one_true_ending, "an error inside the stream, as openai sends it", "forged"),
    (
        "one-at-a-time",
        flow.nothing_beside,
        "a stream beside a stalled one, one that nobody reads, and a flood of other requests",
        "",
    ),
    ("loses-usage", flow.metrics_from_the_end, "usage where the dialect has it", "no usage"),
    ("invents-usage", flow.metrics_from_the_end, "usage that nobody told", "0/0"),
    ("never-lets-go", flow.gone_is_cancelled, "a client that leaves a stream", "never closed"),
    ("pings-count", endings.four_clocks, "signs of life, and never content", "pings kept it open"),
    ("always-200", endings.two_commit_points, "a failure with its status", "forged"),
    ("rewrites", flow.verbatim, "fields that nobody knows, byte for byte", "was changed"),
    ("reads-on", flow.bounded, "a client that does not read", "and on"),
    ("", endings.always_a_stream, "a document though a stream was asked for", ""),
]


#: where what is found is that something does not come
PATIENCE_S: dict[Promise, float] = {endings.four_clocks: 4.0, flow.nothing_beside: 2.0}


@pytest.mark.parametrize(("defect", "promise", "case", "words"), DEFECTS)
def test_a_defect_is_found(defect: str, promise: Promise, case: str, words: str):
    finding = judged(promise, defect, patience_s=PATIENCE_S.get(promise, 5.0))[case]
    assert finding.verdict == "broken", finding
    assert words in finding.evidence


@pytest.mark.parametrize("promise", list(dict.fromkeys(row[1] for row in DEFECTS if row[0])))
def test_no_defect_is_found_where_there_is_none(promise: Promise):
    found = judged(promise)
    tried = {case for defect, tried, case, _ in DEFECTS if tried is promise and defect}
    assert {case: found[case] for case in tried if found[case].verdict != "held"} == {}


def test_a_clock_that_was_not_seen_is_no_clock_that_is_kept():
    found = judged(endings.four_clocks, "no-clock", patience_s=1.0)
    assert {finding.verdict for finding in found.values()} == {"unseen"}
    assert all("still open after" in finding.evidence for finding in found.values())
