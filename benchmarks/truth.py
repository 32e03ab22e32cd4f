"""Do the metrics tell the truth? Thousands of streams of every ending and dialect, with numbers that are known.

    .venv/bin/python benchmarks/truth.py [--streams 2000] [--seed 1] [--concurrency 8]

Each stream is planned: who asks in which dialect, who answers in which, with how many tokens, in which pieces, at which
pace, with which fault, to which ending. Its record in the store must say the same: counts to the token and to the byte,
moments as the simulator and the client had them by their own clocks. Then the sums on `/metrics` must be the records'.
Exits with 1 when anything is wrong, and says what; and when the median of a kind of moment is off by more than 5 ms.
Of moments that are, the system is asked whether one of the processes had to wait for a processor for as long.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from soaking import accounts, verdict
from soaking.clients import FORMS, Clients, ask_all
from soaking.owed import check_rows
from soaking.plan import asking
from soaking.process import gateway, settled, stop
from soaking.upstream import SoakUpstream
from soaking.waiting import Waiting

from penstock.transport.http1 import Http1Transport

if TYPE_CHECKING:
    from soaking.plan import Asking
    from soaking.process import GatewayProcess

    from penstock.testing import Seen
    from penstock.testing.judge.heard import Heard

MAX_MEDIAN_MS = 5.0
#: The simulator and the clients are threads of one process: neither may keep the other waiting for its turn.
SWITCH_S = 0.0005
SHOWN = 40


@dataclass
class Truth:
    """One run. `wrong` gathers sentences, `distances` milliseconds by what they are between."""

    streams: int
    seed: int
    concurrency: int
    clocks: float = 1.0
    wrong: list[str] = field(default_factory=list)
    distances: dict[str, list[float]] = field(default_factory=dict)
    #: of those that are far apart, how many the machine kept waiting for a processor for as long
    waited: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    pairs: set[tuple[str, str]] = field(default_factory=set)

    async def run(self, folder: Path) -> None:
        check_rows()
        planned = [asking(self.seed, number, list(FORMS)) for number in range(1, self.streams + 1)]
        with (
            SoakUpstream({each.number: each for each in planned}) as upstream,
            gateway(upstream, folder, self.clocks) as process,
        ):
            waiting = Waiting(process.process.pid, os.getpid())
            waiting.start()
            transport = Http1Transport(environ=None)
            clients = Clients(process.url, transport, upstream.seen_by_number.__contains__)
            heard = await ask_all(planned, clients, self.concurrency, lambda: None)
            await transport.aclose()
            least = sum(each.ending is not None and not each.may_be_unasked for each in planned)
            await settled(upstream, process, least)
            waiting.stop()
            records = process.records()
            self._judge(planned, heard, upstream, records, waiting)
            self.wrong += accounts.of_metrics(await asyncio.to_thread(_page, process), records)
            self.wrong += stop(process)
        for what, distances in self.distances.items():
            if (middle := median(distances)) > MAX_MEDIAN_MS:
                self.wrong.append(f"the median distance of {what} is {middle:.1f} ms")

    def _judge(
        self,
        planned: list[Asking],
        heard: dict[int, Heard | None],
        upstream: SoakUpstream,
        records: list[dict[str, Any]],
        waiting: Waiting,
    ) -> None:
        by_model: dict[str, list[dict[str, Any]]] = {}
        for record in records:
            by_model.setdefault(record["model_requested"], []).append(record)
            self.outcomes[record["outcome"]] += 1
        offset_s = time.time() - time.monotonic()
        for each in planned:
            seen, own, ear = (
                upstream.seen_by_number.get(each.number, []),
                by_model.get(each.model, []),
                heard[each.number],
            )
            said = verdict.of_stream(each, ear, seen, own)
            for record in own:
                said += accounts.of_counts(each, ear, record)
                for one in seen:
                    said += accounts.of_order(each, one, record, offset_s)
                    for what, distance in accounts.distances_ms(each, ear, one, record, offset_s).items():
                        self.distances.setdefault(what, []).append(distance)
                        if distance > MAX_MEDIAN_MS:
                            self.waited[what] += _has_waited(waiting, what, distance, ear, one)
            self.wrong += [f"{each}: {sentence}" for sentence in said]
            self.pairs.add((each.form, each.upstream))


def _has_waited(waiting: Waiting, what: str, distance_ms: float, heard: Heard | None, seen: Seen) -> bool:
    """Whether somebody of the two processes had no processor for as long as the distance is over the bound."""
    began = seen.content_at[0] if what == "first content" else (heard.ended_at if heard else 0.0) - distance_ms / 1e3
    waited_ms = waiting.between_ms(began, began + distance_ms / 1e3)
    return waited_ms is not None and waited_ms >= distance_ms - MAX_MEDIAN_MS


def _page(process: GatewayProcess) -> str:
    with urllib.request.urlopen(f"{process.url}/metrics", timeout=30) as answer:
        page: bytes = answer.read()
    return page.decode()


def report(truth: Truth, console: Console) -> None:
    table = Table(
        "milliseconds",
        "streams",
        "median",
        "p95",
        "max",
        "within 5 ms",
        "or no processor",
        title="Record and truth apart by",
    )
    for what, distances in sorted(truth.distances.items()):
        p95 = quantiles(distances, n=20)[-1] if len(distances) > 1 else distances[0]
        within = sum(distance <= MAX_MEDIAN_MS for distance in distances) / len(distances)
        excused = within + truth.waited[what] / len(distances)
        numbers = (f"{median(distances):.2f}", f"{p95:.2f}", f"{max(distances):.2f}", f"{within:.1%}", f"{excused:.1%}")
        table.add_row(what, f"{len(distances):,}", *numbers)
    console.print(table)
    said = ", ".join(f"{count:,} {outcome}" for outcome, count in truth.outcomes.most_common())
    console.print(f"{truth.outcomes.total():,} records: {said}; {len(truth.pairs)} pairs of client and upstream.")
    console.print(
        f"{truth.concurrency} at a time; seed {truth.seed}; Python {platform.python_version()}, {platform.system()}."
    )
    for sentence in truth.wrong[:SHOWN]:
        console.print(sentence, markup=False, highlight=False, soft_wrap=True)
    if len(truth.wrong) > SHOWN:
        console.print(f"… and {len(truth.wrong) - SHOWN:,} more.")
    console.print("Every record is true." if not truth.wrong else f"{len(truth.wrong):,} things are wrong.")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=2_000, help="how many [2000]")
    parser.add_argument("--seed", type=int, default=1, help="the same seed asks the same [1]")
    parser.add_argument("--concurrency", type=int, default=8, help="how many at a time [8]")
    parser.add_argument("--clocks", type=float, default=1.0, help="times the gateway's clocks, for a busy machine [1]")
    arguments = parser.parse_args()
    if arguments.streams < 1 or arguments.concurrency < 1 or arguments.clocks <= 0:
        parser.error("--streams, --concurrency and --clocks are above nothing.")
    sys.setswitchinterval(SWITCH_S)
    truth = Truth(arguments.streams, arguments.seed, arguments.concurrency, arguments.clocks)
    with tempfile.TemporaryDirectory(prefix="penstock-truth-") as folder:
        asyncio.run(truth.run(Path(folder)))
    report(truth, Console(width=None if sys.stdout.isatty() else 120))
    return 1 if truth.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
