"""`penstock simulate` as a process: asked, stopped, and called wrongly."""

from __future__ import annotations

import signal
import urllib.request
from typing import TYPE_CHECKING

import pytest

from penstock.testing import FAULTS
from tests.processes import run, running

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.process

BODY = b'{"model":"m","stream":true,"messages":[{"role":"user","content":"Hi"}]}'


def test_it_says_its_script_and_counts(tmp_path: Path) -> None:
    (tmp_path / "script.yaml").write_text('replies:\n  - text: ["Good ", "day"]\n')
    with running("simulate", "--script", "script.yaml", cwd=tmp_path) as simulator:
        with urllib.request.urlopen(f"{simulator.url}/chat/completions", BODY, timeout=10) as answer:
            body = answer.read()
        assert b'"content":"Good "' in body
        assert body.endswith(b"data: [DONE]\n\n")
        assert simulator.stop(signal.SIGTERM) == 0
        assert simulator.lines[-2] == "1 requests, 0 left before their end, 0 bytes written for nobody."


def test_faults_are_listed(tmp_path: Path) -> None:
    shown = run("simulate", "--faults", cwd=tmp_path).stdout
    assert [line.split()[0].removesuffix("-N") for line in shown.splitlines()] == list(FAULTS)


def test_a_port_in_use_and_an_unknown_fault_are_one_sentence(tmp_path: Path) -> None:
    with running("simulate", cwd=tmp_path) as simulator:
        port = simulator.url.rpartition(":")[2].partition("/")[0]
        ended = run("simulate", "--port", port, cwd=tmp_path)
        assert (ended.returncode, ended.stdout) == (2, "")
        assert ended.stderr.startswith(f"penstock: Cannot listen on port {port}: ")
    (tmp_path / "script.yaml").write_text("replies:\n  - faults: [cut-aftr]\n")
    ended = run("simulate", "--script", "script.yaml", cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == (
        "penstock: In script.yaml, line 2: There is no fault `cut-aftr`. Did you mean `cut-after`?\n"
    )
