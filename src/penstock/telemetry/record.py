"""The record: one row per call, whatever its ending (C6), and its one-line form.

A value with no behaviour. A number is None when nobody reported it and could not be measured; it is never 0 for that,
and never a guess. Rows hold no prompt, no reply and no key: only `key_name`, which its owner chose.
"""

from __future__ import annotations

import math
import re
from typing import Literal, get_args

from msgspec import Struct

Outcome = Literal["complete", "truncated", "upstream_error", "timeout", "cancelled", "capped"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
TimingsSource = Literal["server", "client"]

#: What an upstream may do that its dialect does not allow and that we make good.
PATHOLOGIES = {
    "after_end": "something came after the reply's end; it was dropped",
    "bad_arguments": "a tool call's arguments are no JSON object",
    "nameless_event": "an event without its name, in a dialect whose clients go by names; it was given it",
    "no_terminator": "the dialect's last word did not come, though the reply was whole",
}

#: A model's name in a log line; the record itself keeps more of it.
MAX_WORD_CHARS = 80


class AttemptRecord(Struct, frozen=True, kw_only=True):
    """One execution upstream: whom, how it answered (`status`, None without one), and `cause`: why it was not the last
    word, None for the attempt that gave the reply. What an attempt with a cause took, in `wasted_ms` and, where the
    upstream reported it, in `wasted_tokens`, was in vain."""

    target: str
    status: int | None = None
    cause: str | None = None
    wasted_ms: float | None = None
    wasted_tokens: int | None = None


class CallRecord(Struct, frozen=True, kw_only=True):
    """Fields, their units and where they come from.

    - `request_id`; `time`: when the call began, unix seconds.
    - `dialect_in`: the client's, None for a call of the library; `dialect_out`: the target's, None without one;
      `route`: the path the client called; `embed` for the library's embeddings.
    - `model_requested`: as the client named it; `model`: the one that says it answered; `target`: upstream and model of
      the last attempt; `provider`: as the decoder names it.
    - `stream`: the client asked for one; `synthetic`: it did, and the upstream gave a document; `attempts`: executions
      upstream, 0 when none was made; `attempted`: each of them, in order; `recovered`: how the reply was taken up after
      it had broken in the middle (`restart`, `continue`), else None; `pathologies`: in which ways (`PATHOLOGIES`) the
      upstream kept not to its dialect, each once.
    - `outcome`: how it ended (C4); `finish_reason`: ours, None unless the provider finished; `error_type`: None when
      complete, else one stable word (`timeout_idle`, `rate_limited`; the class's name for what is no error of ours);
      `http_status`: what the client was answered with.
    - `prompt_tokens` (cached ones included), `completion_tokens` (reasoning included), `cached_tokens`,
      `reasoning_tokens`: as reported by the provider, by its usage first and its timings second; then `usage_source` is
      `reported`.
    - `ttfb_ms`, `ttft_ms`: from the call's beginning to the network read that brought the first frame, and to the one
      that brought the first content; `duration_ms`: to the ending.
    - `itl_p50_ms`, `itl_p95_ms`, `itl_max_ms`: between network reads that brought content. One read may bring several
      deltas; they arrived together, and no time is made up between them. None with fewer than two such reads.
    - `prompt_tps`, `generation_tps`: tokens per second; `timings_source` says by whose clock: the `server`'s, or the
      `client`'s, which knows the generation's alone.
    - `context_used`: prompt and completion tokens, when both are known; `context_total`: tokens, as the target's
      server states it; `context_percent`: the one in the other.
    - `chunks`: deltas with content; `bytes_out`, `heartbeats`: written to the client, without an error that is told
      before any reply had begun; `bytes_after_disconnect`: what had come from the upstream for a client that had gone,
      and nobody read.
    - `key_name`: which of the gateway's keys; `cost`: US dollars, as the provider reported it, else by the prices
      of the catalogue; `concurrent`: calls in flight when this one began, itself included; `queued_ms`: how long it
      waited in line for a place, None when it did not.
    - `trace_id`, `span_id`, `parent_span_id`: the call's place in a trace, where calls are traced; `sampled`: whether
      the trace is to be kept.
    """

    request_id: str
    time: float
    dialect_in: str | None = None
    dialect_out: str | None = None
    route: str | None = None
    model_requested: str
    model: str | None = None
    target: str | None = None
    provider: str | None = None
    stream: bool
    synthetic: bool = False
    attempts: int = 0
    attempted: tuple[AttemptRecord, ...] = ()
    recovered: str | None = None
    pathologies: tuple[str, ...] = ()
    outcome: Outcome
    finish_reason: str | None = None
    error_type: str | None = None
    http_status: int | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    usage_source: Literal["reported"] | None = None
    ttfb_ms: float | None = None
    ttft_ms: float | None = None
    duration_ms: float | None = None
    itl_p50_ms: float | None = None
    itl_p95_ms: float | None = None
    itl_max_ms: float | None = None
    prompt_tps: float | None = None
    generation_tps: float | None = None
    timings_source: TimingsSource | None = None
    context_used: int | None = None
    context_total: int | None = None
    context_percent: float | None = None
    chunks: int = 0
    bytes_out: int = 0
    heartbeats: int = 0
    bytes_after_disconnect: int = 0
    key_name: str | None = None
    cost: float | None = None
    concurrent: int = 1
    queued_ms: float | None = None
    trace_id: str | None = None
    span_id: str | None = None
    parent_span_id: str | None = None
    sampled: bool = False


# --- one line -------------------------------------------------------------------------------------------------------


def compact_line(record: CallRecord) -> str:
    """`model=Qwen3-14B tokens=125/42 tps=850.5/75.2 ctx:15.2% ttft=38ms dur=1.2s end=complete finish=stop`

    One line, no line end; fields are parted by one space and none can hold a space. The model is the one that was asked
    for when none has answered. Not complete: `error=` follows. More than one attempt: `attempts=` follows.
    """
    line = (
        f"model={word(record.model or record.model_requested)}"
        f" tokens={count(record.prompt_tokens)}/{count(record.completion_tokens)}"
        f" tps={rate(record.prompt_tps)}/{rate(record.generation_tps)}"
        f" ctx:{percent(record.context_percent)}"
        f" ttft={duration(record.ttft_ms)} dur={duration(record.duration_ms)}"
        f" end={record.outcome} finish={word(record.finish_reason)}"
    )
    if record.outcome != "complete":
        line += f" error={word(record.error_type)}"
    if record.attempts > 1:
        line += f" attempts={record.attempts}"
    return line


def word(text: str | None) -> str:
    r"""The text as one word that can forge nothing: spaces, quotes, `=`, `\` and what is not printable are escaped.

    The names come from upstreams and clients. `isprintable` refuses controls, line ends of every kind, surrogates and
    the characters that turn the direction of writing. Longer than 80 characters: cut, and the cut is marked.
    """
    if not text:
        return "-"
    if len(text) <= MAX_WORD_CHARS and _PLAIN_WORD.fullmatch(text):
        return text
    cut = len(text) > MAX_WORD_CHARS
    written = "".join(
        [char if char.isprintable() and char not in _FORGING else _escaped(char) for char in text[:MAX_WORD_CHARS]]
    )
    return written + "…" if cut else written


_PLAIN_WORD = re.compile(r"[A-Za-z0-9._:/@+-]+")
_FORGING = frozenset(" =\\\"'`")


def _escaped(char: str) -> str:
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def count(value: int | None) -> str:
    return "-" if value is None else str(value)


def rate(value: float | None) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.1f}"


def percent(value: float | None) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.1f}%"


def duration(ms: float | None) -> str:
    """`0.6ms` below 10 ms, `38ms` below 1 s, `1.2s` from there; by the rounded number: never `1000ms`."""
    if ms is None or not math.isfinite(ms):
        return "-"
    if round(ms, 1) < 10:
        return f"{ms:.1f}ms"
    return f"{ms:.0f}ms" if round(ms) < 1000 else f"{ms / 1000:.1f}s"
