"""Records as counters and histograms, and the page of them that Prometheus reads.

Records are folded into plain numbers (`counts`) in the exporter's own thread, at a few microseconds each; only a page
that is asked for makes metrics of them (`metrics_page`).

With several processes each writes its numbers to a file in a folder that they share, and every page is the sum of all
files, so it does not matter who is asked, and no counter goes back when one is killed (docs/decisions/0018).
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import msgspec

from penstock.telemetry.counts import Counts, Exported, Places, Snapshot, TargetNow, added
from penstock.telemetry.metrics_page import page_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from penstock.telemetry.bus import ExporterState
    from penstock.telemetry.record import CallRecord

#: how often a process under load writes its file
WRITE_EVERY_S = 0.2


class PrometheusExporter:
    """`folder` is shared by the processes of one gateway, None where there is one process."""

    name = "prometheus"

    def __init__(self, folder: Path | None = None, *, now: Callable[[], float] = time.monotonic) -> None:
        self._file = folder / f"live-{os.getpid()}" if folder is not None else None
        self._now = now
        self._lock = threading.Lock()
        self._counts = Counts()
        self._in_flight = 0
        self._limits: list[Places] = []
        self._targets: list[TargetNow] = []
        self._refusals: dict[str, int] = {}
        self._exporters: dict[str, Exported] = {}
        self._seen: dict[str, ExporterState] = {}
        self._written_at = -WRITE_EVERY_S

    @property
    def is_shared(self) -> bool:
        """There are other processes, which should know how this one is."""
        return self._file is not None

    # --- what happens ---

    def export(self, records: list[CallRecord]) -> None:
        with self._lock:
            for record in records:
                self._counts.count(record)
        if self._now() - self._written_at >= WRITE_EVERY_S:
            self.write()

    def close(self) -> None:
        self.write()

    def was_late(self, lag_s: float) -> None:
        """The event loop came so long after a timer was due."""
        with self._lock:
            self._counts.was_late(lag_s)

    def see(
        self,
        in_flight: int,
        exporters: Iterable[ExporterState],
        limits: Iterable[Places] = (),
        targets: Iterable[TargetNow] = (),
        refusals: Mapping[str, int] = {},
    ) -> None:
        """How things are now; the file is as new as the last call. `refusals`: since the start, by the error's word."""
        with self._lock:
            self._refusals = dict(refusals)
            self._in_flight = in_flight
            self._limits = list(limits)
            self._targets = list(targets)
            for state in exporters:
                # A new configuration's exporters count from 0 again; ours go on.
                seen = self._seen.get(state.name)
                if seen is not None and (state.sent < seen.sent or state.dropped < seen.dropped):
                    seen = None
                total = self._exporters.setdefault(state.name, Exported())
                total.sent += state.sent - (seen.sent if seen else 0)
                total.dropped += state.dropped - (seen.dropped if seen else 0)
                total.failed += state.failed - (seen.failed if seen else 0)
                total.lag = state.lag
                self._seen[state.name] = state
        self.write()

    # --- the page ---

    def write(self) -> None:
        """Bring the file up to now; nothing where there is one process."""
        if self._file is None:
            return
        self._written_at = self._now()
        # On a full disk the file stays as it is. The lock is for the order of writes, too: a file must not go back.
        with self._lock, suppress(OSError):
            _replace(self._file, self._snapshot())

    def page(self, *, openmetrics: bool = False) -> bytes:
        """In Prometheus's text format, or in OpenMetrics. Reads files; call it in a thread."""
        if self._file is None:
            with self._lock:
                whole = msgspec.msgpack.decode(msgspec.msgpack.encode(self._snapshot()), type=Snapshot)
        else:
            self.write()
            whole = joined(self._file.parent)
        return page_of(whole, openmetrics=openmetrics)

    def _snapshot(self) -> Snapshot:
        counts = self._counts
        now = self._limits, self._targets
        return Snapshot(counts.series, self._in_flight, self._exporters, 1, *now, counts.histograms, self._refusals)


# --- several processes ------------------------------------------------------------------------------------------------


def joined(folder: Path) -> Snapshot:
    """The sum of all processes' files."""
    with _turn(folder, fcntl.LOCK_SH):
        return added(_read(path) for path in sorted(folder.iterdir()) if path.suffix == "")


def retire(folder: Path, pid: int) -> None:
    """A process has ended: what it has counted stays, what it was doing does not."""
    with _turn(folder, fcntl.LOCK_EX):
        live, ended = folder / f"live-{pid}", folder / "ended"
        if not live.exists():
            return
        whole = added(_read(path) for path in (ended, live) if path.exists())
        whole.in_flight = whole.processes = 0
        whole.limits = []
        whole.targets = []
        for exporter in whole.exporters.values():
            exporter.lag = 0
        _replace(ended, whole)
        live.unlink()


def _read(path: Path) -> Snapshot:
    return msgspec.msgpack.decode(path.read_bytes(), type=Snapshot)


def _replace(path: Path, snapshot: Snapshot) -> None:
    """In one step, that a reader sees all of or nothing of."""
    new = path.with_suffix(".new")
    new.write_bytes(msgspec.msgpack.encode(snapshot))
    new.replace(path)


@contextmanager
def _turn(folder: Path, how: int) -> Iterator[None]:
    """Readers do not see an ended process twice, or not at all."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, how)
        yield
    finally:
        os.close(handle)
