"""Anthropic Messages requests: a client's, ours, and those to an upstream."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from penstock.canon.errors import InvalidRequest, Unsupported
from penstock.canon.events import Reasoning, Refusal, Text, ToolCall
from penstock.canon.request import (
    Audio,
    ChatRequest,
    File,
    Image,
    Message,
    OutputFormat,
    Tool,
    ToolChoice,
    ToolResult,
)
from penstock.canon.target import Secret, Target
from penstock.dialects import DIALECTS, dialect
from penstock.dialects.anthropic_messages import DIALECT

TARGET = Target("claude", "https://api.anthropic.com/v1", "anthropic-messages")
ASKED: dict[str, Any] = {"model": "claude-x", "max_tokens": 100, "messages": [{"role": "user", "content": "Hi"}]}
USER = Message.of("user", "Hi")


def body_of(**fields: Any) -> bytes:
    return json.dumps({**ASKED, **fields}).encode()


def parsed(**fields: Any) -> ChatRequest:
    return DIALECT.parse_request(body_of(**fields))


def said(*content: dict[str, Any], role: str = "user") -> tuple[Message, ...]:
    return parsed(messages=[{"role": role, "content": list(content)}]).messages


def built(*messages: Message, target: Target = TARGET, **fields: Any) -> dict[str, Any]:
    request = ChatRequest("claude-x", messages or (USER,), **fields)
    return json.loads(DIALECT.build_request(request, target).body)


# --- the head of a request, and forwarding ---------------------------------------------------------------------------


def test_the_head_of_a_request():
    head = DIALECT.read_head(b'{"model":"claude-x","max_tokens":1,"messages":[{}],"stream":true,"new":{"a":1.50}}')
    assert (head.model, head.stream, head.include_usage) == ("claude-x", True, True)
    assert bytes(head.fields["new"]) == b'{"a":1.50}'


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"max_tokens": 1, "messages": [{}]}, "model"),
        ({"model": 3, "max_tokens": 1, "messages": [{}]}, "model"),
        ({"model": "m", "messages": [{}]}, "max_tokens"),
        ({"model": "m", "max_tokens": "1", "messages": [{}]}, "max_tokens"),
        ({"model": "m", "max_tokens": -1, "messages": [{}]}, "max_tokens"),
        ({"model": "m", "max_tokens": 1}, "messages"),
        ({"model": "m", "max_tokens": 1, "messages": []}, "messages"),
        ({"model": "m", "max_tokens": 1, "messages": "Hi"}, "messages"),
        ({"model": "m", "max_tokens": 1, "messages": [{}], "stream": "yes"}, "stream"),
        ({"model": "m", "max_tokens": 1, "messages": [{}], "temperature": "hot"}, "temperature"),
        ({"model": "m", "max_tokens": 1, "messages": [{}], "system": 1}, "system"),
        ({"model": "m", "max_tokens": 1, "messages": [{}], "tools": {}}, "tools"),
        ({"model": "m", "max_tokens": 1, "messages": [{}], "stop_sequences": ["a", 1]}, "stop_sequences[1]"),
    ],
)
def test_what_is_wrong_with_a_head_is_said_with_its_path(body: dict[str, Any], param: str):
    with pytest.raises(InvalidRequest) as caught:
        DIALECT.read_head(json.dumps(body).encode())
    assert caught.value.param == param


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"model":"\xff"}'])
def test_a_body_that_is_no_object(body: bytes):
    with pytest.raises(InvalidRequest):
        DIALECT.read_head(body)


def test_c10_a_request_is_forwarded_as_it_came():
    body = b'{"model":"claude-x","max_tokens":1,"messages":[ {"role":"user", "content":"\\u00e9"} ],"new":{"a":1.50}}'
    head = DIALECT.read_head(body)
    assert DIALECT.forward_request(head, TARGET, {}).body == body
    mapped = msgspec.structs.replace(TARGET, model="claude-y")
    assert DIALECT.forward_request(head, mapped, {}).body == body.replace(b"claude-x", b"claude-y")


def test_forwarded_headers():
    head = DIALECT.read_head(body_of(stream=True))
    target = msgspec.structs.replace(TARGET, key=Secret("sk-1"), headers=(("X-Team", "a"),))
    client = {"anthropic-version": "2026-10-21", "anthropic-beta": "a,b", "authorization": "Bearer theirs", "x": "y"}
    request = DIALECT.forward_request(head, target, client)
    assert (request.method, request.url) == ("POST", "https://api.anthropic.com/v1/messages")
    assert dict(request.headers) == {
        "content-type": "application/json",
        "accept": "text/event-stream",
        "anthropic-version": "2026-10-21",
        "anthropic-beta": "a,b",
        "x-api-key": "sk-1",
        "x-team": "a",
    }


def test_headers_of_a_request_of_ours():
    request = DIALECT.build_request(ChatRequest("claude-x", (USER,)), TARGET)
    assert dict(request.headers) == {
        "content-type": "application/json",
        "accept": "application/json",
        "anthropic-version": "2023-06-01",
    }


# --- a client's request → ours ---------------------------------------------------------------------------------------


def test_the_plain_fields_of_a_request():
    request = parsed(
        stream=True,
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        stop_sequences=["###"],
        metadata={"user_id": "u1"},
        service_tier="auto",
    )
    assert request == ChatRequest(
        model="claude-x",
        messages=(USER,),
        stream=True,
        include_usage=True,
        max_tokens=100,
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        stop=("###",),
        user="u1",
        extras={"anthropic-messages": {"service_tier": "auto"}},
    )


def test_system_comes_first():
    assert parsed(system="Be brief.").messages == (Message.of("system", "Be brief."), USER)
    blocks = [{"type": "text", "text": "A", "cache_control": {"type": "ephemeral"}}, {"type": "text", "text": "B"}]
    assert parsed(system=blocks).messages[0] == Message("system", (Text("A"), Text("B")))
    assert parsed(system="").messages == (USER,)


def test_a_system_message_amid_the_others():
    messages = parsed(messages=[*ASKED["messages"], {"role": "system", "content": "Now in French."}]).messages
    assert messages == (USER, Message.of("system", "Now in French."))


def test_tool_results_come_before_what_the_user_says():
    request = parsed(
        messages=[
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "f", "input": {"a": 1}}]},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Go on."},
                    {"type": "tool_result", "tool_use_id": "t1", "content": "42"},
                    {
                        "type": "tool_result",
                        "tool_use_id": "t2",
                        "is_error": True,
                        "content": [
                            {"type": "text", "text": "no"},
                            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}},
                        ],
                    },
                    {"type": "tool_result", "tool_use_id": "t3"},
                ],
            },
        ]
    )
    assert request.messages[1:] == (
        Message("assistant", (ToolCall("t1", "f", '{"a":1}', {"a": 1}),)),
        Message(
            "tool",
            (
                ToolResult("t1", (Text("42"),), False, "f"),
                ToolResult("t2", (Text("no"), Image(data="AA==", media_type="image/png")), True),
                ToolResult("t3"),
            ),
        ),
        Message.of("user", "Go on."),
    )


def test_images_and_documents():
    (message,) = said(
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}},
        {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}},
        {"type": "document", "source": {"type": "base64", "data": "AA=="}, "title": "T"},
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "words"}},
        {"type": "document", "source": {"type": "url", "url": "https://x/y.pdf"}},
        {"type": "document", "source": {"type": "file", "file_id": "file_1"}},
        {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "a"}]}},
        {"type": "search_result", "source": "https://x", "title": "S", "content": [{"type": "text", "text": "b"}]},
    )
    assert message.parts == (
        Image(data="AA==", media_type="image/png"),
        Image(url="https://x/y.png"),
        File(data="AA==", media_type="application/pdf", name="T"),
        File(text="words", media_type="text/plain"),
        File(url="https://x/y.pdf"),
        File(file_id="file_1"),
        File(text="a", media_type="text/plain"),
        File(text="b", media_type="text/plain", name="S"),
    )


def test_thoughts_of_an_assistant():
    (message,) = said(
        {"type": "thinking", "thinking": "Hm", "signature": "EqQB"},
        {"type": "thinking", "thinking": "Ho", "signature": ""},
        {"type": "redacted_thinking", "data": "opaque"},
        role="assistant",
    )
    assert message.parts == (
        Reasoning("Hm", "EqQB", signed_by="anthropic-messages"),
        Reasoning("Ho"),
        Reasoning("", None, "opaque", signed_by="anthropic-messages"),
    )


def test_tools():
    request = parsed(
        tools=[
            {"name": "f", "description": "F.", "input_schema": {"type": "object"}, "strict": True},
            {"type": "custom", "name": "g", "input_schema": {"type": "object"}},
        ],
        tool_choice={"type": "tool", "name": "f", "disable_parallel_tool_use": True},
    )
    assert request.tools == (Tool("f", "F.", {"type": "object"}, True), Tool("g", None, {"type": "object"}))
    assert request.tool_choice == ToolChoice("tool", "f")
    assert request.parallel_tool_calls is False


@pytest.mark.parametrize("mode", ["auto", "any", "none"])
def test_tool_choices(mode: Any):
    request = parsed(tool_choice={"type": mode})
    assert (request.tool_choice, request.parallel_tool_calls) == (ToolChoice(mode), None)


def test_a_tool_of_anthropics_own_is_named():
    with pytest.raises(Unsupported, match="web_search_20260318") as caught:
        parsed(tools=[{"type": "web_search_20260318", "name": "web_search"}])
    assert caught.value.param == "tools[0].type"
    assert "`web_search`" in str(caught.value)


def test_reasoning_that_is_asked_for():
    request = parsed(thinking={"type": "enabled", "budget_tokens": 2048})
    assert (request.reasoning_budget, request.reasoning_effort) == (2048, None)
    assert parsed(thinking={"type": "disabled"}).reasoning_effort == "none"
    adaptive = parsed(thinking={"type": "adaptive"}, output_config={"effort": "high"})
    assert (adaptive.reasoning_budget, adaptive.reasoning_effort) == (None, "high")
    assert adaptive.extras == {}
    assert parsed(thinking={"type": "adaptive"}).extras == {"anthropic-messages": {"thinking": {"type": "adaptive"}}}


def test_an_output_schema():
    schema = {"type": "object", "properties": {}}
    request = parsed(output_config={"format": {"type": "json_schema", "schema": schema}})
    assert request.output == OutputFormat("schema", schema)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": [{"role": "user"}]}, "messages[0]"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
        ({"messages": [{"role": "narrator", "content": "a"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": [{"text": "a"}]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": 3}]}]}, "messages[0].content[0].text"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "messages[0].content[0].source"),
        (
            {
                "messages": [
                    {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "f", "input": 1}]}
                ]
            },
            "messages[0].content[0].input",
        ),
        ({"tools": [{}]}, "tools[0].name"),
        ({"tools": [{"name": "f", "input_schema": "x"}]}, "tools[0].input_schema"),
        ({"tool_choice": {"type": "maybe"}}, "tool_choice.type"),
        ({"tool_choice": {"type": "tool"}}, "tool_choice.name"),
        ({"output_config": {"format": {"type": "xml"}}}, "output_config.format"),
    ],
)
def test_what_is_wrong_deep_inside_is_said_with_its_path(fields: dict[str, Any], param: str):
    with pytest.raises(InvalidRequest) as caught:
        parsed(**fields)
    assert caught.value.param == param


def test_blocks_that_no_other_dialect_has():
    with pytest.raises(Unsupported, match="web_search_tool_result") as caught:
        said({"type": "web_search_tool_result", "tool_use_id": "s", "content": []}, role="assistant")
    assert caught.value.param == "messages[0].content[0].type"


# --- ours → an upstream's --------------------------------------------------------------------------------------------


def test_the_least_that_is_sent():
    assert built() == {"model": "claude-x", "max_tokens": 4096, "messages": [{"role": "user", "content": "Hi"}]}


def test_the_targets_model_is_sent():
    assert built(target=msgspec.structs.replace(TARGET, model="claude-y"))["model"] == "claude-y"


def test_the_plain_fields_that_are_sent():
    body = built(
        stream=True,
        max_tokens=10,
        temperature=1.7,
        top_p=0.9,
        top_k=4,
        stop=("###", " \n"),
        seed=3,
        frequency_penalty=0.1,
        user="u1",
        extras={"anthropic-messages": {"service_tier": "auto"}, "openai-chat": {"logit_bias": {}}},
    )
    body.pop("messages")
    assert body == {
        "model": "claude-x",
        "max_tokens": 10,
        "stream": True,
        "temperature": 1.0,
        "top_p": 0.9,
        "top_k": 4,
        "stop_sequences": ["###"],
        "metadata": {"user_id": "u1"},
        "service_tier": "auto",
    }


def test_leading_system_messages_are_hoisted_and_later_ones_are_marked():
    body = built(Message.of("system", "A"), USER, Message.of("system", "B"))
    assert body["system"] == "A"
    assert body["messages"] == [
        {
            "role": "user",
            "content": [{"type": "text", "text": "Hi"}, {"type": "text", "text": "<system>\nB\n</system>"}],
        }
    ]
    two = built(Message.of("system", "A"), Message("system", (Text("B"), Text(""))), USER)
    assert two["system"] == [{"type": "text", "text": "A"}, {"type": "text", "text": "B"}]


def test_results_of_one_turn_are_one_user_turn_and_come_first():
    body = built(
        USER,
        Message("assistant", (Text("Look"), ToolCall("call:1", "f", '{"a":1}'), ToolCall("call.1", "g", ""))),
        Message("tool", (ToolResult("call:1", (Text("42"),)),)),
        Message.of("user", "Go on."),
        Message("tool", (ToolResult("call.1", (Text("no"), Image(url="https://x/y.png")), True),)),
    )
    assert body["messages"][1:] == [
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "Look"},
                {"type": "tool_use", "id": "call_1", "name": "f", "input": {"a": 1}},
                {"type": "tool_use", "id": "call_1_", "name": "g", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "call_1", "content": "42"},
                {
                    "type": "tool_result",
                    "tool_use_id": "call_1_",
                    "content": [
                        {"type": "text", "text": "no"},
                        {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}},
                    ],
                    "is_error": True,
                },
                {"type": "text", "text": "Go on."},
            ],
        },
    ]


def test_turns_of_one_role_are_merged_and_empty_ones_left_out():
    body = built(USER, Message.of("assistant", ""), Message.of("user", "Again"), Message.of("assistant", "Yes"))
    assert body["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "Hi"}, {"type": "text", "text": "Again"}]},
        {"role": "assistant", "content": "Yes"},
    ]


@pytest.mark.parametrize(
    ("said", "sent"),
    [
        ("The answer is", "The answer is"),
        ("The answer is \n", "The answer is"),  # Anthropic refuses one that ends in a space
        (" \n", None),
    ],
)
def test_a_prefill_is_the_last_turn(said: str, sent: str | None):
    turns = [{"role": "user", "content": "Hi"}, *([{"role": "assistant", "content": sent}] if sent else [])]
    assert built(USER, Message.of("assistant", said))["messages"] == turns


def test_a_prefill_is_the_last_turn_in_every_dialect():
    """Whether a model goes on from it is the model's; nothing is lost on the way there."""
    request = parsed(messages=[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "The answer"}])
    assert request.messages[-1] == Message.of("assistant", "The answer")
    for name in set(DIALECTS) - {"openai-completions"}:  # which takes one message alone
        url = "https://bedrock-runtime.us-east-1.amazonaws.com" if name == "bedrock" else "https://x.test/v1"
        sent = dialect(name).build_request(request, Target("x", url, name)).body.decode()
        assert sent.index("Hi") < sent.index("The answer"), name


