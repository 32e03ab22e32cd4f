"""`penstock check`: our own gateway in every dialect, endpoints good and bad, and what is said when it cannot run."""

from __future__ import annotations

import html
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from penstock.dialects import CLIENT_DIALECTS
from penstock.testing import Reply, Upstream
from penstock.testing.judge.findings import PROMISES
from penstock.testing.script import Counts, Pace
from tests.processes import command, run

pytestmark = pytest.mark.process

#: short, because the judge waits for each
CLOCKS = {
    "PENSTOCK_TIMEOUTS__IDLE": "500ms",
    "PENSTOCK_TIMEOUTS__SILENCE": "2s",
    "PENSTOCK_TIMEOUTS__FIRST_CONTENT": "2s",
    "PENSTOCK_HEARTBEAT__INTERVAL": "200ms",
    "PENSTOCK_TELEMETRY__STORE__PATH": "null",
}
BASES = {"gemini": "{root}/v1beta", "ollama": "{root}"}


def start(dialect: str) -> str:
    """Our gateway, before an upstream of the dialect."""
    settings = " ".join(f"{name}={value}" for name, value in CLOCKS.items())
    upstream = BASES.get(dialect, "{upstream}")
    python = shlex.quote(sys.executable)
    return f"env {settings} {python} -m penstock serve --port {{port}} --upstream {upstream} --dialect {dialect}"


@pytest.fixture(scope="module")
def judgements(tmp_path_factory: pytest.TempPathFactory) -> dict[str, subprocess.CompletedProcess[str]]:
    """Of our own gateway, by the dialect. They mostly wait: a few at once."""
    folder = tmp_path_factory.mktemp("judged")

    def judge(dialect: str) -> subprocess.CompletedProcess[str]:
        report = str(folder / f"{dialect}.html")
        asked = ("check", "--through", "--dialect", dialect, "--start", start(dialect), "--json", "--html", report)
        return run(*asked, cwd=folder, timeout_s=120)

    with ThreadPoolExecutor(3) as pool:
        return dict(zip(sorted(CLIENT_DIALECTS), pool.map(judge, sorted(CLIENT_DIALECTS)), strict=True))


@pytest.mark.parametrize("dialect", sorted(CLIENT_DIALECTS))
def test_our_own_gateway_keeps_every_promise(dialect: str, judgements: dict[str, subprocess.CompletedProcess[str]]):
    judged = judgements[dialect]
    assert judged.stdout, judged.stderr
    told = json.loads(judged.stdout)
    assert [finding for finding in told["findings"] if finding["verdict"] == "broken"] == []
    assert told["promises"] == dict.fromkeys(PROMISES, "held")
    assert (judged.returncode, judged.stderr) == (0, "")
    assert told["upstream_dialect"] == told["dialect"] == dialect


def test_the_report_is_a_page_that_says_all_of_it(judgements: dict[str, subprocess.CompletedProcess[str]]):
    told = json.loads(judgements["gemini"].stdout)
    said = Path(judgements["gemini"].args[-1]).read_text()
    assert said.startswith("<!DOCTYPE html>")
    assert "src=" not in said, "it needs nothing else"
    for finding in told["findings"]:
        assert html.escape(finding["case"]) in said
        assert html.escape(finding["evidence"]) in said
    assert "12 of 12 promises held" in said


# --- endpoints --------------------------------------------------------------------------------------------------------

TALK = Reply(text=("one ", "two ", "three ", "four ", "five"), usage=Counts(9, 5), pace=Pace(fixed=0.01))


