"""One client of a job's stream: it reads the log from its beginning, and follows the job to its end.

While it has all there is, the job writes to it in the turn of the loop that brought the token. When the client does not
take more at once, the reader catches up from the log by itself, as fast as the client reads, and the job goes on.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock.serving.downstream import Downstream
    from penstock.streams.handler import Sent
    from penstock.worker.job import Job

#: what a reader that is behind is given at once
PIECE_BYTES = 64 * 1024

_log = logging.getLogger(__name__)


class Reader:
    """`down` writes to the client, and counts in `sent`."""

    def __init__(self, job: Job, down: Downstream, sent: Sent) -> None:
        self._job = job
        self._down = down
        self._sent = sent
        self._at = 0  # bytes of the log that it has
        self._told: bytes | None = None
        self._waiting: asyncio.Future[None] | None = None  # while it has all there is

    @property
    def heartbeats(self) -> int:
        return self._sent.heartbeats

    async def read(self) -> None:
        job, down = self._job, self._down
        job.join(self)
        try:
            while True:
                piece = self._piece()
                self._at += len(piece)
                if job.is_over and self._at == len(job.log):
                    await down.end(piece)
                    return
                if piece:
                    await down.write(piece)
                else:
                    await self._more()
        finally:
            down.stop()
            job.leave(self)

    def _piece(self) -> bytes:
        """What comes next, in whole frames: a heartbeat may follow any of them."""
        log, at = self._job.log, self._at
        if len(log) - at <= PIECE_BYTES:
            return bytes(log[at:])
        cut = log.rfind(b"\n\n", at, at + PIECE_BYTES)
        if cut < 0:
            cut = log.find(b"\n\n", at + PIECE_BYTES - 1)
        return bytes(log[at : cut + 2])

    async def _more(self) -> None:
        """Return when there is more in the log than this reader could be given at once."""
        self._waiting = asyncio.get_running_loop().create_future()
        said = self._job.last_narration
        if said is not None and said is not self._told:
            self.narrated(said)
        try:
            await self._waiting
        finally:
            self._waiting = None

    # --- what the job tells it, and never waits for -------------------------------------------------------------------

    def grown(self, data: bytes, at: float) -> None:
        """The log has grown by this."""
        if not self._keeps_up:
            return
        try:
            if self._down.write_now(data, at):
                self._at += len(data)
                return
        except Exception:
            _log.debug("A reader could not be written to; it finds out by itself.", exc_info=True)
        self.wake()

    def narrated(self, said: bytes) -> None:
        """The last thing narrated. One that is missed comes later, if nothing has taken its place."""
        if self._keeps_up:
            self._told = said
            self._down.aside(said)

    def aside(self, said: bytes) -> None:
        if self._keeps_up:
            self._down.aside(said)

    def wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    @property
    def _keeps_up(self) -> bool:
        """It has all there is. One that was woken has not, though it may not have run yet."""
        return self._waiting is not None and not self._waiting.done()
