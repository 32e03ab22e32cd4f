"""Lines for a conversation: what is typed at a prompt, with the arrow keys' history, or what is piped in.

A Ctrl-C at the prompt takes back what was being typed, and ends nothing.
"""

from __future__ import annotations

import signal
import socket
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from penstock.canon.errors import PenstockError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_FENCE = '"""'

#: how long `input` is given to notice an interrupt before it is told again
_AGAIN_S = 0.02


class Lines:
    """`next` gives a line, or the several between two fences; None: the end."""

    def __init__(self, history: Path | None) -> None:
        self._history = history
        self.is_typed = sys.stdin.isatty()
        if not self.is_typed:
            return
        import readline

        readline.set_auto_history(True)
        if history is not None:
            try:
                readline.read_history_file(history)
            except FileNotFoundError:
                pass  # the first time
            except OSError as error:
                raise PenstockError(
                    f"Cannot read {history}: {error.strerror or error}.", fix="Check --history."
                ) from error

    def next(self) -> str | None:
        while True:
            try:
                line = self._line("> ")
                if line is None or line.strip() != _FENCE:
                    return line
                return self._until_fence()
            except KeyboardInterrupt:
                if not self.is_typed:
                    raise
                print("\n(Ctrl-D or /quit leaves.)", file=sys.stderr)

    def _until_fence(self) -> str | None:
        lines: list[str] = []
        while (line := self._line(". ")) is not None and line.strip() != _FENCE:
            lines.append(line)
        return "\n".join(lines) or ("" if line is not None else None)

    def _line(self, prompt: str) -> str | None:
        if not self.is_typed:
            try:
                line = sys.stdin.readline()
            except UnicodeDecodeError:
                raise PenstockError("Standard input is no UTF-8 text.", fix="Convert it first.") from None
            return line.rstrip("\r\n") if line else None
        try:
            with _interrupts_heard():
                return input(prompt)
        except EOFError:
            print()
            return None
        except UnicodeDecodeError:
            return ""

    def close(self) -> None:
        if self._history is None or not self.is_typed:
            return
        import readline

        try:
            readline.write_history_file(self._history)
            self._history.chmod(0o600)
        except OSError as error:
            print(f"penstock: Cannot write {self._history}: {error.strerror or error}.", file=sys.stderr)


@contextmanager
def _interrupts_heard() -> Iterator[None]:
    """An interrupt within raises `KeyboardInterrupt`, once, and without the help of another key.

    CPython's `input` looks for signals only when one ends its wait for a key. One that comes a moment before it waits
    would stay unseen until the next Enter, and take that line with it. So a thread tells it again until it has noticed.
    """
    waits = True
    typist = threading.get_ident()
    told, tell = socket.socketpair()
    tell.setblocking(False)

    def interrupted(*_: object) -> None:
        nonlocal waits
        if waits:  # else it was told twice
            waits = False
            raise KeyboardInterrupt

    def tell_again() -> None:
        if not told.recv(1):  # the line came, and no interrupt
            return
        while True:
            time.sleep(_AGAIN_S)
            if not waits:
                return
            signal.pthread_kill(typist, signal.SIGINT)

    thread = threading.Thread(target=tell_again, name="penstock-interrupts", daemon=True)
    thread.start()
    before = signal.getsignal(signal.SIGINT)
    woken = signal.set_wakeup_fd(tell.fileno(), warn_on_full_buffer=False)
    try:
        signal.signal(signal.SIGINT, interrupted)
        yield
    finally:
        waits = False
        signal.set_wakeup_fd(woken)
        tell.close()
        thread.join()
        told.close()
        signal.signal(signal.SIGINT, before)
