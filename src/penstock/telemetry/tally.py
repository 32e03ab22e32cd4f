"""What one call comes to: counters and moments, folded from what passes, and the record made of them.

Sans-IO. It keeps no event of a reply but the rare ones that carry numbers. Every moment is a network read's own
(`Batch.at`, which must be the same clock as `Call.now`), so a slow consumer is not mistaken for a slow provider.

How a call ended; the first word is kept (C4):

    complete         `Finish` came, and the stream stopped or the caller left content with it
    truncated        `Truncated`
    timeout          `TimedOut`; the clock is in `error_type`. A client that read nothing for too long: `timeout_write`
    capped           `FrameTooLarge`, `ReplyTooLarge`, `TooLarge`
    upstream_error   any other error of ours; any error at all while the upstream was opened or read
    cancelled        a cancelled task, `Cancelled`, `EventStream.cancel()`, or a caller that left before `Finish`
"""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Any

from penstock.canon.errors import Cancelled, FrameTooLarge, PenstockError, ReplyTooLarge, TimedOut, TooLarge, Truncated
from penstock.canon.events import (
    BlockEnd,
    BlockStart,
    Delta,
    Finish,
    Reasoning,
    Start,
    Timings,
    ToolCall,
    UsageUpdate,
    is_content,
)
from penstock.canon.price import cost
from penstock.canon.response import Timing
from penstock.canon.usage import Usage
from penstock.dialects import DIALECTS, dialect
from penstock.dialects.base import Mark
from penstock.telemetry.gaps import Gaps
from penstock.telemetry.record import AttemptRecord, CallRecord

if TYPE_CHECKING:
    from collections.abc import Callable

    from penstock.canon.events import Event
    from penstock.canon.price import Price
    from penstock.canon.target import Target
    from penstock.streams.batch import Batch
    from penstock.streams.handler import Attempt, Call
    from penstock.streams.stream import EventStream
    from penstock.telemetry.record import Outcome, TimingsSource

#: Names come from clients and upstreams; a record keeps this much of one.
MAX_NAME_CHARS = 256

_PATHOLOGIES = {Mark.AFTER: "after_end", Mark.NAMELESS: "nameless_event"}

#: The largest number that every store and every JSON reader keeps whole. A count beyond it is no count.
_MAX_COUNT = 2**53 - 1


