"""Thousands of streams of every ending, in random order, through a gateway process; and then: what is left of them?

    .venv/bin/python benchmarks/soak.py [--streams 10000] [--seed 1] [--dialects openai-chat,gemini] [--concurrency 40]

Every stream has a client in some dialect, an upstream in some dialect, perhaps a fault, a reader who may be slow or
leave, and an ending that is owed for all that. It is judged by what its client heard, what the upstream saw and what
the store recorded. Between rounds, when nobody asks, the gateway must hold what it held before anybody did. Exits with
1 when anything is wrong, and says what. On a machine that has other work to do, replies may be late for no fault of
theirs: then ask fewer at a time, or give the clocks more.
"""

from __future__ import annotations

import argparse
import asyncio
import platform
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from soaking import verdict
from soaking.clients import FORMS, Clients, ask_all
from soaking.owed import check_rows
from soaking.plan import asking
from soaking.process import REST_S, GatewayProcess, Observed, gateway, settled, stop
from soaking.upstream import SoakUpstream

from penstock.testing.faults import parse_fault
from penstock.transport.http1 import Http1Transport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from soaking.plan import Asking

MAX_ROUNDS = 10
#: a round waits for its last stream, which may be ten seconds: fewer than these are not worth it
MIN_ROUND = 150
#: The simulator and the clients are threads of one process: neither may keep the other waiting for its turn.
SWITCH_S = 0.0005
SHOWN = 40


