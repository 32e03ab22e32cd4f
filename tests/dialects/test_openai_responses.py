"""OpenAI Responses: requests both ways, and the order and numbers of a stream's events."""

from __future__ import annotations

import json
from typing import Any

import pytest

from penstock.canon.errors import InvalidRequest, RateLimited, StreamedError, Unsupported
from penstock.canon.events import BlockEnd, BlockStart, Delta, Finish, Reasoning, Refusal, Start, Text, ToolCall
from penstock.canon.request import Audio, File, Image, Message, OutputFormat, Tool, ToolChoice, ToolResult
from penstock.canon.response import Ending, Response
from penstock.dialects.openai_responses import DIALECT
from penstock.testing.replay import Driven, Recording, check_events, replayed
from penstock.testing.samples import SAMPLES
from tests.dialects.conversations import CONVERSATION, LOOK, PIXEL, SCHEMA, THOUGHT, asking, built, target_for

OWN = "openai-responses"


def parsed(given: Any = "Hi", **fields: Any) -> Any:
    return DIALECT.parse_request(json.dumps({"model": "m", "input": given, **fields}).encode())


# --- from a client ----------------------------------------------------------------------------------------------------


def test_text_is_what_the_user_says():
    request = parsed("Hi", instructions="Be brief.", stream=True, max_output_tokens=9, temperature=0.5)
    assert request.messages == (Message.of("system", "Be brief."), Message.of("user", "Hi"))
    assert (request.stream, request.max_tokens, request.temperature, request.include_usage) == (True, 9, 0.5, True)


def test_items_become_turns():
    items = [
        {"role": "developer", "content": "Be brief."},
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "Look"},
                {"type": "input_image", "image_url": f"data:image/png;base64,{PIXEL.data}", "detail": "low"},
                {"type": "input_file", "file_data": "data:application/pdf;base64,JVBERg==", "filename": "a.pdf"},
                {"type": "input_audio", "input_audio": {"data": "aa", "format": "wav"}},
            ],
        },
        {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [{"type": "summary_text", "text": "Hm"}],
            "encrypted_content": "E",
        },
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I look."}]},
        {"type": "function_call", "call_id": "c1", "name": "look", "arguments": '{"at":"sea"}'},
        {"type": "function_call_output", "call_id": "c1", "output": "a horse"},
        {"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
    ]
    system, user, assistant, tool, last = parsed(items).messages
    assert system == Message.of("system", "Be brief.")
    assert user.parts == (
        Text("Look"),
        Image(data=PIXEL.data, media_type="image/png", detail="low"),
        File(data="JVBERg==", media_type="application/pdf", name="a.pdf"),
        Audio("aa", "wav"),
    )
    assert assistant.parts == (
        Reasoning("Hm", "rs_1:E", signed_by=OWN),
        Text("I look."),
        ToolCall("c1", "look", '{"at":"sea"}', {"at": "sea"}),
    )
    assert tool.parts == (ToolResult("c1", (Text("a horse"),), name="look"),)
    assert last.parts == (Refusal("No."),)


def test_tools_format_and_thinking():
    request = parsed(
        tools=[{"type": "function", "name": "look", "description": "d", "parameters": SCHEMA, "strict": True}],
        tool_choice={"type": "function", "name": "look"},
        parallel_tool_calls=False,
        reasoning={"effort": "low", "summary": "auto"},
        text={"format": {"type": "json_schema", "name": "r", "schema": SCHEMA}, "verbosity": "low"},
        truncation="auto",
        store=True,
    )
    assert request.tools == (Tool("look", "d", SCHEMA, True),)
    assert request.tool_choice == ToolChoice("tool", "look")
    assert (request.parallel_tool_calls, request.reasoning_effort) == (False, "low")
    assert request.output == OutputFormat("schema", SCHEMA, "r")
    assert sorted(request.extras[OWN]) == ["text.verbosity", "truncation"]
    assert parsed(tool_choice="required").tool_choice == ToolChoice("any")
    assert parsed(text={"format": {"type": "json_object"}}).output == OutputFormat("json")


