"""The worker's own events: what a job's stream says, and how it is written.

    started     at once, once
    narration   what happens before the first token; dropped before it delays one
    token       each piece as the engine made it, numbered from 0
    metrics     each second from the first token on, and once before `end`
    end | error exactly one of the two
    [DONE]      then, always, the stream's last frame

Every event is a `data:` frame with its `type`. Pure: values in, bytes out.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

import msgspec
from msgspec import Struct

from penstock.framing.sse import write_event

if TYPE_CHECKING:
    from penstock.canon.events import Progress

DONE = b"data: [DONE]\n\n"

StopReason = Literal["EOS", "MAX_TOKENS", "STOP_SEQUENCE", "TOOL_CALLS"]


class Started(Struct, frozen=True, tag="started"):
    """`started_at` is when the job was made, ISO 8601 in UTC."""

    job_id: str
    model: str
    started_at: str


class Narration(Struct, frozen=True, tag="narration"):
    """`done` of `total` in the unit of its `stage`, where known: places in line, tokens of a prompt, bytes."""

    job_id: str
    stage: str
    done: int | None
    total: int | None
    human: str


class Token(Struct, frozen=True, gc=False, omit_defaults=True, tag="token"):
    """`kind` only where it is no text: `reasoning`, `tool_call`, `refusal`."""

    t: str
    i: int
    kind: str | None = None


class Metrics(Struct, frozen=True, tag="metrics"):
    """`tokens_per_sec` is null while nobody can know it."""

    tokens_per_sec: float | None
    tokens_out: int


class End(Struct, frozen=True, tag="end"):
    """The job ended by itself. What nobody reported is null.

    `stop_sequence_matched` is the stop string that ended it. Times are in milliseconds: `queued_ms` in line for a slot,
    `prompt_time_ms` and `decode_time_ms` by the engine's clock, `total_time_ms` since the job was made.
    """

    stop_reason: StopReason
    stop_sequence_matched: str | None
    tokens_out: int
    prompt_tokens: int | None
    queued_ms: float
    prompt_time_ms: float | None
    decode_time_ms: float | None
    total_time_ms: float


class Failure(Struct, frozen=True, tag="error"):
    """The job did not end by itself. `retriable`: the same job may do better."""

    code: str
    message: str
    retriable: bool


WorkerEvent = Started | Narration | Token | Metrics | End | Failure

_encode = msgspec.json.Encoder().encode


def frame(event: WorkerEvent) -> bytes:
    """The event as it stands in the stream."""
    return write_event(_encode(event))


def narration(job_id: str, progress: Progress) -> Narration:
    """What a person reads of it is the count where there is one, else the source's own words."""
    human = progress.message or progress.stage
    if progress.done is not None and progress.total is not None:
        human = f"{progress.stage} {progress.done:,} of {progress.total:,}"
    return Narration(job_id, progress.stage, progress.done, progress.total, human)


def moment(at_unix: float) -> str:
    return datetime.fromtimestamp(at_unix, UTC).isoformat(timespec="milliseconds")
