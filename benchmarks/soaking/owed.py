"""The ending that each fault must come to, by the contract and not by what the gateway does.

One row for every fault of `penstock.testing.FAULTS`: a fault without a row is an error, so that a new one is not
forgotten. A row tells the ending of a stream, that of a document (None: the fault says nothing about documents), and
the numbers that the fault is tried with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from penstock.testing import FAULTS

if TYPE_CHECKING:
    import random


class Ending(Struct, frozen=True):
    """The record's own words. `error_type` None: none."""

    outcome: str
    error_type: str | None = None


COMPLETE = Ending("complete")
TRUNCATED = Ending("truncated", "truncated")
CANCELLED = Ending("cancelled", "cancelled")
BROKEN = Ending("upstream_error", "connect")
TOLD = Ending("upstream_error", "streamed_error")
NO_STREAM = Ending("upstream_error", "not_a_stream")
IDLE = Ending("timeout", "timeout_idle")
SILENCE = Ending("timeout", "timeout_silence")
FIRST_CONTENT = Ending("timeout", "timeout_first_content")
DOCUMENT = Ending("timeout", "timeout_document")
TOTAL = Ending("timeout", "timeout_total")

STATUSES = {
    400: Ending("upstream_error", "status"),
    401: Ending("upstream_error", "key_rejected"),
    429: Ending("upstream_error", "rate_limited"),
    500: Ending("upstream_error", "server_fault"),
    503: Ending("upstream_error", "overloaded"),
    529: Ending("upstream_error", "overloaded"),
}

#: what proves a reply whole, as the simulator's plans call it: everywhere its finish, at Anthropic's its last word
PROOF = {"anthropic-messages": "terminator"}


class Row(Struct, frozen=True):
    stream: Ending | None
    document: Ending | None = None
    #: the first and the last that are tried; None: the fault takes none
    numbers: tuple[int, int] | None = None
    #: the dialects of upstreams that it is about; none: all
    upstreams: tuple[str, ...] = ()


_SHAPES = {
    "openai": "openai-chat",
    "openrouter": "openai-chat",
    "groq": "openai-chat",
    "vllm": "openai-chat",
    "anthropic": "anthropic-messages",
    "responses": "openai-responses",
    "gemini": "gemini",
    "ollama": "ollama",
}
_CHAT = ("openai-chat",)

ROWS: dict[str, Row] = {
    "refuse": Row(None, None),  # all who ask meanwhile are refused, whatever is owed to them
    "reset": Row(BROKEN, BROKEN),
    "no-answer": Row(BROKEN, BROKEN),
    "silent": Row(SILENCE, DOCUMENT),
    "slow-head": Row(COMPLETE, COMPLETE, (50, 900)),
    "status": Row(None, None),  # by its number: see `ending_of`
    "html": Row(NO_STREAM, NO_STREAM),
    "json": Row(COMPLETE),
    "sse": Row(None, COMPLETE),
    "cut-after": Row(TRUNCATED, TRUNCATED, (0, 5)),
    "reset-after": Row(TRUNCATED, TRUNCATED, (0, 5)),
    "end-after": Row(TRUNCATED, TRUNCATED, (0, 5)),
    "cut-bytes": Row(TRUNCATED, TRUNCATED, (0, 60)),
    "reset-bytes": Row(TRUNCATED, TRUNCATED, (0, 60)),
    "cut-inside": Row(TRUNCATED, None, (1, 4)),
    "stall-before-content": Row(SILENCE, DOCUMENT),
    "stall-after": Row(IDLE, DOCUMENT, (1, 4)),
    "stay-open": Row(COMPLETE),
    "no-done": Row(COMPLETE),  # but where the last word is the proof
    "no-finish": Row(TRUNCATED),  # … and there this takes nothing away
    "double-done": Row(COMPLETE),
    "late-done": Row(COMPLETE, None, (50, 600)),
    "glued-done": Row(COMPLETE),
    "garbage": Row(COMPLETE),
    "usage-first": Row(COMPLETE, None, None, _CHAT),
    "usage-last": Row(COMPLETE, None, None, _CHAT),
    "usage-every": Row(COMPLETE, None, None, _CHAT),
    "usage-never": Row(COMPLETE, COMPLETE),
    **{f"error-{shape}": Row(TOLD, None, (0, 5), (upstream,)) for shape, upstream in _SHAPES.items()},
    "pings": Row(IDLE, None, (0, 3)),  # with none before them it is no first content
    "endless": Row(TOTAL),
    "giant": Row(COMPLETE, COMPLETE),
    "crlf": Row(COMPLETE, COMPLETE),
    "cr": Row(COMPLETE, None, None, ("openai-chat", "anthropic-messages", "openai-responses")),
    "bom": Row(COMPLETE, COMPLETE),
    "no-space": Row(COMPLETE),
    "multi-line": Row(COMPLETE),
    # each byte is a turn of three loops: thousands of them are late for no fault of anybody's
    "bytewise": Row(COMPLETE, None, None, ("openai-chat", "anthropic-messages", "gemini", "ollama")),
    "one-write": Row(COMPLETE, COMPLETE),
    "gzip": Row(COMPLETE, COMPLETE),
    "plain-type": Row(COMPLETE, COMPLETE),
    "no-index": Row(COMPLETE, COMPLETE),
    "no-role": Row(COMPLETE, COMPLETE),
    "no-model": Row(COMPLETE, COMPLETE),
    "no-id": Row(COMPLETE, COMPLETE),
    "unknown-fields": Row(COMPLETE, COMPLETE),
    "bad-arguments": Row(COMPLETE),
}

#: faults of bytes alone, which may come on top of any other of a stream
LOOKS = ("crlf", "bom", "no-space", "multi-line", "unknown-fields")


def check_rows() -> None:
    """Raises `LookupError` for a fault that nobody has said anything about."""
    unknown = set(FAULTS) ^ set(ROWS)
    if unknown:
        raise LookupError(f"soaking/owed.py and the simulator do not agree on {', '.join(sorted(unknown))}")


def choose_fault(chance: random.Random, upstream: str, *, stream: bool) -> tuple[str, Ending]:
    """Any that says something about such a reply, and the ending that is owed for it."""
    names = [name for name in ROWS if name == "status" or _is_about(ROWS[name], upstream, stream)]
    name = chance.choice(names)
    if name == "status":
        status = chance.choice(list(STATUSES))
        return f"status-{status}", STATUSES[status]
    row = ROWS[name]
    ending = row.stream if stream else row.document
    assert ending is not None
    if stream and name in ("no-done", "no-finish"):
        proof = PROOF.get(upstream, "finish")
        ending = TRUNCATED if name == ("no-done" if proof == "terminator" else "no-finish") else COMPLETE
    if row.numbers is None:
        return name, ending
    number = chance.randint(*row.numbers)
    return f"{name}-{number}", FIRST_CONTENT if name == "pings" and number == 0 else ending


def _is_about(row: Row, upstream: str, stream: bool) -> bool:
    ending = row.stream if stream else row.document
    return ending is not None and (not row.upstreams or upstream in row.upstreams)
