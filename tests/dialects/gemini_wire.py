"""Gemini's wire, as tests write it, and what our decoder makes of it."""

from __future__ import annotations

import json
from typing import Any

from penstock.canon.events import Finish
from penstock.dialects.gemini import ARRAY, DIALECT
from penstock.framing.document import DocumentFraming
from penstock.framing.json_array import JSONArrayFraming
from penstock.framing.sse import SSEFraming
from tests.invariants import Driven, check_events, drive

USAGE = {"promptTokenCount": 9, "candidatesTokenCount": 2, "thoughtsTokenCount": 3, "totalTokenCount": 14}


def chunk(*parts: Any, finish: Any = None, usage: Any = None, **candidate: Any) -> dict[str, Any]:
    """One chunk with one candidate."""
    said = {"content": {"parts": list(parts), "role": "model"}, "index": 0, **candidate}
    if finish is not None:
        said["finishReason"] = finish
    head: dict[str, Any] = {"candidates": [said], "modelVersion": "gem-x", "responseId": "resp_1"}
    return head if usage is None else {**head, "usageMetadata": usage}


def text(said: str, **fields: Any) -> dict[str, Any]:
    return {"text": said, **fields}


def thought(said: str, **fields: Any) -> dict[str, Any]:
    return {"text": said, "thought": True, **fields}


def call(name: str, args: Any = None, **part: Any) -> dict[str, Any]:
    return {"functionCall": {"name": name, "args": {} if args is None else args}, **part}


STOP = chunk(text(""), finish="STOP", usage=USAGE)


def sse(*payloads: Any) -> bytes:
    return b"".join(b"data: " + json.dumps(payload).encode() + b"\r\n\r\n" for payload in payloads)


def array(*payloads: Any) -> bytes:
    return b"[" + b"\n,\n".join(json.dumps(payload, indent=2).encode() for payload in payloads) + b"\n]"


def decoded(*wire: bytes) -> Driven:
    driven = drive(SSEFraming(), DIALECT.decoder(document=False, provider="google"), wire)
    check_events(driven.events, complete=driven.error is None)
    return driven


def decoded_array(*wire: bytes) -> Driven:
    driven = drive(JSONArrayFraming(), ARRAY.decoder(document=False, provider="google"), wire)
    check_events(driven.events, complete=driven.error is None)
    return driven


def told(*payloads: Any) -> Driven:
    """What a whole stream with these chunks says."""
    driven = decoded(sse(*payloads, STOP))
    assert driven.error is None, driven.error
    return driven


def finish_of(driven: Driven) -> Finish:
    finish = driven.events[-1]
    assert isinstance(finish, Finish)
    return finish


def document(body: Any) -> Driven:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    driven = drive(DocumentFraming(), DIALECT.decoder(document=True, provider="google"), [data])
    check_events(driven.events, complete=driven.error is None)
    return driven
