#!/usr/bin/env python3
"""What the worker costs over its own engine: the same calls to a bare llama-server and to a worker before one.

Both engines are the same program with the same settings and the demo model, asked in turn by the same client, in one
run. Beside them stands a relay that copies bytes and understands nothing: what moving a token costs anybody here.

- processor time per token, unpaced (the tiny model, as fast as it goes) and paced (streams of 50 tokens a second from a
  scripted engine), and the throughput that is left;
- time to the first token, over the bare engine's;
- from a client's leaving to a free slot; from the start to `/health`; resident memory beside the engine's.

    python benchmarks/worker.py [--rounds 5] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit
from urllib.request import urlopen

import uvloop

from penstock.canon.target import Target
from penstock.worker.engine import Loaded
from penstock.worker.llamacpp import LlamaCpp, demo_model

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable

SLOTS = 4
TOKENS = 600
#: 16 is what a machine may well have; 200 is what the gateway's figure is of
PACED_STREAMS, PACED_TOKENS, PACED_EVERY_S = (16, 200), 150, 0.02
PROMPT = [{"role": "user", "content": "Hello"}]


class Place(NamedTuple):
    """Whom the client asks."""

    url: str
    key: str | None = None


# --- the client -------------------------------------------------------------------------------------------------------


async def ask(place: Place, body: dict[str, Any], path: str = "/v1/chat/completions") -> Any:
    """A connection of its own, with the request sent."""
    at = urlsplit(place.url)
    reader, writer = await asyncio.open_connection(at.hostname, at.port)
    raw = json.dumps({"model": "tiny", **body}).encode()
    key = f"authorization: Bearer {place.key}\r\n" if place.key else ""
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\n{key}content-type: application/json\r\n"
    writer.write(f"{head}content-length: {len(raw)}\r\nconnection: close\r\n\r\n".encode() + raw)
    return reader, writer


async def stream(place: Place, body: dict[str, Any]) -> tuple[float, float]:
    """Seconds to the first token, and to the end. Raises unless it ended whole."""
    began = time.perf_counter()
    reader, writer = await ask(place, {"messages": PROMPT, "stream": True, **body})
    first, tail, seen = 0.0, b"", b""
    while data := await reader.read(1 << 16):
        if not first:
            seen += data
            if b'"content":"' in seen:
                first = time.perf_counter() - began
        tail = (tail + data)[-64:]
    writer.close()
    if b"[DONE]" not in tail:
        raise RuntimeError(f"a stream broke: {tail!r}")
    return first, time.perf_counter() - began


async def leave(place: Place) -> float:
    """Seconds from a client's leaving in the middle to a slot that is free again."""
    reader, writer = await ask(place, {"messages": PROMPT, "stream": True, "ignore_eos": True, "max_tokens": 8000})
    await reader.readuntil(b'"content":"')
    writer.transport.abort()
    began = time.perf_counter()
    while any(slot["is_processing"] for slot in await slots(place)):  # noqa: ASYNC110
        await asyncio.sleep(0)
    return time.perf_counter() - began


async def slots(place: Place) -> Any:
    at = urlsplit(place.url)
    reader, writer = await asyncio.open_connection(at.hostname, at.port)
    key = f"authorization: Bearer {place.key}\r\n" if place.key else ""
    writer.write(f"GET /slots HTTP/1.1\r\nhost: localhost\r\n{key}connection: close\r\n\r\n".encode())
    data = await reader.read()
    writer.close()
    return json.loads(data[data.index(b"[") : data.rindex(b"]") + 1])


# --- processes --------------------------------------------------------------------------------------------------------


def processor_s(pid: int) -> float:
    """Of all its threads, to the nanosecond."""
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


def memory_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


@asynccontextmanager
async def bare_engine() -> AsyncIterator[tuple[Place, int]]:
    engine = LlamaCpp(demo_model(), model="tiny", slots=SLOTS)
    target = await engine.load(lambda loaded: None)
    assert target.key is not None
    assert engine.pid is not None
    try:
        yield Place(target.url.removesuffix("/v1"), target.key.reveal()), engine.pid
    finally:
        await engine.stop()


