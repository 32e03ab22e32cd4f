"""C1, C2, C3, C5, C6, C7, C10, C11: how often a request runs, when its pieces come, what becomes of a slow reader."""

from __future__ import annotations

import asyncio
import contextlib
import re
import statistics
import time
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

from msgspec.structs import replace

from penstock.canon.errors import PenstockError
from penstock.testing.judge.court import CALLS, PACE_S, TEXT, USAGE, WORDS
from penstock.testing.judge.findings import Finding, of_whole, told

if TYPE_CHECKING:
    from penstock.canon.usage import Usage
    from penstock.canon.wire import HttpResponse
    from penstock.testing.judge.court import Asked, Court
    from penstock.testing.server import Seen

#: a constant delay of this much is a timer's, not the network's, on one machine
LATE_S = 0.010
#: after a client has left, its upstream is to be closed within this
GONE_S = 0.050
NEVER_S = 3.0
RUNS = 3
#: what a gateway may take of a reply that nobody reads
UNREAD_BYTES = 32 * 1024 * 1024

LOOKS = {
    "crlf": "lines that end with CRLF",
    "cr": "lines that end with CR",
    "bom": "a byte order mark",
    "no-space": "no space after the colon",
    "multi-line": "an event over several lines",
    "bytewise": "every byte in a write of its own",
    "one-write": "everything in one write",
    "glued-done": "the end in one write",
}


# --- C1 ---------------------------------------------------------------------------------------------------------------


async def one_execution(court: Court) -> list[Finding]:
    found: list[Finding] = []
    cases = {
        "a stream": ("", True),
        "a document": ("", False),
        "a stream that breaks after content": ("cut-after-3", True),
    }
    for case, (fault, stream) in cases.items():
        court.progress(case)
        question = court.question(fault, stream=stream)
        heard = await court.client.hear(question)
        await asyncio.sleep(0.1)  # for who asks again in silence
        times = len(court.seen(question))
        if not times:
            found.append(Finding("C1", case, "unseen", f"it never came to the upstream: {told(heard)}"))
        else:
            evidence = f"executed {times} time{'' if times == 1 else 's'}"
            found.append(Finding("C1", case, "held" if times == 1 else "broken", evidence))
    return found


# --- C2 and C5 --------------------------------------------------------------------------------------------------------


async def at_once(court: Court) -> list[Finding]:
    case = f"{len(WORDS)} pieces, {PACE_S * 1000:.0f} ms apart, {RUNS} times"
    court.progress(case)
    runs = [lateness(await court.ask(kind="paced")) for _ in range(RUNS)]
    seen = [run for run in runs if run is not None]
    if not seen:
        return [Finding("C2", case, "unseen", "the reply did not come through whole")]
    first = min(late[0] for late in seen)
    middle = min(statistics.median(late) for late in seen)
    evidence = f"first piece +{first * 1000:.1f} ms, median +{middle * 1000:.1f} ms, best of {len(seen)} runs"
    if min(max(late) for late in seen) >= PACE_S:
        return [Finding("C2", case, "broken", f"held back until the next had been sent: {evidence}")]
    return [Finding("C2", case, "broken" if max(first, middle) >= LATE_S else "held", evidence)]


def lateness(asked: Asked) -> list[float] | None:
    """How long after its writing each piece came to the client, in seconds."""
    seen, came = asked.last, asked.heard.text_at()
    if seen is None or len(seen.content_at) < len(WORDS) or asked.heard.text != "".join(WORDS):
        return None
    ends = accumulate(len(word) for word in WORDS)
    arrived = [next(at for at, letters in came if letters >= end) for end in ends]
    return [at - written for at, written in zip(arrived, seen.content_at, strict=False)]


async def nothing_beside(court: Court) -> list[Finding]:
    case = "a stream beside a stalled one, one that nobody reads, and a flood of other requests"
    court.progress(case)
    stalled = asyncio.create_task(court.ask("stall-after-2"))
    unread = await _opened(court, "endless", "flood")
    others = asyncio.create_task(_flood(court))
    late: list[float] | None = None
    try:
        for _ in range(RUNS):  # the machine may be busy with something else; whoever stands in line stands in each
            late = lateness(await court.ask(kind="paced"))
            if late is not None and max(late) < PACE_S:
                break
    finally:
        for task in (stalled, others):
            task.cancel()
        await asyncio.gather(stalled, others, return_exceptions=True)
        if unread is not None:
            unread.abort()
    if late is None:
        return [Finding("C5", case, "broken", "the reply did not come through whole")]
    evidence = f"each piece came +{max(late) * 1000:.0f} ms after it was sent, at most, before the next one"
    if max(late) >= PACE_S:
        evidence = f"a piece came {max(late) * 1000:.0f} ms after it was sent, {PACE_S * 1000:.0f} ms apart"
        return [Finding("C5", case, "broken", evidence)]
    exporters = Finding("C5", "exporters that hang", "unseen", "nobody outside can see where they send to")
    return [Finding("C5", case, "held", evidence), exporters]


