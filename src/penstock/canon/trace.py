"""A call's place in a trace, as W3C Trace Context writes it (https://www.w3.org/TR/trace-context/). A value."""

from __future__ import annotations

import re

from msgspec import Struct

#: version, trace, parent, flags. A later version may say more behind a dash, which is passed over.
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")

MAX_STATE_CHARS = 512
SAMPLED = 1


class Trace(Struct, frozen=True):
    """`span_id` is the call's own span, `parent_id` that of whoever called, None where nobody said.

    Ids are lower-case hexadecimal: 32 digits of the trace, 16 of a span. `state` is the caller's `tracestate`.
    """

    trace_id: str
    span_id: str
    parent_id: str | None = None
    flags: int = SAMPLED
    state: str | None = None

    @property
    def is_sampled(self) -> bool:
        return bool(self.flags & SAMPLED)

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """What whoever is asked for this call is told."""
        told = (("traceparent", f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}"),)
        return (*told, ("tracestate", self.state)) if self.state else told


def continued(traceparent: str, tracestate: str | None, span_id: str) -> Trace | None:
    """The caller's trace, gone on with. None for what is no `traceparent`, which is treated as if it were not there."""
    found = _TRACEPARENT.fullmatch(traceparent.strip())
    if found is None:
        return None
    version, trace_id, parent_id, flags, more = found.groups()
    if version == "ff" or (version == "00" and more) or not trace_id.strip("0") or not parent_id.strip("0"):
        return None
    state = tracestate.strip() if tracestate and len(tracestate) <= MAX_STATE_CHARS else None
    return Trace(trace_id, span_id, parent_id, int(flags, 16) & SAMPLED, state or None)