@asynccontextmanager
async def process(*arguments: str, folder: str, has_health: bool = True) -> AsyncIterator[tuple[Place, int, float]]:
    """The address it prints, its pid, and the seconds that it took to answer `/health`."""
    began = time.perf_counter()
    started = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, cwd=folder)  # noqa: ASYNC220
    assert started.stdout is not None
    line = await asyncio.to_thread(started.stdout.readline)
    url = next(word for word in line.replace(",", " ").split() if word.startswith("http://"))
    status = await asyncio.to_thread(health, url) if has_health else "ok"
    took_s = time.perf_counter() - began
    while status != "ok":
        status = await asyncio.to_thread(health, url)
    try:
        yield Place(url), started.pid, took_s
    finally:
        started.terminate()
        await asyncio.to_thread(started.wait)
        started.stdout.close()


def health(url: str) -> str:
    with urlopen(f"{url}/health", timeout=10) as answer:
        return str(json.load(answer)["status"])


class Scripted:
    """For the paced run: an engine that is a socket of the client's process."""

    model, slots, embeds = "tiny", max(PACED_STREAMS), None

    def __init__(self, url: str) -> None:
        self._url = url

    async def load(self, tell: Any) -> Target:
        tell(Loaded("starting"))
        return Target("engine", self._url, "openai-chat", profile="llamacpp")

    async def ended(self) -> Any:
        await asyncio.Event().wait()

    async def stop(self) -> None:
        pass

    def about(self) -> dict[str, Any]:
        return {"model": self.model}


def serve_scripted(url: str) -> None:
    """The worker's own application before a scripted engine: this file, run with `--scripted`."""
    from penstock.serving.server import address_of, bind, run
    from penstock.telemetry.bus import Bus
    from penstock.transport.http1 import Http1Transport
    from penstock.worker.app import worker

    bound = bind("127.0.0.1", 0)
    app = worker(Scripted(url), Http1Transport(), Bus([]))
    run(app, bound, drain_s=lambda: 1.0, ready=lambda: print(f"on {address_of(bound)}", flush=True))


class Copied(asyncio.Protocol):
    """One side of a connection through the relay; `other` is where its bytes go."""

    def __init__(self, address: tuple[str, int] | None = None) -> None:
        self._address = address
        self._held = b""
        self._opening: asyncio.Task[Any] | None = None
        self.other: Copied | None = None
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        if self._address is not None:
            self._opening = asyncio.ensure_future(self._open(*self._address))

    async def _open(self, host: str, port: int) -> None:
        _, other = await asyncio.get_running_loop().create_connection(Copied, host, port)
        other.other, self.other = self, other
        other.transport.write(self._held)

    def data_received(self, data: bytes) -> None:
        if self.other is None:
            self._held += data
        else:
            self.other.transport.write(data)

    def connection_lost(self, error: Exception | None) -> None:
        if self.other is not None:
            self.other.transport.close()


