"""The bus: records go from the streams to the exporters, and nothing ever comes back to hold a stream up (C5).

`publish` appends to a bounded queue per exporter and returns. Each exporter has a thread of its own, so one that hangs
holds up no other; it is given what has gathered, as a list. A full queue refuses the newest record and counts it (C11).
Whatever an exporter raises is counted and shown, and its thread goes on.

Threads start with the first record, wait on a condition (nothing polls), and are daemons: a program that does not call
`close` can still exit, and loses what was queued.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from msgspec import Struct

from penstock.canon.errors import PenstockError
from penstock.telemetry.exporters.base import Attending, Keeping, Kept, Tracing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from penstock.telemetry.exporters.base import Exporter
    from penstock.telemetry.record import CallRecord
    from penstock.telemetry.tally import Tally

#: How long a thread that has something to do lets more of it gather: 20 wake-ups a second at most, not one per record.
GATHER_S = 0.05

MAX_ERROR_CHARS = 300


class ExporterState(Struct, frozen=True):
    """Records, counted since the start: `sent`; `dropped`, because the queue was full or closed; `failed`, because the
    exporter raised. `lag` is how many wait now, those in the exporter's hands included, `spooled` how many it keeps on
    disk to send them later. `last_error` is kept."""

    name: str
    sent: int
    dropped: int
    failed: int
    lag: int
    last_error: str | None
    spooled: int = 0


class Bus:
    """`capacity` is records per exporter; as many again may be in an exporter's hands."""

    def __init__(self, exporters: Iterable[Exporter], *, capacity: int = 1024, gather_s: float = GATHER_S) -> None:
        given = list(exporters)
        self._lanes = [_Lane(exporter, capacity, gather_s) for exporter in given]
        #: the exporter that wants calls to be traced
        self.tracing = next((exporter for exporter in given if isinstance(exporter, Tracing)), None)
        #: who wants to be told of each call's end, before its record comes
        self.attending = [exporter for exporter in given if isinstance(exporter, Attending)]

    @property
    def ended(self) -> Callable[[Tally], None] | None:
        """For the recorder; None where nobody wants to know."""
        return self._ended if self.attending else None

    def _ended(self, tally: Tally) -> None:
        for exporter in self.attending:
            exporter.ended(tally)

    def start(self) -> None:
        """Start the threads now, so that the first record need not."""
        for lane in self._lanes:
            lane.start()

    def publish(self, record: CallRecord) -> None:
        """Hand a record to every exporter. Never waits for one, never raises; from any thread."""
        for lane in self._lanes:
            lane.offer(record)

    def states(self) -> list[ExporterState]:
        return [lane.state() for lane in self._lanes]

    def close(self, timeout_s: float = 5.0) -> bool:
        """Deliver what is queued, close the exporters, end the threads: all within `timeout_s`.

        True when all of it was done; False when an exporter still hangs, whose `lag` says what it was left with. May be
        called again. Records that come later are counted as dropped.
        """
        until = time.monotonic() + timeout_s
        for lane in self._lanes:
            lane.close()
        # Not one by one in `all`: a lane that hangs must not keep the next from its last chance to be joined.
        ended = [lane.join(max(until - time.monotonic(), 0.0)) for lane in self._lanes]
        return all(ended)


