"""The commands as processes: what they print, and how they end."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.processes import Running, run

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.process


@pytest.mark.parametrize(
    "command",
    [
        "serve",
        "worker",
        "ask",
        "chat",
        "demo",
        "doctor",
        "embed",
        "providers",
        "models",
        "keys",
        "simulate",
        "record",
        "replay",
        "check",
        "logs",
        "top",
    ],
)
def test_each_command_helps_with_an_example(command: str, tmp_path: Path) -> None:
    ended = run(command, "--help", cwd=tmp_path)
    assert ended.returncode == 0
    example = " ".join(ended.stdout.split()).partition("Example: ")[2]
    assert f"penstock {command}" in example or "penstock worker" in ended.stdout


def test_no_command_helps(tmp_path: Path) -> None:
    ended = run(cwd=tmp_path)
    assert "serve" in ended.stdout + ended.stderr
    assert ended.returncode == 2


def test_version(tmp_path: Path) -> None:
    assert run("--version", cwd=tmp_path).stdout.startswith("penstock 0.")


def test_an_unknown_option_is_a_wrong_call(tmp_path: Path) -> None:
    assert run("serve", "--nonsense", cwd=tmp_path).returncode == 2


def test_ask_prints_the_reply(worker: Running, tmp_path: Path) -> None:
    ended = run("ask", "Tell me a story", "-m", "local:tiny", "--base-url", f"{worker.url}/v1", cwd=tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.strip()


def test_ask_reads_standard_input_and_prints_json(worker: Running, tmp_path: Path) -> None:
    ended = run(
        "ask", "-", "-m", "local:tiny", "--base-url", f"{worker.url}/v1", "--temperature", "0", "--json",
        cwd=tmp_path, stdin="Hello\n",
    )  # fmt: skip
    response = json.loads(ended.stdout)
    assert response["text"].startswith("Hello!")
    assert response["outcome"] == "complete"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("ask", "", "-m", "a:b"), 2, "There is nothing to ask."),
        (("ask", "Hi", "-m", "a:b"), 1, "There is no provider `a`."),
        (("ask", "Hi", "-m", "a:b", "--base-url", "http://127.0.0.1:9/v1"), 1, "Nothing listens on 127.0.0.1:9."),
        (("serve",), 2, "There is nobody to ask."),
        (("serve", "--config", "nowhere.yaml"), 1, "Cannot read nowhere.yaml"),
        (("worker", "--demo", "--log", "loud"), 2, "--log does not know `loud`."),
        (("simulate", "--script", "nowhere.yaml"), 2, "Cannot read nowhere.yaml"),
        (("record", "--upstream", "nowhere", "-o", "tape"), 2, "`nowhere` is no http:// or https:// URL."),
        (("replay", "nowhere"), 2, "There is no cassette in nowhere."),
        (("replay", "nowhere", "--speed", "soon"), 2, "`soon` is no speed."),
    ],
)
def test_a_mistake_is_one_sentence(arguments: tuple[str, ...], code: int, said: str, tmp_path: Path) -> None:
    ended = run(*arguments, cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (code, "")
    assert ended.stderr.startswith(f"penstock: {said}")
    assert ended.stderr.count("\n") == 1


def test_the_demo_answers_twice_and_ends(tmp_path: Path) -> None:
    ended = run("demo", "--once", cwd=tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    lines = [line for line in ended.stdout.splitlines() if line.startswith("  model=tiny ")]
    assert len(lines) == 2
    for line in lines:
        assert " end=complete finish=stop" in line
        assert "tokens=-" not in line
        assert "ctx:-" not in line
    assert list(tmp_path.iterdir()) == []
