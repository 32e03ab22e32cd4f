"""The gateway in a process of its own, and what the system and its observer know of it.

It listens on a free port of 127.0.0.1, in a folder of its own, with short clocks, and is ended by SIGTERM.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import yaml
from msgspec import Struct

from soaking.plan import UPSTREAMS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from penstock.testing import Upstream

_START_S = 30.0
_STOP_S = 30.0
_REPORT_S = 20.0
#: what the gateway may need after the last client has gone: its clocks, and its records' way to the store
REST_S = 30.0
_OBSERVED = Path(__file__).with_name("observed.py")

#: Seconds. Each clock is reached by some fault and by no reply that is well; `total` is above what a slow reader takes.
TIMEOUTS = {"connect": 5.0, "first_content": 4.0, "idle": 2.0, "silence": 2.5, "document": 3.0, "total": 8.0}
HEARTBEAT_S = 0.3


class Observed(Struct, frozen=True):
    """`sockets` and `files` as the system counts them, `rss_bytes` too; the rest as the process itself does."""

    tasks: dict[str, int]
    threads: int
    connections: int
    idle_connections: int
    objects: dict[str, int]
    sockets: int = 0
    files: int = 0
    rss_bytes: int = 0

    @property
    def task_count(self) -> int:
        return sum(self.tasks.values())

    @property
    def object_count(self) -> int:
        return sum(self.objects.values())

    @property
    def own_sockets(self) -> int:
        """But those that are kept for the next request, on purpose and for half a minute."""
        return self.sockets - self.idle_connections


def config(upstream: Upstream, clocks: float) -> dict[str, Any]:
    return {
        "upstreams": {name: {"url": upstream.url_for(name), "dialect": name} for name in UPSTREAMS},
        "models": {f"{name}-*": name for name in UPSTREAMS},
        "retry": {"attempts": 1},  # each fault is one call's own
        "timeouts": {name: f"{seconds * clocks:g}s" for name, seconds in TIMEOUTS.items()},
        "heartbeat": {"interval": f"{HEARTBEAT_S * clocks:g}s"},
    }


class GatewayProcess:
    def __init__(self, process: subprocess.Popen[str], folder: Path, url: str) -> None:
        self.process = process
        self.url = url
        self._folder = folder
        self._report = folder / "report.json"

    @property
    def stderr(self) -> str:
        return (self._folder / "stderr").read_text()

    async def observe(self) -> Observed:
        """Raises `TimeoutError` when the process does not answer."""
        self._report.unlink(missing_ok=True)
        self.process.send_signal(signal.SIGUSR1)
        end = time.monotonic() + _REPORT_S
        while not self._report.exists():
            if time.monotonic() > end or self.process.poll() is not None:
                raise TimeoutError(f"The gateway does not say what it holds. It wrote: {self.stderr!r}")
            await asyncio.sleep(0.01)
        told = msgspec.json.decode(self._report.read_bytes(), type=Observed)
        links = list(self._links())
        sockets = sum(link.startswith("socket:") for link in links)
        return msgspec.structs.replace(told, sockets=sockets, files=len(links) - sockets, rss_bytes=self._rss_bytes())

    def records(self) -> list[dict[str, Any]]:
        """The store's rows; none while there is no store yet."""
        with contextlib.closing(sqlite3.connect(f"file:{self._folder / 'penstock.db'}?mode=ro", uri=True)) as store:
            store.row_factory = sqlite3.Row
            return [dict(row) for row in store.execute("SELECT * FROM records")]

    def record_count(self) -> int:
        with (
            contextlib.suppress(sqlite3.OperationalError),
            contextlib.closing(sqlite3.connect(f"file:{self._folder / 'penstock.db'}?mode=ro", uri=True)) as store,
        ):
            return int(store.execute("SELECT count(*) FROM records").fetchone()[0])
        return 0

    def _links(self) -> Iterator[str]:
        for path in Path(f"/proc/{self.process.pid}/fd").iterdir():
            with contextlib.suppress(OSError):  # closed meanwhile
                yield str(path.readlink())

    def _rss_bytes(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) * 1024


@contextlib.contextmanager
def gateway(upstream: Upstream, folder: Path, clocks: float = 1.0) -> Iterator[GatewayProcess]:
    """`clocks` times as patient as `TIMEOUTS`. Killed if nobody has ended it; `stop` says whether it ended well."""
    (folder / "penstock.yaml").write_text(yaml.safe_dump(config(upstream, clocks)))
    command = [sys.executable, str(_OBSERVED), str(folder / "report.json"), "serve", "--config", "penstock.yaml"]
    with (folder / "stderr").open("w") as stderr:
        process = subprocess.Popen(
            [*command, "--port", "0", "--log", "off"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            cwd=folder,
            env=os.environ.copy(),
            start_new_session=True,
        )
    try:
        assert process.stdout is not None
        found = re.search(r" on (http://[^,\s]+)", process.stdout.readline())
        if found is None:
            raise RuntimeError(f"The gateway did not start: {(folder / 'stderr').read_text()}")
        yield GatewayProcess(process, folder, found[1])
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        assert process.stdout is not None
        process.stdout.close()


async def settled(upstream: Upstream, process: GatewayProcess, least: int) -> None:
    """Until the upstream has done with all and so many records are stored; or for as long as it may take."""
    end = time.monotonic() + REST_S
    while time.monotonic() < end:
        if all(seen.is_over.is_set() for seen in upstream.seen) and process.record_count() >= least:
            break
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.2)  # one too many would come as late


def stop(running: GatewayProcess) -> list[str]:
    """What is wrong with how it ended, if anything."""
    running.process.send_signal(signal.SIGTERM)
    try:
        code = running.process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        return [f"it did not end within {_STOP_S:.0f} s of SIGTERM"]
    wrong = [] if code == 0 else [f"it ended with {code}"]
    return wrong + ([f"it wrote on standard error: {running.stderr[:2000]}"] if running.stderr else [])
