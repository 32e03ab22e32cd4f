"""How long the threads of some processes were ready to run and had no processor: Linux's own account (`schedstat`).

It tells a record that is late because the machine had other work from one that is late by itself. A thread reads the
account every other millisecond; where the system keeps none, it knows nothing.
"""

from __future__ import annotations

import threading
import time
from array import array
from bisect import bisect_left, bisect_right
from pathlib import Path

EVERY_S = 0.002


class Waiting:
    """From `start` to `stop`, of these processes' threads together."""

    def __init__(self, *pids: int) -> None:
        self._folders = [Path(f"/proc/{pid}/task") for pid in pids]
        self._at = array("d")
        self._waited_ms = array("d")
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def between_ms(self, began: float, ended: float) -> float | None:
        """What it grew by from the last look before to the first one after, by the monotonic clock."""
        first, last = bisect_right(self._at, began) - 1, bisect_left(self._at, ended)
        if first < 0 or last >= len(self._at):
            return None
        return self._waited_ms[last] - self._waited_ms[first]

    def _watch(self) -> None:
        while not self._over.wait(EVERY_S):
            try:
                waited_ns = sum(_run_delay_ns(task) for folder in self._folders for task in folder.iterdir())
            except FileNotFoundError:
                continue  # a thread, or the process, has just ended
            self._at.append(time.monotonic())
            self._waited_ms.append(waited_ns / 1e6)


def _run_delay_ns(task: Path) -> int:
    return int((task / "schedstat").read_bytes().split()[1])
