"""What a real model's server counts is what it then reports as used, by each way to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anthropic
import pytest

if TYPE_CHECKING:
    from tests.processes import Running

pytestmark = pytest.mark.process

TOOL: Any = {"name": "get_weather", "description": "d", "input_schema": {"type": "object", "properties": {}}}


@pytest.mark.parametrize("way", ["worker", "openai-chat", "anthropic-messages"])
@pytest.mark.parametrize("more", [{}, {"system": "Be brief.", "tools": [TOOL]}], ids=["plain", "system and tools"])
def test_what_is_counted_is_what_is_used(
    way: str, more: dict[str, Any], worker: Running, gateways: dict[str, Running]
) -> None:
    at = worker if way == "worker" else gateways[way]
    asked: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "Tell me a story"}], **more}
    with anthropic.Anthropic(base_url=at.url, api_key="any", max_retries=0, timeout=30) as client:
        counted = client.messages.count_tokens(**asked).input_tokens
        used = client.messages.create(max_tokens=2, **asked).usage
    assert counted == used.input_tokens + (used.cache_read_input_tokens or 0)
    assert counted > 5
