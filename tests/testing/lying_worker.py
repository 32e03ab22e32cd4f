"""A worker that is none: it says what a worker says, but for one fault that is planted in it."""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import TYPE_CHECKING, Any

from penstock.testing.server import Server

if TYPE_CHECKING:
    from penstock.testing.server import Exchanged, Seen

WORDS = [f"word{number} " for number in range(12)]
EVERY_S = 0.006

#: what is planted, and the step that must find it
FAULTS = {
    "no-health": "health",
    "model-failed": "health",
    "never-ready": "ready",
    "no-jobs": "a job",
    "stream-of-another": "a job",
    "late": "first event",
    "no-started": "first event",
    "all-at-once": "tokens as they come",
    "no-tokens": "tokens as they come",
    "twice": "in order",
    "narration-after-token": "in order",
    "narration-of-another": "in order",
    "unreadable": "in order",
    "two-ends": "exactly one end",
    "no-end": "exactly one end",
    "end-and-error": "exactly one end",
    "hangs": "exactly one end",
    "no-done": "[DONE]",
    "after-done": "[DONE]",
    "taken-once": "read again",
    "first-error-only": "wrong requests",
    "repeats-the-prompt": "wrong requests",
    "unknown-is-500": "wrong requests",
    "cancel-does-nothing": "cancel",
    "cancel-looks-complete": "cancel",
    "second-cancel-404": "cancel",
    "runs-on": "a client that leaves",
    "mixes": "concurrency",
    "leaks-slots": "leak",
    "leaks-jobs": "leak",
}


class Job:
    def __init__(self, job_id: str, is_long: bool) -> None:
        self.id = job_id
        self.words = WORDS * 500 if is_long else WORDS
        self.state = "running"
        self.cancelled = asyncio.Event()
        self.reads = 0


