"""The kit for testing streams: what Penstock is tested with, for everybody else's tests as well.

`Upstream` is a server that misbehaves on purpose, `Reply` what it says; `checks` judges a dialect.
"""

from __future__ import annotations

from penstock.testing.faults import FAULTS, Fault
from penstock.testing.recorder import Recorder, Replayer
from penstock.testing.script import Call, Counts, Pace, Reply, Script, Turns, When, load_script
from penstock.testing.server import Seen
from penstock.testing.upstream import Upstream

__all__ = [
    "FAULTS",
    "Call",
    "Counts",
    "Fault",
    "Pace",
    "Recorder",
    "Replayer",
    "Reply",
    "Script",
    "Seen",
    "Turns",
    "Upstream",
    "When",
    "load_script",
]
