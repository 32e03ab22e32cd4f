"""Cohere v2: what is sent, and what is made of what comes back."""

from __future__ import annotations

import json
from typing import Any

import pytest

from penstock.canon.errors import RateLimited, StreamedError, Truncated, Unsupported
from penstock.canon.events import Annotation, Reasoning, Text, ToolCall
from penstock.canon.request import Audio, Image, Message, OutputFormat, ToolChoice, ToolResult
from penstock.dialects.cohere import DIALECT
from penstock.testing.replay import Driven, Recording, check_events, replayed
from tests.dialects.conversations import CONVERSATION, LOOK, PIXEL, SCHEMA, THOUGHT, asking, built, target_for


def told(*events: dict[str, Any], end: bytes = b"") -> Driven:
    wire = b"".join(f"event: {each['type']}\ndata: {json.dumps(each)}\n\n".encode() for each in events)
    driven = replayed("cohere", Recording("events", wire + end, "text/event-stream"))
    check_events(driven.events, complete=driven.error is None)
    return driven


def event(kind: str, index: int | None = None, **message: Any) -> dict[str, Any]:
    return {"type": kind, **({} if index is None else {"index": index}), "delta": {"message": message}}


START = {"type": "message-start", "id": "r1", "delta": {"message": {"role": "assistant"}}}


def ending(reason: str = "COMPLETE", **more: Any) -> dict[str, Any]:
    return {"type": "message-end", "delta": {"finish_reason": reason, **more}}


def test_a_plan_and_two_calls():
    driven = told(
        START,
        event("tool-plan-delta", tool_plan="I will "),
        event("tool-plan-delta", tool_plan="look."),
        event("tool-call-start", 0, tool_calls={"id": "a", "function": {"name": "look", "arguments": ""}}),
        event("tool-call-delta", 0, tool_calls={"function": {"arguments": '{"at":'}}),
        event("tool-call-delta", 0, tool_calls={"function": {"arguments": '"sea"}'}}),
        event("tool-call-end", 0),
        event("tool-call-start", 1, tool_calls={"function": {"name": "now", "arguments": "{}"}}),
        event("tool-call-end", 1),
        ending("TOOL_CALL", usage={"tokens": {"input_tokens": 9.0, "output_tokens": 2.0}, "cached_tokens": 4.0}),
        end=b"data: [DONE]\n\n",
    )
    response = driven.response
    assert response.parts == (
        Reasoning("I will look."),
        ToolCall("a", "look", '{"at":"sea"}', {"at": "sea"}),
        ToolCall("call_r1_2", "now", "{}", {}),
    )
    assert response.finish is not None
    assert (response.finish.reason, response.finish.raw) == ("tool_calls", "TOOL_CALL")
    assert response.usage is not None, "quirk: its counts are floats"
    assert (response.usage.input, response.usage.input_cached, response.usage.output) == (9, 4, 2)


def test_citations_are_kept():
    driven = told(
        START,
        event("content-start", 0, content={"type": "text", "text": ""}),
        event("content-delta", 0, content={"text": "Hi"}),
        event("citation-start", 0, citations={"start": 0, "end": 2}),
        event("content-end", 0),
        ending(),
    )
    assert [each.data for each in driven.events if isinstance(each, Annotation)] == [{"start": 0, "end": 2}]
    assert driven.response.parts == (Text("Hi", ({"start": 0, "end": 2},)),)


@pytest.mark.parametrize("kind", [{"a": 1}, ["content-delta"], None, 7])
def test_an_event_whose_type_is_no_text_is_passed_over(kind: Any):
    """Found by fuzz/decoders.py."""
    odd = {"type": kind, "delta": "no object"}
    data = f"data: {json.dumps(START)}\n\ndata: {json.dumps(odd)}\n\ndata: {json.dumps(ending())}\n\n".encode()
    driven = replayed("cohere", Recording("odd", data, "text/event-stream"))
    assert driven.error is None