class Tally:
    """One call's. `see` costs a few attribute writes per batch."""

    __slots__ = (
        "_answered_in", "_call", "_chunks", "_concurrent", "_ended_at", "_error_status", "_error_type", "_finish",
        "_first_at",
        "_first_content_at", "_gaps", "_is_document", "_is_over", "_last_content_at", "_opened", "_outcome",
        "_pathologies", "_start", "_streamed_reasoning", "_timings", "_usage", "_was_terminated",
    )  # fmt: skip

    def __init__(self, call: Call, *, concurrent: int) -> None:
        self._call = call
        self._concurrent = concurrent
        self._opened: Target | None = None
        self._answered_in = ""
        self._is_document = False
        self._start: Start | None = None
        self._usage: Usage | None = None
        self._timings: Timings | None = None
        self._finish: Finish | None = None
        self._chunks = 0
        self._pathologies: frozenset[str] = frozenset()
        self._is_over = self._was_terminated = False
        self._streamed_reasoning = False
        self._first_at: float | None = None
        self._first_content_at: float | None = None
        self._last_content_at = 0.0
        self._gaps = Gaps()
        self._outcome: Outcome | None = None
        self._error_type: str | None = None
        self._error_status: int | None = None
        self._ended_at = 0.0

    # --- what passes ---

    def opened(self, stream: EventStream) -> None:
        # Not the stream itself, which holds the stage that holds this: no call may leave a cycle behind.
        self._opened = stream.target
        self._answered_in = stream.dialect
        self._is_document = stream.is_document

    def see(self, batch: Batch) -> None:
        content = False
        for event in batch.events:
            if type(event) is Delta:
                if event.text:
                    self._chunks += 1
                    content = True
            elif self._note(event):
                content = True
        if batch.marks:
            self._marked(batch.marks)
        if batch.is_last:
            self._is_over = True
        at = batch.at
        if content:
            if self._first_content_at is None:
                self._first_content_at = at
            else:
                self._gaps.add(at - self._last_content_at)
            self._last_content_at = at
        if self._first_at is None:
            self._first_at = at

    def _note(self, event: Event) -> bool:
        """Everything but deltas: a handful per reply. Whether it is content: an opener that says something does."""
        if isinstance(event, BlockStart):
            return is_content(event)
        if isinstance(event, BlockEnd):
            part = event.part
            if type(part) is Reasoning and part.text:
                self._streamed_reasoning = True
            elif type(part) is ToolCall and part.error is not None:
                self._pathologies |= {"bad_arguments"}
        elif isinstance(event, UsageUpdate):
            self._usage = event.usage
        elif isinstance(event, Timings):
            self._timings = event
        elif isinstance(event, Start):
            self._start = event
        elif isinstance(event, Finish):
            self._finish = event
            self._usage = event.usage or self._usage
        return False

    def _marked(self, marks: list[tuple[int, Mark]]) -> None:
        for _, mark in marks:
            if mark is Mark.TERMINATOR:
                self._was_terminated = True
            elif mark in _PATHOLOGIES:
                self._pathologies |= {_PATHOLOGIES[mark]}

    # --- how it ended: the first word is kept ---

    def ended(self) -> None:
        """The stream stopped. Without `Finish` only `EventStream.cancel()` makes it stop in silence."""
        if self._finish is not None:
            self._end("complete", None)
        else:
            self._end("cancelled", "cancelled")

    def failed(self, error: BaseException) -> None:
        """Raised while the upstream was opened or read: theirs, or ours on the way to them."""
        self._fail(error, foreign="upstream_error")

    def caller_left(self, error: BaseException | None) -> None:
        """The caller's own block ended. A foreign error there is the caller's: it stopped a call that was well."""
        if error is None:
            self.ended()
        else:
            self._fail(error, foreign="cancelled")

    def _fail(self, error: BaseException, *, foreign: Outcome) -> None:
        if self._outcome is None and isinstance(error, PenstockError):
            self._error_status = error.status
        self._end(*_ending(error, foreign))

    def _end(self, outcome: Outcome, error_type: str | None) -> None:
        if self._outcome is None:
            if error_type == "cancelled" and self._call.stopped is not None:
                error_type, self._error_status = self._call.stopped.kind, self._call.stopped.status
            if error_type == "cancelled" and self._call.sent.is_cut:
                outcome, error_type = "timeout", "timeout_write"
            self._outcome = outcome
            self._error_type = error_type
            self._ended_at = self._call.now()

    # --- the record ---

    @property
    def call(self) -> Call:
        return self._call

    @property
    def gaps(self) -> Gaps:
        """Between the reads that brought content."""
        return self._gaps

    @property
    def target(self) -> Target | None:
        return self._opened or self._call.target

    def cost(self, price: Callable[[Target, str], Price | None]) -> float | None:
        """By the price of the model that answered, else of the one that was asked for; None where it is not known."""
        usage, target = self._usage, self.target
        if usage is None or usage.cost is not None or target is None:
            return None
        metadata = self._finish.metadata if self._finish else {}
        answered = (self._start.model if self._start is not None else None) or metadata.get("model")
        for model in (answered, target.model or self._call.model):
            if isinstance(model, str) and (found := price(target, model)) is not None:
                return cost(usage, found)
        return None

    def timing(self) -> Timing:
        """At any moment; `duration_ms` is None until it has ended."""
        p50, p95, longest = self._gaps.summary_ms()
        stalls, stalled_ms = self._gaps.stalls()
        prompt_tps, generation_tps, timings_source = self._rates(self._reported())
        return Timing(
            ttfb_ms=self._since_began_ms(self._first_at),
            ttft_ms=self._since_began_ms(self._first_content_at),
            duration_ms=self._duration_ms(),
            itl_p50_ms=p50,
            itl_p95_ms=p95,
            itl_max_ms=longest,
            stalls=stalls,
            stalled_ms=stalled_ms,
            prompt_tps=prompt_tps,
            generation_tps=generation_tps,
            timings_source=timings_source,
        )

    def record(self, context_total: int | None = None, computed_cost: float | None = None) -> CallRecord:
        self.ended()  # does nothing but when a layer below swallowed what ended the call
        call, finish, target = self._call, self._finish, self.target
        assert self._outcome is not None
        usage = self._reported()
        p50, p95, longest = self._gaps.summary_ms()
        prompt_tps, generation_tps, timings_source = self._rates(usage)
        used = None if usage.input is None or usage.output is None else usage.input + usage.output
        context_total = _count(context_total) or None
        start, trace = self._start or _NOTHING_SAID, call.trace
        model = start.model or (finish.metadata.get("model") if finish is not None else None)
        return CallRecord(
            request_id=_name(call.request_id) or "",
            time=call.began_unix,
            dialect_in=call.dialect.name if call.dialect is not None else None,
            dialect_out=target.dialect if target is not None else None,
            route=_name(call.route),
            model_requested=_name(call.model) or "",
            model=_name(model),
            target=_name(self._target_name()),
            provider=_name(start.provider),
            stream=call.stream,
            synthetic=call.stream and self._is_document,
            attempts=len(call.attempts),
            attempted=tuple([_attempted(attempt) for attempt in call.attempts]),
            recovered=call.recovered,
            pathologies=self._named_pathologies(),
            outcome=self._outcome,
            finish_reason=finish.reason if finish else None,
            error_type=self._error_type,
            http_status=self._http_status(),
            prompt_tokens=usage.input,
            completion_tokens=usage.output,
            cached_tokens=usage.input_cached,
            reasoning_tokens=usage.output_reasoning,
            usage_source="reported" if usage != _NOTHING_REPORTED else None,
            ttfb_ms=self._since_began_ms(self._first_at),
            ttft_ms=self._since_began_ms(self._first_content_at),
            duration_ms=self._duration_ms(),
            itl_p50_ms=p50,
            itl_p95_ms=p95,
            itl_max_ms=longest,
            prompt_tps=prompt_tps,
            generation_tps=generation_tps,
            timings_source=timings_source,
            context_used=used,
            context_total=context_total,
            context_percent=100.0 * used / context_total if used is not None and context_total else None,
            chunks=self._chunks,
            bytes_out=call.sent.bytes_out,
            heartbeats=call.sent.heartbeats,
            bytes_after_disconnect=call.sent.bytes_after_disconnect,
            key_name=_name(call.key.name) if call.key is not None else None,
            cost=_finite(
                self._usage.cost if self._usage is not None and self._usage.cost is not None else computed_cost
            ),
            concurrent=self._concurrent,
            queued_ms=call.queued_s * 1e3 or None,
            trace_id=trace.trace_id if trace is not None else None,
            span_id=trace.span_id if trace is not None else None,
            parent_span_id=trace.parent_id if trace is not None else None,
            sampled=trace is not None and trace.is_sampled,
        )

    def _named_pathologies(self) -> tuple[str, ...]:
        """Without marks, as after a recovery, nobody knows whether the last word came."""
        if (
            not self._was_terminated
            and self._is_over
            and self._outcome == "complete"
            and not self._is_document
            and self._call.recovered is None
            and _has_terminator(self._answered_in)
        ):
            self._pathologies |= {"no_terminator"}
        return tuple(sorted(self._pathologies)) if self._pathologies else ()

    def _duration_ms(self) -> float | None:
        return None if self._outcome is None else (self._ended_at - self._call.began) * 1e3

    def _since_began_ms(self, at: float | None) -> float | None:
        return None if at is None else (at - self._call.began) * 1e3

    def _http_status(self) -> int | None:
        """What was sent, or, while nothing is, what a server answers this error with once it has left this layer."""
        call = self._call
        if call.http_status is None and call.dialect is not None:
            return self._error_status
        return call.http_status

    def _target_name(self) -> str | None:
        """The stream's; before there was one, or after it was taken up, the last attempt's."""
        call = self._call
        if (self._opened is None or call.recovered is not None) and call.attempts:
            return call.attempts[-1].target
        return str(self.target) if self.target is not None else None

    def _reported(self) -> Usage:
        """The counts that somebody reported: usage first; where it is silent, the server's timings."""
        usage, timings = self._usage or _NOTHING_REPORTED, self._timings
        prompt, cached = _count(usage.input), _count(usage.input_cached)
        completion, reasoning = _count(usage.output), _count(usage.output_reasoning)
        if timings is not None:
            evaluated, from_cache = _count(timings.prompt_tokens), _count(timings.cached_tokens)
            if prompt is None and evaluated is not None:
                # Timings count the tokens that were evaluated; those from the cache come on top (llama.cpp).
                prompt = evaluated + (from_cache or 0)
            cached = _first_known(cached, from_cache)
            completion = _first_known(completion, _count(timings.predicted_tokens))
        return Usage(input=prompt, input_cached=cached, output=completion, output_reasoning=reasoning)

    def _rates(self, usage: Usage) -> tuple[float | None, float | None, TimingsSource | None]:
        """(prompt, generation, whose clock). The server's where it has one; else what the reads themselves show."""
        timings = self._timings
        if timings is not None:
            prompt = _per_second(timings.prompt_per_second, timings.prompt_tokens, timings.prompt_ms)
            generation = _per_second(timings.predicted_per_second, timings.predicted_tokens, timings.predicted_ms)
            if prompt is not None or generation is not None:
                return prompt, generation, "server"
        tokens = usage.output
        if tokens is None or self._first_content_at is None or self._is_document:
            return None, None, None
        if not self._streamed_reasoning:
            tokens -= usage.output_reasoning or 0  # thought before the first word, in time that nobody saw
        elapsed = self._last_content_at - self._first_content_at
        if elapsed <= 0 or tokens < 2:
            return None, None, None
        return None, (tokens - 1) / elapsed, "client"


