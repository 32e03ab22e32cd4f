"""What Claude Code sends, for a model of another dialect: nothing of it is refused, and what is left out is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from penstock.canon.errors import Unsupported
from penstock.canon.events import Text
from penstock.canon.request import ChatRequest, Message
from penstock.canon.target import Target
from penstock.dialects import DIALECTS, client_dialect, dialect
from penstock.dialects.anthropic_messages import DIALECT

CAPTURE = Path(__file__).resolve().parents[2].parent / "shared" / "captures" / "claude-code.jsonl"

EPHEMERAL = {"type": "ephemeral"}
READ: dict[str, Any] = {
    "name": "Read",
    "description": "Reads a file.",
    "input_schema": {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {"file_path": {"type": "string"}},
        "required": ["file_path"],
        "additionalProperties": False,
    },
}
ASKED: dict[str, Any] = {
    "model": "claude-opus-4-8",
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "<system-reminder>Be careful.</system-reminder>"},
                {"type": "text", "text": "What is in a.txt?"},
            ],
        },
        {"role": "system", "content": "Agents: none."},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "I look.", "signature": "EqQB"},
                {"type": "tool_use", "id": "toolu_1", "name": "Read", "input": {"file_path": "a.txt"}, "caller": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "toolu_1",
                    "content": [{"type": "text", "text": "hey"}],
                    "is_error": False,
                    "cache_control": EPHEMERAL,
                }
            ],
        },
    ],
    "system": [
        {"type": "text", "text": "You are an agent."},
        {"type": "text", "text": "Use tools.", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
    ],
    "tools": [READ, {**READ, "name": "Write", "eager_input_streaming": True, "cache_control": EPHEMERAL}],
    "metadata": {"user_id": "user_1"},
    "max_tokens": 64000,
    "thinking": {"type": "adaptive", "display": "omitted"},
    "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
    "output_config": {"effort": "high"},
    "stream": True,
}

#: what has no word in any other dialect, in order of appearance
LEFT_OUT = ["context_management", "cache_control", "caller", "eager_input_streaming", "thinking.display"]

#: a model that completes text has no tools
OTHERS = sorted(set(DIALECTS) - {"anthropic-messages", "openai-completions"})
URLS = {"bedrock": "https://bedrock-runtime.us-east-1.amazonaws.com"}


def parsed(body: dict[str, Any]) -> ChatRequest:
    return DIALECT.parse_request(json.dumps(body).encode())


def target(name: str) -> Target:
    return Target("other", URLS.get(name, "https://other.test/v1"), name, model="m-1")


@pytest.mark.parametrize("name", OTHERS)
def test_what_it_always_sends_is_refused_by_no_dialect(name: str):
    request = dialect(name).build_request(parsed(ASKED), target(name))
    assert [word for word in request.dropped if word in LEFT_OUT] == LEFT_OUT
    said = request.body.decode()
    for text in ("You are an agent.", "Use tools.", "Agents: none.", "What is in a.txt?", "hey", "a.txt"):
        assert text in said, text
    if name != "straico":  # which is told of tools in words
        assert "Read" in said
        assert "Write" in said
    assert "cache_control" not in said
    assert "EqQB" not in said, "a signature of Anthropic's is nobody else's"


def test_what_it_asks_for_that_others_have():
    request = parsed(ASKED)
    assert (request.reasoning_effort, request.max_tokens, request.user) == ("high", 64000, "user_1")
    assert [tool.name for tool in request.tools] == ["Read", "Write"]
    assert [message.role for message in request.messages] == ["system", "user", "system", "assistant", "tool"]


def test_a_system_message_amid_the_others_keeps_its_place_in_chat():
    chat = client_dialect("openai-chat")
    body = chat.build_request(parsed(ASKED), target("openai-chat")).body
    again = chat.parse_request(body)
    assert [message.role for message in again.messages] == ["system", "user", "system", "assistant", "tool"]
    assert again.messages[2] == Message("system", (Text("Agents: none."),))


def test_a_system_message_amid_the_others_on_the_way_to_anthropic():
    """Only recent models take one: what we build ourselves is marked, what Claude Code sends there is forwarded."""
    body = json.loads(DIALECT.build_request(parsed(ASKED), target("anthropic-messages")).body)
    assert body["messages"][0]["content"][-1] == {"type": "text", "text": "<system>\nAgents: none.\n</system>"}
    raw = json.dumps(ASKED).encode()
    head = DIALECT.read_head(raw, "/v1/messages?beta=true")
    forwarded = DIALECT.forward_request(head, Target("a", "https://a.test/v1", "anthropic-messages"), {})
    assert (forwarded.url, forwarded.body) == ("https://a.test/v1/messages", raw)


@pytest.mark.parametrize("name", OTHERS)
def test_the_request_that_was_captured(name: str):
    """A real one; the recorder kept its shape and cut its texts."""
    if not CAPTURE.exists():
        pytest.skip(f"no captured requests at {CAPTURE}")
    lines = [json.loads(line) for line in CAPTURE.read_text().splitlines()]
    body = _filled(next(line["body"] for line in lines if line["method"] == "POST"))
    request = dialect(name).build_request(parsed(body), target(name))
    assert set(request.dropped) >= {"context_management", "cache_control"}


def _filled(cut: Any) -> Any:
    """`{…}` stands for an object that the recorder left out, `… 24 items` for the rest of a list."""
    match cut:
        case "{…}":
            return {"type": "ephemeral"}
        case dict():
            return {key: {} if key == "properties" else _filled(value) for key, value in cut.items()}
        case list():
            return [_filled(value) for value in cut if not (isinstance(value, str) and value.startswith("…"))]
    return cut


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [READ, {"type": "web_search_20260318", "name": "web_search"}]}, "tools[1].type"),
        ({"tools": [{"type": "mcp_toolset", "mcp_server_name": "s"}]}, "tools[0].type"),
        ({"mcp_servers": [{"type": "url", "url": "https://m.test", "name": "s"}]}, "mcp_servers"),
        ({"container": {"skills": [{"type": "anthropic", "skill_id": "pdf"}]}}, "container"),
    ],
)
def test_what_anthropic_alone_can_execute_is_refused(fields: dict[str, Any], param: str):
    with pytest.raises(Unsupported) as caught:
        parsed({**ASKED, **fields})
    assert caught.value.param == param


def test_what_is_null_or_off_is_not_left_out():
    document = {"type": "document", "source": {"type": "text", "data": "x"}, "citations": {"enabled": False}}
    content = [document, {"type": "text", "text": "Hi", "cache_control": None, "citations": None}]
    request = parsed(
        {"model": "m", "max_tokens": 1, "container": None, "messages": [{"role": "user", "content": content}]}
    )
    assert request.extras == {}
    on = {**document, "citations": {"enabled": True}, "context": "c"}
    request = parsed({"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": [on]}]})
    assert dialect("openai-chat").build_request(request, target("openai-chat")).dropped == ("context", "citations")
