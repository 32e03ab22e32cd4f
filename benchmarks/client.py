"""What a stream costs who reads it: Penstock's library beside the OpenAI SDK, and the LiteLLM SDK where there is one.

    .venv/bin/python benchmarks/client.py [--check] [--litellm PYTHON] [--json FILE]

One upstream, in a process of its own, that says the same reply to all: 1,000 words of OpenAI chat. *Burst*: written at
once, as a fast server does. *Paced*: each frame in a write of its own, a millisecond after the one before, 16 streams
at once. Each client runs in a fresh process, after a stream to warm up; what counts is its processor time, user and
system, of all its threads. Then: the memory of 1,000 streams that are open at the same time, and what an import costs.
`--check` exits with 1 when a figure of ours is over its budget.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

WORDS = 1000
PACE_S = 0.001
AT_ONCE = 16
OPEN = 1000
RUNS = 5

#: After so long a client's cell stays empty.
MEASURE_S = 90.0

#: LiteLLM fetches a price list over the network when it is imported, unless it is told not to.
QUIET = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}

EVENT_BUDGET_US, TEXT_BUDGET_US = 12.0, 6.0
MEMORY_BUDGET_MIB, IMPORT_BUDGET_MS = 150.0, 100.0

# --- the upstream -----------------------------------------------------------------------------------------------------

_BASE: dict[str, Any] = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1700000000, "model": "m"}


def frame(choices: list[dict[str, Any]], **more: Any) -> bytes:
    data = b"data: " + json.dumps({**_BASE, "choices": choices, **more}, separators=(",", ":")).encode() + b"\n\n"
    return b"%x\r\n%s\r\n" % (len(data), data)


def choice(delta: dict[str, Any], finish: str | None = None) -> list[dict[str, Any]]:
    return [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]


HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
FRAMES = [
    frame(choice({"role": "assistant", "content": ""})),
    *(frame(choice({"content": f" word{number}"})) for number in range(WORDS)),
    frame(choice({}, "stop")),
    frame([], usage={"prompt_tokens": 9, "completion_tokens": WORDS, "total_tokens": WORDS + 9}),
    b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n",
]


async def serve() -> None:
    """Says its port on standard output. The model's name says how: `burst`, `paced` or `open`."""
    waiting: list[asyncio.StreamWriter] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                size = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
                how = json.loads(await reader.readexactly(size))["model"]
                writer.write(HEAD)
                if how == "open":
                    writer.write(b"".join(FRAMES[:3]))
                    waiting.append(writer)
                    if len(waiting) == OPEN:
                        await asyncio.sleep(2.0)  # all of them are read, and measured, meanwhile
                        for each in waiting:
                            each.write(b"".join(FRAMES[-3:]))
                        waiting.clear()
                elif how == "burst":
                    writer.write(b"".join(FRAMES))
                else:
                    for piece in FRAMES:
                        writer.write(piece)
                        await asyncio.sleep(PACE_S)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


# --- the clients ------------------------------------------------------------------------------------------------------
# Each gives a function that reads one stream of a mode to its end, and says how many items it gave.

ASKED: Any = [{"role": "user", "content": "Hi"}]
USAGE: Any = {"stream_options": {"include_usage": True}}


def penstock_events(url: str) -> Callable[[str], Coroutine[Any, Any, int]]:
    import penstock

    client = penstock.Client(upstreams={"u": url})

    async def read(mode: str) -> int:
        count = 0
        async with client.astream(f"u:{mode}", "Hi") as stream:
            async for _ in stream:
                count += 1
        return count

    return read


def penstock_text(url: str) -> Callable[[str], Coroutine[Any, Any, int]]:
    import penstock

    client = penstock.Client(upstreams={"u": url})

    async def read(mode: str) -> int:
        count = 0
        async with client.astream(f"u:{mode}", "Hi") as stream:
            async for _ in stream.text:
                count += 1
        return count

    return read


def penstock_text_sync(url: str) -> Callable[[str], int]:
    import penstock

    client = penstock.Client(upstreams={"u": url})
    return lambda mode: sum(1 for _ in client.stream(f"u:{mode}", "Hi").text)


def openai_async(url: str) -> Callable[[str], Coroutine[Any, Any, int]]:
    import openai

    client = openai.AsyncOpenAI(base_url=url, api_key="k")

    async def read(mode: str) -> int:
        count = 0
        async for _ in await client.chat.completions.create(model=mode, messages=ASKED, stream=True, **USAGE):
            count += 1
        return count

    return read


def openai_sync(url: str) -> Callable[[str], int]:
    import openai

    client = openai.OpenAI(base_url=url, api_key="k")
    return lambda mode: sum(1 for _ in client.chat.completions.create(model=mode, messages=ASKED, stream=True, **USAGE))


def litellm_async(url: str) -> Callable[[str], Coroutine[Any, Any, int]]:
    import litellm

    async def read(mode: str) -> int:
        count = 0
        stream = await litellm.acompletion(
            model=f"openai/{mode}", api_base=url, api_key="k", messages=ASKED, stream=True, **USAGE
        )
        async for _ in stream:
            count += 1
        return count

    return read


