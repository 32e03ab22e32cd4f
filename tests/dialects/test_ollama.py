"""Ollama: requests both ways, its two paths, its clock, its errors."""

from __future__ import annotations

import json
from typing import Any

import pytest

from penstock.canon.errors import InvalidRequest, StreamedError, Truncated, Unsupported
from penstock.canon.events import Reasoning, Text, Timings, ToolCall
from penstock.canon.request import Audio, File, Image, Message, OutputFormat, Tool, ToolChoice, ToolResult
from penstock.canon.response import Ending, Response
from penstock.canon.usage import Usage
from penstock.dialects.ollama import DIALECT, GENERATE
from penstock.testing.checks import check_recording
from penstock.testing.replay import Driven, Recording, check_events, replayed
from penstock.testing.samples import SAMPLES
from tests.dialects.conversations import CONVERSATION, LOOK, PIXEL, SCHEMA, asking, built, target_for

HEAD = {"model": "m", "created_at": "2026-11-20T10:00:00.5Z"}


def parsed(dialect: Any = DIALECT, **fields: Any) -> Any:
    body = {"model": "m", **({"messages": [{"role": "user", "content": "Hi"}]} if dialect is DIALECT else {}), **fields}
    return dialect.parse_request(json.dumps(body).encode())


def told(*lines: dict[str, Any]) -> Driven:
    data = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    driven = replayed("ollama", Recording("lines", data, "application/x-ndjson"))
    check_events(driven.events, complete=driven.error is None)
    return driven


def line(message: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {**HEAD, "message": {"role": "assistant", "content": "", **(message or {})}, "done": False, **more}


DONE = line(done=True, done_reason="stop", prompt_eval_count=11, eval_count=18)


# --- what servers send ------------------------------------------------------------------------------------------------


def test_thoughts_text_calls_and_the_servers_clock():
    driven = told(
        line({"thinking": "Hm"}),
        line({"content": "I look."}),
        line({"tool_calls": [{"function": {"name": "look", "arguments": {"at": "sea"}}}]}),
        line({"tool_calls": [{"id": "x", "function": {"name": "now", "arguments": {}}}]}),
        {**DONE, "prompt_eval_duration": 2_000_000, "eval_duration": 9_000_000, "total_duration": 12_000_000},
    )
    response = driven.response
    assert response.parts == (
        Reasoning("Hm"),
        Text("I look."),
        ToolCall("call_202611201000005_0", "look", '{"at":"sea"}', {"at": "sea"}),
        ToolCall("x", "now", "{}", {}),
    )
    assert response.finish == Ending("tool_calls", "stop")
    assert response.usage is not None
    assert (response.usage.input, response.usage.output) == (11, 18)
    assert response.timings == Timings(
        prompt_tokens=11,
        prompt_ms=2.0,
        prompt_per_second=5500.0,
        predicted_tokens=18,
        predicted_ms=9.0,
        predicted_per_second=2000.0,
    )


def test_calls_of_other_replies_have_other_ids():
    """Neither an id nor a moment is given: another call still is another."""

    def called(name: str) -> str:
        message = {"content": "", "tool_calls": [{"function": {"name": name, "arguments": {}}}]}
        (call,) = told({"message": message, "done": False}, DONE).response.tool_calls
        return call.id

    assert called("look") != called("now")


def test_generate_says_response():
    driven = told({**HEAD, "response": "Hel", "done": False}, {**HEAD, "response": "lo", "done": True, "context": [1]})
    assert driven.response.text == "Hello"


@pytest.mark.parametrize("reason", ["stop", "length", "load", "unload", "new", None])
def test_endings(reason: str | None):
    finish = told(line({"content": "Hi"}), {**DONE, "done_reason": reason}).response.finish
    assert finish is not None
    assert finish.reason == {"length": "length", "new": "other"}.get(reason or "", "stop")


@pytest.mark.parametrize("error", ["It broke.", {"message": "It broke."}])
def test_c4_an_error_line_is_an_error(error: Any):
    driven = told(line({"content": "Hi"}), {"error": error})
    assert isinstance(driven.error, StreamedError)
    assert (driven.error.message, driven.response.text) == ("It broke.", "Hi")


def test_c4_the_connections_end_proves_nothing():
    assert isinstance(told(line({"content": "Hi"})).error, Truncated)


def test_a_document_looks_like_a_last_line():
    body = json.dumps({**DONE, "message": {"role": "assistant", "content": "Hi"}}).encode()
    recording = Recording("document", body, "application/json")
    assert replayed("ollama", recording).response.text == "Hi"
    check_recording("ollama", recording)


# --- from a client ----------------------------------------------------------------------------------------------------


def test_a_stream_unless_it_is_said():
    body = b'{"model":"m","messages":[]}'
    assert DIALECT.read_head(body).stream is True
    assert DIALECT.read_head(b'{"model":"m","stream":false}').stream is False
    assert parsed().stream is True
    assert parsed(stream=False).stream is False


def test_a_whole_request():
    request = parsed(
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Look", "images": ["iVBO"]},
            {
                "role": "assistant",
                "content": "",
                "thinking": "Hm",
                "tool_calls": [{"function": {"name": "look", "arguments": {"at": "sea"}}}],
            },
            {"role": "tool", "content": "a horse", "tool_name": "look"},
        ],
        tools=[{"type": "function", "function": {"name": "look", "description": "d", "parameters": SCHEMA}}],
        options={"num_predict": 9, "temperature": 0.5, "stop": "x", "seed": 1, "num_ctx": 4096},
        format=SCHEMA,
        think="low",
        keep_alive="5m",
    )
    assert request.messages == (
        Message.of("system", "Be brief."),
        Message("user", (Text("Look"), Image(data="iVBO"))),
        Message("assistant", (Reasoning("Hm"), ToolCall("call_0", "look", '{"at":"sea"}', {"at": "sea"}))),
        Message("tool", (ToolResult("call_0", (Text("a horse"),), name="look"),)),
    )
    assert request.tools == (Tool("look", "d", SCHEMA),)
    assert (request.max_tokens, request.temperature, request.stop, request.seed) == (9, 0.5, ("x",), 1)
    assert (request.output, request.reasoning_effort) == (OutputFormat("schema", SCHEMA), "low")
    assert request.extras == {"ollama": {"keep_alive": "5m", "options": {"num_ctx": 4096}}}
    body, dropped = built("openai-chat", request)
    assert body["messages"][2]["tool_calls"][0]["id"] == body["messages"][3]["tool_call_id"]
    assert dropped == ("keep_alive", "options")


