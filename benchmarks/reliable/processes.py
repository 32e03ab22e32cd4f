"""The processes of a scenario: an upstream, and the gateway as `penstock serve` runs it. Ended by their pids."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import yaml

_UPSTREAM = Path(__file__).with_name("upstream.py")
START_S = 30.0


class Upstream:
    def __init__(self, tokens: int, interval_s: float, port: int = 0) -> None:
        self.command = [sys.executable, str(_UPSTREAM), str(port), str(tokens), str(interval_s)]
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


class Gateway:
    """`records` are those of its log. `file_bytes`: the largest file that it may write, until `unlimited`."""

    def __init__(self, folder: Path, upstream_port: int, *, file_bytes: int | None = None, **config: Any) -> None:
        given = {
            "upstreams": {"up": {"url": f"http://127.0.0.1:{upstream_port}/v1"}},
            "telemetry": {"log": {"format": "json"}},
            **config,
        }
        (folder / "penstock.yaml").write_text(yaml.safe_dump(given))
        self.folder = folder
        self.records: list[dict[str, Any]] = []

        def limit() -> None:
            if file_bytes is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, resource.RLIM_INFINITY))

        self.process = subprocess.Popen(
            [sys.executable, "-m", "penstock", "serve", "--config", "penstock.yaml", "--port", "0"],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=(folder / "stderr").open("w"),
            text=True,
            preexec_fn=limit,
        )
        assert self.process.stdout is not None
        found = re.search(r" on (http://[^,]*),", self.process.stdout.readline())
        assert found is not None, (folder / "stderr").read_text()
        self.url = found[1]
        self.port = int(self.url.rpartition(":")[2])
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                self.records.append(json.loads(line))

    def unlimited(self) -> None:
        resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(60)
        self._reading.join(10)
        return code

    # --- what it tells, and what the system knows ---

    @property
    def stderr(self) -> str:
        return (self.folder / "stderr").read_text()

    def stored(self) -> list[dict[str, Any]]:
        store = sqlite3.connect(f"file:{self.folder / 'penstock.db'}?mode=ro", uri=True)
        store.row_factory = sqlite3.Row
        try:
            return [dict(row) for row in store.execute("SELECT * FROM records")]
        finally:
            store.close()

    def metrics(self) -> dict[str, float]:
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=10) as answer:
            page = answer.read().decode()
        lines = [line.rpartition(" ") for line in page.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in lines}

    def workers(self) -> list[int]:
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in path.read_text().split()]

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss_mib(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def wait_until(fact: Any, what: str, seconds: float = 20.0) -> float:
    """How long it took."""
    began = time.monotonic()
    while not fact():
        if time.monotonic() - began > seconds:
            raise AssertionError(f"{what} did not come true in {seconds} s")
        time.sleep(0.005)
    return time.monotonic() - began