CLIENTS: dict[str, Callable[[str], Callable[[str], Any]]] = {
    "penstock, `async for`": penstock_events,
    "penstock, `.text`": penstock_text,
    "penstock, `.text`, no loop of its own": penstock_text_sync,
    "openai, `async for`": openai_async,
    "openai, no loop": openai_sync,
    "litellm, `async for`": litellm_async,
}


# --- one measurement, in a process of its own -------------------------------------------------------------------------


def processor_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def memory_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def measure(client: str, mode: str, url: str) -> dict[str, float]:
    read = CLIENTS[client](url)
    if client.startswith("penstock") and "no loop" not in client:
        import uvloop

        return uvloop.run(_measured(read, mode))
    if "async" in client:
        return asyncio.run(_measured(read, mode))
    return _measured_sync(read, mode)


def _measured_sync(read: Callable[[str], int], mode: str) -> dict[str, float]:
    at_once = AT_ONCE if mode == "paced" else 1
    read("burst")
    counts: list[int] = []
    before = processor_s()
    for _ in range(1 if mode == "paced" else RUNS):
        threads = [threading.Thread(target=lambda: counts.append(read(mode))) for _ in range(at_once)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return {"us": (processor_s() - before) / (WORDS * len(counts)) * 1e6}


async def _measured(read: Callable[[str], Coroutine[Any, Any, int]], mode: str) -> dict[str, float]:
    await read("burst")
    if mode == "open":
        before = memory_mib()
        streams = [asyncio.ensure_future(read("open")) for _ in range(OPEN)]
        peak = before
        while not all(stream.done() for stream in streams):
            await asyncio.sleep(0.1)
            peak = max(peak, memory_mib())
        await asyncio.gather(*streams)
        return {"mib": peak, "before_mib": before}
    best = float("inf")
    for _ in range(2 if mode == "paced" else RUNS):
        before = processor_s()
        await asyncio.gather(*(read(mode) for _ in range(AT_ONCE if mode == "paced" else 1)))
        best = min(best, (processor_s() - before) / (WORDS * (AT_ONCE if mode == "paced" else 1)) * 1e6)
    return {"us": best}


# --- all of them ------------------------------------------------------------------------------------------------------


def import_ms(module: str, python: str) -> float:
    """The best of some imports, less what the interpreter itself takes."""

    def best(code: str) -> float:
        times = []
        for _ in range(RUNS):
            began = time.perf_counter()
            subprocess.run([python, "-c", code], check=True, env=QUIET)
            times.append(time.perf_counter() - began)
        return min(times)

    return (best(f"import {module}") - best("pass")) * 1e3


def run(litellm: str | None) -> dict[str, dict[str, float]]:
    server = subprocess.Popen([sys.executable, __file__, "--serve"], stdout=subprocess.PIPE, text=True)
    found: dict[str, dict[str, float]] = {}
    try:
        assert server.stdout is not None
        url = f"http://127.0.0.1:{server.stdout.readline().strip()}/v1"
        for client in CLIENTS:
            package = client.partition(",")[0]
            python = litellm if package == "litellm" else sys.executable
            if python is None:
                continue
            row = found[client] = {}
            for mode in ("burst", "paced", "open"):
                if mode == "open" and "async" not in client:
                    continue
                asked = [python, __file__, "--measure", client, mode, url]
                try:
                    done = subprocess.run(
                        asked, stdout=subprocess.PIPE, text=True, check=True, timeout=MEASURE_S, env=QUIET
                    )
                except subprocess.SubprocessError as error:
                    print(f"{client}, {mode}: {type(error).__name__}", file=sys.stderr)
                else:
                    row |= {f"{mode}_{key}": value for key, value in json.loads(done.stdout).items()}
            row["import_ms"] = import_ms(package, python)
            print(client, {key: round(value, 1) for key, value in row.items()}, file=sys.stderr)
    finally:
        server.terminate()
        server.wait()
    return found


def table(found: dict[str, dict[str, float]]) -> str:
    columns = ("burst_us", "paced_us", "open_mib", "import_ms")
    lines = [
        "| | burst, µs an event | paced, µs an event | 1,000 open streams, MiB | import, ms |",
        "|---|--:|--:|--:|--:|",
    ]
    for client, row in found.items():
        cells = [f"{row[column]:.1f}" if column in row else "" for column in columns]
        lines.append(f"| {client} | {' | '.join(cells)} |")
    return "\n".join(lines)


def over_budget(found: dict[str, dict[str, float]]) -> list[str]:
    events, text = found["penstock, `async for`"], found["penstock, `.text`"]
    budgets = (
        ("an event", events["burst_us"], EVENT_BUDGET_US),
        ("a piece of text", text["burst_us"], TEXT_BUDGET_US),
        ("memory", events["open_mib"], MEMORY_BUDGET_MIB),
        ("import", events["import_ms"], IMPORT_BUDGET_MS),
    )
    return [f"{name}: {value:.1f}, and {budget:g} at most" for name, value, budget in budgets if value > budget]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--litellm", help="a Python that has litellm")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        asyncio.run(serve())
        return 0
    if asked.measure:
        print(json.dumps(measure(*asked.measure)))
        return 0
    found = run(asked.litellm)
    print(table(found))
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    over = over_budget(found)
    for line in over:
        print(line, file=sys.stderr)
    return 1 if asked.check and over else 0


if __name__ == "__main__":
    sys.exit(main())
