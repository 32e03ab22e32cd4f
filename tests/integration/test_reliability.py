"""The reliability scenarios run, in small: what they find owed is checked by the programs themselves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.process


@pytest.mark.parametrize(
    "arguments", [("streams", "--streams", "30", "--seconds", "1", "--interval", "0.05"), ("disk", "--clients", "10")]
)
def test_nothing_is_wrong(arguments: tuple[str, ...]) -> None:
    program = ROOT / "benchmarks/reliability.py"
    ended = subprocess.run(
        [sys.executable, program, *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "✗" not in ended.stdout