def test_allowed_tools_are_the_only_ones_told():
    tools = [{"type": "function", "name": name} for name in ("a", "b")]
    allowed = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "b"}]}
    request = parsed(tools=tools, tool_choice=allowed)
    assert [tool.name for tool in request.tools] == ["b"]
    assert request.tool_choice == ToolChoice("any")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"previous_response_id": "r"}, "previous_response_id"),
        ({"conversation": "c"}, "conversation"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"background": True}, "background"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"type": "custom", "name": "x"}]}, "tools[0].type"),
        ({"tool_choice": {"type": "mcp", "server_label": "x"}}, "tool_choice"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "input_video"}]}]}, "input[0].content[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "x"}]}]}, "input[0].content[0]"),
    ],
)
def test_what_only_its_own_server_can_do_is_refused(fields: dict[str, Any], param: str):
    with pytest.raises(Unsupported) as caught:
        parsed(fields.pop("input", "Hi"), **fields)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("given", "fields", "param"),
    [
        ([], {}, "input"),
        (None, {}, "input"),
        ([{"role": "narrator", "content": "a"}], {}, "input[0].role"),
        ([{"type": "function_call", "name": "f"}], {}, "input[0].call_id"),
        ([{"role": "user", "content": [{"type": "input_text"}]}], {}, "input[0].content[0].text"),
        ([{"role": "user", "content": [{"type": "input_file"}]}], {}, "input[0].content[0]"),
        ("Hi", {"text": {"format": {"type": "xml"}}}, "text.format.type"),
        ("Hi", {"max_output_tokens": "x"}, "max_output_tokens"),
    ],
)
def test_a_mistake_is_said_with_its_path(given: Any, fields: dict[str, Any], param: str):
    with pytest.raises(InvalidRequest) as caught:
        parsed(given, **fields)
    assert caught.value.param == param


def test_the_same_dialect_is_forwarded():
    body = b'{"model":"m","input":"Hi","previous_response_id":"r","new":{"a":1.50}}'
    head = DIALECT.read_head(body)
    assert DIALECT.forward_request(head, target_for(OWN), {}).body == body
    request = DIALECT.forward_request(head, target_for(OWN, model="real"), {"openai-beta": "x"})
    assert json.loads(request.body)["model"] == "real"
    assert b'"new":{"a":1.50}' in request.body
    assert dict(request.headers)["openai-beta"] == "x"


# --- to an upstream ---------------------------------------------------------------------------------------------------


def test_a_conversation():
    body, dropped = built(OWN, asking(*CONVERSATION, tools=(LOOK,), stream=True, max_tokens=9, seed=1, top_k=2))
    assert body == {
        "model": "m",
        "store": False,
        "stream": True,
        "instructions": "Be brief.",
        "max_output_tokens": 9,
        "input": [
            {
                "type": "message",
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "What is there?"},
                    {"type": "input_image", "image_url": f"data:image/png;base64,{PIXEL.data}", "detail": "auto"},
                ],
            },
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I look."}]},
            {"type": "function_call", "call_id": "call_1", "name": "look", "arguments": '{"at":"sea"}'},
            {"type": "function_call_output", "call_id": "call_1", "output": "a horse"},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "And now?"}]},
        ],
        "tools": [
            {"type": "function", "name": "look", "description": "Look somewhere", "parameters": SCHEMA, "strict": False}
        ],
    }
    assert dropped == ("top_k", "seed")


def test_its_own_thoughts_come_home_and_no_others():
    own = Reasoning("Hm", "rs_1:E", signed_by=OWN)
    body, dropped = built(OWN, asking(Message("assistant", (own, THOUGHT, Text("a")))))
    assert body["input"][0] == {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [{"type": "summary_text", "text": "Hm"}],
        "encrypted_content": "E",
    }
    assert body["include"] == ["reasoning.encrypted_content"]
    assert dropped == ("reasoning",)


