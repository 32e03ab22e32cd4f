"""Some hundred streams of every ending, and nothing is left of them: the soak that runs with thousands, in small."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[2]


def test_c13_some_hundred_streams_of_every_ending_leave_nothing_behind():
    ran = subprocess.run(
        [
            sys.executable,
            "benchmarks/soak.py",
            "--streams",
            "300",
            "--seed",
            "7",
            "--concurrency",
            "30",
            "--clocks",
            "2",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "Nothing is wrong." in ran.stdout
