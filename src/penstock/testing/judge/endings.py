"""C4, C8, C9, C12: how a reply begins and ends, whatever its upstream does."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from penstock.testing.judge.court import TEXT
from penstock.testing.judge.findings import Finding, of_failure, of_whole, short, told

if TYPE_CHECKING:
    from penstock.testing.judge.court import Asked, Court
    from penstock.testing.judge.heard import Heard

#: what a stream is cut by, after some of its content
CUTS = {
    "cut-after-3": "the connection is closed half way",
    "reset-after-3": "the connection breaks half way",
    "end-after-3": "the body ends half way, as if all were well",
    "cut-inside-3": "the connection is closed inside an event",
}

#: the shapes of errors inside a stream, by the dialect of whoever sends them
ERROR_SHAPES = {
    "openai-chat": ("openai", "openrouter", "groq", "vllm"),
    "openai-completions": ("openai",),
    "openai-responses": ("responses",),
    "anthropic-messages": ("anthropic",),
    "gemini": ("gemini",),
    "ollama": ("ollama",),
}
WORDS = "It broke."

#: the end is proved, whatever follows or does not follow it
WHOLE = {
    "late-done": "the terminator comes late",
    "garbage": "bytes that mean nothing after the end",
    "stay-open": "the connection stays open after the end",
}


async def one_true_ending(court: Court) -> list[Finding]:
    found: list[Finding] = []
    for fault, case in CUTS.items():
        found.append(of_failure("C4", case, (await _asked(court, fault, case)).heard, TEXT))
    if court.upstream_dialect == "openai-chat":
        case = "a terminator without a finish reason"
        found.append(of_failure("C4", case, (await _asked(court, "no-finish", case)).heard, TEXT))
    for shape in ERROR_SHAPES.get(court.upstream_dialect or "", ()):
        case = f"an error inside the stream, as {shape} sends it"
        found.append(of_failure("C4", case, (await _asked(court, f"error-{shape}-2", case)).heard, TEXT, words=WORDS))
    case = "a document that is cut"
    heard = (await _asked(court, "cut-bytes-60", case, stream=False)).heard
    found.append(of_failure("C4", case, heard, TEXT))
    for fault, case in WHOLE.items():
        found.append(of_whole("C4", case, (await _asked(court, fault, case)).heard, TEXT))
    return found


async def four_clocks(court: Court) -> list[Finding]:
    """All at once, because each waits for a clock of the gateway's."""
    cases = {
        "silent": "no answer at all",
        "stall-before-content": "an answer begins, and says nothing",
        "stall-after-2": "nothing more after some content",
        "pings": "signs of life, and never content",
    }
    court.progress("stalls, as long as the gateway's clocks allow")
    heard = dict(zip(cases, await asyncio.gather(*(court.ask(fault) for fault in cases)), strict=True))
    waited = {fault: asked.heard.ended_at - asked.heard.asked_at for fault, asked in heard.items()}
    found: list[Finding] = []
    for fault, case in cases.items():
        ended = heard[fault].heard
        if ended.ended == "open":
            stalled = heard["stall-before-content"].heard.ended != "open"
            if fault == "pings" and stalled and waited[fault] > 3 * waited["stall-before-content"]:
                evidence = f"a stall ended after {waited['stall-before-content']:.1f} s; pings kept it open for longer"
                found.append(Finding("C8", case, "broken", evidence))
            else:
                evidence = (
                    f"still open after {waited[fault]:.1f} s: set the gateway's clocks lower, or --patience higher"
                )
                found.append(Finding("C8", case, "unseen", evidence))
            continue
        finding = of_failure("C8", case, ended, TEXT)
        found.append(Finding("C8", case, finding.verdict, f"after {waited[fault]:.1f} s {finding.evidence}"))
    return found


async def two_commit_points(court: Court) -> list[Finding]:
    found: list[Finding] = []
    before = {
        "status-500": ("a failure with its status", None),
        "status-429": ("a limit, with Retry-After", 429),
        "status-401": ("a key that is refused", None),
        "reset": ("a connection that breaks before the answer", None),
        "no-answer": ("a connection that closes before the answer", None),
        "html": ("a page with 200", None),
    }
    for fault, (case, status) in before.items():
        found.append(of_status(case, (await _asked(court, fault, case)).heard, status))
    case = "a failure of a document"
    found.append(of_status(case, (await _asked(court, "status-500", case, stream=False)).heard, None))
    for shape in ERROR_SHAPES.get(court.upstream_dialect or "", ())[:1]:
        case = "an error inside the stream, before its content"
        found.append(of_failure("C9", case, (await _asked(court, f"error-{shape}-0", case)).heard, ""))
    return found


def of_status(case: str, heard: Heard, status: int | None) -> Finding:
    """Before the headers are sent a failure is a status; after a heartbeat it can only be said in the stream."""
    if heard.error is None or heard.end_after_error is not None or heard.terminators:
        forged = "forged: " if heard.looks_whole else ""
        return Finding("C9", case, "broken", f"{forged}{told(heard)}")
    if heard.status < 400 and not heard.heartbeats_before_content:
        return Finding("C9", case, "broken", f"status {heard.status}, and then {told(heard)}")
    if status is not None and heard.status >= 400 and heard.status != status:
        return Finding("C9", case, "broken", f"status {heard.status} for the upstream's {status}")
    after = heard.headers.get("retry-after")
    return Finding("C9", case, "held", told(heard) + (f", Retry-After {after}" if after else ""))


async def always_a_stream(court: Court) -> list[Finding]:
    case = "a document though a stream was asked for"
    heard = (await _asked(court, "json", case)).heard
    found = [_streamed(case, heard)]
    case = "a stream though a document was asked for"
    heard = (await _asked(court, "sse", case, stream=False)).heard
    if heard.is_document or heard.malformed is not None or heard.status >= 400:
        found.append(of_whole("C12", case, heard, TEXT))
    else:
        found.append(Finding("C12", case, "broken", "the stream passed, to a client that cannot read one"))
    case = "heartbeats while a document is made"
    heard = (await _asked(court, "json+slow-head-1500", case)).heard
    beats = heard.heartbeats_before_content
    if court.client.dialect.heartbeat == b"":
        found.append(Finding("C12", case, "idle", "the dialect has no heartbeat"))
    elif beats:
        found.append(Finding("C12", case, "held", f"{beats} in 1.5 s"))
    else:
        found.append(Finding("C12", case, "unseen", "none in 1.5 s, which may be sooner than they come"))
    return found


def _streamed(case: str, heard: Heard) -> Finding:
    if heard.is_document and heard.error is None:
        return Finding(
            "C12", case, "broken", f"the document passed as it was: {short(heard.body.decode(errors='replace'), 60)}"
        )
    finding = of_whole("C12", case, heard, TEXT)
    marks = [f"{name}: {value}" for name, value in heard.headers.items() if "synthetic" in name]
    return Finding("C12", case, finding.verdict, "; ".join([finding.evidence, *marks]))


async def _asked(court: Court, fault: str, case: str, *, stream: bool = True) -> Asked:
    court.progress(case)
    return await court.ask(fault, stream=stream)
