"""The files under deploy/ say what is so: the unit verifies, its command line serves, the options exist."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from penstock.config.load import read
from tests.processes import Running, command, run

ROOT = Path(__file__).resolve().parent.parent
UNIT = (ROOT / "deploy/penstock.service").read_text(encoding="utf-8")
CONTAINER = (ROOT / "deploy/Containerfile").read_text(encoding="utf-8")


@pytest.mark.process
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    path = tmp_path / "penstock.service"
    path.write_text(UNIT.replace("/opt/penstock/bin/penstock", sys.executable))
    ended = subprocess.run(["systemd-analyze", "verify", path], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


@pytest.mark.process
def test_the_units_command_line_serves_the_configuration_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (line,) = re.findall(r"^ExecStart=/opt/penstock/bin/penstock (.*)$", UNIT, re.MULTILINE)
    arguments = line.replace("/etc/penstock/penstock.yaml", str(ROOT / "deploy/penstock.yaml")).split()
    assert str(ROOT) in arguments[-1]
    keys = tmp_path / "keys.json"
    assert run("keys", "new", "me", "--file", str(keys), cwd=tmp_path).returncode == 0
    monkeypatch.setenv("PENSTOCK_SERVER__KEYS_FILE", str(keys))
    monkeypatch.setenv("PENSTOCK_SERVER__PORT", "0")
    process = subprocess.Popen(command(*arguments), stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    gateway = Running(process)
    with urllib.request.urlopen(f"{gateway.url}/health", timeout=10) as answer:
        assert b'"ok"' in answer.read()
    (named,) = re.findall(r"^KillSignal=(\w+)$", UNIT, re.MULTILINE)
    assert gateway.stop(signal.Signals[named]) == 0


def test_a_stop_is_longer_than_the_drain() -> None:
    (seconds,) = re.findall(r"^TimeoutStopSec=(\d+)$", UNIT, re.MULTILINE)
    drain = read(ROOT / "deploy/penstock.yaml", {})["server"]["drain"]
    assert int(seconds) > int(drain.removesuffix("s")) + 15


def test_the_container_copies_what_there_is_and_listens_where_the_gateway_does() -> None:
    for line in re.findall(r"^COPY (?!--from)(.*)$", CONTAINER, re.MULTILINE):
        *sources, _ = line.split()
        for source in sources:
            assert (ROOT / source).exists(), source
    assert "EXPOSE 8066" in CONTAINER
    assert "STOPSIGNAL SIGTERM" in CONTAINER
