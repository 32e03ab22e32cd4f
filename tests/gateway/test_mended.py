"""A server whose own stream leaves out what strict clients need: llama.cpp's Responses, written anew."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import openai
import pytest

from tests.gateways import serving
from tests.upstreams import Answer, Upstream

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.process

ITEM: dict[str, Any] = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed"}
EVENTS: list[dict[str, Any]] = [
    {"type": "response.created", "response": {"id": "resp_1", "model": "real", "object": "response"}},
    {"type": "response.output_item.added", "item": {**ITEM, "content": []}},
    {"type": "response.output_text.delta", "item_id": "msg_1", "delta": "Hel"},
    {"type": "response.output_text.delta", "item_id": "msg_1", "delta": "lo"},
    {"type": "response.output_item.done", "item": {**ITEM, "content": [{"type": "output_text", "text": "Hello"}]}},
    {"type": "response.completed", "response": {"id": "resp_1", "model": "real", "status": "completed"}},
]


@pytest.mark.parametrize("profile", ["llamacpp", None])
def test_llamacpps_responses_get_their_numbers(profile: str | None, tmp_path: Path) -> None:
    upstream = Upstream()
    frames = [f"event: {each['type']}\ndata: {json.dumps(each)}\n\n".encode() for each in EVENTS]
    upstream.answers(Answer(frames))
    entry = {"url": upstream.url("/v1"), "dialect": "openai-responses", **({"profile": profile} if profile else {})}
    with serving({"upstreams": {"local": entry}, "telemetry": {"store": {"path": None}}}, tmp_path) as gateway:
        with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="any", max_retries=0) as client:
            events = list(client.responses.create(model="real", input="Hi", stream=True))
        numbers = [getattr(event, "sequence_number", None) for event in events]
        if profile is None:
            assert numbers == [None] * len(EVENTS), "another server's own words pass as they are"
            return
        assert numbers == list(range(len(events)))
        deltas = [event for event in events if event.type == "response.output_text.delta"]
        assert [(event.delta, event.output_index, event.content_index) for event in deltas] == [
            ("Hel", 0, 0),
            ("lo", 0, 0),
        ]
        assert events[-1].type == "response.completed"
        assert events[-1].response.output_text == "Hello"
    upstream.close()
