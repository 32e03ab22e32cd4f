"""OpenAI chat's wire, as tests write it, and what our decoder makes of it."""

from __future__ import annotations

import json
from typing import Any

from penstock.canon.events import Finish
from penstock.dialects.openai_chat import DIALECT
from penstock.framing.document import DocumentFraming
from penstock.framing.sse import SSEFraming
from tests.invariants import Driven, check_events, drive

USAGE = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}
DONE = b"data: [DONE]\n\n"


def chunk(delta: Any = None, finish: Any = None, **fields: Any) -> dict[str, Any]:
    """One chunk with one choice."""
    choice = {"index": 0, "delta": {} if delta is None else delta, "finish_reason": finish}
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return {**head, "choices": [choice], **fields}


def said(text: str, **fields: Any) -> dict[str, Any]:
    return chunk({"content": text}, **fields)


def calls(*deltas: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return chunk({"tool_calls": list(deltas)}, **fields)


def call(index: Any = 0, id: Any = None, name: Any = None, arguments: Any = None) -> dict[str, Any]:
    """A piece of a tool call; what is None is left out."""
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    given = {"index": index, "id": id, "function": function}
    return {key: value for key, value in given.items() if value is not None}


STOP = chunk(finish="stop")


def sse(*payloads: dict[str, Any]) -> bytes:
    return b"".join(b"data: " + json.dumps(payload).encode() + b"\n\n" for payload in payloads)


def decoded(*wire: bytes) -> Driven:
    driven = drive(SSEFraming(), DIALECT.decoder(document=False, provider="someone"), wire)
    check_events(driven.events, complete=driven.error is None)
    return driven


def told(*payloads: dict[str, Any], finish: str = "stop") -> Driven:
    """What a whole stream with these chunks says."""
    driven = decoded(sse(*payloads, chunk(finish=finish)) + DONE)
    assert driven.error is None, driven.error
    return driven


def finish_of(driven: Driven) -> Finish:
    finish = driven.events[-1]
    assert isinstance(finish, Finish)
    return finish


def document(body: Any) -> Driven:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    driven = drive(DocumentFraming(), DIALECT.decoder(document=True, provider="someone"), [data])
    check_events(driven.events, complete=driven.error is None)
    return driven