def test_thinking_tools_and_formats():
    body, _ = built(OWN, asking(reasoning_budget=4000, tools=(LOOK,), tool_choice=ToolChoice("any")))
    assert body["reasoning"] == {"effort": "low", "summary": "auto"}
    assert body["tool_choice"] == "required"
    assert built(OWN, asking(reasoning_effort="none"))[0]["reasoning"] == {"effort": "none"}
    named = built(OWN, asking(tools=(LOOK,), tool_choice=ToolChoice("tool", "look")))[0]["tool_choice"]
    assert named == {"type": "function", "name": "look"}
    body, _ = built(OWN, asking(output=OutputFormat("schema", SCHEMA)))
    assert body["text"] == {"format": {"type": "json_schema", "name": "reply", "schema": SCHEMA}}
    assert built(OWN, asking(output=OutputFormat("json")))[0]["text"] == {"format": {"type": "json_object"}}


def test_results_with_pictures_and_failures():
    results = (
        ToolResult("a", (Text("no"),), is_error=True),
        ToolResult("b", (Text("see"), Image(url="https://x/y.png"))),
    )
    body, _ = built(OWN, asking(Message("tool", results), Message.of("system", "Now French.")))
    assert [item.get("output") for item in body["input"][:2]] == [
        "Error: no",
        [
            {"type": "input_text", "text": "see"},
            {"type": "input_image", "image_url": "https://x/y.png", "detail": "auto"},
        ],
    ]
    assert body["input"][2]["role"] == "system"


@pytest.mark.parametrize(
    "request_",
    [
        asking(stop=("x",)),
        asking(Message("user", (File(file_id="file_anthropic"),))),
        asking(Message("assistant", (PIXEL,))),
    ],
)
def test_what_would_change_its_meaning_is_refused(request_: Any):
    with pytest.raises(Unsupported):
        built(OWN, request_)


# --- the stream that clients get --------------------------------------------------------------------------------------


