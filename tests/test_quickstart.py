"""The quickstart and the README's program, as they are written, against the demo's worker."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.processes import Running

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs/quickstart.md").read_text(encoding="utf-8")


def programs(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


#: what is printed by each command, and by each program
COMMANDS = {
    "doctor": r"(?m)^local\tpenstock-worker\tok\t1 model in ",
    "ask": r"\w{2,}",
    "echo": r'^\{"text":".*"outcome":"complete"',
}
PROGRAMS = (
    r"\w{2,}",
    r"\w[\s\S]* tokens in, \d+ out; it ended by (stop|length)\n$",
    r"\w[\s\S]*complete\n$",
    "^ConnectError ",
)


@pytest.fixture
def env(worker: Running, tmp_path: Path) -> dict[str, str]:
    """A machine with `penstock` on its path, no key, and the worker where the demo has it."""
    command = tmp_path / "bin" / "penstock"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m penstock "$@"\n')
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    overlay = tmp_path / "providers.toml"
    overlay.write_text(f'[penstock-worker]\nurl = "{worker.url}/v1"\n')
    kept = {name: os.environ[name] for name in ("PYTHONPATH", "LANG", "LC_ALL") if name in os.environ}
    path = f"{command.parent}:{os.environ['PATH']}"
    return {**kept, "PATH": path, "HOME": str(tmp_path), "PENSTOCK_PROVIDERS": str(overlay)}


def test_the_commands_run_as_written(env: dict[str, str], tmp_path: Path) -> None:
    _, typed = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    lines = typed.splitlines()
    assert len(lines) == len(COMMANDS)
    for line in lines:
        ended = subprocess.run(
            ["sh", "-c", line], stdin=subprocess.DEVNULL, capture_output=True, text=True, env=env, cwd=tmp_path,
            timeout=60, check=False,
        )  # fmt: skip
        assert (ended.returncode, ended.stderr) == (0, ""), line
        (expected,) = [each for word, each in COMMANDS.items() if line.removeprefix("penstock ").startswith(word)]
        assert re.search(expected, ended.stdout), ended.stdout


@pytest.mark.parametrize("k", range(len(PROGRAMS)))
def test_a_program_runs_as_written(k: int, env: dict[str, str], tmp_path: Path) -> None:
    assert len(programs(PAGE)) == len(PROGRAMS)
    ended = run_program(programs(PAGE)[k], env, tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert re.search(PROGRAMS[k], ended.stdout), ended.stdout


def test_the_readmes_program_streams_from_the_demos_worker(env: dict[str, str], tmp_path: Path) -> None:
    program = programs((ROOT / "README.md").read_text(encoding="utf-8"))[0]
    assert len(program.strip().splitlines()) <= 10
    ended = run_program(program, env, tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert re.search(r"\w{2,}[\s\S]*\nEnding\(reason='(stop|length)'.*Usage\(input=\d+", ended.stdout), ended.stdout


def run_program(program: str, env: dict[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", program], stdin=subprocess.DEVNULL, capture_output=True, text=True,
        env=env, cwd=cwd, timeout=60, check=False,
    )  # fmt: skip
