"""The program that measures what telemetry costs runs, in small; that every record is accounted for it checks itself.

Its figures are no test: this machine has other work. What they are is in docs/reference/performance.md.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.process


def test_c5_with_every_exporter_down_every_request_is_answered_and_every_record_counted() -> None:
    options = ("--rounds", "2", "--requests", "150", "--steady", "50", "--streams", "5")
    command = [sys.executable, "benchmarks/telemetry.py", *options]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "sqlite: 0 sent, 600 failed" in ended.stdout
