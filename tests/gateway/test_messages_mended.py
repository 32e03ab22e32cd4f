"""Servers that speak Anthropic's dialect not quite as its SDKs hear it: what the gateway gives them is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anthropic
import pytest

from tests.gateways import Gateway, serving
from tests.upstreams import Upstream, sse
from tests.wires import MESSAGES

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.process

TOOL: Any = {"name": "look", "input_schema": {"type": "object", "properties": {}}}


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    scripted = Upstream()
    yield scripted
    scripted.close()


@pytest.fixture(scope="module")
def gateway(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    entry = {"url": upstream.url(MESSAGES.mount), "dialect": "anthropic-messages"}
    upstreams = {"plain": entry, "llama": {**entry, "profile": "llamacpp"}}
    config = {"upstreams": upstreams, "models": {"m": "plain:real-1", "l": "llama:real-1"}}
    with serving({**config, "telemetry": {"store": {"path": None}}}, tmp_path_factory.mktemp("mended")) as running:
        yield running


def heard(gateway: Gateway, model: str) -> anthropic.types.Message:
    with (
        anthropic.Anthropic(base_url=gateway.url, api_key="any", max_retries=0, timeout=10) as client,
        client.messages.stream(
            model=model, max_tokens=9, messages=[{"role": "user", "content": "Hi"}], tools=[TOOL]
        ) as stream,
    ):
        return stream.get_final_message()


def test_pathology_38_a_stream_without_event_lines(gateway: Gateway, upstream: Upstream):
    frames = [*MESSAGES.opening(), MESSAGES.text("Hello "), MESSAGES.text("🐎"), *MESSAGES.closing((9, 2))]
    upstream.answers(sse(*(frame[frame.index(b"data:") :] for frame in frames)))
    message = heard(gateway, "m")
    assert [block.to_dict() for block in message.content] == [{"type": "text", "text": "Hello 🐎"}]
    assert (message.model, message.stop_reason, message.usage.output_tokens) == ("m", "end_turn", 2)


def test_quirk_a_call_of_llamacpps_opens_without_its_input(gateway: Gateway, upstream: Upstream):
    frames = [*MESSAGES.opening(), *MESSAGES.call("look", ['{"at"', ':"sea"}']), *MESSAGES.closing(stop="tool_calls")]
    upstream.answers(sse(*(frame.replace(b', "input": {}', b"") for frame in frames)))
    (_, call) = heard(gateway, "l").content
    assert isinstance(call, anthropic.types.ToolUseBlock)
    assert (call.name, call.input) == ("look", {"at": "sea"})
    answered = gateway.post(MESSAGES, MESSAGES.request("l"))
    opened = [found["content_block"] for event, found in answered.said().frames if event == "content_block_start"]
    assert opened[1] == {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}}