_NOTHING_REPORTED = Usage()
_NOTHING_SAID = Start()


@cache
def _has_terminator(name: str) -> bool:
    return name in DIALECTS and bool(getattr(dialect(name), "terminator", None))


def _attempted(attempt: Attempt) -> AttemptRecord:
    took_ms = None if attempt.error is None or attempt.took_s is None else attempt.took_s * 1e3
    return AttemptRecord(
        target=_name(attempt.target) or "",
        status=attempt.status,
        cause=_name(attempt.error),
        wasted_ms=took_ms,
        wasted_tokens=_count(attempt.tokens),
    )


def _ending(error: BaseException, foreign: Outcome) -> tuple[Outcome, str]:
    if isinstance(error, TimedOut):
        return "timeout", error.error_type
    if isinstance(error, Truncated):
        return "truncated", error.error_type
    if isinstance(error, FrameTooLarge | ReplyTooLarge | TooLarge):
        return "capped", error.error_type
    if isinstance(error, Cancelled) or not isinstance(error, Exception):  # CancelledError, GeneratorExit, Ctrl-C
        return "cancelled", "cancelled"
    if isinstance(error, PenstockError):
        return "upstream_error", error.error_type
    return foreign, type(error).__name__


def _first_known(value: int | None, otherwise: int | None) -> int | None:
    return otherwise if value is None else value


def _count(value: int | None) -> int | None:
    return value if value is not None and isinstance(value, int) and 0 <= value <= _MAX_COUNT else None


def _finite(value: float | None) -> float | None:
    try:
        return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
    except OverflowError:  # a whole number of more than 308 digits
        return None


def _per_second(reported: float | None, tokens: int | None, ms: float | None) -> float | None:
    tokens, ms = _count(tokens), _finite(ms)
    if reported is None and tokens is not None and ms:
        reported = 1e3 * tokens / ms  # Ollama gives counts and durations
    reported = _finite(reported)
    return reported if reported is not None and reported >= 0 else None


def _name(text: Any) -> str | None:
    """A name that every store can keep: text, bounded, and without lone surrogates, which are no UTF-8."""
    if not isinstance(text, str):
        return None
    if text.isascii() and len(text) <= MAX_NAME_CHARS:
        return text
    return text[:MAX_NAME_CHARS].encode(errors="replace").decode()
