"""One job: a call of its own task, the log of what it has said, and the readers of that log.

The log holds `started`, the tokens and the ending, as the bytes of the stream; who joins late reads it from its
beginning. Narration and metrics are no history: they go to the readers that keep up, and are dropped before one has to
wait for them. A reader that keeps up is written to in the turn of the loop that brought the token; one that does not
catches up from the log, and holds up nobody else. The job ends once, however it ends.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from penstock.canon.errors import Cancelled, PenstockError, ReplyTooLarge
from penstock.canon.events import BlockStart, Delta, Finish, Progress, Timings
from penstock.canon.usage import Usage
from penstock.serving.running import reason_of
from penstock.worker.events import DONE, End, Failure, Metrics, Started, Token, frame, moment, narration
from penstock.worker.narration import SLOT, Narration
from penstock.worker.refusal import failure

if TYPE_CHECKING:
    from collections.abc import Callable

    from penstock.streams.batch import Batch
    from penstock.streams.handler import Call, Handler
    from penstock.worker.events import StopReason
    from penstock.worker.reader import Reader

METRICS_EVERY_S = 1.0
#: what one job may say in all: a third of a million tokens
MAX_LOG_BYTES = 32 * 1024 * 1024

State = Literal["queued", "running", "complete", "failed", "cancelled"]

_STOP_REASONS: dict[str, StopReason] = {
    "length": "MAX_TOKENS",
    "context_full": "MAX_TOKENS",
    "tool_calls": "TOOL_CALLS",
}
#: llama.cpp's own word for why it stopped, when it is asked to be verbose
_STOP_TYPES: dict[str, StopReason] = {"eos": "EOS", "limit": "MAX_TOKENS", "word": "STOP_SEQUENCE"}

_log = logging.getLogger(__name__)


class JobInfo(Struct, frozen=True):
    """What is told of a job. `position`: its place in line, 0 when it is in none. Moments are ISO 8601 in UTC."""

    job_id: str
    state: State
    position: int
    model: str
    request_id: str
    stream_url: str
    created_at: str
    ended_at: str | None
    expires_at: str | None
    tokens_out: int
    prompt_tokens: int | None
    stop_reason: str | None
    error: Failure | None


class Job:
    """It runs from the moment it is made. `is_bound`: it lives as long as somebody reads it.

    `ended` is called once, when it is over.
    """

    def __init__(
        self, job_id: str, call: Call, handler: Handler, ended: Callable[[Job], None], *, is_bound: bool
    ) -> None:
        self.id = job_id
        self.model = call.model
        self.request_id = call.request_id
        self.created_unix = call.began_unix
        self.ended_unix: float | None = None
        self.expires_unix: float | None = None
        #: it has a slot, or a place in line, or is over
        self.placed = asyncio.Event()
        self.over = asyncio.Event()
        #: what ended it before anybody was told of it, and before its first token
        self.refused: PenstockError | None = None
        self.log: bytes | bytearray = bytearray(frame(Started(job_id, call.model, moment(call.began_unix))))
        self.tokens = 0
        self.last_narration: bytes | None = None
        self._ending: End | Failure | None = None
        self._state: State = "queued"
        self._is_bound = is_bound
        self._is_announced = False
        self._ended = ended
        self._readers: list[Reader] = []
        self._heartbeats = 0  # written to those that have left
        self._kinds: dict[int, str] = {}
        self._first_at: float | None = None
        self._timings = Timings()
        self._finish: Finish | None = None
        self._ticking: asyncio.TimerHandle | None = None
        self._narration = Narration(self._tell)
        self._call: Call | None = call
        call.narrate = self._narrate
        self.task = asyncio.get_running_loop().create_task(self._run(call, handler))
        self.task.add_done_callback(self._has_run)

    def __repr__(self) -> str:
        return f"<Job {self.id} {self.state}, {self.tokens} tokens, {len(self._readers)} readers>"

    # --- what is asked of it ------------------------------------------------------------------------------------------

    @property
    def is_over(self) -> bool:
        return self._ending is not None

    @property
    def state(self) -> State:
        return self._state

    @property
    def position(self) -> int:
        call = self._call
        return (call.waits_for().done or 0) if call is not None and call.waits_for is not None else 0

    @property
    def info(self) -> JobInfo:
        ending = self._ending
        return JobInfo(
            self.id,
            self._state,
            self.position,
            self.model,
            self.request_id,
            stream_url(self.id),
            moment(self.created_unix),
            moment(self.ended_unix) if self.ended_unix is not None else None,
            moment(self.expires_unix) if self.expires_unix is not None else None,
            ending.tokens_out if isinstance(ending, End) else self.tokens,
            ending.prompt_tokens if isinstance(ending, End) else None,
            ending.stop_reason if isinstance(ending, End) else None,
            ending if isinstance(ending, Failure) else None,
        )

    def announce(self) -> None:
        """From here on somebody knows of it, and its failures are told in its stream."""
        self._is_announced = True
        if self._call is not None:
            self._call.http_status = 200 if self._is_bound else 202

    def cancel(self, why: str = "The job was cancelled.") -> None:
        """Any number of times, at any moment; a job that is over stays as it ended."""
        call = self._call
        if call is not None and call.stopped is None and not call.sent.is_whole:
            call.stopped = Cancelled(why)
            self.task.cancel()

    def join(self, reader: Reader) -> None:
        self._readers.append(reader)

    def leave(self, reader: Reader) -> None:
        self._readers.remove(reader)
        self._heartbeats += reader.heartbeats
        if self._is_bound and not self._readers:
            self.cancel("Its client left.")

    # --- its task -----------------------------------------------------------------------------------------------------

    async def _run(self, call: Call, handler: Handler) -> None:
        end: tuple[End, bytes] | None = None
        try:
            async with handler(call) as stream:
                try:
                    async for batch in stream:
                        self._take(batch)
                finally:
                    call.sent.heartbeats = self._heartbeats + sum(reader.heartbeats for reader in self._readers)
                if not stream.is_complete:
                    raise Cancelled("The job was cancelled.")
                ending = self._end(call)
                end = ending, frame(self._metrics()) + frame(ending) + DONE
                call.sent.bytes_out = len(self.log) + len(end[1])
                call.sent.is_whole = True
            self._close(*end)  # the slot is free when its client reads of it
        except (PenstockError, asyncio.CancelledError) as raised:
            if end is not None:  # it was whole: what came after that takes nothing of it away
                self._close(*end)
            else:
                self._fail(reason_of(call, raised))
        except Exception:
            _log.exception("A job failed in the worker itself.")
            self._fail(PenstockError("The worker failed."))

    def _has_run(self, task: asyncio.Task[None]) -> None:
        """Whatever else ended the task, even before it began: nobody waits for this job any longer."""
        if not self.is_over:
            self._fail(Cancelled("The job was cancelled."))
        if not task.cancelled():
            task.exception()

    def _take(self, batch: Batch) -> None:
        """What one read brought, to the log and to whoever keeps up with it."""
        out = b""
        progress: Progress | None = None
        for event in batch.events:
            if type(event) is Delta:
                kind = self._kinds.get(event.i)
                out += frame(Token(event.text, self.tokens, kind))
                self.tokens += 1
            elif isinstance(event, BlockStart):
                if event.kind != "text":
                    self._kinds[event.i] = event.kind
            elif isinstance(event, Progress):
                progress = event
            elif isinstance(event, Timings):
                self._timings = event
            elif isinstance(event, Finish):
                self._finish = event
        if not out:
            if progress is not None:
                self._narration.say(progress)
            return
        if self._first_at is None:
            self._begin(batch.at)
        self.log += out
        if self._call is not None:
            self._call.sent.bytes_out = len(self.log)
        for reader in self._readers:
            reader.grown(out, batch.at)
        if len(self.log) > MAX_LOG_BYTES:
            raise ReplyTooLarge(f"The job said more than {MAX_LOG_BYTES} bytes.", fix="Set max_tokens.")

    def _begin(self, at: float) -> None:
        """The first token: from here on there are metrics, and no narration."""
        self._first_at = at
        self._narration.stop()
        self.last_narration = None
        self._ticking = asyncio.get_running_loop().call_later(METRICS_EVERY_S, self._tick)

    def _tick(self) -> None:
        self._ticking = asyncio.get_running_loop().call_later(METRICS_EVERY_S, self._tick)
        said = frame(self._metrics())
        for reader in self._readers:
            reader.aside(said)

    def _metrics(self) -> Metrics:
        rate, call = self._timings.predicted_per_second, self._call
        if rate is None and self._first_at is not None and call is not None:
            since_s = call.now() - self._first_at
            rate = (self.tokens - 1) / since_s if self.tokens > 1 and since_s > 0 else None
        return Metrics(rate, self.tokens)

    # --- narration ----------------------------------------------------------------------------------------------------

    def _narrate(self, progress: Progress) -> None:
        """What the layers of the call, and the engine, say on the way."""
        if progress is SLOT and not self.is_over:
            self._state = "running"
        self.placed.set()
        self._narration.say(progress)

    def _tell(self, progress: Progress) -> None:
        self.last_narration = said = frame(narration(self.id, progress))
        for reader in self._readers:
            reader.narrated(said)

    # --- its ending ---------------------------------------------------------------------------------------------------

    def _end(self, call: Call) -> End:
        finish, timings = self._finish, self._timings
        assert finish is not None, "a complete stream has a Finish"
        usage = finish.usage or Usage()
        stop_type, word = finish.metadata.get("stop_type"), finish.metadata.get("stop_sequence")
        return End(
            stop_reason=_STOP_REASONS.get(finish.reason) or _STOP_TYPES.get(str(stop_type), "EOS"),
            stop_sequence_matched=word,
            tokens_out=usage.output if usage.output is not None else self.tokens,
            prompt_tokens=usage.input,
            queued_ms=call.queued_s * 1e3,
            prompt_time_ms=timings.prompt_ms,
            decode_time_ms=timings.predicted_ms,
            total_time_ms=(call.now() - call.began) * 1e3,
        )

    def _fail(self, error: PenstockError) -> None:
        if not self._is_announced and not self.tokens:
            self.refused = error
        ending = failure(error)
        self._close(ending, frame(ending) + DONE)

    def _close(self, ending: End | Failure, last: bytes) -> None:
        if self._ending is not None:
            return
        self._ending = ending
        is_cancelled = isinstance(ending, Failure) and ending.code == "CANCELLED"
        self._state = "complete" if isinstance(ending, End) else "cancelled" if is_cancelled else "failed"
        self._narration.stop()
        self.last_narration = None
        if self._ticking is not None:
            self._ticking.cancel()
        self.log = bytes(self.log + last)
        call, self._call = self._call, None  # the prompt goes with it
        if call is not None:
            call.narrate = None
        self._ended(self)
        self.placed.set()
        self.over.set()
        for reader in self._readers:
            reader.wake()


def stream_url(job_id: str) -> str:
    return f"/v1/jobs/{job_id}/stream"