@dataclass
class Soak:
    """One run. `wrong` gathers sentences; `told` is called for each stream that has ended."""

    streams: int
    seed: int
    forms: Sequence[str]
    concurrency: int
    clocks: float = 1.0
    told: Callable[[], None] = lambda: None
    wrong: list[str] = field(default_factory=list)
    owed: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    readers: Counter[str] = field(default_factory=Counter)
    rounds: list[tuple[int, Observed]] = field(default_factory=list)
    records: list[dict[str, Any]] = field(default_factory=list)
    executions: int = 0
    unowed: int = 0
    slowed: int = 0
    heartbeats: int = 0
    took_s: float = 0.0

    async def run(self, folder: Path) -> None:
        check_rows()
        askings: dict[int, Asking] = {}
        with SoakUpstream(askings) as upstream, gateway(upstream, folder, self.clocks) as process:
            before = await process.observe()
            began = time.monotonic()
            for numbers in self._batches():
                await self._round(numbers, askings, upstream, process)
                self.rounds.append((numbers[-1], await self._rest(before, process)))
            self.took_s = time.monotonic() - began
            self.wrong += verdict.of_growth(*self.warm, self.rounds[-1][1])
            self.records = process.records()
            self.wrong += verdict.of_sum(self.owed, self.records, self.unowed)
            self.wrong += stop(process)

    @property
    def warm(self) -> tuple[int, Observed]:
        """What it held after a fifth of them, and how many that was."""
        return self.rounds[max(0, len(self.rounds) // 5 - 1)]

    def _batches(self) -> Iterator[list[int]]:
        """The numbers of each round."""
        rounds = min(MAX_ROUNDS, max(2, self.streams // MIN_ROUND))
        size = -(-self.streams // rounds)
        for first in range(1, self.streams + 1, size):
            yield list(range(first, min(first + size, self.streams + 1)))

    async def _round(
        self, numbers: list[int], askings: dict[int, Asking], upstream: SoakUpstream, process: GatewayProcess
    ) -> None:
        """All of these, so many at a time, each by one connection or another; then each is judged."""
        planned = [asking(self.seed, number, self.forms) for number in numbers]
        askings.clear()
        askings.update((each.number, each) for each in planned)
        transport = Http1Transport(environ=None)
        clients = Clients(process.url, transport, upstream.seen_by_number.__contains__)
        heard = await ask_all(planned, clients, self.concurrency, self.told)
        await transport.aclose()
        least = sum(self.owed.values()) + sum(each.ending is not None and not each.may_be_unasked for each in planned)
        await settled(upstream, process, least - self.unowed)
        by_model: dict[str, list[dict[str, Any]]] = {}
        for record in process.records():
            by_model.setdefault(record["model_requested"], []).append(record)
        for each in planned:
            seen = upstream.seen_by_number.get(each.number, [])
            records = by_model.get(each.model, [])
            said = verdict.of_stream(each, heard[each.number], seen, records)
            self.wrong += [f"{each}: {sentence}" for sentence in said]
            self._count(each, len(records))
            self.executions += len(seen)
            self.slowed += any(one.blocked_s > 0 for one in seen)
            self.heartbeats += sum(record["heartbeats"] for record in records)
        upstream.forget()

    def _count(self, each: Asking, records: int) -> None:
        if each.ending is not None:
            self.owed[each.ending.outcome] += 1
            self.unowed += each.may_be_unasked
        self.readers[each.reader] += 1
        if each.faults:
            self.kinds[parse_fault(each.faults[0]).name] += 1

    async def _rest(self, before: Observed, process: GatewayProcess) -> Observed:
        """What it holds when nobody asks, once it has had the time to let go."""
        end = time.monotonic() + REST_S
        while True:
            observed = await process.observe()
            wrong = verdict.of_rest(before, observed)
            if not wrong:
                return observed
            if time.monotonic() > end:
                self.wrong += wrong
                return observed
            await asyncio.sleep(0.1)


def report(soak: Soak, console: Console) -> None:
    table = Table("streams", "tasks", "threads", "sockets", "kept", "files", "objects", "memory", title="At rest")
    for streams, seen in soak.rounds:
        row = (seen.task_count, seen.threads, seen.own_sockets, seen.idle_connections, seen.files, seen.object_count)
        table.add_row(f"{streams:,}", *(f"{number:,}" for number in row), verdict.mib(seen.rss_bytes))
    console.print(table)
    grown = verdict.grown(soak.warm[1], soak.rounds[-1][1])
    said = ", ".join(f"{count:,} {name}" for name, count in grown.most_common(8))
    console.print(f"More objects at the end than after the warm-up: {said or 'none'}.")
    found = Counter(record["outcome"] for record in soak.records)
    said = ", ".join(f"{count:,} {outcome}" for outcome, count in found.most_common())
    console.print(f"{len(soak.records):,} records: {said}. {soak.executions:,} executions upstream.")
    said = ", ".join(f"{count:,} {reader}" for reader, count in soak.readers.most_common())
    console.print(f"{soak.streams:,} clients: {said}. {soak.slowed:,} upstreams waited for their reader.")
    console.print(f"{len(soak.kinds)} faults; {soak.heartbeats:,} heartbeats; {soak.took_s:.0f} s; seed {soak.seed};")
    console.print(
        f"Python {platform.python_version()}, {platform.system()}, {len(soak.forms)} forms of client dialects."
    )
    for sentence in soak.wrong[:SHOWN]:
        console.print(sentence, markup=False, highlight=False, soft_wrap=True)
    if len(soak.wrong) > SHOWN:
        console.print(f"… and {len(soak.wrong) - SHOWN:,} more.")
    console.print("Nothing is wrong." if not soak.wrong else f"{len(soak.wrong):,} things are wrong.")


def forms_of(dialects: str | None) -> list[str]:
    """The forms of these dialects; all without. Raises `ValueError` for one that nobody speaks."""
    if dialects is None:
        return list(FORMS)
    wanted = [name.strip() for name in dialects.split(",")]
    known = {form.dialect.name for form in FORMS.values()}
    if unknown := set(wanted) - known:
        raise ValueError(f"No client speaks {', '.join(sorted(unknown))}; known are {', '.join(sorted(known))}.")
    return [form.name for form in FORMS.values() if form.dialect.name in wanted]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=10_000, help="how many [10000]")
    parser.add_argument("--seed", type=int, default=1, help="the same seed asks the same [1]")
    parser.add_argument("--dialects", help="client dialects, joined by commas [all]")
    parser.add_argument("--concurrency", type=int, default=40, help="how many at a time [40]")
    parser.add_argument("--clocks", type=float, default=1.0, help="times the gateway's clocks, for a busy machine [1]")
    arguments = parser.parse_args()
    if arguments.streams < 1 or arguments.concurrency < 1 or arguments.clocks <= 0:
        parser.error("--streams, --concurrency and --clocks are above nothing.")
    try:
        forms = forms_of(arguments.dialects)
    except ValueError as error:
        parser.error(str(error))
    sys.setswitchinterval(SWITCH_S)
    console = Console(width=None if sys.stdout.isatty() else 120)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with (
        tempfile.TemporaryDirectory(prefix="penstock-soak-") as folder,
        Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress,
    ):
        bar = progress.add_task("streams", total=arguments.streams)
        soak = Soak(
            arguments.streams,
            arguments.seed,
            forms,
            arguments.concurrency,
            arguments.clocks,
            told=lambda: progress.advance(bar),
        )
        asyncio.run(soak.run(Path(folder)))
    report(soak, console)
    return 1 if soak.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
