"""The calls that are being answered now, so that a server that is told to end can let them finish, or end them truly.

A call is here from when its request is whole to the last byte of its answer. `stop` cancels what it waits for, and says
why: the exchange then tells its client, in the dialect, and records it (`reason_of`). Belongs to one loop.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from penstock.canon.errors import PenstockError, ShuttingDown

if TYPE_CHECKING:
    from penstock.serving.asgi import Scope
    from penstock.streams.handler import Call

_KEY = "penstock.running"


class Running:
    """`is_draining`: nothing new is taken any more."""

    def __init__(self) -> None:
        self.is_draining = False
        #: requests that were refused before they were calls, by the error's word: nothing else tells of them
        self.refusals: dict[str, int] = {}
        self._tasks: dict[Call, asyncio.Task[None]] = {}

    def __len__(self) -> int:
        return len(self._tasks)

    def add(self, call: Call, task: asyncio.Task[None]) -> None:
        self._tasks[call] = task

    def discard(self, call: Call) -> None:
        self._tasks.pop(call, None)

    def stop(self) -> None:
        """End each call, and let it say so; but not one whose answer is whole and only waits to be read."""
        for call, task in self._tasks.items():
            if not call.sent.is_whole:
                call.stopped = ShuttingDown()
                task.cancel()

    def has_refused(self, error: PenstockError) -> None:
        self.refusals[error.kind] = self.refusals.get(error.kind, 0) + 1

    def put_in(self, scope: Scope) -> None:
        scope[_KEY] = self


def running_of(scope: Scope) -> Running | None:
    found: Running | None = scope.get(_KEY)
    return found


def reason_of(call: Call, raised: PenstockError | asyncio.CancelledError) -> PenstockError:
    """The error to tell a client: what was raised, or why the call was stopped. Any other cancellation goes on."""
    if isinstance(raised, PenstockError):
        return raised
    if call.stopped is None:
        raise raised
    task = asyncio.current_task()
    assert task is not None
    task.uncancel()
    return call.stopped
