"""An OpenAI chat client's request: its head, what is forwarded, and our request."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from penstock.canon.errors import InvalidRequest, RequestError, Unsupported
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
from penstock.dialects.openai_chat import DIALECT

TARGET = Target("up", "http://127.0.0.1:9/v1/", "openai-chat", key=Secret("sk-1"), headers=(("x-own", "1"),))
USER = {"role": "user", "content": "Hi"}


def parsed(*messages: dict[str, Any], **fields: Any) -> ChatRequest:
    return DIALECT.parse_request(json.dumps({"model": "m", "messages": list(messages) or [USER], **fields}).encode())


def message(**fields: Any) -> Message:
    return parsed(fields).messages[0]


# --- the head, and what is forwarded ---------------------------------------------------------------------------------


def test_the_head_of_a_request():
    head = DIALECT.read_head(
        b'{"model":"m","messages":[{}],"stream":true,"stream_options":{"include_usage":true},"new":1}'
    )
    assert (head.model, head.stream, head.include_usage) == ("m", True, True)
    plain = DIALECT.read_head(b'{"model":"m","messages":[{}],"stream":null,"stream_options":null}')
    assert (plain.stream, plain.include_usage) == (False, False)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": [{}]}, "model"),
        ({"model": 3, "messages": [{}]}, "model"),
        ({"model": "m"}, "messages"),
        ({"model": "m", "messages": []}, "messages"),
        ({"model": "m", "messages": "Hi"}, "messages"),
        ({"model": "m", "messages": [{}], "stream": "yes"}, "stream"),
        ({"model": "m", "messages": [{}], "temperature": "hot"}, "temperature"),
        ({"model": "m", "messages": [{}], "max_tokens": "1"}, "max_tokens"),
        ({"model": "m", "messages": [{}], "stop": ["a", 1]}, "stop[1]"),
        ({"model": "m", "messages": [{}], "tools": {}}, "tools"),
        ({"model": "m", "messages": [{}], "stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
    ],
)
def test_what_is_wrong_with_a_head_is_said_with_its_path(body: dict[str, Any], param: str):
    with pytest.raises(InvalidRequest) as caught:
        DIALECT.read_head(json.dumps(body).encode())
    assert caught.value.param == param
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"model":"\xff"}', b'{"model":"m","messages":[' + b"[" * 100_000], ids=repr
)
def test_a_body_that_is_no_request(body: bytes):
    with pytest.raises(InvalidRequest):
        DIALECT.read_head(body)


def forwarded(body: bytes, model: str | None = None) -> bytes:
    target = msgspec.structs.replace(TARGET, model=model)
    return DIALECT.forward_request(DIALECT.read_head(body), target, {}).body


@pytest.mark.parametrize(
    "body",
    [
        b'{ "model":"m", "messages":[{"a":1.50}] , "new":{"b":[1e2]}}',
        b'{"messages":[{}],"stream":false,"model":"m"}',
        b'{"model":"m","messages":[{}],"stream":true,"stream_options":{"include_usage":true}}',
        b'{"model":"m","messages":[{"content":"\xff"}]}',
    ],
)
def test_c10_what_needs_no_change_is_forwarded_byte_for_byte(body: bytes):
    assert forwarded(body) == forwarded(body, "m") == body


def test_c10_a_mapped_model_is_all_that_changes():
    body = b'{"new":{"b": 1.50},"model":"m","messages":[{"content":"\\u00e9"}]}'
    assert forwarded(body, "n") == b'{"new":{"b": 1.50},"model":"n","messages":[{"content":"\\u00e9"}]}'


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({}, {"include_usage": True}),
        ({"stream_options": None}, {"include_usage": True}),
        ({"stream_options": {"include_usage": False}}, {"include_usage": True}),
        ({"stream_options": {"include_obfuscation": False}}, {"include_obfuscation": False, "include_usage": True}),
    ],
)
def test_usage_is_always_asked_for(given: dict[str, Any], sent: dict[str, Any]):
    body = {"model": "m", "messages": [USER], "stream": True, **given}
    assert json.loads(forwarded(json.dumps(body).encode())) == {**body, "stream_options": sent}


def test_the_request_that_leaves():
    head = DIALECT.read_head(b'{"model":"m","messages":[{}],"stream":true,"stream_options":{"include_usage":true}}')
    heard = {"openai-beta": "x", "x-session-id": "s", "authorization": "Bearer theirs", "cookie": "c"}
    request = DIALECT.forward_request(head, TARGET, heard)
    assert (request.method, request.url) == ("POST", "http://127.0.0.1:9/v1/chat/completions")
    assert dict(request.headers) == {
        "content-type": "application/json",
        "accept": "text/event-stream",
        "x-own": "1",
        "authorization": "Bearer sk-1",
        "openai-beta": "x",
        "x-session-id": "s",
    }


# --- messages --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("role", "ours"), [("system", "system"), ("developer", "system"), ("user", "user"), ("assistant", "assistant")]
)
def test_roles(role: str, ours: str):
    assert message(role=role, content="Hi", name="Ann") == Message(ours, (Text("Hi"),), "Ann")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("part", "ours"),
    [
        ({"type": "text", "text": "Hi"}, Text("Hi")),
        ({"type": "image_url", "image_url": {"url": "https://x/y.png"}}, Image("https://x/y.png")),
        ({"type": "image_url", "image_url": "https://x/y.png"}, Image("https://x/y.png")),
        (
            {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,QUJD", "detail": "low"}},
            Image(None, "QUJD", "image/jpeg", "low"),
        ),
        ({"type": "input_audio", "input_audio": {"data": "QUJD", "format": "wav"}}, Audio("QUJD", "wav")),
        ({"type": "file", "file": {"file_id": "file-1"}}, File(file_id="file-1")),
        (
            {"type": "file", "file": {"file_data": "data:application/pdf;base64,QUJD", "filename": "a.pdf"}},
            File("QUJD", media_type="application/pdf", name="a.pdf"),
        ),
        ({"type": "file", "file": {"file_data": "QUJD"}}, File("QUJD")),
    ],
)
def test_parts_of_what_the_user_says(part: dict[str, Any], ours: Any):
    assert message(role="user", content=[part]).parts == (ours,)


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        ({"content": None}, ()),
        ({}, ()),
        ({"content": []}, ()),
        ({"content": "Hi", "refusal": "No"}, (Text("Hi"), Refusal("No"))),
        ({"content": [{"type": "refusal", "refusal": "No"}]}, (Refusal("No"),)),
        ({"content": "Hi", "reasoning_content": "Hm"}, (Reasoning("Hm"), Text("Hi"))),
        (
            {"content": "Hi", "reasoning": "Hm", "reasoning_details": [{"type": "x"}]},
            (Reasoning("Hm", details=({"type": "x"},)), Text("Hi")),
        ),
        ({"content": [{"type": "thinking", "thinking": "Hm"}]}, (Reasoning("Hm"),)),
        ({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]}]}, (Reasoning("Hm"),)),
    ],
)
def test_parts_of_what_the_assistant_said(fields: dict[str, Any], parts: tuple[Any, ...]):
    assert message(role="assistant", **fields).parts == parts


@pytest.mark.parametrize(
    ("arguments", "raw", "ours"),
    [
        ('{"a":1}', '{"a":1}', {"a": 1}),
        ("", "", {}),
        ({"a": 1}, '{"a":1}', {"a": 1}),
        (None, "{}", {}),
        ("{broken", "{broken", None),
    ],
)
def test_calls_that_the_assistant_made(arguments: Any, raw: str, ours: Any):
    made = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": arguments}}
    (call,) = message(role="assistant", content=None, tool_calls=[made]).parts
    assert isinstance(call, ToolCall)
    assert (call.id, call.name, call.raw, call.arguments) == ("call_1", "f", raw, ours)


@pytest.mark.parametrize(
    ("content", "parts"), [("Sunny", (Text("Sunny"),)), ([{"type": "text", "text": "a"}], (Text("a"),)), (None, ())]
)
def test_what_a_tool_gave(content: Any, parts: tuple[Any, ...]):
    given = message(role="tool", tool_call_id="call_1", content=content, name="f")
    assert given == Message("tool", (ToolResult("call_1", parts, name="f"),))


# --- the rest --------------------------------------------------------------------------------------------------------


def test_the_plain_fields():
    request = parsed(
        stream=True,
        stream_options={"include_usage": True},
        max_tokens=5,
        temperature=0.5,
        top_p=0.9,
        top_k=4,
        stop="###",
        seed=3,
        presence_penalty=0.1,
        frequency_penalty=0.2,
        parallel_tool_calls=False,
        reasoning_effort="low",
        user="u1",
        n=1,
    )
    assert request == ChatRequest(
        model="m",
        messages=(Message.of("user", "Hi"),),
        stream=True,
        include_usage=True,
        max_tokens=5,
        temperature=0.5,
        top_p=0.9,
        top_k=4,
        stop=("###",),
        seed=3,
        presence_penalty=0.1,
        frequency_penalty=0.2,
        parallel_tool_calls=False,
        reasoning_effort="low",
        user="u1",
    )


def test_names_of_the_same_thing():
    assert parsed(max_completion_tokens=7, max_tokens=5).max_tokens == 7
    assert parsed(max_completion_tokens=0).max_tokens == 0
    assert parsed(stop=["a", "b"]).stop == ("a", "b")
    assert parsed(safety_identifier="s").user == "s"


def test_what_has_no_name_here_is_kept_for_its_own_dialect():
    request = parsed(logit_bias={"1": 2}, provider={"order": ["x"]}, service_tier="auto")
    assert request.extras == {
        "openai-chat": {"logit_bias": {"1": 2}, "provider": {"order": ["x"]}, "service_tier": "auto"}
    }


def test_tools():
    function = {"name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True}
    tools = [{"type": "function", "function": function}, {"type": "function", "function": {"name": "g"}}]
    assert parsed(tools=tools).tools == (Tool("f", "d", {"type": "object"}, True), Tool("g"))


@pytest.mark.parametrize(
    ("given", "ours"),
    [
        ("auto", ToolChoice("auto")),
        ("none", ToolChoice("none")),
        ("required", ToolChoice("any")),
        ("any", ToolChoice("any")),
        ({"type": "function", "function": {"name": "f"}}, ToolChoice("tool", "f")),
        (None, None),
    ],
)
def test_tool_choices(given: Any, ours: ToolChoice | None):
    assert parsed(tool_choice=given).tool_choice == ours


@pytest.mark.parametrize(
    ("given", "ours"),
    [
        (None, None),
        ({"type": "text"}, None),
        ({"type": "json_object"}, OutputFormat("json")),
        (
            {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True}},
            OutputFormat("schema", {"type": "object"}, "n", True),
        ),
    ],
)
def test_output_formats(given: Any, ours: OutputFormat | None):
    assert parsed(response_format=given).output == ours


# --- what is wrong, and where ----------------------------------------------------------------------------------------


def user(part: Any) -> dict[str, Any]:
    return {"messages": [USER, {"role": "user", "content": [{"type": "text", "text": "a"}, part]}]}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": [{"content": "a"}]}, "messages[0]"),
        ({"messages": [{"role": "narrator", "content": "a"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
        ({"messages": [{"role": "tool", "content": "a"}]}, "messages[0].tool_call_id"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"id": "a"}]}]}, "messages[0].tool_calls[0].function"),
        ({"tool_choice": {"type": "allowed_tools", "allowed_tools": {}}}, "tool_choice.allowed_tools.tools"),
        (user("text"), "messages[1].content[1]"),
        (user({}), "messages[1].content[1].type"),
        (user({"type": "video_url"}), "messages[1].content[1].type"),
        (user({"type": "text"}), "messages[1].content[1]"),
        (user({"type": "text", "text": 5}), "messages[1].content[1]"),
        (user({"type": "text", "text": None}), "messages[1].content[1]"),
        (user({"type": "refusal", "refusal": 5}), "messages[1].content[1]"),
        (user({"type": "thinking", "thinking": [{"type": "x"}]}), "messages[1].content[1]"),
        (user({"type": "image_url"}), "messages[1].content[1]"),
        (user({"type": "image_url", "image_url": {"url": None}}), "messages[1].content[1]"),
        (user({"type": "image_url", "image_url": {}}), "messages[1].content[1]"),
        (user({"type": "input_audio", "input_audio": {"data": "x"}}), "messages[1].content[1]"),
        (user({"type": "input_audio", "input_audio": {"data": 1, "format": "wav"}}), "messages[1].content[1]"),
        (user({"type": "file", "file": {}}), "messages[1].content[1]"),
        (user({"type": "file", "file": {"file_data": 5}}), "messages[1].content[1]"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function"),
        ({"tools": [{}]}, "tools[0]"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.type"),
        ({"max_completion_tokens": "x"}, "max_completion_tokens"),
    ],
)
def test_what_is_wrong_deep_inside_is_said_with_its_path(fields: dict[str, Any], param: str):
    with pytest.raises(InvalidRequest) as caught:
        parsed(*fields.pop("messages", [USER]), **fields)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"audio": {"voice": "alloy"}}, "audio"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0].type"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tool_choice": "maybe"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {}}}, "tool_choice"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"web_search_options": {}}, "web_search_options"),
    ],
)
def test_what_would_change_its_meaning_is_refused_and_not_dropped(fields: dict[str, Any], param: str):
    with pytest.raises(Unsupported) as caught:
        parsed(**fields)
    assert caught.value.param == param


def test_c13_a_mistake_is_not_quoted():
    with pytest.raises(RequestError) as caught:
        parsed({"role": "user", "content": {"secret": "my secret"}})
    assert "secret" not in str(caught.value)
