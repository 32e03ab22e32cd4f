"""A gateway started by a command of the user's, and ended with everything that it has started.

Its output goes to a file, whose last lines say why it did not start. It is a group of processes of its own.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
from typing import TYPE_CHECKING

from penstock.canon.errors import ConfigError

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

#: from SIGTERM to SIGKILL
_STOP_S = 5.0
_TOLD_LINES = 5


class Started:
    """`command` is a line for the shell, in which `{port}` and other `places` are filled in. Use it in `with`."""

    def __init__(self, command: str, **places: str | int) -> None:
        self.command = command
        for name, value in places.items():
            self.command = self.command.replace(f"{{{name}}}", str(value))
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 (closed by __exit__)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self.command,
            shell=True,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_S)
        with contextlib.suppress(ProcessLookupError):  # whoever of the group is left
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._output.close()

    @property
    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def last_lines(self) -> str:
        """What it printed last, in one line."""
        size = self._output.seek(0, os.SEEK_END)
        self._output.seek(max(0, size - 4096))
        lines = self._output.read().decode(errors="replace").splitlines()
        return " / ".join(line.strip() for line in lines[-_TOLD_LINES:] if line.strip())


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def check_command(command: str) -> None:
    if "{port}" not in command or not any(place in command for place in ("{upstream}", "{root}")):
        raise ConfigError(
            "--start must say where the gateway listens and whom it asks.",
            fix="Write {port} and {upstream} (which ends in /v1; {root} is the same without it) into the command.",
        )
