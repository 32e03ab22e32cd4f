"""What is wrong with a stream, a round, or the whole: sentences, none where all is well.

Pure: what was planned, heard, seen and recorded goes in.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any

from penstock.testing.judge.findings import is_told_as_failed, short, told
from soaking.plan import markers

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from penstock.testing import Seen
    from penstock.testing.judge.heard import Heard
    from soaking.owed import Ending
    from soaking.plan import Asking
    from soaking.process import Observed

#: What memory may grow by from the warm-up to the end: less than a kilobyte for each of 9,000 streams. Caches that fill
#: and pages that are half full are in it; docs/reference/reliability.md has the figures.
RSS_GROWTH_BYTES = 8 * 1024 * 1024
#: What may grow of Python's own kinds, which come and go with caches …
OBJECT_GROWTH = 1_000
#: … more for each model that a cache by the model's name may yet remember, up to so many models.
OBJECTS_PER_MODEL, MODELS = 12, 1024
#: What may grow of all other kinds, one by one: kept connections, mostly …
KIND_GROWTH = 60
#: … but of what those caches are made of.
CACHED = frozenset(
    {
        "penstock.policy.capabilities.Fact",
        "penstock.policy.capabilities.Known",
        "penstock.telemetry.counts.Histogram",
        "penstock.telemetry.counts.Series",
        "penstock.transport.origin.Location",
        "penstock.transport.origin.Origin",
    }
)

_GIANT = re.compile("x{1000,}")
_OURS = frozenset({"penstock", "uvicorn", "uvloop", "asyncio", "_asyncio", "httptools", "h11"})
_FAILED = frozenset({"truncated", "upstream_error", "timeout", "capped"})


def of_stream(
    asking: Asking, heard: Heard | None, seen: Sequence[Seen], records: Sequence[Mapping[str, Any]]
) -> list[str]:
    """One stream, from all its sides."""
    wrong = [*_of_record(asking, heard, records), *_of_executions(asking, seen, records)]
    if heard is not None and asking.ending is not None:
        wrong += _of_heard(asking, asking.ending, heard)
    return wrong


def _of_record(asking: Asking, heard: Heard | None, records: Sequence[Mapping[str, Any]]) -> list[str]:
    if asking.ending is None or (asking.may_be_unasked and not records):
        return [f"{len(records)} records of what was never asked"] if records else []
    if len(records) != 1:
        return [f"{len(records)} records"]
    (record,) = records
    found = (record["outcome"], record["error_type"])
    wrong = []
    if found != (asking.ending.outcome, asking.ending.error_type):
        wrong.append(
            f"the record says {found[0]} ({found[1]}), owed is {asking.ending.outcome} ({asking.ending.error_type})"
        )
    if heard is not None:
        if heard.headers.get("x-request-id") != record["request_id"]:
            wrong.append("the record has another request id than the answer")
        if heard.status != record["http_status"]:
            wrong.append(f"the record has status {record['http_status']}, the answer {heard.status}")
    if asking.ending.outcome == "complete":
        usage = asking.reply.usage
        assert usage is not None
        owed = (usage.input, usage.output) if asking.tells_usage else (None, None)
        if (record["prompt_tokens"], record["completion_tokens"]) != owed:
            wrong.append(
                f"the record counts {record['prompt_tokens']} and {record['completion_tokens']} tokens, not {owed}"
            )
    return wrong


def _of_executions(asking: Asking, seen: Sequence[Seen], records: Sequence[Mapping[str, Any]]) -> list[str]:
    least = 0 if asking.may_be_unasked else 1
    if asking.ending is None and seen:
        return ["half a request was executed"]
    if asking.ending is not None and not least <= len(seen) <= 1:
        return [f"{len(seen)} executions upstream"]
    wrong = []
    attempts = sum(record["attempts"] for record in records)
    if not len(seen) <= attempts <= 1:
        wrong.append(f"{attempts} attempts on the record, {len(seen)} executions upstream")
    if any(not each.is_over.is_set() for each in seen):
        wrong.append("the upstream is still answering")
    return wrong


def _of_heard(asking: Asking, ending: Ending, heard: Heard) -> list[str]:
    wrong = []
    if strangers := markers(bytes(heard.body)) - {asking.number}:
        wrong.append(f"text of {sorted(strangers)} came")
    text = _GIANT.sub("", heard.text)
    sent = asking.text
    if "endless" in asking.faults:  # over and over
        sent *= len(text) // max(len(sent), 1) + 1
    if not sent.startswith(text):
        wrong.append(f"text came that was never sent: {_difference(sent, text)}")
    if ending.outcome == "complete":
        if text != asking.text:
            wrong.append(f"{len(text)} letters of {len(asking.text)} came")
        if not heard.looks_whole or heard.terminators > 1:
            wrong.append(f"owed is one end; heard was {told(heard)}, {heard.terminators} terminators")
        if [name for name, _ in heard.calls] != [call.name for call in asking.reply.calls]:
            wrong.append(f"calls came as {heard.calls}")
    elif ending.outcome in _FAILED and (heard.looks_whole or not is_told_as_failed(heard)):
        wrong.append(f"owed is an error; heard was {told(heard)}")
    if heard.ended != ("left" if ending.outcome == "cancelled" else "clean"):
        wrong.append(f"the connection's end was `{heard.ended}`")
    return wrong


def _difference(owed: str, came: str) -> str:
    at = next((at for at, (one, other) in enumerate(zip(owed, came, strict=False)) if one != other), len(owed))
    return f"at letter {at} {short(came[at : at + 60])!r} for {short(owed[at : at + 60])!r}"


def of_sum(owed: Counter[str], records: Iterable[Mapping[str, Any]], unowed: int) -> list[str]:
    """The outcomes of all records, against those that are owed. `unowed`: records that could go either way."""
    found = Counter(record["outcome"] for record in records)
    strangers = {outcome: found[outcome] - owed[outcome] for outcome in found | owed if found[outcome] != owed[outcome]}
    if not strangers or (set(strangers) == {"cancelled"} and -unowed <= strangers["cancelled"] <= 0):
        return []
    return [f"the records' outcomes are {dict(found)}, owed are {dict(owed)}"]


def of_rest(before: Observed, after: Observed) -> list[str]:
    """What the gateway holds when nobody asks: as much as before anybody did."""
    wrong = []
    if after.tasks != before.tasks:
        wrong.append(f"tasks at rest: {after.tasks}, before: {before.tasks}")
    if after.connections != after.idle_connections:
        wrong.append(f"{after.connections - after.idle_connections} connections to upstreams are in use at rest")
    if after.own_sockets > before.own_sockets:
        wrong.append(f"{after.own_sockets} sockets at rest, {before.own_sockets} before")
    return wrong


def of_growth(warm_streams: int, warm: Observed, end: Observed) -> list[str]:
    """Between the end of the warm-up, which was so many streams, and the end of all."""
    wrong = []
    if end.files > warm.files:
        wrong.append(f"open files grew from {warm.files} to {end.files}")
    if end.threads > warm.threads:
        wrong.append(f"threads grew from {warm.threads} to {end.threads}")
    if end.rss_bytes - warm.rss_bytes > RSS_GROWTH_BYTES:
        wrong.append(f"memory grew from {mib(warm.rss_bytes)} to {mib(end.rss_bytes)}")
    more = grown(warm, end)
    allowed = OBJECT_GROWTH + OBJECTS_PER_MODEL * max(0, MODELS - warm_streams)
    if more.total() > allowed:
        said = ", ".join(f"{n} {name}" for name, n in more.most_common(12))
        wrong.append(f"{more.total()} more objects, and {allowed} may be: {said}")
    for name, n in more.items():
        if n > KIND_GROWTH and name not in CACHED and name.split(".", 1)[0] in _OURS:
            wrong.append(f"{n} more of {name}")
    return wrong


def grown(warm: Observed, end: Observed) -> Counter[str]:
    """Of which classes there are more objects, and how many more."""
    return Counter(end.objects) - Counter(warm.objects)


def mib(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:.1f} MiB"