async def _flood(court: Court) -> None:
    while True:
        for path in ("/metrics", "/v1/models", "/health"):
            await court.client.get(path)


async def _opened(court: Court, fault: str, kind: str) -> HttpResponse | None:
    """An answer that nobody reads."""
    try:
        return await court.open(court.question(fault, kind=kind))
    except (PenstockError, TimeoutError):
        return None


# --- C3 ---------------------------------------------------------------------------------------------------------------


async def whole_and_in_order(court: Court) -> list[Finding]:
    found: list[Finding] = []
    looks = {} if court.upstream_dialect == "ollama" else LOOKS
    for fault, case in {"": "a plain reply", **looks}.items():
        court.progress(case)
        found.append(of_whole("C3", case, (await court.ask(fault)).heard, TEXT))
    case = "a document"
    court.progress(case)
    found.append(of_whole("C3", case, (await court.ask(stream=False)).heard, TEXT))
    if court.has_calls:
        for stream, case in ((True, "two tool calls"), (False, "two tool calls in a document")):
            court.progress(case)
            heard = (await court.ask(kind="calls", stream=stream)).heard
            calls = [(name, _compact(raw)) for name, raw in heard.calls]
            wanted = [(name, _compact(raw)) for name, raw in CALLS]
            is_held = calls == wanted and heard.looks_whole
            found.append(Finding("C3", case, "held" if is_held else "broken", f"{calls or 'none'}; {told(heard)}"))
    return found


def _compact(raw: str) -> str:
    return re.sub(r'\s*([:,{}"])\s*', r"\1", raw)


# --- C6 ---------------------------------------------------------------------------------------------------------------

#: wires on which a count must stand, so that nothing but 0 can say "unknown"
COUNTS_REQUIRED = frozenset({"anthropic-messages", "openai-responses"})


async def metrics_from_the_end(court: Court) -> list[Finding]:
    cases = {"": "usage where the dialect has it"}
    if court.upstream_dialect == "openai-chat":
        cases |= {
            "usage-first": "usage in the first chunk",
            "usage-last": "usage in the chunk that ends it",
            "usage-every": "usage in every chunk",
        }
    found: list[Finding] = []
    for fault, case in cases.items():
        court.progress(case)
        heard = (await court.ask(fault)).heard
        usage = heard.usage
        is_right = usage is not None and (usage.input, usage.output) == (USAGE.input, USAGE.output)
        wanted = "" if is_right else f", not {USAGE.input}/{USAGE.output}"
        found.append(Finding("C6", case, "held" if is_right else "broken", f"{_counts(usage)}{wanted}"))
    case = "usage that nobody told"
    court.progress(case)
    usage = (await court.ask("usage-never")).heard.usage
    unknown = {None} if court.client.dialect.name not in COUNTS_REQUIRED else {None, 0}
    is_right = usage is None or {usage.input, usage.output} <= unknown
    found.append(Finding("C6", case, "held" if is_right else "broken", _counts(usage)))
    return found


def _counts(usage: Usage | None) -> str:
    if usage is None:
        return "no usage"
    return "/".join("-" if count is None else str(count) for count in (usage.input, usage.output))


# --- C7 ---------------------------------------------------------------------------------------------------------------


async def gone_is_cancelled(court: Court) -> list[Finding]:
    found: list[Finding] = []
    for case, leave in (
        ("a client that leaves a stream", _leave_stream),
        ("a client that leaves a document", _leave_document),
    ):
        court.progress(case)
        lags: list[float] = []
        while len(lags) < RUNS and (lag := await leave(court)) is not None:
            lags.append(lag)
        if len(lags) < RUNS:
            found.append(Finding("C7", case, "broken", f"the upstream was never closed, in {NEVER_S:.0f} s"))
        else:
            evidence = f"the upstream was closed after {min(lags) * 1000:.1f} ms, the best of {RUNS}"
            found.append(Finding("C7", case, "held" if min(lags) <= GONE_S else "broken", evidence))
    return found


async def _leave_stream(court: Court) -> float | None:
    asked = await court.ask("endless", kind="steady", leave_after=3)
    return await _closed(asked.last, asked.heard.ended_at)


