"""Records against the accounts of others: the simulator's, stream by stream, and llama.cpp's own clock."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.gateways import serving
from tests.wires import CHAT

if TYPE_CHECKING:
    from tests.processes import Running

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[2]


def test_c6_every_record_of_some_hundred_streams_equals_the_simulators_own_account():
    options = ["--streams", "250", "--seed", "3", "--concurrency", "25", "--clocks", "3"]
    command = [sys.executable, "benchmarks/truth.py", *options]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "Every record is true." in ran.stdout


def same_as_llama_cpps(record: dict[str, Any], timings: dict[str, Any]) -> None:
    assert record["timings_source"] == "server"
    assert record["prompt_tps"] == timings["prompt_per_second"]
    assert record["generation_tps"] == timings["predicted_per_second"]
    assert record["prompt_tokens"] == timings["prompt_n"] + timings["cache_n"]
    assert record["cached_tokens"] == timings["cache_n"]
    assert record["completion_tokens"] == timings["predicted_n"]


@pytest.mark.parametrize("stream", [True, False])
def test_c6_the_timings_of_llama_cpp_are_those_of_the_records(stream: bool, worker: Running, tmp_path: Path):
    """Of the gateway's and of the worker's; and our own clock agrees with the server's about what it saw."""
    config = {"upstreams": {"local": {"url": f"{worker.url}/v1"}}}
    with serving(config, tmp_path) as gateway:
        for prompt in ("Tell me a story", "Tell me a story", "Tell me another, and make it long"):
            body = CHAT.request("tiny", stream=stream, messages=[{"role": "user", "content": prompt}], max_tokens=200)
            before = len(worker.lines)
            began = time.monotonic()
            asked = gateway.post(CHAT, body)
            said = asked.body()
            took_ms = (time.monotonic() - began) * 1e3
            if stream:
                frames = [json.loads(line[6:]) for line in said.decode().splitlines() if line.startswith("data: {")]
                (timings,) = [frame["timings"] for frame in frames if "timings" in frame]
            else:
                timings = json.loads(said)["timings"]
            record = gateway.record(asked.request_id)
            same_as_llama_cpps(record, timings)
            same_as_llama_cpps(json.loads(worker.wait_for_line("^{", after=before)), timings)
            # What the server did, it did while the call lasted; and the call lasted as long as its client waited.
            assert timings["prompt_ms"] + timings["predicted_ms"] <= record["duration_ms"] + 5
            assert record["duration_ms"] <= took_ms + 5
            assert record["context_percent"] is None or record["context_used"] <= record["context_total"]