@pytest.mark.parametrize(("reason", "status"), [("ERROR", 500), ("TIMEOUT", 504)])
def test_c4_an_ending_that_is_a_failure(reason: str, status: int):
    driven = told(START, event("content-delta", 0, content={"text": "Hi"}), ending(reason, error="It broke."))
    assert isinstance(driven.error, StreamedError)
    assert (driven.error.type, driven.error.status, driven.error.message) == (reason, status, "It broke.")


@pytest.mark.parametrize("end", [b"", b"data: [DONE]\n\n"])
def test_c4_nothing_but_its_own_end_proves_it(end: bytes):
    assert isinstance(told(START, event("content-delta", 0, content={"text": "Hi"}), end=end).error, Truncated)


def test_a_document():
    message = {
        "tool_plan": "I look.",
        "content": [{"type": "thinking", "thinking": "Hm"}, {"type": "text", "text": "Hi"}],
        "tool_calls": [{"id": "a", "type": "function", "function": {"name": "look", "arguments": '{"at":"sea"}'}}],
    }
    body = {"id": "r1", "message": message, "finish_reason": "TOOL_CALL", "usage": {"tokens": {"input_tokens": 3}}}
    driven = replayed("cohere", Recording("document", json.dumps(body).encode(), "application/json"))
    check_events(driven.events, complete=True)
    assert (driven.response.reasoning, driven.response.text) == ("I look.Hm", "Hi")
    assert driven.response.tool_calls == (ToolCall("a", "look", '{"at":"sea"}', {"at": "sea"}),)


def test_a_conversation():
    body, dropped = built("cohere", asking(*CONVERSATION, tools=(LOOK,), stream=True, max_tokens=5, top_k=3, top_p=0.5))
    call = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"at":"sea"}'}}
    assert body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is there?"},
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL.data}"}},
            ],
        },
        {"role": "assistant", "tool_calls": [call], "tool_plan": "I look.", "content": "I look."},
        {"role": "tool", "tool_call_id": "call_1", "content": "a horse"},
        {"role": "user", "content": "And now?"},
    ]
    assert (body["k"], body["p"], body["max_tokens"], body["stream"], dropped) == (3, 0.5, 5, True, ())


def test_what_other_wires_say_otherwise():
    other = LOOK.__class__("other")
    body, _ = built("cohere", asking(tools=(LOOK, other), tool_choice=ToolChoice("tool", "look")))
    assert [tool["function"]["name"] for tool in body["tools"]] == ["look"]
    assert body["tool_choice"] == "REQUIRED"
    body, _ = built(
        "cohere", asking(tools=(LOOK,), tool_choice=ToolChoice("none"), output=OutputFormat("schema", SCHEMA))
    )
    assert body["tool_choice"] == "NONE"
    assert body["response_format"] == {"type": "json_object", "json_schema": SCHEMA}
    assert built("cohere", asking(reasoning_effort="none"))[0]["thinking"] == {"type": "disabled"}
    assert built("cohere", asking(reasoning_budget=99))[0]["thinking"] == {"type": "enabled", "token_budget": 99}


def test_what_is_left_out_is_named_and_what_matters_refused():
    failed = Message("tool", (ToolResult("x", (Text("no"),), is_error=True),))
    body, dropped = built(
        "cohere",
        asking(Message("assistant", (THOUGHT, Text("a"))), failed, user="me", extras={"openai-chat": {"n": 1}}),
    )
    assert dropped == ("n", "reasoning", "user")
    assert body["messages"][1]["content"] == "Error: no"
    with pytest.raises(Unsupported):
        built("cohere", asking(Message("user", (Audio("aa", "wav"),))))
    assert built("cohere", asking(Message("user", (Image(url="https://x/y.png"),))))[0]["messages"][0]["content"] == [
        {"type": "image_url", "image_url": {"url": "https://x/y.png"}}
    ]


def test_where_it_goes():
    request = DIALECT.build_request(asking(stream=True), target_for("cohere"))
    assert request.url == "https://up.example/v1/chat"
    assert dict(request.headers)["authorization"] == "Bearer sk-1"


def test_an_error_is_read():
    error = DIALECT.read_error(429, {"retry-after": "3"}, b'{"id":"x","message":"slow down"}', "up")
    assert isinstance(error, RateLimited)
    assert (error.message, error.retry_after_s) == ("slow down", 3)
