"""`POST /v1/execute`: one prompt in, a stream of the worker's own events out.

    started                                        at once
    narration { stage, done, total, human }        what happens before the first token; dropped before it delays one
    token { t, i, kind? }                          each piece as the engine made it
    metrics { tokens_per_sec, tokens_out }         each second while there are tokens, and once before `end`
    end { stop_reason, stop_sequence_matched, … }  exactly one of `end` and `error`
    error { code, message, retriable }
    [DONE]                                         then, always, the stream's last frame

Every event is a `data:` frame with its `type`. Narration belongs to its own job and stops with it.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from penstock.canon.errors import (
    Cancelled,
    ContextTooLong,
    InvalidRequest,
    PenstockError,
    RequestError,
    StatusError,
    TimedOut,
)
from penstock.canon.events import BlockStart, Delta, Finish, Progress, Timings
from penstock.canon.usage import Usage
from penstock.dialects import client_dialect
from penstock.dialects.base import decode_body
from penstock.framing.sse import write_event
from penstock.serving.asgi import ClientGone, read_body, refuse, request_id_of
from penstock.serving.connection import connection_of
from penstock.serving.downstream import Downstream
from penstock.serving.route import unless_gone
from penstock.serving.running import reason_of
from penstock.streams.handler import Call

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from penstock.canon.events import Event
    from penstock.serving.asgi import Receive, Route, Scope, Send
    from penstock.streams.handler import Handler

METRICS_EVERY_S = 1.0
DONE = b"data: [DONE]\n\n"
_CHAT = "openai-chat"

_STOP_REASONS = {"length": "MAX_TOKENS", "context_full": "MAX_TOKENS", "tool_calls": "TOOL_CALLS"}
#: llama.cpp's own word for why it stopped, when it is asked to be verbose
_STOP_TYPES = {"eos": "EOS", "limit": "MAX_TOKENS", "word": "STOP_SEQUENCE"}


class ExecuteRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Either `prompt` or `messages` (in the OpenAI chat form)."""

    prompt: str | None = None
    messages: list[msgspec.Raw] | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: str | list[str] | None = None
    seed: int | None = None


_decode = msgspec.json.Decoder(ExecuteRequest)


def chat_body(body: bytes, model: str) -> bytes:
    """The engine's request for an execute request. Raises `InvalidRequest` with the field's path."""
    given = decode_body(_decode, body)
    if (given.prompt is None) == (given.messages is None):
        raise InvalidRequest("Send either `prompt` or `messages`.", param="prompt")
    for name, low in (("max_tokens", 1), ("top_k", 0), ("temperature", 0), ("top_p", 0)):
        value = getattr(given, name)
        if value is not None and value < low:
            raise InvalidRequest(f"`{name}` must be at least {low}.", param=name)
    messages: list[Any] = [{"role": "user", "content": given.prompt}] if given.messages is None else [*given.messages]
    sampling = {
        key: value
        for key in ("max_tokens", "temperature", "top_p", "top_k", "stop", "seed")
        if (value := getattr(given, key)) is not None
    }
    # `verbose` makes llama.cpp say which stop string matched.
    asked = {"model": model, "messages": messages, "stream": True, "return_progress": True, "verbose": True}
    return msgspec.json.encode({**asked, **sampling})


def execute_route(model: str, handler: Handler, *, max_body_bytes: int, heartbeat_s: float | None) -> Route:
    chat = client_dialect(_CHAT)

    async def route(scope: Scope, receive: Receive, send: Send) -> None:
        request_id = request_id_of(scope)
        try:
            body = chat_body(await read_body(scope, receive, max_body_bytes), model)
            head = chat.read_head(body)
        except ClientGone:
            return
        except RequestError as error:
            await refuse(send, error, chat, request_id)
            return
        call = Call(
            request_id=request_id, model=model, stream=True, dialect=chat, head=head, body=body, route=scope["path"]
        )
        await unless_gone(call, _execute(call, handler, scope, send, heartbeat_s), scope, receive)

    return route


