"""Commands of ours in processes of their own, for tests: started on free ports, ended by their pid."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

START_S = 30.0


class Running:
    """A started command: `url` is where it listens, `lines` what it printed on standard output so far."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        first = self.wait_for_line(r" on http://")
        self.url = first.split(" on ", 1)[1].split(",", 1)[0]

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._changed:
                self.lines.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self.lines.append("<end of output>")
            self._changed.notify_all()

    def wait_for_line(self, pattern: str, *, after: int = 0, timeout_s: float = START_S) -> str:
        """The first line from number `after` on that matches."""

        def found() -> str | None:
            return next((line for line in self.lines[after:] if re.search(pattern, line)), None)

        with self._changed:
            self._changed.wait_for(lambda: found() or self.lines[-1:] == ["<end of output>"], timeout_s)
            line = found()
        assert line is not None, f"no line matches {pattern!r} in {self.lines}"
        return line

    def stop(self, with_signal: signal.Signals = signal.SIGINT) -> int:
        if self.process.poll() is None:
            self.process.send_signal(with_signal)
        try:
            code = self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        self._reader.join(5)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "penstock", *arguments]


@contextmanager
def running(*arguments: str, cwd: Path, env: dict[str, str] | None = None) -> Iterator[Running]:
    """A long-running command of ours; asserts that a Ctrl-C ends it well."""
    process = subprocess.Popen(
        command(*arguments),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=cwd,
        env={**os.environ, **(env or {})},
        start_new_session=True,
    )
    try:
        started = Running(process)
        yield started
    finally:
        if process.poll() is None and sys.exc_info()[0] is not None:
            process.kill()
            process.wait()
    assert started.stop() == 0


def run(
    *arguments: str, cwd: Path, stdin: str = "", timeout_s: float = 60.0, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """A command of ours, to its end."""
    return subprocess.run(
        command(*arguments),
        input=stdin,
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **(env or {})},
        timeout=timeout_s,
        check=False,
    )


def server(name: str) -> str:
    """The path of a real server's program; skips the test, or fails it under PENSTOCK_REQUIRE_SERVERS=1, without it."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if found is None:
        said = f"{name} is not installed; scripts/servers installs it"
        if os.environ.get("PENSTOCK_REQUIRE_SERVERS") == "1":
            pytest.fail(said)
        pytest.skip(said)
    return found
