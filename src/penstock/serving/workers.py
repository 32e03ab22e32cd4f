"""Several processes that serve one address, and their parent, which serves nothing and sees that they live.

The parent forks each worker; a worker opens a listening socket of its own on the shared address (SO_REUSEPORT), so the
kernel spreads connections and no lock is shared. A worker that ends unasked is replaced, at once the first time and
ever later when it keeps ending (`Slot`). Orders go to a worker by a socket and not by signals, so that a Ctrl-C, which
a terminal sends to all of them, and a supervisor that signals a whole group, are each obeyed once. A worker whose
parent is gone drains and ends.

The parent starts no thread and no loop: it can fork at any time.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from penstock.canon.errors import PenstockError

if TYPE_CHECKING:
    from collections.abc import Callable

_log = logging.getLogger(__name__)

#: orders, a byte each; the end of the socket is a drain, too
DRAIN, END_NOW, RELOAD = b"d", b"e", b"r"
READY = b"R"

#: a worker that lived as long began well: its end says nothing of the next one
LIVED_S = 10.0
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0

#: how often the parent does what it does now and then
TICK_S = 1.0

#: what a worker has to end after its drain, before it is killed
LATE_S = 15.0

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


class Slot:
    """One worker's place: who is in it, and when the next may come. Decides, and does nothing."""

    def __init__(self) -> None:
        self.pid: int | None = None
        self.orders: socket.socket | None = None
        self.is_ready = False
        self.start_at = 0.0
        self._began_at = 0.0
        self._short_lives = 0

    def began(self, pid: int, orders: socket.socket, now: float) -> None:
        self.pid, self.orders, self.is_ready, self._began_at = pid, orders, False, now

    def ended(self, now: float) -> float:
        """Seconds until another takes the place."""
        self.pid = None
        self.is_ready = False
        if self.orders is not None:
            self.orders.close()
            self.orders = None
        if now - self._began_at >= LIVED_S:
            self._short_lives = 0
        pause = 0.0 if self._short_lives == 0 else min(FIRST_PAUSE_S * 2 ** (self._short_lives - 1), LONGEST_PAUSE_S)
        self._short_lives = min(self._short_lives + 1, 32)
        self.start_at = now + pause
        return pause