class LyingWorker(Server):
    def __init__(self, fault: str | None = None) -> None:
        super().__init__()
        self._fault = fault
        self._jobs: dict[str, Job] = {}
        self._numbers = itertools.count()
        self._cancels = 0

    async def answer(self, seen: Seen, exchanged: Exchanged) -> None:
        fault, path = self._fault, seen.path
        if path == "/health":
            status = "failed" if fault == "model-failed" else "ok"
            await self._say(exchanged, 500 if fault == "no-health" else 200, {"status": status, "model": "m"})
        elif path == "/ready":
            await self._say(exchanged, 503 if fault == "never-ready" else 200, {"status": "ready"})
        elif path == "/v1/jobs" and seen.method == "GET":
            listed = [{"job_id": job.id, "state": job.state} for job in self._jobs.values()]
            await self._say(exchanged, 200, {"jobs": listed})
        elif seen.method == "POST":
            await self._submit(seen, exchanged)
        else:
            await self._one(seen, exchanged)

    async def _submit(self, seen: Seen, exchanged: Exchanged) -> None:
        fault, body = self._fault, json.loads(seen.body)
        if body["max_tokens"] == 0:
            fields = ["max_tokens"] if fault == "first-error-only" else ["max_tokens", "temperature"]
            message = body["prompt"] if fault == "repeats-the-prompt" else "Wrong."
            errors = [{"field": field, "constraint": "c", "message": message} for field in fields]
            await self._say(
                exchanged, 400, {"error": {"code": "INVALID_REQUEST", "message": "Wrong.", "errors": errors}}
            )
        elif fault == "no-jobs":
            await self._say(exchanged, 500, {"error": {"message": "broken"}})
        else:
            job = Job(f"job_{next(self._numbers)}", is_long=body["max_tokens"] > 1000)
            self._jobs[job.id] = job
            if fault == "late" and job.id == "job_0":
                await asyncio.sleep(1.05)
            if seen.path == "/v1/execute":
                try:
                    await self._stream(job, exchanged)
                finally:
                    if fault != "runs-on":
                        job.state = "cancelled"
            else:
                url = f"/v1/jobs/{job.id}/stream"
                await self._say(exchanged, 202, {"job_id": job.id, "stream_url": url, "position": 0})

    async def _one(self, seen: Seen, exchanged: Exchanged) -> None:
        fault = self._fault
        job_id, _, rest = seen.path.removeprefix("/v1/jobs/").partition("/")
        job = self._jobs.get(job_id)
        if job is None:
            await self._say(exchanged, 500 if fault == "unknown-is-500" else 404, {"error": {"message": "no job"}})
        elif rest == "stream":
            job.reads += 1
            if fault == "taken-once" and job.reads > 1:
                await self._say(exchanged, 404, {"error": {"message": "taken"}})
            else:
                await self._stream(job, exchanged)
        elif seen.method == "DELETE":
            if fault == "second-cancel-404" and job.cancelled.is_set():
                await self._say(exchanged, 404, {"error": {"message": "no job"}})
                return
            job.cancelled.set()
            self._cancels += 1
            if fault != "cancel-does-nothing" and not (fault == "leaks-jobs" and self._cancels > 4):
                job.state = "cancelled"
            await self._say(exchanged, 200, {"job_id": job.id, "state": job.state})
        else:
            await self._say(exchanged, 200, {"job_id": job.id, "state": job.state})

    async def _stream(self, job: Job, exchanged: Exchanged) -> None:
        fault = self._fault
        other = "job_x" if fault == "stream-of-another" or (fault == "mixes" and job.id == "job_5") else job.id
        await exchanged.begin(200, {"content-type": "text/event-stream"})
        if fault != "no-started":
            await self._event(exchanged, "started", job_id=other, model="m", started_at="now")
        told = {"stage": "slot", "done": None, "total": None, "human": "slot acquired"}
        await self._event(exchanged, "narration", job_id="job_x" if fault == "narration-of-another" else other, **told)
        if fault == "leaks-slots" and self._cancels > 4:
            await exchanged.end("hang")
        held = []
        for number, word in enumerate([] if fault == "no-tokens" else job.words):
            if job.cancelled.is_set() and fault != "cancel-does-nothing":
                break
            await asyncio.sleep(EVERY_S)
            if fault == "all-at-once" and job.id == "job_0":
                held.append((number, word))
                continue
            if fault == "twice" and number == 5:
                await self._event(exchanged, "token", t=job.words[4], i=4)
            await self._event(exchanged, "token", t=word, i=number)
            if number == 3:
                await self._stumble(exchanged, job)
        for number, word in held:
            await self._event(exchanged, "token", t=word, i=number)
        await self._end(exchanged, job)

    async def _stumble(self, exchanged: Exchanged, job: Job) -> None:
        if self._fault == "narration-after-token":
            told = {"stage": "prompt", "done": 1, "total": 2, "human": "prompt"}
            await self._event(exchanged, "narration", job_id=job.id, **told)
        if self._fault == "unreadable":
            await exchanged.write(b'data: {"type": "token"}\n\n')
        if self._fault == "hangs" and job.id == "job_0":
            await exchanged.end("hang")

    async def _end(self, exchanged: Exchanged, job: Job) -> None:
        fault, is_cancelled = self._fault, job.cancelled.is_set()
        if is_cancelled and fault != "cancel-looks-complete":
            await self._event(exchanged, "error", code="CANCELLED", message="It was cancelled.", retriable=False)
        else:
            job.state = "complete" if not is_cancelled else job.state
            for _ in range({"two-ends": 2, "no-end": 0}.get(fault or "", 1)):
                await self._event(exchanged, "end", **_ended(len(job.words)))
            if fault == "end-and-error":
                await self._event(exchanged, "error", code="TIMEOUT", message="It took long.", retriable=True)
        if fault != "no-done":
            await exchanged.write(b"data: [DONE]\n\n")
        if fault == "after-done":
            await self._event(exchanged, "metrics", tokens_per_sec=1.0, tokens_out=12)
        await exchanged.end("clean")

    @staticmethod
    async def _event(exchanged: Exchanged, kind: str, **fields: Any) -> None:
        await exchanged.write(b"data: " + json.dumps({"type": kind, **fields}).encode() + b"\n\n")

    @staticmethod
    async def _say(exchanged: Exchanged, status: int, body: Any) -> None:
        await exchanged.say(status, "application/json", json.dumps(body).encode())


def _ended(tokens: int) -> dict[str, Any]:
    took_ms = tokens * EVERY_S * 1e3
    return {
        "stop_reason": "EOS",
        "stop_sequence_matched": None,
        "tokens_out": tokens,
        "prompt_tokens": 3,
        "queued_ms": 0.0,
        "prompt_time_ms": 1.0,
        "decode_time_ms": took_ms,
        "total_time_ms": took_ms + 1.0,
    }