def test_arguments_that_are_no_json_are_kept():
    body = built(USER, Message("assistant", (ToolCall("a", "f", "{oops"),)))
    assert body["messages"][1]["content"][0]["input"] == {"_raw": "{oops"}


def test_thoughts_without_a_signature_are_left_out():
    parts = (
        Reasoning("foreign"),
        Reasoning("ours", "EqQB", signed_by="anthropic-messages"),
        Reasoning("", None, "opaque", signed_by="anthropic-messages"),
        Refusal("No."),
    )
    assert built(USER, Message("assistant", parts))["messages"][1]["content"] == [
        {"type": "thinking", "thinking": "ours", "signature": "EqQB"},
        {"type": "redacted_thinking", "data": "opaque"},
        {"type": "text", "text": "No."},
    ]


def test_images_and_documents_that_are_sent():
    body = built(
        Message(
            "user",
            (
                Image(data="AA==", media_type="image/png"),
                Image(url="data:image/gif;base64,AA=="),
                File(data="AA==", name="T"),
                File(data="d29yZHM=", media_type="text/plain"),
                File(text="words"),
                File(url="https://x/y.pdf"),
            ),
        )
    )
    assert [block["source"] for block in body["messages"][0]["content"]] == [
        {"type": "base64", "media_type": "image/png", "data": "AA=="},
        {"type": "base64", "media_type": "image/gif", "data": "AA=="},
        {"type": "base64", "media_type": "application/pdf", "data": "AA=="},
        {"type": "text", "media_type": "text/plain", "data": "words"},
        {"type": "text", "media_type": "text/plain", "data": "words"},
        {"type": "url", "url": "https://x/y.pdf"},
    ]
    assert body["messages"][0]["content"][2]["title"] == "T"


