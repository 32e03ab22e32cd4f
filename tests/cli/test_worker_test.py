"""`penstock worker test` as a process: a worker that is well passes, one with a fault in it does not."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.processes import Running, run
from tests.testing.lying_worker import WORDS, LyingWorker

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.process


def test_the_demo_worker_passes_and_its_tokens_are_shown(worker: Running, tmp_path: Path) -> None:
    ended = run("worker", "test", worker.url, cwd=tmp_path)
    assert ended.returncode == 0, ended.stdout
    story, table = ended.stdout.split("\n\n", 1)
    assert story.startswith("Once upon a time")
    assert table.splitlines()[-1] == "14 of 14 held."
    assert all(line.split("\t")[1] == "ok" for line in table.splitlines()[:-1])


def test_a_fault_is_a_row_and_exit_code_1(tmp_path: Path) -> None:
    with LyingWorker("two-ends") as lying:
        ended = run("worker", "test", f"{lying.root}/", cwd=tmp_path)
        as_json = run("worker", "test", lying.root, "--json", cwd=tmp_path)
    assert ended.returncode == as_json.returncode == 1
    assert ended.stdout.startswith("".join(WORDS))
    assert "exactly one end\tfailed\t2 ends; its connection is clean\t" in ended.stdout
    assert ended.stderr == ""
    rows = {row["name"]: row for row in json.loads(as_json.stdout)}
    assert rows["exactly one end"]["verdict"] == "failed"


def test_the_token_is_sent_and_patience_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_TOKEN", "the-token-of-this-test")
    with LyingWorker("hangs") as lying:
        ended = run("worker", "test", lying.root, "--token-env", "A_TOKEN", "--patience", "0.6", cwd=tmp_path)
        sent = {seen.headers.get("authorization") for seen in lying.seen}
    assert sent == {"Bearer the-token-of-this-test"}
    assert ended.returncode == 1
    assert "exactly one end\tfailed\t0 ends; its connection is open\t" in ended.stdout
    assert "the-token-of-this-test" not in ended.stdout + ended.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("worker", "test", "localhost:8067"), "is no http:// or https:// URL"),
        (("worker", "test", "http://localhost", "--token-env", "NO_SUCH_TOKEN"), "NO_SUCH_TOKEN is not set"),
        (("worker", "--slots", "2", "test", "http://localhost"), "--slots is the worker's, and `test` starts none."),
    ],
)
def test_a_wrong_call(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    ended = run(*arguments, cwd=tmp_path)
    assert ended.returncode == 2
    assert said in ended.stderr
    assert ended.stderr.count("\n") == 1