class Supervisor:
    """`serve` is what a worker does, given the socket of its orders; when it returns, the worker ends with 0.

    `ready` is called when all are. `tick` is called about once a second, `reload` on SIGHUP: either is True when the
    workers are to read the configuration again. `has_ended` is told each worker's pid after its end.
    """

    def __init__(
        self,
        workers: int,
        serve: Callable[[socket.socket], None],
        *,
        drain_s: Callable[[], float],
        ready: Callable[[], None],
        tick: Callable[[], bool],
        reload: Callable[[], bool],
        has_ended: Callable[[int], None],
    ) -> None:
        self._slots = [Slot() for _ in range(workers)]
        self._serve = serve
        self._drain_s = drain_s
        self._ready = ready
        self._tick = tick
        self._reload = reload
        self._has_ended = has_ended
        self._caught: list[int] = []
        self._was_ready = False
        self._has_failed = False
        #: when ending: the moment at which whoever is still there is killed
        self._kill_at: float | None = None

    def run(self) -> int:
        """Until a signal has ended all workers: 0; or until none of them could begin: 1."""
        waker, woken = socket.socketpair()
        waker.setblocking(False)
        former = {
            number: signal.signal(number, lambda number, frame: self._caught.append(number)) for number in _SIGNALS
        }
        former_waker = signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
        next_tick = time.monotonic() + TICK_S
        try:
            while self._kill_at is None or any(slot.pid is not None for slot in self._slots):
                self._start_due((waker, woken))
                self._wait(woken, next_tick)
                self._obey()
                self._reap()
                self._hear()
                if time.monotonic() >= next_tick:
                    next_tick = time.monotonic() + TICK_S
                    if self._kill_at is None and self._tick():
                        self._order(RELOAD)
                if self._kill_at is not None and time.monotonic() >= self._kill_at:
                    self._kill()
        finally:
            signal.set_wakeup_fd(former_waker)
            for number, handler in former.items():
                signal.signal(number, handler)
            waker.close()
            woken.close()
        return 1 if self._has_failed else 0

    def _wait(self, woken: socket.socket, next_tick: float) -> None:
        moments = [next_tick, *(slot.start_at for slot in self._slots if slot.pid is None and self._kill_at is None)]
        if self._kill_at is not None:
            moments.append(self._kill_at)
        sockets = [woken, *(slot.orders for slot in self._slots if slot.orders is not None and not slot.is_ready)]
        ready, _, _ = select.select(sockets, [], [], max(min(moments) - time.monotonic(), 0.0))
        if woken in ready:
            woken.recv(4096)

    # --- what happens ---

    def _obey(self) -> None:
        caught, self._caught = self._caught, []
        for number in caught:
            if number in (signal.SIGTERM, signal.SIGINT):
                self._order(DRAIN if self._kill_at is None else END_NOW)
                left = self._drain_s() if self._kill_at is None else 0.0
                self._kill_at = time.monotonic() + left + LATE_S
            elif number == signal.SIGHUP and self._kill_at is None and self._reload():
                self._order(RELOAD)

    def _reap(self) -> None:
        for slot in self._slots:
            if slot.pid is None:
                continue
            pid, status = os.waitpid(slot.pid, os.WNOHANG)
            if pid == 0:
                continue
            was_ready = slot.is_ready or _is_ready(slot.orders)
            pause = slot.ended(time.monotonic())
            self._has_ended(pid)
            if self._kill_at is not None:
                continue
            if not was_ready and not self._was_ready:  # it has said why; the others would say the same
                self._has_failed = True
                self._order(END_NOW)
                self._kill_at = time.monotonic() + LATE_S
                return
            when = "at once" if pause == 0 else f"in {pause:g} s"
            _log.error("The worker %d %s; another takes its place %s.", pid, _ending(status), when)

    def _hear(self) -> None:
        for slot in self._slots:
            if slot.orders is not None and not slot.is_ready:
                slot.is_ready = _is_ready(slot.orders)
        if not self._was_ready and all(slot.is_ready for slot in self._slots):
            self._was_ready = True
            self._ready()

    # --- what it does ---

    def _order(self, order: bytes) -> None:
        for slot in self._slots:
            if slot.orders is not None:
                with suppress(OSError):
                    slot.orders.send(order)

    def _kill(self) -> None:
        for slot in self._slots:
            if slot.pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(slot.pid, signal.SIGKILL)

    def _start_due(self, own: tuple[socket.socket, ...]) -> None:
        if self._kill_at is not None:
            return
        for slot in self._slots:
            if slot.pid is None and time.monotonic() >= slot.start_at:
                ours, theirs = socket.socketpair()
                ours.setblocking(False)
                pid = os.fork()
                if pid == 0:
                    self._become_worker(ours, theirs, own)
                theirs.close()
                slot.began(pid, ours, time.monotonic())

    def _become_worker(self, ours: socket.socket, theirs: socket.socket, own: tuple[socket.socket, ...]) -> None:
        """In the child: never returns."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in _SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            # The parent's ends of the other workers' sockets, too: who holds one keeps its worker from seeing its end.
            for held in (ours, *own, *(slot.orders for slot in self._slots if slot.orders is not None)):
                held.close()
            self._serve(theirs)
            code = 0
        except PenstockError as error:
            _log.error("%s", error)
        except BaseException:
            _log.exception("A worker ended by a fault of its own.")
        finally:
            with suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)  # not through the parent's own stack, which this is a copy of


def _is_ready(orders: socket.socket | None) -> bool:
    if orders is None:
        return False
    try:
        return orders.recv(16) != b""
    except OSError:
        return False


def _ending(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"was killed by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"ended with {os.waitstatus_to_exitcode(status)}"
