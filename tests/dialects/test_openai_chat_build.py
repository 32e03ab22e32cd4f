"""Our request → an OpenAI chat body; requests through both dialects and back; what real clients send."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from penstock.canon.errors import Unsupported
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
from penstock.canon.target import Target
from penstock.dialects import client_dialect
from penstock.dialects.openai_chat import DIALECT
from tests.corpus import CAPTURES, Capture, captures

TARGET = Target("up", "http://127.0.0.1:9/v1", "openai-chat")
USER = Message.of("user", "Hi")
CALL = ToolCall("call_1", "f", '{"a":1}', {"a": 1})


def built(*messages: Message, target: Target = TARGET, **fields: Any) -> dict[str, Any]:
    request = ChatRequest(model="m", messages=messages or (USER,), **fields)
    body: dict[str, Any] = json.loads(DIALECT.build_request(request, target).body)
    return body


def messages(*given: Message) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = built(*given)["messages"]
    return found


# --- the plain fields ------------------------------------------------------------------------------------------------


def test_the_least_that_is_sent():
    assert built() == {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


def test_a_stream_asks_for_its_usage():
    body = built(stream=True)
    assert (body["stream"], body["stream_options"]) == (True, {"include_usage": True})
    headers = dict(DIALECT.build_request(ChatRequest("m", (USER,), stream=True), TARGET).headers)
    assert headers["accept"] == "text/event-stream"


def test_the_targets_model_is_sent():
    assert built(target=msgspec.structs.replace(TARGET, model="n"))["model"] == "n"


def test_the_plain_fields_that_are_sent():
    fields: dict[str, Any] = {
        "temperature": 1.7, "top_p": 0.9, "top_k": 4, "seed": 3, "presence_penalty": 0.1, "frequency_penalty": 0.2,
        "reasoning_effort": "low", "user": "u1", "max_tokens": 10,
    }  # fmt: skip
    extras = {"openai-chat": {"logit_bias": {}}, "anthropic-messages": {"container": "c"}}
    body = built(**fields, stop=("###",), extras=extras)
    body.pop("messages")
    assert body == {"model": "m", **fields, "stop": ["###"], "logit_bias": {}}


def test_openais_own_servers_know_other_names():
    body = built(target=msgspec.structs.replace(TARGET, profile="openai"), max_tokens=10, top_k=4)
    assert body["max_completion_tokens"] == 10
    assert "max_tokens" not in body
    assert "top_k" not in body


@pytest.mark.parametrize(
    ("budget", "effort"),
    [(0, "none"), (1024, "minimal"), (4096, "low"), (8192, "medium"), (20000, "high"), (None, None)],
)
def test_a_budget_becomes_an_effort(budget: int | None, effort: str | None):
    assert built(reasoning_budget=budget).get("reasoning_effort") == effort


def test_tools_and_choices():
    tools = (Tool("f", "d", {"type": "object", "properties": {"a": {}}}, True), Tool("g"))
    body = built(tools=tools, tool_choice=ToolChoice("tool", "f"), parallel_tool_calls=False)
    assert body["tools"] == [
        {
            "type": "function",
            "function": {"name": "f", "description": "d", "parameters": tools[0].parameters, "strict": True},
        },
        {"type": "function", "function": {"name": "g", "parameters": {"type": "object", "properties": {}}}},
    ]
    assert body["tool_choice"] == {"type": "function", "function": {"name": "f"}}
    assert body["parallel_tool_calls"] is False
    words = {mode: built(tools=tools, tool_choice=ToolChoice(mode))["tool_choice"] for mode in ("auto", "any", "none")}
    assert words == {"auto": "auto", "any": "required", "none": "none"}


def test_a_choice_without_tools_is_not_sent():
    body = built(tool_choice=ToolChoice("auto"), parallel_tool_calls=True)
    assert "tool_choice" not in body
    assert "parallel_tool_calls" not in body


def test_output_formats():
    assert built(output=OutputFormat("json"))["response_format"] == {"type": "json_object"}
    schema = {"type": "object"}
    assert built(output=OutputFormat("schema", schema))["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "reply", "schema": schema},
    }


# --- messages --------------------------------------------------------------------------------------------------------


def test_system_messages_stay_where_they_are_each_one_text():
    given = (Message("system", (Text("A"), Text("B"))), USER, Message.of("system", "C"))
    assert messages(*given) == [
        {"role": "system", "content": "A\n\nB"},
        {"role": "user", "content": "Hi"},
        {"role": "system", "content": "C"},
    ]


def test_a_name_is_kept():
    assert messages(Message("user", (Text("Hi"),), "Ann")) == [{"role": "user", "content": "Hi", "name": "Ann"}]


@pytest.mark.parametrize(
    ("part", "written"),
    [
        (Image("https://x/y.png"), {"type": "image_url", "image_url": {"url": "https://x/y.png"}}),
        (
            Image(None, "QUJD", "image/jpeg", "low"),
            {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,QUJD", "detail": "low"}},
        ),
        (Audio("QUJD", "wav"), {"type": "input_audio", "input_audio": {"data": "QUJD", "format": "wav"}}),
        (
            File("QUJD", name="a.pdf"),
            {"type": "file", "file": {"file_data": "data:application/pdf;base64,QUJD", "filename": "a.pdf"}},
        ),
        (File(file_id="file-1"), {"type": "file", "file": {"file_id": "file-1"}}),
        (File(text="plain"), {"type": "text", "text": "plain"}),
    ],
)
def test_parts_of_what_the_user_says(part: Any, written: dict[str, Any]):
    assert messages(Message("user", (Text("See"), part))) == [
        {"role": "user", "content": [{"type": "text", "text": "See"}, written]}
    ]


@pytest.mark.parametrize("file", [File(url="https://x/y.pdf"), File(file_id="file_011CNha8iCJcU1wXNR6q4V8w")])
def test_files_that_no_server_of_this_wire_could_read(file: File):
    with pytest.raises(Unsupported):
        messages(Message("user", (file,)))


@pytest.mark.parametrize(
    ("parts", "written"),
    [
        ((Text("a"), Text("b")), {"content": "ab"}),
        ((), {"content": ""}),
        (
            (CALL,),
            {
                "content": None,
                "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}],
            },
        ),
        (
            (Text("a"), ToolCall("call_2", "g", "", {})),
            {
                "content": "a",
                "tool_calls": [{"id": "call_2", "type": "function", "function": {"name": "g", "arguments": "{}"}}],
            },
        ),
        ((Refusal("No"),), {"content": "", "refusal": "No"}),
        ((Reasoning("Hm", "EqQB"), Text("a")), {"content": "a"}),
        (
            (Reasoning("Hm", None, None, ({"type": "x"},)), Text("a")),
            {"content": "a", "reasoning_details": [{"type": "x"}]},
        ),
    ],
)
def test_parts_of_what_the_assistant_said(parts: tuple[Any, ...], written: dict[str, Any]):
    assert messages(Message("assistant", parts)) == [{"role": "assistant", **written}]


def test_tool_results_are_messages_of_their_own_before_the_rest_of_the_turn():
    turn = Message(
        "user",
        (
            Text("And now?"),
            ToolResult("call_1", (Text("Sun"), Text("ny"))),
            ToolResult("call_2", (Text("none"),), is_error=True),
            ToolResult("call_3", (Image("https://x/y.png"),)),
        ),
    )
    assert messages(turn) == [
        {"role": "tool", "tool_call_id": "call_1", "content": "Sunny"},
        {"role": "tool", "tool_call_id": "call_2", "content": "Error: none"},
        {"role": "tool", "tool_call_id": "call_3", "content": ""},
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": "https://x/y.png"}},
                {"type": "text", "text": "And now?"},
            ],
        },
    ]


def test_a_turn_of_tool_results_alone():
    assert messages(Message("tool", (ToolResult("call_1"),))) == [
        {"role": "tool", "tool_call_id": "call_1", "content": ""}
    ]


# --- there and back --------------------------------------------------------------------------------------------------

CONVERSATION: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,QUJD", "filename": "a.pdf"}},
    ]},
    {"role": "assistant", "content": "Let me see.", "tool_calls": [
        {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}},
        {"id": "call_2", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ]},
    {"role": "tool", "tool_call_id": "call_1", "content": "Sunny"},
    {"role": "tool", "tool_call_id": "call_2", "content": ""},
    {"role": "user", "content": "Thanks"},
]  # fmt: skip

FUNCTION = {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {}}}

BODY: dict[str, Any] = {
    "model": "m",
    "messages": CONVERSATION,
    "max_tokens": 100,
    "temperature": 0.5,
    "top_p": 0.9,
    "stop": ["###"],
    "tools": [
        {"type": "function", "function": FUNCTION},
    ],
    "tool_choice": {"type": "function", "function": {"name": "f"}},
    "parallel_tool_calls": False,
    "user": "u1",
}  # fmt: skip


def through(name: str, request: ChatRequest) -> ChatRequest:
    """The request as a server of that dialect reads what we would send it."""
    there = client_dialect(name)
    return there.parse_request(there.build_request(request, TARGET).body)


def test_a_request_that_is_read_and_written_again_is_the_same():
    request = DIALECT.parse_request(json.dumps(BODY).encode())
    assert json.loads(DIALECT.build_request(request, TARGET).body) == BODY
    assert through("openai-chat", request) == request


def test_a_request_through_the_other_dialect_and_back_asks_the_same():
    request = DIALECT.parse_request(json.dumps(BODY).encode())
    back = through("anthropic-messages", request)
    body = json.loads(DIALECT.build_request(back, TARGET).body)
    assert body.pop("messages") == CONVERSATION
    assert body == {key: value for key, value in BODY.items() if key != "messages"}


@pytest.mark.parametrize("choice", ["auto", "required", "none"])
def test_choices_through_the_other_dialect(choice: str):
    request = DIALECT.parse_request(json.dumps({**BODY, "tool_choice": choice}).encode())
    assert through("anthropic-messages", request).tool_choice == request.tool_choice


def test_what_the_other_dialect_cannot_say_is_refused():
    for part in (
        {"type": "input_audio", "input_audio": {"data": "QUJD", "format": "wav"}},
        {"type": "file", "file": {"file_id": "file-1"}},
    ):
        body = {"model": "m", "messages": [{"role": "user", "content": [part]}]}
        with pytest.raises(Unsupported):
            through("anthropic-messages", DIALECT.parse_request(json.dumps(body).encode()))


# --- what real clients send ------------------------------------------------------------------------------------------


@pytest.mark.skipif(not CAPTURES.is_dir(), reason=f"no captured requests at {CAPTURES}")
def test_there_are_captured_requests():
    assert len(captures("openai-chat")) >= 5
    assert len(captures("anthropic-messages")) >= 2


@pytest.mark.parametrize("name", ["openai-chat", "anthropic-messages"])
def test_what_real_clients_send_is_read_and_can_go_to_either_dialect(name: str):
    found: tuple[Capture, ...] = captures(name)
    if not found:
        pytest.skip(f"no captured requests at {CAPTURES}")
    for capture in found:
        ours = client_dialect(name)
        head = ours.read_head(capture.body)
        assert ours.forward_request(head, TARGET, {}).body
        request = ours.parse_request(capture.body)
        assert request.messages, capture.client
        for other in ("openai-chat", "anthropic-messages"):
            again = through(other, request)
            assert [tool.name for tool in again.tools] == [tool.name for tool in request.tools]
            assert texts(again) == texts(request), capture.client


def texts(request: ChatRequest) -> str:
    return "".join(part.text for message in request.messages for part in message.parts if isinstance(part, Text))