async def _execute(call: Call, handler: Handler, scope: Scope, send: Send, heartbeat_s: float | None) -> None:
    down = Downstream(
        send,
        call,
        content_type="text/event-stream",
        heartbeat=client_dialect(_CHAT).heartbeat,
        heartbeat_s=heartbeat_s,
        connection=connection_of(scope),
    )
    events = ExecuteEvents(call.request_id, call.now)
    call.narrate = lambda progress: down.aside(events.narration(progress))
    try:
        await down.write(events.started(call.model, call.began_unix))
        try:
            async with handler(call) as stream:
                async for batch in stream:
                    data = events.encode(batch.events)
                    if data and not down.write_now(data, batch.at):
                        await down.write(data)
                if not stream.is_complete:
                    raise Cancelled("The job was cancelled.")
                await down.end(events.end() + DONE)
        except (PenstockError, asyncio.CancelledError) as raised:
            await down.end(events.error(reason_of(call, raised)) + DONE)
    finally:
        down.stop()


class ExecuteEvents:
    """Canonical events of one job → its frames."""

    def __init__(self, job_id: str, now: Callable[[], float]) -> None:
        self._job_id = job_id
        self._now = now
        self._kinds: dict[int, str] = {}
        self._tokens = 0
        self._first_at: float | None = None
        self._told_at = 0.0
        self._timings = Timings()
        self._finish: Finish | None = None

    def started(self, model: str, at_unix: float) -> bytes:
        at = datetime.fromtimestamp(at_unix, UTC).isoformat(timespec="milliseconds")
        return _frame("started", job_id=self._job_id, model=model, started_at=at)

    def narration(self, progress: Progress) -> bytes:
        human = progress.message or progress.stage
        if progress.done is not None and progress.total is not None:
            human = f"{progress.stage} {progress.done:,} of {progress.total:,}"
        return _frame(
            "narration",
            job_id=self._job_id,
            stage=progress.stage,
            done=progress.done,
            total=progress.total,
            human=human,
        )

    def encode(self, events: Iterable[Event]) -> bytes:
        """One batch's frames: its tokens, or, while there is none, the last thing that it narrates."""
        out: list[bytes] = []
        progress: Progress | None = None
        for event in events:
            if type(event) is Delta:
                self._token(event, out)
            elif isinstance(event, BlockStart):
                self._kinds[event.i] = event.kind
            elif isinstance(event, Progress):
                progress = event
            elif isinstance(event, Timings):
                self._timings = event
            elif isinstance(event, Finish):
                self._finish = event
        if progress is not None and self._tokens == 0:
            out.append(self.narration(progress))
        return b"".join(out)

    def _token(self, delta: Delta, out: list[bytes]) -> None:
        now = self._now()
        if self._first_at is None:
            self._first_at = self._told_at = now
        kind = self._kinds.get(delta.i, "text")
        extra = {} if kind == "text" else {"kind": kind}
        out.append(_frame("token", t=delta.text, i=self._tokens, **extra))
        self._tokens += 1
        if now - self._told_at >= METRICS_EVERY_S:
            self._told_at = now
            out.append(self._metrics(now))

    def _metrics(self, now: float) -> bytes:
        rate = self._timings.predicted_per_second
        if rate is None and self._first_at is not None and self._tokens > 1 and now > self._first_at:
            rate = (self._tokens - 1) / (now - self._first_at)
        return _frame("metrics", tokens_per_sec=rate, tokens_out=self._tokens)

    def end(self) -> bytes:
        finish, timings = self._finish, self._timings
        assert finish is not None, "a complete stream has a Finish"
        usage = finish.usage or Usage()
        stop_type, word = finish.metadata.get("stop_type"), finish.metadata.get("stop_sequence")
        reason = _STOP_REASONS.get(finish.reason) or _STOP_TYPES.get(str(stop_type), "EOS")
        return self._metrics(self._now()) + _frame(
            "end",
            tokens_out=usage.output if usage.output is not None else self._tokens,
            prompt_tokens=usage.input,
            decode_time_ms=timings.predicted_ms,
            prompt_time_ms=timings.prompt_ms,
            stop_reason=reason,
            stop_sequence_matched=word,
        )

    def error(self, error: PenstockError) -> bytes:
        return _frame("error", code=_error_code(error), message=str(error), retriable=error.retryable)


def _error_code(error: PenstockError) -> str:
    if isinstance(error, Cancelled):
        return "CANCELLED"
    if isinstance(error, TimedOut):
        return "TIMEOUT"
    if isinstance(error, ContextTooLong):
        return "CONTEXT_TOO_LONG"
    if isinstance(error, RequestError) or (isinstance(error, StatusError) and error.status == 400):
        return "INVALID_REQUEST"
    return "INFERENCE_FAILED"


def _frame(type_: str, **fields: Any) -> bytes:
    return write_event(msgspec.json.encode({"type": type_, **fields}))
