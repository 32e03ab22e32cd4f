"""What a request to each kind of server heeds: one row of data decides, and what is left out is named."""

from __future__ import annotations

import json
from typing import Any

import pytest

from penstock.canon.errors import Unsupported
from penstock.canon.events import Reasoning, Text, ToolCall
from penstock.canon.request import Message, OutputFormat, ToolChoice, ToolResult
from penstock.dialects.openai_chat import DIALECT
from penstock.dialects.openai_chat.profiles import PROFILES
from tests.dialects.conversations import CALL, LOOK, SCHEMA, asking, built, target_for

KNOBS: dict[str, Any] = {
    "max_tokens": 9,
    "temperature": 1.5,
    "top_k": 3,
    "seed": 7,
    "presence_penalty": 0.5,
    "user": "me",
}


def body_for(profile: str | None, *messages: Message, **fields: Any) -> dict[str, Any]:
    return built("openai-chat", asking(*messages, **fields), profile=profile)[0]


@pytest.mark.parametrize(
    ("profile", "sent", "dropped"),
    [
        (None, {"max_tokens": 9, "temperature": 1.5, "top_k": 3, "seed": 7, "presence_penalty": 0.5, "user": "me"}, ()),
        (
            "openai",
            {"max_completion_tokens": 9, "temperature": 1.5, "seed": 7, "presence_penalty": 0.5, "user": "me"},
            ("top_k",),
        ),
        (
            "mistral",
            {"max_tokens": 9, "temperature": 1.5, "random_seed": 7, "presence_penalty": 0.5},
            ("top_k", "user"),
        ),
        (
            "moonshot",
            {"max_tokens": 9, "temperature": 1.0, "seed": 7, "presence_penalty": 0.5, "user": "me"},
            ("top_k",),
        ),
        (
            "cerebras",
            {"max_completion_tokens": 9, "temperature": 1.5, "seed": 7, "user": "me"},
            ("top_k", "presence_penalty"),
        ),
        (
            "parasail",
            {
                "max_tokens": 9,
                "temperature": 1.5,
                "top_k": 3,
                "seed": 7,
                "presence_penalty": 0.5,
                "user": "me",
                "store": False,
            },
            (),
        ),
    ],
)
def test_knobs(profile: str | None, sent: dict[str, Any], dropped: tuple[str, ...]):
    body, named = built("openai-chat", asking(**KNOBS), profile=profile)
    assert {key: value for key, value in body.items() if key not in ("model", "messages")} == sent
    assert named == dropped


@pytest.mark.parametrize(
    ("profile", "effort", "fields"),
    [
        (None, "low", {"reasoning_effort": "low"}),
        ("openrouter", "low", {"reasoning": {"effort": "low"}}),
        ("openrouter", "none", {"reasoning": {"enabled": False}}),
        ("deepseek", "high", {"thinking": {"type": "enabled"}}),
        ("zai", "none", {"thinking": {"type": "disabled"}}),
        ("dashscope", "low", {"enable_thinking": True}),
        ("sglang", "none", {"chat_template_kwargs": {"enable_thinking": False}}),
    ],
)
def test_how_thinking_is_asked_for(profile: str | None, effort: str, fields: dict[str, Any]):
    assert fields.items() <= body_for(profile, reasoning_effort=effort).items()


def test_a_budget_keeps_its_figure_where_there_is_a_field():
    assert body_for("openrouter", reasoning_budget=2000)["reasoning"] == {"max_tokens": 2000}
    assert body_for("dashscope", reasoning_budget=2000)["thinking_budget"] == 2000


THOUGHT = Message("assistant", (Reasoning("Hm"), Text("Hi")))


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        (None, {"content": "Hi"}),
        ("llamacpp", {"content": "Hi", "reasoning_content": "Hm"}),
        ("vllm", {"content": "Hi", "reasoning": "Hm"}),
        (
            "mistral",
            {
                "content": [
                    {"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]},
                    {"type": "text", "text": "Hi"},
                ]
            },
        ),
    ],
)
def test_which_form_thoughts_come_back_in(profile: str | None, message: dict[str, Any]):
    assert body_for(profile, THOUGHT)["messages"] == [{"role": "assistant", **message}]


def test_usage_is_asked_for_where_that_is_allowed():
    assert body_for(None, stream=True)["stream_options"] == {"include_usage": True}
    assert "stream_options" not in body_for("mistral", stream=True)
    head = DIALECT.read_head(b'{"model":"m","messages":[{}],"stream":true}')
    assert b"stream_options" not in DIALECT.forward_request(head, target_for("openai-chat", profile="mistral"), {}).body
    assert b"stream_options" in DIALECT.forward_request(head, target_for("openai-chat"), {}).body


def test_nine_letters_for_an_id_the_same_for_its_result():
    calls = (ToolCall("toolu_long_1", "look", "{}", {}), ToolCall("toolu_long_2", "look", "{}", {}), CALL)
    results = tuple(ToolResult(call.id, (Text(call.id),)) for call in calls)
    kept = ToolCall("abcDEF123", "look", "{}", {})
    body = body_for("mistral", Message("assistant", (*calls, kept)), Message("tool", results))
    ids = [call["id"] for call in body["messages"][0]["tool_calls"]]
    assert all(len(id_) == 9 and id_.isalnum() for id_ in ids)
    assert len(set(ids)) == 4
    assert ids[3] == "abcDEF123"
    assert [message["tool_call_id"] for message in body["messages"][1:]] == ids[:3]


def test_tools():
    must = ToolChoice("any")
    assert body_for("mistral", tools=(LOOK,), tool_choice=must)["tool_choice"] == "any"
    assert body_for(None, tools=(LOOK,), tool_choice=must)["tool_choice"] == "required"
    with pytest.raises(Unsupported):
        body_for("ollama-openai", tools=(LOOK,), tool_choice=must)
    assert "tools" not in body_for("ollama-openai", tools=(LOOK,), tool_choice=ToolChoice("none"))
    body, dropped = built("openai-chat", asking(tools=(LOOK,), parallel_tool_calls=False), profile="sambanova")
    assert "parallel_tool_calls" not in body
    assert dropped == ("parallel_tool_calls",)


def test_a_schema_that_a_server_does_not_take_is_told():
    body = body_for("deepseek", output=OutputFormat("schema", SCHEMA))
    assert body["response_format"] == {"type": "json_object"}
    assert json.dumps(SCHEMA, separators=(",", ":")) in body["messages"][0]["content"]


def test_lists_of_texts_become_strings():
    asked = Message("user", (Text("a"), Text("b")))
    assert body_for("publicai", asked)["messages"] == [{"role": "user", "content": "a\n\nb"}]
    assert isinstance(body_for(None, asked)["messages"][0]["content"], list)


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_every_profile_builds_a_request(name: str):
    request = asking(Message.of("user", "Hi"), THOUGHT, stream=True, tools=(LOOK,), reasoning_effort="low", **KNOBS)
    body, _ = built("openai-chat", request, profile=name)
    assert body["messages"][0] == {"role": "user", "content": "Hi"}
    assert body["tools"]