async def serve_copied(address: str) -> None:
    """This file, run with `--relay`."""
    host, _, port = address.partition(":")
    server = await asyncio.get_running_loop().create_server(lambda: Copied((host, int(port))), "127.0.0.1", 0)
    print(f"on http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


def relay(place: Place, folder: str) -> Any:
    arguments = (sys.executable, __file__, "--relay", urlsplit(place.url).netloc)
    return process(*arguments, folder=folder, has_health=False)


async def paced_engine(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    if head.startswith(b"GET"):  # its properties, which it has none of
        writer.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        writer.close()
        return
    length = int(head.lower().partition(b"content-length:")[2].split()[0]) if b"content-length" in head.lower() else 0
    await reader.readexactly(length)
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
    at = asyncio.get_running_loop().time()
    for number in range(PACED_TOKENS):
        ending = number == PACED_TOKENS - 1
        delta: dict[str, Any] = {} if ending else {"content": " word"}
        choice = {"finish_reason": "stop" if ending else None, "index": 0, "delta": delta}
        chunk = {"choices": [choice], "created": 1, "id": "c", "model": "tiny", "object": "chat.completion.chunk"}
        frame = b"data: " + json.dumps(chunk).encode() + b"\n\n" + (b"data: [DONE]\n\n" if ending else b"")
        writer.write(b"%x\r\n%b\r\n" % (len(frame), frame))
        at += PACED_EVERY_S
        await asyncio.sleep(max(0.0, at - asyncio.get_running_loop().time()))
    writer.write(b"0\r\n\r\n")
    writer.close()


# --- what is measured -------------------------------------------------------------------------------------------------


async def costing(pid: int, work: Awaitable[float]) -> tuple[float, float]:
    """Microseconds of processor time that a process spends meanwhile, and what the work gives."""
    before = processor_s(pid)
    given = await work
    return (processor_s(pid) - before) * 1e6, given


async def unpaced(place: Place) -> float:
    """Tokens in a second, of all slots together."""
    body = {"ignore_eos": True, "max_tokens": TOKENS}
    began = time.perf_counter()
    await asyncio.gather(*(stream(place, body) for _ in range(SLOTS)))
    return SLOTS * TOKENS / (time.perf_counter() - began)


async def paced(rounds: int, folder: str) -> dict[str, float]:
    server = await asyncio.start_server(paced_engine, "127.0.0.1", 0, backlog=512)
    engine = Place(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    arguments = (sys.executable, __file__, "--scripted", f"{engine.url}/v1")
    found: dict[str, float] = {}
    async with process(*arguments, folder=folder) as (place, pid, _), relay(engine, folder) as (copier, copying, _):
        for streams in PACED_STREAMS:
            left, cost, copied = [], [], []
            for _ in range(rounds):
                alone = await paced_round(engine, streams)
                copied.append((await costing(copying, paced_round(copier, streams)))[0] / streams / PACED_TOKENS)
                spent, with_it = await costing(pid, paced_round(place, streams))
                cost.append(spent / streams / PACED_TOKENS)
                left.append(alone / with_it)
            found[f"{streams} paced streams, µs a token"] = median(cost)
            found[f"{streams} paced streams, µs a token of the relay"] = median(copied)
            found[f"{streams} paced streams, throughput left"] = median(left)
    server.close()
    return found


async def paced_round(place: Place, streams: int) -> float:
    """Seconds that a stream took, in the middle."""
    return median([took for _, took in await asyncio.gather(*(stream(place, {}) for _ in range(streams)))])


async def measure(rounds: int) -> dict[str, float]:
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        arguments = (sys.executable, "-m", "penstock", "worker", "--demo", "--slots", str(SLOTS), "--port", "0")
        starts = []
        for _ in range(rounds):
            async with process(*arguments, "--log", "off", folder=folder) as (_, _, took_s):
                starts.append(took_s)
        found["start to /health, s"] = median(starts)
        async with (
            bare_engine() as (engine, engine_pid),
            process(*arguments, "--log", "off", folder=folder) as (worker, pid, _),
            relay(engine, folder) as (copier, copying, _),
        ):
            copier = Place(copier.url, engine.key)
            for place in (engine, worker, copier):  # all warm
                await unpaced(place)
            rates, cost, copied = [], [], []
            for _ in range(rounds):
                alone = await unpaced(engine)
                copied.append((await costing(copying, unpaced(copier)))[0] / SLOTS / TOKENS)
                spent, with_it = await costing(pid, unpaced(worker))
                cost.append(spent / SLOTS / TOKENS)
                rates.append((alone, with_it))
            found["unpaced, tokens/s of the engine"] = median(alone for alone, _ in rates)
            found["unpaced, tokens/s of the worker"] = median(with_it for _, with_it in rates)
            found["unpaced, throughput left"] = median(with_it / alone for alone, with_it in rates)
            found["unpaced, µs a token"] = median(cost)
            found["unpaced, µs a token of the relay"] = median(copied)
            firsts: dict[Place, list[float]] = {engine: [], worker: []}
            for _ in range(rounds * 20):
                for place, times in firsts.items():
                    times.append((await stream(place, {"max_tokens": 2}))[0] * 1e3)
            found["first token of the engine, ms"] = median(firsts[engine])
            found["first token of the worker, ms"] = median(firsts[worker])
            found["first token, added, ms"] = median(firsts[worker]) - median(firsts[engine])
            frees = sorted([await leave(worker) * 1e3 for _ in range(rounds * 4)])
            found["leaving to a free slot, median, ms"] = median(frees)
            found["leaving to a free slot, longest, ms"] = frees[-1]
            found["memory of the worker, MiB"] = memory_mib(pid)
            found["memory of the bare engine, MiB"] = memory_mib(engine_pid)
        found |= await paced(rounds, folder)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--relay", metavar="ADDRESS", help=argparse.SUPPRESS)
    parser.add_argument("--scripted", metavar="URL", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.relay:
        uvloop.run(serve_copied(options.relay))
        return
    if options.scripted:
        serve_scripted(options.scripted)
        return
    found = asyncio.run(measure(options.rounds))
    if options.json:
        print(json.dumps(found, ensure_ascii=False, indent=1))
        return
    for name, value in found.items():
        print(f"{name:<48} {value:12,.2f}")


if __name__ == "__main__":
    main()
