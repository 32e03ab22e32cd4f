"""Going on with another source where one has failed: what the caller's `recovery` gave, and the seam that marks it.

Before any content nobody sees it. After content, blocks that were cut are closed with what they had, `Progress` with
the stage `recovered` marks the seam, and the new source's blocks are numbered on; it should say what is missing, not
begin anew, because nothing that was handed out is taken back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from penstock.canon.events import Progress, Start
from penstock.canon.response import Fold
from penstock.streams.batch import Batch
from penstock.streams.recovery import Restarted, Told

if TYPE_CHECKING:
    from penstock.canon.errors import PenstockError

#: the error that ended a source, its `.partial` what had come → a source that goes on (or an awaitable of one), or None
Recover = Callable[["PenstockError"], Any]

#: Per stream: a source that fails for ever is not asked for ever.
MAX_RECOVERIES = 3


class Seam:
    """One stream's. It sees each batch before anybody else does."""

    def __init__(self, recover: Recover) -> None:
        self._recover = recover
        self._told = Told()
        self._folding = Fold()
        self._joining: Restarted | None = None
        self._times = 0
        self._has_started = False
        self._has_content = False

    def see(self, batch: Batch) -> None:
        """Number its blocks on, and leave out a second `Start`."""
        if self._joining is not None and batch.events:
            batch.events = self._joining.join(batch.events)
        self._told.note(batch.events)
        self._folding.feed(batch.events)
        self._has_started = self._has_started or any(type(event) is Start for event in batch.events)
        self._has_content = self._has_content or batch.has_content

    async def ask(self, error: PenstockError, *, in_thread: bool) -> Any:
        """The source to go on with, or None. A sync source's `recovery` may block: it runs in a thread.

        Nobody is asked once a tool call has been begun: who executes it must never see half of one and a whole one.
        """
        if self._times >= MAX_RECOVERIES or not self._told.may_be_restarted:
            return None
        self._times += 1
        error.partial = self._folding.response()
        return await asyncio.to_thread(self._recover, error) if in_thread else self._recover(error)

    def mark(self, at: float, error: PenstockError) -> Batch:
        """What stands between the two sources: nothing before content."""
        if self._has_started:
            self._joining = Restarted(self._told)
        batch = Batch(at, [], [], [])
        if self._has_content:
            batch.events.append(Progress("recovered", message=f"Going on after: {error.message}"))
        return batch