class _Lane:
    """One exporter, its queue and its thread.

    The lock is held for a few assignments and never round an exporter. It is re-entrant because a record may be
    published by a finalizer, which the garbage collector may run inside `offer`.
    """

    __slots__ = (
        "_capacity", "_closing", "_dropped", "_exporter", "_failed", "_gather_s", "_in_hand", "_keeping", "_last_error",
        "_lock", "_queue", "_sent", "_thread", "_wake", "_wake_at",
    )  # fmt: skip

    def __init__(self, exporter: Exporter, capacity: int, gather_s: float) -> None:
        self._exporter = exporter
        self._capacity = capacity
        self._gather_s = gather_s and getattr(exporter, "gather_s", gather_s)
        self._keeping = exporter if isinstance(exporter, Keeping) else None
        self._queue: deque[CallRecord] = deque()
        self._lock = threading.RLock()
        self._wake = threading.Condition(self._lock)
        # The length of the queue at which the thread wants to be woken; 0: it is busy and will look by itself.
        self._wake_at = 0
        self._closing = False
        self._thread: threading.Thread | None = None
        self._in_hand = self._sent = self._dropped = self._failed = 0
        self._last_error: str | None = None

    # --- any thread ---

    def offer(self, record: CallRecord) -> None:
        with self._lock:
            queue = self._queue
            if self._closing or len(queue) >= self._capacity or (self._thread is None and not self.start()):
                self._dropped += 1
                return
            queue.append(record)
            if len(queue) == self._wake_at:
                self._wake.notify()

    def start(self) -> bool:
        with self._lock:
            if self._thread is None and not self._closing:
                name = f"penstock-{self._exporter.name}"
                thread = threading.Thread(target=self._run, name=name, daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # no more threads, or the interpreter is on its way out
                    self._last_error = "No thread could be started for the exporter."
                    return False
                self._thread = thread
            return self._thread is not None

    def close(self) -> None:
        with self._lock:
            self._closing = True
            self._wake.notify()

    def join(self, timeout_s: float) -> bool:
        thread = self._thread
        if thread is not None:
            thread.join(timeout_s)
        return thread is None or not thread.is_alive()

    def state(self) -> ExporterState:
        kept = self._kept()
        with self._lock:
            return ExporterState(
                name=self._exporter.name,
                sent=self._sent - kept.deferred + kept.recovered - kept.refused,
                dropped=self._dropped + kept.lost,
                failed=self._failed + kept.refused,
                lag=len(self._queue) + self._in_hand,
                last_error=kept.error or self._last_error,
                spooled=kept.now,
            )

    def _kept(self) -> Kept:
        try:
            return self._keeping.kept if self._keeping is not None else Kept()
        except OSError as error:
            return Kept(error=f"The folder of what was kept cannot be read: {error.strerror}.")

    # --- the exporter's own thread ---

    def _run(self) -> None:
        resume_s = self._resume()
        while (records := self._take(resume_s)) is not None:
            error: BaseException | None = None
            try:
                if records:
                    self._exporter.export(records)
            except BaseException as raised:  # even SystemExit: an exporter must not be able to end its thread
                error = raised
            with self._lock:
                self._in_hand = 0
                if error is None:
                    self._sent += len(records)
                else:
                    self._failed += len(records)
                    self._last_error = _sentence(error)
            del records, error  # what was delivered is not kept while this waits for more
            resume_s = self._resume()
        try:
            self._exporter.close()
        except BaseException as raised:
            self._last_error = _sentence(raised)

    def _resume(self) -> float | None:
        if self._keeping is None or self._closing:
            return None
        try:
            return self._keeping.resume()
        except BaseException as raised:
            self._last_error = _sentence(raised)
            return None

    def _take(self, resume_s: float | None) -> list[CallRecord] | None:
        """All that is queued, once there is something and it has had time to become more; None when it is over.

        An empty list when there is nothing, and `resume_s` has passed.
        """
        with self._lock:
            while not self._queue and not self._closing:
                self._wake_at = 1
                if not self._wake.wait(resume_s) and not self._queue and not self._closing:
                    return []
            if not self._queue:
                return None
            half = self._capacity // 2
            if self._gather_s > 0 and len(self._queue) < half and not self._closing:
                self._wake_at = half
                self._wake.wait(self._gather_s)
            self._wake_at = 0
            records = list(self._queue)
            self._queue.clear()
            self._in_hand = len(records)
            return records


def _sentence(error: BaseException) -> str:
    """Our own errors are fit to be shown. Another's message may quote a URL with a token in it: only its class is."""
    text = str(error) if isinstance(error, PenstockError) else f"The exporter raised {type(error).__name__}."
    return " ".join(text.split())[:MAX_ERROR_CHARS]