async def _leave_document(court: Court) -> float | None:
    question = court.question("slow-head-5000", stream=False)
    task = asyncio.create_task(court.client.hear(question))
    seen = await court.arrival(question)
    await asyncio.sleep(0.05)
    left_at = time.monotonic()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    return await _closed(seen, left_at)


async def _closed(seen: Seen | None, left_at: float) -> float | None:
    while seen is not None and time.monotonic() < left_at + NEVER_S:
        if seen.closed_at is not None:
            return max(0.0, seen.closed_at - left_at)
        await asyncio.sleep(0.005)
    return None


# --- C10 --------------------------------------------------------------------------------------------------------------

_MODEL = re.compile(rb'"(model|modelVersion)"\s*:\s*"[^"]*"')


async def verbatim(court: Court) -> list[Finding]:
    if not court.is_same_dialect:
        why = f"asked in {court.client.dialect.name}, it asks in {court.upstream_dialect}"
        return [Finding("C10", "bytes as they came", "idle", why)]
    case = "fields that nobody knows, byte for byte"
    court.progress(case)
    asked = await court.ask("unknown-fields")
    seen = asked.last
    if seen is None:
        return [Finding("C10", case, "unseen", f"it never came to the upstream: {told(asked.heard)}")]
    sent = bytes(seen.sent).split(b"\n\n" if court.client.dialect.streams_as == "sse" else b"\n")
    body = _nameless(bytes(asked.heard.body))
    missing = next((frame for frame in sent if frame.strip() and _nameless(frame) not in body), None)
    if missing is None:
        found = [Finding("C10", case, "held", f"{len(sent) - 1} events, and what was in them")]
    else:
        found = [Finding("C10", case, "broken", f"was changed: {missing.decode(errors='replace')[:90]}")]
    for fault, case in (("no-done", "a terminator that is left out"), ("double-done", "a terminator that comes twice")):
        if not court.client.dialect.terminator:
            found.append(Finding("C10", case, "idle", "the dialect has none"))
        elif fault == "double-done" or court.upstream_dialect == "openai-chat":  # elsewhere it is the proof as well
            court.progress(case)
            heard = (await court.ask(fault)).heard
            times = f"{heard.terminators} time{'' if heard.terminators == 1 else 's'}"
            is_held = heard.terminators == 1 and heard.looks_whole
            found.append(Finding("C10", case, "held" if is_held else "broken", f"it came {times}; {told(heard)}"))
    return found


def _nameless(data: bytes) -> bytes:
    """Without the model's name, which may be mapped."""
    return _MODEL.sub(b'"\\1":""', data)


# --- C11 --------------------------------------------------------------------------------------------------------------


async def bounded(court: Court) -> list[Finding]:
    found = [await _slow_reader(court)]
    case = "an event of more than a megabyte"
    court.progress(case)
    heard = (await court.ask("giant")).heard
    came = len(heard.text) > len(TEXT) and heard.looks_whole
    is_held = came or heard.error is not None
    found.append(Finding("C11", case, "held" if is_held else "broken", "it passed" if came else told(heard)))
    case = "a header of two megabytes"
    court.progress(case)
    question = court.question()
    request = replace(question.request, headers=(*question.request.headers, ("x-large", "x" * 2 * 1024 * 1024)))
    heard = await court.client.hear(replace(question, request=request))
    evidence = f"status {heard.status}" if heard.status else "the connection was closed"
    is_refused = heard.status >= 400 or heard.status == 0
    found.append(Finding("C11", case, "held" if is_refused else "broken", evidence))
    case = "an ordinary request, after all that"
    found.append(of_whole("C11", case, (await court.ask()).heard, TEXT))
    return found


async def _slow_reader(court: Court) -> Finding:
    case = "a client that does not read"
    court.progress(case)
    question = court.question("endless", kind="flood")
    try:
        response = await court.open(question)
    except (PenstockError, TimeoutError) as error:
        return Finding("C11", case, "unseen", f"no answer: {error}")
    try:
        seen = await court.arrival(question)
        if seen is None:
            return Finding("C11", case, "unseen", "it never came to the upstream")
        written = [0]
        for _ in range(60):
            await asyncio.sleep(0.1)
            written.append(seen.written_bytes)
            if written[-1] > UNREAD_BYTES or (len(written) > 6 and written[-6] == written[-1]):
                break
        taken = f"{written[-1] / 2**20:.1f} MiB"
        is_held = any(now == later for now, later in pairwise(written[1:])) and written[-1] <= UNREAD_BYTES
        return Finding(
            "C11",
            case,
            "held" if is_held else "broken",
            f"the upstream was read for {taken}" + ("" if is_held else " and on"),
        )
    finally:
        response.abort()
