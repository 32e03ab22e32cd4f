"""The connections to one origin: kept, counted, lent one at a time.

At most `limit` are open or being opened; beyond that callers wait in the order in which they came, and the return of a
connection, or its end, goes to the one in front, directly, so that nobody overtakes. A caller that is cancelled leaves
nothing behind: neither a place in the queue nor a slot. What has been idle for `idle_s` is closed, by one timer that
runs only while something is idle. The most recently used is lent first, so that the rest can grow old.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import TYPE_CHECKING

from penstock.canon.errors import ConnectError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from penstock.transport.connection import Http1Connection
    from penstock.transport.origin import Origin


class Pool:
    """`connect` opens one connection that reports to this pool; `now` is a monotonic clock in seconds."""

    __slots__ = (
        "_closing",
        "_connect",
        "_connecting",
        "_dials",
        "_idle",
        "_now",
        "_open",
        "_timer",
        "_waiters",
        "idle_s",
        "limit",
        "origin",
    )

    def __init__(
        self,
        origin: Origin,
        connect: Callable[[Pool], Awaitable[Http1Connection]],
        *,
        limit: int,
        idle_s: float,
        now: Callable[[], float],
    ) -> None:
        self.origin = origin
        self.limit = limit
        self.idle_s = idle_s
        self._connect = connect
        self._now = now
        self._idle: list[Http1Connection] = []  # the longest idle first
        self._open: set[Http1Connection] = set()
        self._connecting = 0
        self._dials: set[asyncio.Timeout] = set()
        self._waiters: deque[asyncio.Future[Http1Connection | None]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._closing: asyncio.Event | None = None

    def __repr__(self) -> str:
        return (
            f"<Pool {self.origin}: {len(self._open)} open, {len(self._idle)} idle, {self._connecting} connecting, "
            f"{len(self._waiters)} waiting, limit {self.limit}>"
        )

    @property
    def open_connections(self) -> int:
        return len(self._open)

    @property
    def idle_connections(self) -> int:
        return len(self._idle)

    @property
    def waiting(self) -> int:
        return len(self._waiters)

    @property
    def is_empty(self) -> bool:
        return not (self._open or self._connecting or self._waiters)

    # --- lending -----------------------------------------------------------------------------------------------------

    def take_idle(self) -> Http1Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_closed:
                continue
            if connection.is_quiet():
                return connection
            connection.close()
        return None

    async def acquire(self, *, fresh: bool = False) -> Http1Connection:
        """A connection to send on: kept, else new, else the next that is free. `fresh` takes only a new one."""
        while True:
            self._check_open()
            if not fresh and (kept := self.take_idle()):
                return kept
            if len(self._open) + self._connecting < self.limit:
                self._connecting += 1
                return await self._fill_slot()
            if self._idle:
                self._swap_for_slot(self._idle.pop(0))
                return await self._fill_slot()
            connection = await self._wait()
            if connection is None:
                return await self._fill_slot()
            if connection.is_closed:
                continue  # it died on the way to us, and its slot went to somebody else
            if not fresh:
                return connection
            self._swap_for_slot(connection)
            return await self._fill_slot()

    def put_back(self, connection: Http1Connection) -> None:
        if self._closing is not None or connection.is_closed:
            connection.close()
            return
        if self._waiters and (waiter := self._next_waiter()):
            waiter.set_result(connection)
            return
        connection.idle_since = self._now()
        self._idle.append(connection)
        if self._timer is None:
            self._timer = connection.loop.call_later(self.idle_s, self._evict)

    def discard(self, connection: Http1Connection) -> None:
        """The connection's socket is closed."""
        if connection not in self._open:
            return
        self._open.remove(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        self._free_slot()

    # --- closing -----------------------------------------------------------------------------------------------------

    async def aclose(self) -> None:
        """Close every connection, lent or not, and return when their sockets are closed. The pool lends no more."""
        if self._closing is None:
            self._closing = asyncio.Event()
            self._disarm()
            while waiter := self._next_waiter():
                waiter.set_exception(_closed())
            for connection in tuple(self._open):
                connection.close("The transport was closed.")
            for clock in self._dials:
                clock.reschedule(0)
            self._idle.clear()
            self._tell_if_empty()
        await self._closing.wait()

    def _check_open(self) -> None:
        if self._closing is not None:
            raise _closed()

    def _tell_if_empty(self) -> None:
        if self._closing is not None and not self._open and not self._connecting:
            self._closing.set()

    def _evict(self) -> None:
        self._timer = None
        idle, now = self._idle, self._now()
        # A millisecond early counts as due: loops round their timers.
        overdue = sum(1 for connection in idle if connection.idle_since + self.idle_s <= now + 0.001)
        for connection in idle[:overdue]:
            connection.close()
        del idle[:overdue]
        if idle:
            self._timer = idle[0].loop.call_later(idle[0].idle_since + self.idle_s - now, self._evict)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # --- slots and turns ---------------------------------------------------------------------------------------------

    async def _fill_slot(self) -> Http1Connection:
        """Open a connection in a slot that `_connecting` already counts."""
        connection = None
        clock = asyncio.timeout(None)  # runs out when the pool closes
        try:
            async with clock:
                self._check_open()
                self._dials.add(clock)
                connection = await self._connect(self)
        except TimeoutError:
            if clock.expired():
                raise _closed() from None
            raise
        finally:
            self._dials.discard(clock)
            self._connecting -= 1
            if connection is not None and not connection.is_closed:
                self._open.add(connection)
            else:
                self._free_slot()
        if self._closing is not None:
            connection.close()
            self._check_open()
        if connection.is_closed:
            raise ConnectError(f"{self.origin.netloc} closed the connection as soon as it was made.")
        return connection

    def _swap_for_slot(self, connection: Http1Connection) -> None:
        """Close a live connection and keep its slot for ourselves."""
        self._open.discard(connection)
        self._connecting += 1
        connection.close()

    def _free_slot(self) -> None:
        waiter = self._next_waiter()
        if waiter is not None:
            self._connecting += 1
            waiter.set_result(None)
        else:
            self._tell_if_empty()

    def _next_waiter(self) -> asyncio.Future[Http1Connection | None] | None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                return waiter
        return None

    async def _wait(self) -> Http1Connection | None:
        """Our turn: a connection, or None for a slot to open one in."""
        waiter: asyncio.Future[Http1Connection | None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.cancelled():
                with contextlib.suppress(ValueError):
                    self._waiters.remove(waiter)
            elif waiter.exception() is None:
                self._pass_on(waiter.result())  # cancelled in the very moment in which our turn came
            raise

    def _pass_on(self, connection: Http1Connection | None) -> None:
        if connection is not None:
            if not connection.is_closed:
                self.put_back(connection)
        else:
            self._connecting -= 1
            self._free_slot()


def _closed() -> ConnectError:
    return ConnectError("The transport is closed.", fix="Open requests before it is closed, or make a new one.")
