"""What telemetry costs, measured on, off and with every exporter down, in one run: processor time, latency, memory.

    .venv/bin/python benchmarks/telemetry.py [--rounds 9] [--requests 1000] [--streams 40] [--check]

Three gateways stand before one upstream and are asked in turn, so that whatever else the machine does hits all. `off`:
no log, no store, no metrics. `on`: log, store and `/metrics`. `down`: a store in a folder that is not there, an
InfluxDB that takes connections and never answers, a collector that refuses them. What is recorded of a stream cannot be
turned off, so its cost is measured by itself, in this process. Processor time is of all threads of a gateway; what
telemetry adds is the median of the rounds' differences. Latency is that of requests that come at a steady rate, which
leaves the gateway half idle: a closed loop would show processor time once more. Exits with 1 when a record is not
accounted for; with `--check` also when telemetry, the recorder with it, costs more than 30 µs a request or a tenth of a
frame, or when requests feel exporters that are down.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import socket
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any

import uvloop
from reliable.clients import Delays, Heard, ask
from reliable.processes import Gateway, Upstream, wait_until
from rich.console import Console
from rich.table import Table

from penstock.canon.events import BlockStart, Delta, Finish, Start
from penstock.canon.target import Target
from penstock.canon.usage import Usage
from penstock.streams.batch import Batch
from penstock.streams.handler import Attempt, Call
from penstock.telemetry.bus import Bus
from penstock.telemetry.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_REQUEST_US = 30.0
MAX_FRAME_SHARE = 0.10
#: a queue's records and what an exporter holds of them, three times, with room for an allocator's whims
MAX_GROWTH_MIB = 24.0
#: how much longer requests may take beside exporters that are down, on a machine that has other work
MAX_P50_RATIO, MAX_P99_RATIO = 1.25, 1.5

CLIENTS = 8
#: requests a second, and how many of them in a round, where latency is measured
RATE, STEADY = 300.0, 600
TOKENS, INTERVAL_S = 100, 0.02

OFF: dict[str, Any] = {"log": {"format": "off"}, "store": {"path": None}, "prometheus": {"enabled": False}}
ON: dict[str, Any] = {"log": {"format": "json"}}


def down(hanging: int, refusing: int) -> dict[str, Any]:
    return {
        "log": {"format": "off"},
        "store": {"path": "no/such/folder/penstock.db"},
        "influxdb": {"url": f"http://127.0.0.1:{hanging}", "version": 1, "database": "llm", "spool": None},
        "opentelemetry": {"endpoint": f"http://127.0.0.1:{refusing}"},
    }


@dataclass
class Measured:
    """One gateway: a figure per round."""

    gateway: Gateway
    request_us: list[float] = field(default_factory=list)
    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)
    frame_us: list[float] = field(default_factory=list)
    rss_mib: list[float] = field(default_factory=list)
    calls: int = 0

    def cpu_s(self) -> float:
        """Of all its threads, to the nanosecond; Linux's own account."""
        tasks = Path(f"/proc/{self.gateway.process.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9

    async def settled(self) -> None:
        """Until its exporters have had their turn."""
        await asyncio.sleep(0.3)

    async def requests(self, port: int, number: int) -> None:
        waiting = iter(range(number))

        async def client() -> None:
            for _ in waiting:
                heard = await ask(port)
                assert heard.outcome == "complete", heard

        before = self.cpu_s()
        await asyncio.gather(*(client() for _ in range(CLIENTS)))
        await self.settled()
        self.request_us.append((self.cpu_s() - before) / number * 1e6)
        self.calls += number

    async def steady(self, port: int, number: int) -> None:
        """One after the other in time, however long each takes."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        asked: list[asyncio.Task[Heard]] = []
        for at in range(number):
            await asyncio.sleep(began + at / RATE - loop.time())
            asked.append(loop.create_task(ask(port)))
        heard = await asyncio.gather(*asked)
        assert all(one.outcome == "complete" for one in heard)
        took = [(one.ended_at - one.began_at) * 1e3 for one in heard]
        self.p50_ms.append(median(took))
        self.p99_ms.append(quantiles(took, n=100)[-1])
        self.rss_mib.append(self.gateway.rss_mib())
        self.calls += number

    async def frames(self, port: int, streams: int) -> None:
        before = self.cpu_s()
        heard = await asyncio.gather(*(ask(port, delays=Delays()) for _ in range(streams)))
        await self.settled()
        assert all(one.outcome == "complete" for one in heard)
        self.frame_us.append((self.cpu_s() - before) / (streams * TOKENS) * 1e6)
        self.calls += streams

    def states(self) -> list[dict[str, Any]]:
        with urllib.request.urlopen(f"{self.gateway.url}/api/telemetry", timeout=10) as answer:
            found: list[dict[str, Any]] = json.load(answer)["exporters"]
        return found


async def measure(measured: dict[str, Measured], other: dict[str, Measured], options: argparse.Namespace) -> None:
    """`other` are the gateways before the upstream that is paced. One round more than asked for, which warms up."""
    for round_ in range(options.rounds + 1):
        names = list(measured)
        for name in names[round_ % 3 :] + names[: round_ % 3]:
            await measured[name].requests(measured[name].gateway.port, options.requests)
            await measured[name].steady(measured[name].gateway.port, options.steady)
            await other[name].frames(other[name].gateway.port, options.streams)
    for each in (*measured.values(), *other.values()):
        for figures in (each.request_us, each.p50_ms, each.p99_ms, each.frame_us, each.rss_mib):
            del figures[:1]


def recorder() -> tuple[float, float]:
    """Microseconds of the recorder itself: per batch of one frame, and per call with its record.

    What it is given (the call, its batches) is made by others in any case, and is subtracted.
    """
    target = Target("local", "http://127.0.0.1:1/v1", "openai-chat", "m")
    batches = 100_000

    class Stream:
        dialect = "openai-chat"
        is_document = False

        def __init__(self) -> None:
            self.target = target

    bus, stream = Bus([]), Stream()

    def given() -> tuple[Call, Batch, Batch]:
        call = Call(request_id="r", model="m", stream=True, target=target)
        call.attempts.append(Attempt("local:m", 200))
        first = Batch(time.monotonic(), [], [Start("m", "p"), BlockStart(0, "text"), Delta(0, "a")], [])
        usage = Usage(input=9, output=3)
        return call, first, Batch(time.monotonic(), [], [Finish("stop", None, usage)], [], is_last=True)

    def recorded() -> None:
        call, first, last = given()
        tally = Tally(call, concurrent=1)
        tally.opened(stream)  # type: ignore[arg-type]
        tally.see(first)
        tally.see(last)
        tally.ended()
        bus.publish(tally.record())

    def cost_us(work: Callable[[], object], times: int) -> float:
        best = float("inf")
        for _ in range(5):
            began = time.process_time()
            for _ in range(times):
                work()
            best = min(best, (time.process_time() - began) / times * 1e6)
        return best

    tally = Tally(given()[0], concurrent=1)
    batch = Batch(0.0, [], [Delta(0, "word")], [], has_content=True)
    return cost_us(lambda: tally.see(batch), batches), cost_us(recorded, 5_000) - cost_us(given, 5_000)


def report(
    fast: dict[str, Measured], paced: dict[str, Measured], own: tuple[float, float], console: Console
) -> tuple[list[str], list[str]]:
    """Prints the figures. What is wrong comes back, and what is over its bar."""
    columns = ("", "µs a request", "µs a frame", "p50, ms", "p99, ms", "memory, MiB")
    table = Table(*columns, title="Processor time and latency, medians of the rounds")
    for name, one in fast.items():
        memory = f"{one.rss_mib[0]:.0f} → {one.rss_mib[-1]:.0f}"
        figures = (one.request_us, paced[name].frame_us, one.p50_ms, one.p99_ms)
        table.add_row(name, *(f"{median(values):.1f}" for values in figures), memory)
    console.print(table)
    console.print(f"The recorder itself: {own[0]:.2f} µs a frame, {own[1]:.1f} µs a request.")
    off, on, dead = (fast[name] for name in ("off", "on", "down"))
    request_us = _difference(on.request_us, off.request_us)
    off_frame = median(paced["off"].frame_us)
    frame_us = _difference(paced["on"].frame_us, paced["off"].frame_us) + own[0]
    share = frame_us / (off_frame - own[0])
    growth = dead.rss_mib[-1] - dead.rss_mib[0]
    p50, p99 = (median(getattr(dead, name)) / median(getattr(off, name)) for name in ("p50_ms", "p99_ms"))
    console.print(
        f"Exporters: {request_us:.1f} µs a request. With the recorder {request_us + own[1]:.1f} µs a request"
        f" and {frame_us:.2f} µs a frame, {share:.1%} of it."
    )
    console.print(f"Down: p50 {p50:.2f} and p99 {p99:.2f} times that of off; memory {growth:+.1f} MiB.")
    over: list[str] = []
    if request_us + own[1] > MAX_REQUEST_US:
        over.append(f"telemetry costs {request_us + own[1]:.1f} µs a request")
    if share > MAX_FRAME_SHARE:
        over.append(f"telemetry is {share:.1%} of a frame")
    if p50 > MAX_P50_RATIO or p99 > MAX_P99_RATIO:
        over.append("requests notice that exporters are down")
    if growth > MAX_GROWTH_MIB:
        over.append(f"memory grew by {growth:.1f} MiB while exporters were down")
    wrong: list[str] = []
    for one in (dead, paced["down"]):
        for state in one.states():
            name, counted = state["name"], sum(state[word] for word in ("sent", "failed", "dropped", "lag"))
            console.print(f"  {name}: " + ", ".join(f"{state[k]:,} {k}" for k in ("sent", "failed", "dropped", "lag")))
            if counted != one.calls:
                wrong.append(f"{name} counts {counted} records of {one.calls}")
            if name in ("sqlite", "influxdb") and (state["sent"] or not state["last_error"]) and not state["lag"]:
                wrong.append(f"{name} is down and says {state}")
    return wrong, over


def _difference(these: list[float], those: list[float]) -> float:
    return median([one - other for one, other in zip(these, those, strict=True)])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="how many of each [9]")
    parser.add_argument("--requests", type=int, default=1000, help="requests a round, as fast as can be [1000]")
    parser.add_argument("--steady", type=int, default=STEADY, help=f"and at {RATE:g} a second [{STEADY}]")
    parser.add_argument("--streams", type=int, default=40, help="streams a round, of 100 frames each [40]")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a figure is over its bar")
    options = parser.parse_args()
    own = recorder()
    hanging, refusing = socket.create_server(("127.0.0.1", 0), backlog=64), socket.socket()
    refusing.bind(("127.0.0.1", 0))
    settings = {"off": OFF, "on": ON, "down": down(hanging.getsockname()[1], refusing.getsockname()[1])}
    upstreams = [Upstream(1, 0.0), Upstream(TOKENS, INTERVAL_S)]
    gateways: list[Gateway] = []
    with tempfile.TemporaryDirectory(prefix="penstock-telemetry-") as folder:
        try:
            sets: list[dict[str, Measured]] = []
            for number, upstream in enumerate(upstreams):
                sets.append({})
                for name, telemetry in settings.items():
                    place = Path(folder) / f"{name}-{number}"
                    place.mkdir()
                    gateways.append(Gateway(place, upstream.port, telemetry=telemetry))
                    sets[number][name] = Measured(gateways[-1])
            uvloop.run(measure(*sets, options))
            console = Console(width=None if sys.stdout.isatty() else 120)
            wrong, over = report(sets[0], sets[1], own, console)
            console.print(
                f"{options.rounds} rounds of {options.requests} requests, {options.steady} at {RATE:g} a second and"
                f" {options.streams} streams of {TOKENS} frames each;"
                f" Python {platform.python_version()}, {platform.system()}."
            )
        finally:
            for gateway in gateways:
                gateway.process.terminate()
            for gateway in gateways:
                wait_until(lambda gateway=gateway: gateway.process.poll() is not None, "an end", 60)
            for upstream in upstreams:
                upstream.kill()
            hanging.close()
            refusing.close()
    for sentence in [*wrong, *over]:
        console.print(f"✗ {sentence}")
    return 1 if wrong or (over and options.check) else 0


if __name__ == "__main__":
    sys.exit(main())
