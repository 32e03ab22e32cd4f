"""What the gateway does when much is asked of it, or something is taken away: four scenarios, each with what is owed.

    .venv/bin/python benchmarks/reliability.py [streams] [killed] [upstream] [disk] [--streams 1000] [--interval 0.1]

`streams`: so many paced streams at once through one process on one core, beside the same streams without a gateway.
`killed`: one of two workers is killed with SIGKILL under load. `upstream`: the only upstream is killed under load, and
started again. `disk`: the store's file may not grow (RLIMIT_FSIZE), and later may again. Every stream's ending is
compared with its record. Exits with 1 when anything is not as it is owed, and says what.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop
from reliable.clients import Delays, ask, keep_asking
from reliable.processes import Gateway, Upstream, wait_until
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from reliable.clients import Heard

Figures = dict[str, str]

wrong: list[str] = []


def owed(fact: bool, what: str) -> None:
    if not fact:
        wrong.append(what)


def quantile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(int(len(values) * share), len(values) - 1)] if values else float("nan")


def outcomes(heard: list[Heard]) -> str:
    return ", ".join(f"{count} {word}" for word, count in Counter(it.outcome for it in heard).most_common())


# --- many paced streams -----------------------------------------------------------------------------------------------


async def many(port: int, streams: int, ramp_s: float) -> tuple[list[Heard], Delays]:
    delays = Delays()

    async def one(number: int) -> Heard:
        await asyncio.sleep(ramp_s * number / streams)
        return await ask(port, delays=delays)

    return await asyncio.gather(*(one(number) for number in range(streams))), delays


def streams(folder: Path, options: argparse.Namespace) -> Figures:
    tokens = max(int(options.seconds / options.interval), 1)
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > 1:  # the gateway has the last one; upstream and clients share the others
        os.sched_setaffinity(0, set(cores[:-1]))
    upstream = Upstream(tokens, options.interval)
    direct, alone = uvloop.run(many(upstream.port, options.streams, 3.0))
    gateway = Gateway(folder, upstream.port)
    os.sched_setaffinity(gateway.process.pid, {cores[-1]})
    began, cpu = time.monotonic(), gateway.cpu_s()
    heard, through = uvloop.run(many(gateway.port, options.streams, 3.0))
    used = (gateway.cpu_s() - cpu) / (time.monotonic() - began)
    memory = gateway.rss_mib()
    owed(gateway.stop() == 0, "the gateway did not end with 0")
    upstream.kill()
    os.sched_setaffinity(0, set(cores))

    for found, who in ((direct, "without the gateway"), (heard, "through the gateway")):
        whole = [it for it in found if it.outcome == "complete" and it.in_order and it.tokens == tokens]
        owed(len(whole) == options.streams, f"{who}: {outcomes(found)}")
    rows = gateway.stored()
    owed(
        Counter(row["outcome"] for row in rows) == {"complete": options.streams},
        "a record is missing or says otherwise",
    )
    owed(gateway.stderr == "", f"standard error: {gateway.stderr[:200]}")
    of_all = f"{options.streams * tokens:,} (one every {options.interval * 1e3:g} ms each)"
    return {
        "streams at once": str(options.streams),
        "tokens": of_all,
        "ended": outcomes(heard),
        "records": f"{len(rows)}, all complete",
        "a token's delay, p50 / p99, ms": _pair(through.delay),
        "the same without the gateway": _pair(alone.delay),
        "added inter-token time, p50 / p99, ms": _pair(through.added_gap, absolute=True),
        "the same, without the gateway": _pair(alone.added_gap, absolute=True),
        "the gateway's core, memory": f"{used:.0%} busy, {memory:.0f} MiB",
    }


def _pair(values: Sequence[float], *, absolute: bool = False) -> str:
    seen = [abs(value) for value in values] if absolute else values
    return f"{quantile(seen, 0.5):.2f} / {quantile(seen, 0.99):.2f}"


# --- a worker is killed -----------------------------------------------------------------------------------------------


def killed(folder: Path, options: argparse.Namespace) -> Figures:
    upstream = Upstream(40, 0.05)
    gateway = Gateway(folder, upstream.port, server={"workers": 2})
    told: dict[str, float] = {}

    async def run() -> list[Heard]:
        asking = asyncio.create_task(keep_asking(gateway.port, options.clients, 14.0))
        await asyncio.sleep(5.0)
        before = set(gateway.workers())
        told["counted"] = _requests(await asyncio.to_thread(gateway.metrics))
        told["at"] = time.monotonic()
        os.kill(min(before), signal.SIGKILL)
        told["replaced_s"] = await asyncio.to_thread(
            wait_until, lambda: len(set(gateway.workers()) - before) == 1, "a new worker"
        )
        heard = await asking
        await asyncio.to_thread(wait_until, lambda: gateway.metrics()["penstock_processes"] == 2, "two processes")
        told["counted_after"] = _requests(await asyncio.to_thread(gateway.metrics))
        return heard

    heard = uvloop.run(run())
    owed(gateway.stop() == 0, "the gateway did not end with 0")
    upstream.kill()
    at = told["at"]
    cut = [it for it in heard if it.outcome == "broken"]
    victims = {it.worker for it in cut if it.worker}
    others = [it for it in heard if it.worker and it.worker not in victims]
    later = [it for it in heard if it.began_at > at + 1.0]
    owed(len(victims) <= 1, f"streams of {len(victims)} workers were cut")
    owed(all(it.outcome == "complete" and it.tokens == 40 for it in others), f"streams of others: {outcomes(others)}")
    owed(all(it.in_order for it in heard), "tokens came out of order")
    owed(all(it.outcome == "complete" for it in later), f"a second later: {outcomes(later)}")
    owed(told["counted_after"] >= told["counted"], "a counter went back")
    complete = {row["request_id"] for row in gateway.stored()}
    return {
        "clients, streams": f"{options.clients}, {len(heard)}",
        "streams of the killed worker, cut off visibly": str(len(cut)),
        "requests without a connection, or without an answer": str(
            sum(it.outcome == "refused" or not it.worker for it in heard)
        ),
        "streams of the other workers": f"{len(others)}: {outcomes(others)}",
        "until another was forked": f"{told['replaced_s'] * 1e3:.0f} ms",
        "requests from a second after": f"{len(later)}: {outcomes(later)}",
        "records": f"{len(complete)} (the killed worker's own streams have none)",
        "/metrics before and after": f"{told['counted']:.0f}, {told['counted_after']:.0f}",
    }


def _requests(metrics: dict[str, float]) -> float:
    return sum(value for name, value in metrics.items() if name.startswith("penstock_requests_total"))


# --- the upstream is killed and comes back ----------------------------------------------------------------------------


def upstream_stops(folder: Path, options: argparse.Namespace) -> Figures:
    upstream = Upstream(40, 0.05)
    gateway = Gateway(folder, upstream.port, retry={"attempts": 1})
    moments: dict[str, float] = {}

    async def run() -> list[Heard]:
        nonlocal upstream
        asking = asyncio.create_task(keep_asking(gateway.port, options.clients, 16.0))
        await asyncio.sleep(5.0)
        moments["stopped"] = time.monotonic()
        await asyncio.to_thread(upstream.kill)
        await asyncio.sleep(4.0)
        upstream = await asyncio.to_thread(Upstream, 40, 0.05, upstream.port)
        moments["started"] = time.monotonic()
        return await asking

    heard = uvloop.run(run())
    owed(gateway.stop() == 0, "the gateway did not end with 0")
    upstream.kill()
    stopped, started = moments["stopped"], moments["started"]
    cut = [it for it in heard if it.began_at < stopped and it.ended_at >= stopped]
    down = [it for it in heard if it.began_at > stopped + 0.2 and it.ended_at < started]
    later = [it for it in heard if it.began_at > started + 1.0]
    well = [it for it in heard if it.outcome == "complete"]
    owed({it.outcome for it in cut} <= {"error", "status 502", "complete"}, f"streams under way: {outcomes(cut)}")
    owed(all(it.tokens == 40 and it.in_order for it in well), "a stream that looks complete is not")
    owed({it.outcome for it in down} == {"status 502"}, f"while it was down: {outcomes(down)}")
    owed(all(it.outcome == "complete" for it in later), f"a second after it was back: {outcomes(later)}")
    records = Counter(record["outcome"] for record in gateway.stored())
    owed(records["complete"] == len(well), f"{len(well)} were complete, and {records['complete']} records say so")
    owed(records.total() == len(heard), f"{len(heard)} streams left {records.total()} records")
    return {
        "clients, streams": f"{options.clients}, {len(heard)}",
        "streams that were under way": f"{len(cut)}: {outcomes(cut)}",
        "requests while it was down": f"{len(down)}: {outcomes(down)}",
        "requests from a second after": f"{len(later)}: {outcomes(later)}",
        "records": ", ".join(f"{count} {word}" for word, count in records.most_common()),
    }


# --- the disk is full -------------------------------------------------------------------------------------------------


def disk(folder: Path, options: argparse.Namespace) -> Figures:
    upstream = Upstream(10, 0.01)
    gateway = Gateway(folder, upstream.port, file_bytes=256 * 1024)
    told: dict[str, float] = {}

    async def run() -> tuple[list[Heard], list[Heard]]:
        full = await keep_asking(gateway.port, options.clients, 8.0)
        await asyncio.sleep(1.0)
        told["failed"] = (await asyncio.to_thread(gateway.metrics))[_FAILED]
        gateway.unlimited()
        return full, await keep_asking(gateway.port, options.clients, 2.0)

    full, later = uvloop.run(run())
    owed(gateway.stop() == 0, "the gateway did not end with 0")
    upstream.kill()
    stored = {row["request_id"] for row in gateway.stored()}
    logged = {record["request_id"]: record for record in gateway.records}
    last = sorted(gateway.records, key=lambda record: record["time"])[-len(later) :]
    owed(
        all(it.outcome == "complete" and it.tokens == 10 for it in [*full, *later]),
        f"streams: {outcomes([*full, *later])}",
    )
    owed(len(logged) == len(full) + len(later), "a record is missing from the log")
    owed(told["failed"] > 0, "the disk was not full")
    owed(
        len(logged) - len(stored) == told["failed"],
        f"{told['failed']:.0f} failed, {len(logged) - len(stored)} are missing",
    )
    owed(all(record["request_id"] in stored for record in last), "a record is missing after there was room again")
    return {
        "streams while the file could not grow": f"{len(full)}: {outcomes(full)}",
        "their records in the log, in the store": f"{len(full)}, {len(full) - int(told['failed'])}",
        "counted in /metrics as failed": f"{told['failed']:.0f}",
        "streams once there was room, records in the store": f"{len(later)}, {len(last)}",
    }


_FAILED = 'penstock_exporter_records_total{exporter="sqlite",result="failed"}'

SCENARIOS: dict[str, Callable[[Path, argparse.Namespace], Figures]] = {
    "streams": streams,
    "killed": killed,
    "upstream": upstream_stops,
    "disk": disk,
}


def main() -> int:
    given = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    given.add_argument("scenarios", nargs="*", choices=[*SCENARIOS, []], default=[])
    given.add_argument("--streams", type=int, default=1000, help="at once")
    given.add_argument("--interval", type=float, default=0.1, help="seconds between a stream's tokens")
    given.add_argument("--seconds", type=float, default=20.0, help="how long a stream is")
    given.add_argument("--first", action="store_true", help="before other work of this machine (needs root)")
    given.add_argument("--clients", type=int, default=200, help="of the other scenarios")
    options = given.parse_args()
    console = Console(width=120)
    if options.first:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(10))  # the processes that are started inherit it
    console.print(
        f"Python {platform.python_version()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start"
    )
    for name in options.scenarios or SCENARIOS:
        with tempfile.TemporaryDirectory() as folder:
            figures = SCENARIOS[name](Path(folder), options)
        table = Table(title=name, title_justify="left", box=None, show_header=False, title_style="bold")
        for what, value in figures.items():
            table.add_row(what, value)
        console.print(table)
    for what in wrong:
        console.print(f"[red]✗[/] {what}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