def check(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return run("check", *arguments, cwd=cwd)


def test_an_endpoint_is_judged_by_what_needs_no_fault(tmp_path: Path):
    with Upstream(TALK) as upstream:
        judged = check(upstream.url, cwd=tmp_path)
    rows = [line.split("\t") for line in judged.stdout.splitlines()[:-1]]
    assert {row[0]: row[2] for row in rows} == {
        "C2": "held",
        "C3": "held",
        "C4": "held",
        "C6": "held",
        "C7": "unseen",
        "C9": "held",
        "C11": "held",
        "C12": "held",
    }
    assert (judged.returncode, judged.stderr) == (0, "")
    assert judged.stdout.splitlines()[-1] == "7 of 8 promises held; not seen: C7."


@pytest.mark.parametrize(
    ("fault", "promise", "words"),
    [
        ("cut-after-2", "C4", "a broken connection, and no word of why"),
        ("no-finish", "C4", ""),
        ("json", "C12", "a document came"),
        ("plain-type", "C2", "content-type text/plain"),
        ("gzip", "C2", "compressed, though identity was asked for"),
    ],
)
def test_a_bad_endpoint_is_found_out(fault: str, promise: str, words: str, tmp_path: Path):
    with Upstream(TALK) as upstream:
        judged = check(upstream.url, "--model", f"fault:{fault}", "--json", cwd=tmp_path)
    told = json.loads(judged.stdout)
    assert judged.returncode == 1
    assert told["promises"][promise] == "broken"
    broken = [it for it in told["findings"] if it["promise"] == promise and it["verdict"] == "broken"]
    assert any(words in it["evidence"] for it in broken), broken


# --- what cannot be judged --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "There is nothing to judge."),
        (["--dialect", "openai-cat", "http://127.0.0.1:1/v1"], "Did you mean `openai-chat`?"),
        (["127.0.0.1:1/v1", "--model", "m"], "is no http:// or https:// URL"),
        (["http://127.0.0.1:1/v1", "--model", "m"], "127.0.0.1:1"),
        (["http://127.0.0.1:1/v1"], "127.0.0.1:1"),
        (["http://127.0.0.1:1/v1", "--key-env", "NO_SUCH_KEY"], "The variable NO_SUCH_KEY is not set."),
        (["http://127.0.0.1:1/v1", "--header", "x"], "`name: value`"),
        (["http://127.0.0.1:1/v1", "--start", "x {port} {upstream}"], "--start belongs to --through."),
        (["http://127.0.0.1:1/v1", "--html", "no/such/folder.html"], "Cannot write no/such/folder.html"),
        (["--through", "--start", "gateway {upstream}"], "Write {port} and {upstream}"),
        (
            ["--through", "--ready", "1", "--start", "echo no such option: {port} {upstream}; exit 3"],
            "Its last lines: no such option:",
        ),
        (["--through", "--ready", "1", "http://127.0.0.1:1/v1"], "The simulator was never asked."),
    ],
)
def test_what_cannot_run_is_one_sentence(arguments: list[str], said: str, tmp_path: Path):
    judged = check(*arguments, cwd=tmp_path)
    assert judged.returncode == 2
    assert said in " ".join(judged.stderr.split())
    assert "Traceback" not in judged.stderr
    assert judged.stdout == ""


def test_tls_to_a_plain_port_and_a_port_in_use_are_said(tmp_path: Path):
    with Upstream(TALK) as upstream:
        judged = check(upstream.url.replace("http:", "https:"), "--model", "m", cwd=tmp_path)
        assert judged.returncode == 2
        assert "TLS" in judged.stderr
        port = str(upstream.port)
        judged = check("--through", "--upstream-port", port, "--start", "x {port} {upstream}", cwd=tmp_path)
        assert judged.returncode == 2
        assert f"Cannot listen on port {port}: Address already in use" in judged.stderr


def test_c13_a_key_is_nowhere_in_what_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("THE_KEY", "sk-very-secret-1")
    with Upstream(TALK) as upstream:
        asked = (upstream.url, "--model", "m", "--key-env", "THE_KEY", "--header", "x-more: sk-very-secret-2")
        judged = check(*asked, "--json", "--html", "report.html", cwd=tmp_path)
        assert judged.returncode == 0
        assert upstream.seen[0].headers["authorization"] == "Bearer sk-very-secret-1"
    said = judged.stdout + judged.stderr + (tmp_path / "report.html").read_text()
    assert "sk-very-secret" not in said


@pytest.mark.parametrize("with_signal", [signal.SIGINT, signal.SIGTERM])
def test_whoever_ends_it_ends_the_gateway_too(with_signal: signal.Signals, tmp_path: Path):
    waits = shlex.quote("import os, time; open('pid', 'w').write(str(os.getpid())); time.sleep(60)")
    process = subprocess.Popen(
        command("check", "--through", "--start", f"exec {sys.executable} -c {waits} {{port}} {{upstream}}"),
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    pid = tmp_path / "pid"
    while not (pid.exists() and pid.read_text()):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(with_signal)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 128 + with_signal
    assert "Traceback" not in said
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)