@pytest.mark.parametrize(
    "part", [Audio("AA==", "wav"), File(file_id="file-abc"), File(data="/", media_type="text/csv")]
)
def test_what_this_wire_cannot_say(part: Any):
    with pytest.raises(Unsupported):
        built(Message("user", (part,)))


def test_tools_that_are_sent():
    body = built(tools=(Tool("f", "F.", {"properties": {"a": {}}}, True), Tool("g")), tool_choice=ToolChoice("any"))
    assert body["tools"] == [
        {
            "name": "f",
            "description": "F.",
            "input_schema": {"type": "object", "properties": {"a": {}}},
            "strict": True,
        },
        {"name": "g", "input_schema": {"type": "object", "properties": {}}},
    ]
    assert body["tool_choice"] == {"type": "any"}


@pytest.mark.parametrize(
    ("choice", "parallel", "written"),
    [
        (None, None, None),
        (None, False, {"type": "auto", "disable_parallel_tool_use": True}),
        (ToolChoice("tool", "f"), False, {"type": "tool", "name": "f", "disable_parallel_tool_use": True}),
        (ToolChoice("none"), False, {"type": "none"}),
        (ToolChoice("auto"), True, {"type": "auto"}),
    ],
)
def test_tool_choices_that_are_sent(choice: Any, parallel: Any, written: Any):
    body = built(tools=(Tool("f"),), tool_choice=choice, parallel_tool_calls=parallel)
    assert body.get("tool_choice") == written


