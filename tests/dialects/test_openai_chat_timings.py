"""The clocks of servers that speak this dialect, each in its own words; streamed, and in a document."""

from __future__ import annotations

import json
from typing import Any

import pytest

from penstock.canon.events import Timings
from penstock.dialects.openai_chat import DIALECT
from penstock.framing.document import DocumentFraming
from tests.dialects.chat_wire import DONE, STOP, chunk, decoded, said, sse
from tests.invariants import drive

USAGE = {
    "prompt_tokens": 125,
    "completion_tokens": 42,
    "total_tokens": 167,
    "prompt_tokens_details": {"cached_tokens": 100},
}
VLLM = {"time_to_first_token_ms": 38.5, "generation_time_ms": 545.2, "queue_time_ms": 1.0, "mean_itl_ms": 13.3}
TIMES = {"queue_time": 0.01, "prompt_time": 0.025, "completion_time": 0.5, "total_time": 0.535}
OF_TIMES = Timings(prompt_tokens=25, cached_tokens=100, prompt_ms=25.0, predicted_tokens=42, predicted_ms=500.0)

SERVERS: list[tuple[str, dict[str, Any], Timings]] = [
    (
        "vllm",
        {"usage": USAGE, "metrics": {**VLLM, "tokens_per_second": 75.2}},
        Timings(predicted_ms=545.2, predicted_per_second=75.2),
    ),
    (
        "vllm, without the rate",
        {"usage": USAGE, "metrics": {**VLLM, "mean_itl_ms": 20.0}},
        Timings(predicted_ms=545.2, predicted_per_second=50.0),
    ),
    ("groq", {"usage": {**USAGE, **TIMES}}, OF_TIMES),
    ("groq, in its own member", {"x_groq": {"id": "req", "usage": {**USAGE, **TIMES}}}, OF_TIMES),
    ("cerebras", {"usage": USAGE, "time_info": {**TIMES, "created": 1.0}}, OF_TIMES),
]


@pytest.mark.parametrize(("last", "timings"), [server[1:] for server in SERVERS], ids=[name for name, *_ in SERVERS])
def test_what_a_server_says_of_its_own_clock(last: dict[str, Any], timings: Timings):
    streamed = decoded(sse(said("a"), STOP, chunk(choices=[], **last)) + DONE)
    assert [event for event in streamed.events if isinstance(event, Timings)] == [timings]
    assert streamed.response.usage is not None
    assert streamed.response.usage.output == 42
    message = {"index": 0, "message": {"role": "assistant", "content": "a"}, "finish_reason": "stop"}
    body = {"id": "c", "object": "chat.completion", "model": "m", "choices": [message], **last}
    whole = drive(DocumentFraming(), DIALECT.decoder(document=True), [json.dumps(body).encode()])
    assert [event for event in whole.events if isinstance(event, Timings)] == [timings]


@pytest.mark.parametrize(
    "last",
    [
        {"usage": USAGE},
        {"usage": USAGE, "metrics": {"accuracy": 0.5}},
        {"usage": USAGE, "metrics": [1]},
        {"usage": USAGE, "metrics": {"generation_time_ms": True, "mean_itl_ms": 0}},
        {"usage": USAGE, "time_info": {"prompt_time": "1"}},
        {"usage": {**USAGE, "completion_time": None}},
    ],
)
def test_c6_what_says_nothing_is_no_clock(last: dict[str, Any]):
    streamed = decoded(sse(said("a"), STOP, chunk(choices=[], **last)) + DONE)
    assert not [event for event in streamed.events if isinstance(event, Timings)]
