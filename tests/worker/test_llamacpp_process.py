"""The engine's own program: what it reports while it reads, and when it cannot begin."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from penstock.worker import llamacpp_process
from penstock.worker.llamacpp import PROGRAM, demo_model
from penstock.worker.llamacpp_process import BLOCK_BYTES, read_through

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS: dict[str, Any] = {
    "files": [str(demo_model())],
    "model": "tiny",
    "key": "k",
    "embeds": None,
    "pooling": None,
    "memory_bytes": None,
    "slots": 1,
    "context_tokens": 1024,
    "threads": 1,
    "needed_bytes": 1,
    "prompt_cache_bytes": 0,
}


def test_files_are_read_to_their_ends_and_counted_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    monkeypatch.setattr(llamacpp_process, "_out", writing)
    monkeypatch.setattr(llamacpp_process, "TELL_EVERY_S", 0.0)
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_bytes(b"a" * (2 * BLOCK_BYTES + 5))
    second.write_bytes(b"b" * 7)
    done = read_through(str(second), read_through(str(first)))
    os.close(writing)
    with os.fdopen(reading) as lines:
        told = [json.loads(line)["read"] for line in lines]
    assert done == 2 * BLOCK_BYTES + 12
    assert told == [0, BLOCK_BYTES, 2 * BLOCK_BYTES, 2 * BLOCK_BYTES + 5, 2 * BLOCK_BYTES + 5, done]


def run(settings: dict[str, Any], *options: str) -> list[Any]:
    """What the program says before its standard input ends, which ends it."""
    ended = subprocess.run(
        [sys.executable, *options, str(PROGRAM)],
        input=json.dumps(settings).encode() + b"\n",
        capture_output=True,
        timeout=60,
        check=True,
    )
    return [json.loads(line) for line in ended.stdout.splitlines()]


@pytest.mark.process
def test_it_says_when_it_is_ready_and_ends_with_its_input() -> None:
    said = run(SETTINGS, "-P")
    assert [set(it) - {"accelerators", "version"} for it in said] == [{"read"}, {"starting"}, {"ready"}]
    assert said[-1]["ready"].startswith("http://127.0.0.1:")


@pytest.mark.process
def test_it_says_what_kind_of_failure_it_is() -> None:
    assert run({**SETTINGS, "needed_bytes": 2, "memory_bytes": 1}, "-P")[-1] == {"failed": "memory"}
    assert run(SETTINGS, "-S")[-1] == {"failed": "not_installed"}  # without the site's packages
