"""Trace context: gone on with where it is one, passed over where it is not."""

from __future__ import annotations

import pytest

from penstock.canon.trace import Trace, continued
from penstock.policy.trace import trace_of
from penstock.streams.handler import Call

TRACE, PARENT, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "00f067aa0ba902b7"


def test_a_callers_trace_is_gone_on_with():
    trace = continued(f"00-{TRACE}-{PARENT}-01", "vendor=1", SPAN)
    assert trace == Trace(TRACE, SPAN, PARENT, 1, "vendor=1")
    assert trace.headers == (("traceparent", f"00-{TRACE}-{SPAN}-01"), ("tracestate", "vendor=1"))


def test_who_does_not_sample_is_obeyed():
    trace = continued(f"00-{TRACE}-{PARENT}-00", None, SPAN)
    assert trace is not None
    assert not trace.is_sampled
    assert trace.headers == (("traceparent", f"00-{TRACE}-{SPAN}-00"),)


def test_a_later_version_may_say_more():
    trace = continued(f"01-{TRACE}-{PARENT}-03-more", None, SPAN)
    assert trace is not None
    assert trace.headers == (("traceparent", f"00-{TRACE}-{SPAN}-01"),)


@pytest.mark.parametrize(
    "given",
    [
        "",
        "x",
        f"00-{TRACE}-{PARENT}",
        f"00-{TRACE.upper()}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-01-more",
        f"00-{TRACE}-{PARENT}-01\r\nx: y",
    ],
)
def test_what_is_no_traceparent_begins_a_trace_of_its_own(given: str):
    assert continued(given, None, SPAN) is None
    call = Call(request_id="r", model="m", stream=True, headers={"traceparent": given, "tracestate": "v=1"})
    trace = trace_of(call)
    assert (len(trace.trace_id), len(trace.span_id), trace.parent_id, trace.state) == (32, 16, None, None)
    assert trace_of(call).trace_id != trace.trace_id


def test_c11_a_state_without_end_is_left_out():
    trace = continued(f"00-{TRACE}-{PARENT}-01", "v=" + "1" * 600, SPAN)
    assert trace is not None
    assert trace.state is None