def test_generate_is_a_conversation_of_one_turn():
    request = parsed(
        GENERATE, prompt="Once", system="Be brief.", images=["iVBO"], options={"num_predict": -1}, think=True
    )
    assert request.messages == (
        Message.of("system", "Be brief."),
        Message("user", (Text("Once"), Image(data="iVBO"))),
    )
    assert (request.max_tokens, request.reasoning_effort) == (None, "medium")
    assert parsed(GENERATE, prompt="x", format="json", think=False).output == OutputFormat("json")


@pytest.mark.parametrize("field", ["suffix", "template", "context", "raw"])
def test_what_only_a_server_with_the_template_can_do_is_refused(field: str):
    value: Any = {"context": [1], "raw": True}.get(field, "x")
    with pytest.raises(Unsupported) as caught:
        parsed(GENERATE, prompt="Once", **{field: value})
    assert caught.value.param == field


@pytest.mark.parametrize(
    ("dialect", "fields", "param"),
    [
        (DIALECT, {"messages": []}, "messages"),
        (DIALECT, {"messages": [{"role": "narrator"}]}, "messages[0].role"),
        (DIALECT, {"format": "xml"}, "format"),
        (GENERATE, {"prompt": ""}, "prompt"),
        (GENERATE, {}, "prompt"),
    ],
)
def test_a_mistake_is_said_with_its_path(dialect: Any, fields: dict[str, Any], param: str):
    with pytest.raises(InvalidRequest) as caught:
        parsed(dialect, **fields)
    assert caught.value.param == param


@pytest.mark.parametrize(("dialect", "path"), [(DIALECT, "/api/chat"), (GENERATE, "/api/generate")])
@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:11434", "http://127.0.0.1:11434/", "http://127.0.0.1:11434/api", "http://127.0.0.1:11434/v1"],
)
def test_the_same_dialect_is_forwarded_to_the_same_path(dialect: Any, path: str, url: str):
    body = b'{"model":"m","prompt":"x","context":[1],"new":1.50}'
    request = dialect.forward_request(dialect.read_head(body), target_for("ollama", url=url), {})
    assert (request.url, request.body) == (f"http://127.0.0.1:11434{path}", body)


# --- to an upstream ---------------------------------------------------------------------------------------------------


