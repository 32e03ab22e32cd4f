"""Any endpoint, by what needs no fault: order, ends, usage, parity, errors, and what a client can see of the rest.

It asks eight times, for at most 64 tokens each, and twice for nothing that could be answered.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from msgspec.structs import replace

from penstock.canon.errors import PenstockError
from penstock.canon.events import Delta
from penstock.testing.judge.findings import Finding, short, told

if TYPE_CHECKING:
    from collections.abc import Callable

    from penstock.testing.judge.asking import Client
    from penstock.testing.judge.heard import Heard

MAX_TOKENS = 64


async def judge_endpoint(
    client: Client, model: str, *, progress: Callable[[str], None] = lambda case: None
) -> list[Finding]:
    """Raises the `PenstockError` of the first question when that gets no reply at all."""
    progress("a stream")
    heard = await _ask(client, model)
    if heard.status == 0:
        raise heard.malformed or PenstockError(
            f"{client.target.url} gave no answer within {client.patience_s:g} s.", fix="Raise --patience."
        )
    if heard.status >= 400 and heard.error is not None:
        raise heard.error
    found = [*_of_stream(heard), *_of_headers(client, heard)]
    progress("a document")
    document = await _ask(client, model, stream=False)
    found += [*_of_parity(heard, document), *_of_usage(heard, document)]
    progress("a connection used again")
    found.append(await _of_keeping(client, model))
    progress("a client that leaves")
    found.append(await _of_leaving(client, model))
    progress("errors")
    return found + await _of_errors(client, model)


async def _ask(client: Client, model: str, *, stream: bool = True, leave_after: int | None = None) -> Heard:
    question = client.question(model, stream=stream, max_tokens=MAX_TOKENS)
    return await client.hear(question, leave_after=leave_after)


def _of_stream(heard: Heard) -> list[Finding]:
    found: list[Finding] = []
    deltas = sum(type(event) is Delta for _, event in heard.events)
    first, took = heard.first_content_at, heard.ended_at - heard.asked_at
    case = "the first piece comes before the last is made"
    reads = len(set(heard.reads))
    if first is None or deltas < 4:
        found.append(Finding("C2", case, "unseen", f"the reply had {deltas} pieces: too few to tell"))
    else:
        part = (first - heard.asked_at) / took
        times = f"{(first - heard.asked_at) * 1000:.0f} ms of {took * 1000:.0f}"
        evidence = f"first after {times}, {deltas} pieces in {reads} reads"
        found.append(Finding("C2", case, "held" if reads > 1 and part < 0.9 else "broken", evidence))
    case = "every event can be read, and the stream begins once"
    is_read = heard.malformed is None and heard.starts <= 1 and bool(heard.events)
    found.append(Finding("C3", case, "held" if is_read else "broken", f"{len(heard.frames)} events; {told(heard)}"))
    case = "one end, which the dialect knows, and nothing after it"
    is_ended = heard.looks_whole and heard.is_proved and heard.terminators <= 1 and heard.ended == "clean"
    found.append(Finding("C4", case, "held" if is_ended else "broken", told(heard)))
    case = "a stream when one is asked for"
    found.append(
        Finding("C12", case, "broken", "a document came")
        if heard.is_document
        else Finding("C12", case, "held", f"{heard.headers.get('content-type')}")
    )
    return found


def _of_headers(client: Client, heard: Heard) -> list[Finding]:
    """What proxies on the way go by."""
    told_type = heard.headers.get("content-type", "").partition(";")[0]
    odd: list[str] = []
    if told_type != client.dialect.stream_type.partition(";")[0]:
        odd.append(f"content-type {told_type or 'none'}")
    if "content-length" in heard.headers:
        odd.append("content-length on a stream")
    if heard.headers.get("content-encoding", "identity") != "identity":
        odd.append(f"compressed, though identity was asked for ({heard.headers['content-encoding']})")
    case = "headers that let a stream pass through proxies"
    caching = heard.headers.get("cache-control", "no cache-control")
    return [Finding("C2", case, "broken" if odd else "held", ", ".join(odd) or f"{told_type}, {caching}")]


def _of_parity(stream: Heard, document: Heard) -> list[Finding]:
    case = "a document says what a stream says"
    if document.status >= 400 or document.malformed is not None or not document.looks_whole:
        return [Finding("C3", case, "broken", told(document))]
    if document.text == stream.text:
        return [Finding("C3", case, "held", f"the same {len(stream.text)} letters")]
    return [Finding("C3", case, "unseen", "the texts differ, as those of a model may")]


def _of_usage(stream: Heard, document: Heard) -> list[Finding]:
    case = "a stream tells what it used, as a document does"
    there, here = document.usage, stream.usage
    if here is None or here.input is None:
        is_unseen = there is None or there.input is None
        evidence = "the stream told no usage, though it was asked to"
        return [Finding("C6", case, "unseen" if is_unseen else "broken", evidence)]
    if there is None or there.input is None:
        return [Finding("C6", case, "unseen", f"{here.input} tokens in the stream, the document told none")]
    evidence = f"{here.input} prompt tokens in the stream, {there.input} in the document"
    return [Finding("C6", case, "held" if here.input == there.input else "broken", evidence)]


async def _of_keeping(client: Client, model: str) -> Finding:
    case = "the connection is kept after a whole reply"
    heard = await _ask(client, model)
    await asyncio.sleep(0.05)
    if not heard.looks_whole:
        return Finding("C11", case, "unseen", told(heard))
    if client.kept_connections:
        return Finding("C11", case, "held", f"{client.kept_connections} kept")
    return Finding("C11", case, "unseen", "it was closed, which HTTP allows: each request pays for a new one")


async def _of_leaving(client: Client, model: str) -> Finding:
    case = "a client that leaves"
    await _ask(client, model, leave_after=3)
    heard = await _ask(client, model)
    if not heard.looks_whole:
        return Finding("C7", case, "broken", f"the next request got {told(heard)}")
    first = (heard.first_content_at or heard.ended_at) - heard.asked_at
    evidence = f"the next request was answered after {first * 1000:.0f} ms; whether the work had stopped cannot be seen"
    return Finding("C7", case, "unseen", evidence)


async def _of_errors(client: Client, model: str) -> list[Finding]:
    found: list[Finding] = []
    question = client.question(model, max_tokens=MAX_TOKENS)
    broken = replace(question, request=replace(question.request, body=question.request.body[:-9]))
    found.append(_refused("a body that is no JSON", await client.hear(broken), at_most=499))
    case = "a model that does not exist"
    heard = await _ask(client, "penstock-check-no-such-model")
    if heard.looks_whole:
        found.append(Finding("C9", case, "unseen", "it answers to any model's name"))
    else:
        found.append(_refused(case, heard, at_most=599))
    return found


def _refused(case: str, heard: Heard, *, at_most: int) -> Finding:
    is_error = heard.error is not None and bool(heard.error.message) and 400 <= heard.status <= at_most
    return Finding("C9", case, "held" if is_error else "broken", short(told(heard), 120))
