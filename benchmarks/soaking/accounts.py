"""A record against what the others know: what the simulator was told to say, and when it did; what its client heard.

Pure. Counts must be equal; moments are compared as distances in milliseconds, because two processes share a machine.
Moments of the simulator and of its clients are monotonic seconds, a record's are unix seconds and milliseconds from
there: `offset_s` is the difference of the two clocks, which one system has one of.
"""

from __future__ import annotations

from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING, Any

from prometheus_client.parser import text_string_to_metric_families

from penstock.canon.events import Delta

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from penstock.testing import Seen
    from penstock.testing.judge.heard import Heard
    from soaking.plan import Asking

#: A record cannot know of content before it was said. Two processes read the clocks a moment apart.
CLOCKS_MS = 1.0

#: Pauses as long as this stay apart on their way; content without them comes together, in fewer reads.
PACED_S = 0.02

#: Which of the finer counts an upstream's wire has a word for.
TELLS = {
    "openai-chat": ("cached", "reasoning"),
    "openai-responses": ("cached", "reasoning"),
    "anthropic-messages": ("cached",),
    "gemini": ("cached", "reasoning"),
    "ollama": (),
}
#: whose wire has a number there, whatever happened
TELLS_ALWAYS = ("openai-responses",)

#: what a fault does to a reply's form, so that its pieces cannot be counted or timed one by one
_REFORMED = ("json", "sse", "gzip", "one-write", "giant", "bytewise", "multi-line", "stall", "pings", "endless")


def of_counts(asking: Asking, heard: Heard | None, record: Mapping[str, Any]) -> list[str]:
    """What is wrong with what it counts."""
    owed: dict[str, Any] = {"attempts": 1, "key_name": None, "cost": None, "queued_ms": None}
    owed["model_requested"] = asking.model
    owed["dialect_out"] = asking.upstream
    owed["stream"] = int(asking.stream)
    is_whole = record["outcome"] == "complete"
    if is_whole:
        owed["synthetic"] = int(asking.stream and "json" in asking.faults)
        owed["usage_source"] = "reported" if asking.tells_usage else None
        if asking.tells_usage:
            usage = asking.reply.usage
            assert usage is not None
            owed |= {"prompt_tokens": usage.input, "completion_tokens": usage.output}
            owed["context_used"] = usage.input + usage.output
            silence = 0 if asking.upstream in TELLS_ALWAYS else None
            for word in TELLS[asking.upstream]:
                counted = getattr(usage, word)
                owed[f"{word}_tokens"] = silence if counted is None else counted
        if not asking.reply.calls and not _is_reformed(asking):
            events = asking.reply.events(asking.model, "")
            owed["chunks"] = sum(type(event) is Delta for event in events)
    if heard is not None and asking.reader in ("reads", "slow") and heard.ended != "open":
        if is_whole or record["ttft_ms"] is not None:
            owed["bytes_out"] = len(heard.body)
        owed["request_id"] = heard.headers.get("x-request-id")
        owed["http_status"] = heard.status
    return [
        f"{name} is {record[name]!r} on the record and {value!r} in truth"
        for name, value in owed.items()
        if record[name] != value
    ]


def of_order(asking: Asking, seen: Seen, record: Mapping[str, Any], offset_s: float) -> list[str]:
    """What is wrong with the order of its moments."""
    wrong = []
    moments = [record[name] for name in ("ttfb_ms", "ttft_ms", "duration_ms") if record[name] is not None]
    if moments != sorted(moments):
        wrong.append(f"ttfb, ttft and duration are {moments} ms")
    gaps = [record[name] for name in ("itl_p50_ms", "itl_p95_ms", "itl_max_ms") if record[name] is not None]
    if gaps != sorted(gaps):
        wrong.append(f"the gaps' p50, p95 and max are {gaps} ms")
    early = (seen.began_at + offset_s - record["time"]) * 1e3
    if early < -CLOCKS_MS:
        wrong.append(f"the call began {-early:.1f} ms after its upstream had it")
    if record["ttft_ms"] is not None and seen.content_at and "pings" not in seen.faults:
        late = late_ms(seen.content_at[0], record["ttft_ms"], record, offset_s)
        if late < -CLOCKS_MS:
            wrong.append(f"its first content is {-late:.1f} ms older than the first that was said")
    if (record["ttft_ms"] is None) and record["chunks"]:
        wrong.append(f"it has {record['chunks']} pieces of content and no moment of the first")
    return wrong


def late_ms(moment: float, record_ms: float, record: Mapping[str, Any], offset_s: float) -> float:
    """How much later the record has a moment than the simulator had it."""
    return (record["time"] - offset_s - moment) * 1e3 + record_ms


def distances_ms(
    asking: Asking, heard: Heard | None, seen: Seen, record: Mapping[str, Any], offset_s: float
) -> dict[str, float]:
    """How far the record's moments and gaps are from the simulator's and the client's own."""
    found: dict[str, float] = {}
    at = seen.content_at
    is_streamed = asking.stream and not _is_reformed(asking)
    if is_streamed and at and record["ttft_ms"] is not None:
        found["first content"] = late_ms(at[0], record["ttft_ms"], record, offset_s)
    fixed = asking.reply.pace.fixed
    if is_streamed and asking.reader == "reads" and isinstance(fixed, float) and fixed >= PACED_S and len(at) > 2:
        gaps = [(later - earlier) * 1e3 for earlier, later in pairwise(at)]
        if record["outcome"] == "complete" and not asking.reply.calls:
            found["median gap"] = abs(record["itl_p50_ms"] - median(gaps))
    if heard is not None and asking.reader == "reads" and heard.ended in ("clean", "cut") and heard.ended_at:
        found["ending"] = -late_ms(heard.ended_at, record["duration_ms"], record, offset_s)
    return found


def of_metrics(page: str, records: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is wrong with the sums on the page of metrics."""
    sums: dict[str, float] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            for label in (
                "",
                *(f"{name}={sample.labels[name]}" for name in ("outcome", "kind") if name in sample.labels),
            ):
                name = f"{sample.name}{{{label}}}"
                sums[name] = sums.get(name, 0) + sample.value
    owed: dict[str, float] = {
        "penstock_requests_total{}": len(records),
        "penstock_sent_bytes_total{}": _sum(records, "bytes_out"),
        "penstock_heartbeats_total{}": _sum(records, "heartbeats"),
        "penstock_wasted_bytes_total{}": _sum(records, "bytes_after_disconnect"),
        "penstock_synthetic_streams_total{}": _sum(records, "synthetic"),
        "penstock_time_to_first_token_seconds_count{}": sum(record["ttft_ms"] is not None for record in records),
        "penstock_request_duration_seconds_count{}": len(records),
        "penstock_requests_in_flight{}": 0,
    }
    for kind in ("prompt", "completion"):
        owed[f"penstock_tokens_total{{kind={kind}}}"] = _sum(records, f"{kind}_tokens")
    for outcome in {record["outcome"] for record in records}:
        number = sum(record["outcome"] == outcome for record in records)
        owed[f"penstock_requests_total{{outcome={outcome}}}"] = number
    return [
        f"{name} is {sums.get(name)} on the page of metrics and {value} by the records"
        for name, value in owed.items()
        if sums.get(name, 0) != value
    ]


def _sum(records: Iterable[Mapping[str, Any]], name: str) -> float:
    return float(sum(record[name] or 0 for record in records))


def _is_reformed(asking: Asking) -> bool:
    return not asking.stream or any(fault.startswith(_REFORMED) for fault in asking.faults)
