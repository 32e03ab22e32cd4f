"""A layer that gives each call its place in a trace: the caller's, or a new one. Upstreams are told; nothing waits.

Ids are random, and no secrets.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from penstock.canon.trace import Trace, continued

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from penstock.streams.handler import Call, Handler
    from penstock.streams.stream import EventStream

_random = random.SystemRandom()


def traced(handler: Handler) -> Handler:
    def handle(call: Call) -> AbstractAsyncContextManager[EventStream]:
        call.trace = trace_of(call)
        return handler(call)

    return handle


def trace_of(call: Call) -> Trace:
    span_id = _id(64)
    given = call.headers.get("traceparent")
    found = continued(given, call.headers.get("tracestate"), span_id) if given else None
    return found or Trace(_id(128), span_id)


def _id(bits: int) -> str:
    """Hexadecimal, and not all zeros, which W3C keeps for no id."""
    return f"{_random.getrandbits(bits) or 1:0{bits // 4}x}"