def test_a_choice_among_no_tools_is_not_sent():
    assert "tool_choice" not in built(tool_choice=ToolChoice("auto"), parallel_tool_calls=False)


@pytest.mark.parametrize(
    ("fields", "thinking", "max_tokens"),
    [
        ({"reasoning_effort": "low"}, {"type": "enabled", "budget_tokens": 4096}, 8192),
        ({"reasoning_effort": "high", "max_tokens": 20000}, {"type": "enabled", "budget_tokens": 16384}, 20000),
        ({"reasoning_effort": "high", "max_tokens": 2000}, {"type": "enabled", "budget_tokens": 1999}, 2000),
        ({"reasoning_effort": "high", "max_tokens": 500}, None, 500),
        ({"reasoning_effort": "none"}, {"type": "disabled"}, 4096),
        ({"reasoning_budget": 3000, "reasoning_effort": "low"}, {"type": "enabled", "budget_tokens": 3000}, 7096),
        ({"reasoning_budget": 5}, {"type": "enabled", "budget_tokens": 1024}, 5120),
    ],
)
def test_reasoning_that_is_sent(fields: dict[str, Any], thinking: Any, max_tokens: int):
    body = built(**fields)
    assert (body.get("thinking"), body["max_tokens"]) == (thinking, max_tokens)


def test_an_output_schema_that_is_sent():
    body = built(output=OutputFormat("schema", {"type": "object"}, "reply"))
    assert body["output_config"] == {"format": {"type": "json_schema", "schema": {"type": "object"}}}
    assert "JSON" in built(output=OutputFormat("json"))["system"]


def test_a_request_that_is_parsed_and_built_again_asks_the_same():
    asked = {
        "model": "claude-x",
        "max_tokens": 5000,
        "messages": [
            {"role": "user", "content": "Hi"},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "Hm", "signature": "EqQB"},
                    {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": 1}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "t1", "content": "42"},
                    {"type": "text", "text": "And?"},
                ],
            },
        ],
        "system": "Be brief.",
        "stream": True,
        "stop_sequences": ["###"],
        "tools": [{"name": "f", "input_schema": {"type": "object", "properties": {}}}],
        "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
        "thinking": {"type": "enabled", "budget_tokens": 2048},
        "metadata": {"user_id": "u1"},
        "service_tier": "auto",
    }
    request = DIALECT.parse_request(json.dumps(asked).encode())
    assert json.loads(DIALECT.build_request(request, TARGET).body) == asked