def events_of(data: bytes) -> list[dict[str, Any]]:
    found = []
    for block in data.decode().split("\n\n")[:-1]:
        if block.startswith(":"):
            continue
        name, line = block.split("\n", 1)
        event = json.loads(line.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        found.append(event)
    return found


def encoded(*events: Any, batch: int = 1) -> list[dict[str, Any]]:
    encoder = DIALECT.encoder(model="alias", request_id="req_1", created=7)
    return events_of(b"".join(encoder.encode(events[k : k + batch]) for k in range(0, len(events), batch)))


@pytest.mark.parametrize("sample", sorted(SAMPLES))
def test_every_stream_is_numbered_closed_and_summed_up(sample: str):
    found = encoded(*SAMPLES[sample])
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    assert [event["type"] for event in found[:2]] == ["response.created", "response.in_progress"]
    opened: dict[str, int] = {}
    for event in found:
        kind = event["type"]
        if kind.endswith(".added"):
            opened[kind] = opened.get(kind, 0) + 1
        elif kind.endswith(".done") and kind.replace(".done", ".added") in opened:
            opened[kind.replace(".done", ".added")] -= 1
    assert not any(opened.values()), "every `added` has its `done`"
    last = found[-1]
    assert last["type"] in ("response.completed", "response.incomplete")
    done = [event["item"] for event in found if event["type"] == "response.output_item.done"]
    assert sorted(last["response"]["output"], key=str) == sorted(done, key=str)
    assert {event["response"]["model"] for event in found if "response" in event} == {"alias"}
    assert len({event["response"]["id"] for event in found if "response" in event}) == 1


def test_the_order_of_a_thought_a_text_and_a_call():
    found = encoded(*SAMPLES["thought, text and two calls"])
    kinds = [(event["type"].removeprefix("response."), event.get("output_index")) for event in found]
    assert kinds[2:19] == [
        ("output_item.added", 0),
        ("reasoning_summary_part.added", 0),
        ("reasoning_summary_text.delta", 0),
        ("reasoning_summary_text.done", 0),
        ("reasoning_summary_part.done", 0),
        ("output_item.done", 0),
        ("output_item.added", 1),
        ("content_part.added", 1),
        ("output_text.delta", 1),
        ("output_text.done", 1),
        ("content_part.done", 1),
        ("output_item.done", 1),
        ("output_item.added", 2),
        ("function_call_arguments.delta", 2),
        ("function_call_arguments.done", 2),
        ("output_item.done", 2),
        ("output_item.added", 3),
    ]


def test_endings():
    def last(reason: Any) -> dict[str, Any]:
        response: dict[str, Any] = encoded(Start("m"), Finish(reason))[-1]["response"]
        return response

    assert last("stop")["status"] == "completed"
    assert last("length")["incomplete_details"] == {"reason": "max_output_tokens"}
    assert last("refusal")["incomplete_details"] == {"reason": "content_filter"}


def test_c4_a_failure_is_the_last_event():
    encoder = DIALECT.encoder(model=None, request_id="req_1", created=7)
    data = encoder.encode([Start("m"), BlockStart(0, "text"), Delta(0, "Hi"), BlockEnd(0, Text("Hi"))])
    failed = events_of(data + encoder.error(StreamedError("Slow down.", status=429)))[-1]
    assert failed["type"] == "response.failed"
    assert failed["response"]["error"] == {"code": "rate_limit_exceeded", "message": "Slow down."}
    assert len(failed["response"]["output"]) == 1
    fresh = DIALECT.encoder(model=None, request_id="req_1", created=7)
    (alone,) = events_of(fresh.error(StreamedError("It broke.", code="server_error")))
    assert (alone["type"], alone["code"], alone["message"]) == ("error", "server_error", "It broke.")


def test_foreign_proofs_are_marked_and_come_home():
    call = ToolCall("c1", "look", "{}", {}, signature="GSIG")
    response = Response(parts=(THOUGHT, call), finish=Ending("stop"), response_id="x")
    document = json.loads(DIALECT.write_document(response, model="m", request_id="r", created=7))
    thought, called = document["output"]
    assert thought["encrypted_content"] == "penstock.anthropic-messages.EqQB"
    messages = parsed([thought, called]).messages
    assert messages[0].parts == (THOUGHT, call)


# --- what servers send ------------------------------------------------------------------------------------------------


def told(*events: dict[str, Any]) -> Driven:
    data = b"".join(f"event: {each['type']}\ndata: {json.dumps(each)}\n\n".encode() for each in events)
    driven = replayed(OWN, Recording("events", data, "text/event-stream"))
    check_events(driven.events, complete=driven.error is None)
    return driven


def test_a_stream_without_numbers_and_indexes_is_read():
    """llama.cpp leaves them out."""
    driven = told(
        {"type": "response.created", "response": {"id": "r", "model": "m"}},
        {"type": "response.output_item.added", "item": {"type": "message", "id": "msg", "content": []}},
        {"type": "response.output_text.delta", "item_id": "msg", "delta": "Hi"},
        {"type": "response.output_item.done", "item": {"type": "message", "id": "msg"}},
        {"type": "response.output_item.added", "item": {"type": "function_call", "call_id": "c", "name": "f"}},
        {"type": "response.function_call_arguments.delta", "item_id": "fc_c", "delta": "{}"},
        {"type": "response.output_item.done", "item": {"type": "function_call", "call_id": "c", "arguments": "{}"}},
        {"type": "response.completed", "response": {"status": "completed", "usage": {"input_tokens": 3}}},
    )
    assert driven.response.parts == (Text("Hi"), ToolCall("c", "f", "{}", {}))


def test_a_reply_that_is_all_in_its_last_event():
    output = [
        {"type": "reasoning", "id": "rs", "summary": [], "encrypted_content": "E"},
        {"type": "message", "id": "m", "content": [{"type": "output_text", "text": "Hi", "annotations": [{"a": 1}]}]},
        {"type": "function_call", "id": "fc", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "custom_tool_call", "id": "ct", "call_id": "d", "name": "g", "input": 'say "hi"'},
    ]
    driven = told({"type": "response.completed", "response": {"id": "r", "model": "m", "output": output}})
    assert driven.response.parts == (
        Reasoning("", "rs:E", signed_by=OWN),
        Text("Hi", ({"a": 1},)),
        ToolCall("c", "f", "{}", {}),
        ToolCall("d", "g", '{"input":"say \\"hi\\""}', {"input": 'say "hi"'}),
    )


def test_an_error_is_read():
    error = DIALECT.read_error(429, {}, b'{"error":{"message":"slow","type":"x","code":"rate_limit_exceeded"}}', "up")
    assert isinstance(error, RateLimited)