def test_a_conversation():
    knobs = {"max_tokens": 9, "temperature": 0.5, "top_p": 0.9, "top_k": 3, "seed": 1, "stop": ("x",)}
    body, dropped = built("ollama", asking(*CONVERSATION, tools=(LOOK,), stream=True, **knobs))
    assert body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is there?", "images": [PIXEL.data]},
        {
            "role": "assistant",
            "content": "I look.",
            "tool_calls": [{"id": "call_1", "function": {"name": "look", "arguments": {"at": "sea"}}}],
        },
        {"role": "tool", "content": "a horse", "tool_name": "look", "tool_call_id": "call_1"},
        {"role": "user", "content": "And now?"},
    ]
    assert body["options"] == {
        "num_predict": 9,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 3,
        "seed": 1,
        "stop": ["x"],
    }
    assert (body["stream"], dropped) == (True, ())
    assert body["tools"][0]["function"]["parameters"] == SCHEMA


def test_a_stream_is_always_asked_for_in_words():
    assert built("ollama", asking())[0]["stream"] is False


@pytest.mark.parametrize(("effort", "think"), [("none", False), ("minimal", "low"), ("high", "high"), ("odd", True)])
def test_thinking(effort: str, think: Any):
    assert built("ollama", asking(reasoning_effort=effort))[0]["think"] == think
    assert built("ollama", asking(reasoning_budget=0))[0]["think"] is False


def test_formats_and_forbidden_tools():
    assert built("ollama", asking(output=OutputFormat("json")))[0]["format"] == "json"
    assert built("ollama", asking(output=OutputFormat("schema", SCHEMA)))[0]["format"] == SCHEMA
    assert "tools" not in built("ollama", asking(tools=(LOOK,), tool_choice=ToolChoice("none")))[0]
    body, dropped = built(
        "ollama", asking(tools=(LOOK,), tool_choice=ToolChoice("auto"), parallel_tool_calls=True, user="me")
    )
    assert "tool_choice" not in body
    assert dropped == ("parallel_tool_calls", "user")


@pytest.mark.parametrize(
    "request_",
    [
        asking(tools=(LOOK,), tool_choice=ToolChoice("any")),
        asking(Message("user", (Image(url="https://x/y.png"),))),
        asking(Message("user", (Audio("aa", "wav"),))),
        asking(Message("user", (File(data="JVBERg=="),))),
    ],
)
def test_what_would_change_its_meaning_is_refused(request_: Any):
    with pytest.raises(Unsupported):
        built("ollama", request_)


# --- what clients get -------------------------------------------------------------------------------------------------


def test_lines_have_what_clients_need():
    encoder = DIALECT.encoder(model="alias", include_usage=True, request_id="r", created=1_700_000_000)
    lines = [json.loads(each) for each in encoder.encode(SAMPLES["thought, text and two calls"]).splitlines()]
    assert {each["model"] for each in lines} == {"alias"}
    assert {each["created_at"] for each in lines} == {"2023-11-14T22:13:20Z"}
    assert [each["done"] for each in lines] == [False] * (len(lines) - 1) + [True]
    calls = [call["function"] for each in lines for call in each["message"].get("tool_calls", ())]
    assert [(call["index"], call["name"]) for call in calls] == [(0, "get_weather"), (1, "get_time")]
    assert (lines[-1]["prompt_eval_count"], lines[-1]["eval_count"], lines[-1]["done_reason"]) == (120, 42, "stop")


def test_a_generate_client_gets_responses():
    encoder = GENERATE.encoder(model=None, include_usage=True, request_id="r", created=0)
    lines = [json.loads(each) for each in encoder.encode(SAMPLES["a thought first"]).splitlines()]
    assert "".join(each["response"] for each in lines) == "It is 4."
    assert "".join(each.get("thinking", "") for each in lines) == "Let me see."
    response = Response(parts=(Text("Hi"),), finish=Ending("length"), usage=Usage(input=3, output=2))
    document = json.loads(GENERATE.write_document(response, model="m", request_id="r", created=0))
    assert (document["response"], document["done"], document["done_reason"]) == ("Hi", True, "length")


def test_an_error_is_a_line():
    encoder = DIALECT.encoder(model=None, include_usage=True, request_id="r", created=0)
    assert encoder.error(StreamedError("It broke.")) == b'{"error":"It broke."}\n'
    assert DIALECT.read_error(404, {}, b'{"error":"no such model"}', "up").message == "no such model"
