"""The jobs of a worker: those that run or wait, and for a while those that are over. Belongs to one loop.

A job that is over is kept for `keep_s`, so that its stream can be read again; the oldest go sooner when there are more
than `max_kept` of them, or when what they said is more than `max_kept_bytes`. Nothing else keeps one.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from typing import TYPE_CHECKING

from penstock.canon.errors import ShuttingDown, UnknownJob
from penstock.telemetry.record import word
from penstock.worker.job import Job

if TYPE_CHECKING:
    from collections.abc import Iterator

    from penstock.serving.running import Running
    from penstock.streams.handler import Call, Handler

KEEP_S = 300.0
MAX_KEPT = 256
MAX_KEPT_BYTES = 64 * 1024 * 1024


class Jobs:
    """`handler` is the stack that each job's call goes through. Iteration is in the order of their coming."""

    def __init__(
        self,
        handler: Handler,
        *,
        keep_s: float = KEEP_S,
        max_kept: int = MAX_KEPT,
        max_kept_bytes: int = MAX_KEPT_BYTES,
    ) -> None:
        self._handler = handler
        self._keep_s = keep_s
        self._max_kept = max_kept
        self._max_kept_bytes = max_kept_bytes
        self._jobs: dict[str, Job] = {}
        self._live: dict[str, tuple[Call, Running | None]] = {}
        self._over: deque[tuple[float, Job]] = deque()  # when it goes, and which, the oldest first
        self._over_bytes = 0
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[Job]:
        return iter(self._jobs.values())

    @property
    def live(self) -> int:
        """How many are not over."""
        return len(self._live)

    async def submit(self, call: Call, *, is_bound: bool, running: Running | None = None) -> Job:
        """The job that runs this call, once it has its place. Raises what kept it from one; then there is no job.

        `is_bound`: it lives as long as somebody reads it. `running` lets a server that ends tell it so.
        """
        job_id = f"job_{secrets.token_hex(12)}"
        job = Job(job_id, call, self._handler, self._ended, is_bound=is_bound)
        self._jobs[job_id] = job
        self._live[job_id] = call, running
        if running is not None:
            running.add(call, job.task)
        try:
            await job.placed.wait()
        except asyncio.CancelledError:
            job.cancel("Its client left.")
            raise
        if job.refused is not None:
            self._forget(job)
            raise job.refused
        job.announce()
        return job

    def find(self, job_id: str) -> Job:
        """Raises `UnknownJob`."""
        job = self._jobs.get(job_id)
        if job is None:
            raise UnknownJob(
                f"There is no job {word(job_id)}: it never was, or it is over and has expired.",
                fix="GET /v1/jobs lists those there are.",
            )
        return job

    async def stop(self) -> None:
        """End those that run, each with its error, and forget all."""
        tasks = []
        for job_id, (call, _) in list(self._live.items()):
            job = self._jobs[job_id]
            if call.stopped is None and not call.sent.is_whole:
                call.stopped = ShuttingDown("The worker is shutting down.")
                job.task.cancel()
            tasks.append(job.task)
        if tasks:
            await asyncio.wait(tasks)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._jobs.clear()
        self._over.clear()
        self._over_bytes = 0

    # --- those that are over ------------------------------------------------------------------------------------------

    def _ended(self, job: Job) -> None:
        call, running = self._live.pop(job.id)
        if running is not None:
            running.discard(call)
        job.ended_unix = call.began_unix + call.now() - call.began
        job.expires_unix = job.ended_unix + self._keep_s
        self._over.append((asyncio.get_running_loop().time() + self._keep_s, job))
        self._over_bytes += len(job.log)
        while self._over and (len(self._over) > self._max_kept or self._over_bytes > self._max_kept_bytes):
            self._drop_oldest()
        self._arm()

    def _forget(self, job: Job) -> None:
        """One that was refused: whoever asked for it is told, and has no name for it."""
        if self._jobs.pop(job.id, None) is not None:
            self._over = deque(each for each in self._over if each[1] is not job)
            self._over_bytes -= len(job.log)

    def _drop_oldest(self) -> None:
        _, job = self._over.popleft()
        self._over_bytes -= len(job.log)
        self._jobs.pop(job.id, None)

    def _arm(self) -> None:
        if self._timer is None and self._over:
            self._timer = asyncio.get_running_loop().call_at(self._over[0][0], self._expire)

    def _expire(self) -> None:
        self._timer = None
        now = asyncio.get_running_loop().time()
        while self._over and self._over[0][0] <= now:
            self._drop_oldest()
        self._arm()
