"""Commands of ours on a terminal: what a person sees, types, and presses."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.processes import command

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CTRL_C, CTRL_D = "\x03", "\x04"

#: what no process can be told from outside: standard input is the terminal that Ctrl-C is pressed on, and Ctrl-C
#: counts, also where the tests themselves run in the background
_ON_TERMINAL = """
import fcntl, os, signal, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])
"""


class Terminal:
    def __init__(self, process: subprocess.Popen[bytes], screen: int) -> None:
        self.process = process
        self._screen = screen
        self._all = b""
        self._seen = 0

    def type(self, keys: str) -> None:
        os.write(self._screen, keys.encode())

    def until(self, pattern: str, *, timeout_s: float = 30.0) -> str:
        """What is on the screen up to the first match behind what was waited for before."""
        give_up = time.monotonic() + timeout_s
        while True:
            text = self._all[self._seen :].decode(errors="replace").replace("\r\n", "\n")
            if found := re.search(pattern, text):
                # counted in the terminal's own bytes, whose lines end in two
                shown = text[: found.end()]
                self._seen += len(shown.replace("\n", "\r\n").encode())
                return shown
            assert time.monotonic() < give_up, f"no {pattern!r} in {text!r}"
            if not self._read():
                text = self._all[self._seen :].decode(errors="replace")
                assert re.search(pattern, text.replace("\r\n", "\n")), f"it ended without {pattern!r}: {text!r}"

    def interrupt(self) -> None:
        """What Ctrl-C means, without the key: a terminal that changes its mode at that moment may swallow it."""
        self.process.send_signal(signal.SIGINT)

    def _read(self) -> bool:
        """False at the end."""
        ready, _, _ = select.select([self._screen], [], [], 0.5)
        if not ready:
            return True
        try:
            data = os.read(self._screen, 65536)
        except OSError:  # Linux's way of saying that nobody is on the other side any more
            data = b""
        self._all += data
        return bool(data)

    def ended(self, *, timeout_s: float = 30.0) -> tuple[int, str]:
        """The exit code, and all that was shown."""
        give_up = time.monotonic() + timeout_s
        while self._read():
            assert time.monotonic() < give_up, f"it goes on: {self._all!r}"
        return self.process.wait(timeout_s), self._all.decode(errors="replace").replace("\r\n", "\n")


@contextmanager
def terminal(*arguments: str, cwd: Path, env: dict[str, str] | None = None) -> Iterator[Terminal]:
    """A command of ours."""
    with program_on_terminal(*command(*arguments), cwd=cwd, env=env) as shown:
        yield shown


@contextmanager
def program_on_terminal(*words: str, cwd: Path, env: dict[str, str] | None = None) -> Iterator[Terminal]:
    screen, keyboard = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", _ON_TERMINAL, *words],
        stdin=keyboard,
        stdout=keyboard,
        stderr=keyboard,
        cwd=cwd,
        env={**os.environ, "TERM": "dumb", **(env or {})},
        start_new_session=True,
    )
    os.close(keyboard)
    try:
        yield Terminal(process, screen)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        os.close(screen)
