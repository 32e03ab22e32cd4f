"""`penstock serve`, as it is, in a process that counts what it holds when asked: `python observed.py REPORT serve …`.

The counting is this program's and no part of the gateway. On SIGUSR1 a handler, which Python runs in the loop's own
thread, collects garbage, gives back what the allocator keeps for later, and writes what is alive to the file REPORT,
whole or not at all.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import json
import signal
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

from penstock.cli import main
from penstock.transport.connection import Http1Connection


def count() -> dict[str, Any]:
    """Tasks of the loop by their coroutine, threads, connections to upstreams, and objects by their class.

    Objects are those made since the server was ready: it freezes what was there before.
    """
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # glibc's alone
        ctypes.CDLL(None).malloc_trim(0)
    held = gc.get_objects()
    connections = [each for each in held if isinstance(each, Http1Connection) and not each.is_closed]
    objects = Counter(f"{type(each).__module__}.{type(each).__qualname__}" for each in held)
    tasks = Counter(getattr(task.get_coro(), "__qualname__", "?") for task in asyncio.all_tasks())
    return {
        "tasks": dict(tasks),
        "threads": threading.active_count(),
        "connections": len(connections),
        "idle_connections": sum(" IDLE" in repr(each) for each in connections),
        "objects": dict(objects),
    }


def observed(report: Path) -> None:
    def tell(number: int, frame: object) -> None:
        written = report.with_suffix(".new")
        written.write_text(json.dumps(count()))
        written.replace(report)

    signal.signal(signal.SIGUSR1, tell)
    main()


if __name__ == "__main__":
    report = Path(sys.argv.pop(1))
    sys.argv[0] = "penstock"
    observed(report)
