"""Straico: a reply that never streams, tools in words, words and coins that are no tokens."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.canon.errors import StreamedError, Truncated, Unsupported
from penstock.canon.events import ToolCall
from penstock.canon.request import Message, OutputFormat, Tool, ToolChoice
from penstock.dialects.straico import DIALECT
from penstock.dialects.straico.calls import split_calls
from penstock.testing.checks import check_recording
from penstock.testing.replay import Driven, Recording, check_events, replayed
from tests.dialects.conversations import CONVERSATION, LOOK, SCHEMA, asking, built, target_for


def completion(text: str, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return {"id": "c1", "object": "chat.completion", "model": "openai/gpt", "choices": [choice], **more}


def told(body: Any) -> Driven:
    recording = Recording("document", json.dumps(body).encode(), "application/json")
    driven = replayed("straico", recording)
    check_events(driven.events, complete=driven.error is None)
    if driven.error is None:
        check_recording("straico", recording)
    return driven


PAID = {"words": {"input": 3, "output": 2, "total": 5}, "price": {"total": 0.5}}


@pytest.mark.parametrize(
    "body",
    [
        completion("Hi there", **PAID),
        {"success": True, "data": {"completion": completion("Hi there"), **PAID}},
    ],
    ids=["bare", "wrapped"],
)
def test_a_completion_alone_or_wrapped(body: Any):
    response = told(body).response
    assert response.text == "Hi there"
    assert response.finish is not None
    assert response.finish.reason == "stop"
    assert response.usage is None, "words are no tokens"
    assert {key: response.metadata[key] for key in PAID} == PAID


def test_calls_at_the_end_of_the_answer():
    block = '<tool_calls>[{"name": "look", "arguments": {"at": "sea"}}, {"name": "now"}]</tool_calls>'
    response = told(completion(f"I look.\n{block}\n")).response
    assert response.text == "I look."
    assert response.tool_calls == (
        ToolCall("call_c1_0", "look", '{"at":"sea"}', {"at": "sea"}),
        ToolCall("call_c1_1", "now", "{}", {}),
    )
    assert response.finish is not None
    assert (response.finish.reason, response.finish.raw) == ("tool_calls", "stop")
    assert told(completion(block)).response.text == ""


@pytest.mark.parametrize(
    "text",
    [
        "<tool_calls>[not json]</tool_calls>",
        '<tool_calls>[{"name": 1}]</tool_calls>',
        '<tool_calls>[{"name": "f", "arguments": "{}"}]</tool_calls>',
        '<tool_calls>[{"name": "f"}]</tool_calls> and more',
        '<tool_calls>[{"name": "f"}',
        "<tool_calls>[]</tool_calls>",
        "</tool_calls><tool_calls>",
    ],
)
def test_what_is_not_strictly_calls_is_text(text: str):
    assert told(completion(text)).response.text == text


@given(st.text())
def test_any_text_survives(text: str):
    left, calls = split_calls(text)
    assert (left, calls) == (text, [])


def test_c4_success_false_is_an_error_whatever_the_status():
    driven = told({"success": False, "error": "No coins."})
    assert isinstance(driven.error, StreamedError)
    assert driven.error.message == "No coins."


def test_c4_a_cut_document_is_cut():
    data = json.dumps(completion("Hi")).encode()[:-9]
    assert isinstance(replayed("straico", Recording("cut", data, "application/json")).error, Truncated)


def test_a_conversation_in_words():
    text = tuple(
        Message(message.role, tuple(part for part in message.parts if type(part).__name__ != "Image"))
        for message in CONVERSATION
    )
    body, dropped = built("straico", asking(*text, tools=(LOOK,), stream=True, max_tokens=5, temperature=0.5, seed=1))
    assert set(body) == {"model", "messages", "max_tokens", "temperature"}, (
        "it knows nothing else, `stream` least of all"
    )
    system, *rest = body["messages"]
    assert system["content"].startswith("Be brief.\n\nYou can call these tools: ")
    assert json.dumps(SCHEMA, separators=(",", ":")) in system["content"]
    assert rest == [
        {"role": "user", "content": "What is there?"},
        {
            "role": "assistant",
            "content": 'I look.\n\n<tool_calls>[{"name":"look","arguments":{"at":"sea"}}]</tool_calls>',
        },
        {"role": "user", "content": "Result of look: a horse"},
        {"role": "user", "content": "And now?"},
    ]
    assert dropped == ("seed",)


def test_tools_that_must_be_called_and_json():
    body, _ = built("straico", asking(tools=(LOOK, Tool("other")), tool_choice=ToolChoice("tool", "look")))
    assert "You must call a tool now." in body["messages"][0]["content"]
    assert "other" not in body["messages"][0]["content"]
    assert len(built("straico", asking(tools=(LOOK,), tool_choice=ToolChoice("none")))[0]["messages"]) == 1
    body, _ = built("straico", asking(output=OutputFormat("schema", SCHEMA)), profile="straico-no-system")
    assert [message["role"] for message in body["messages"]] == ["user"]
    assert "JSON schema" in body["messages"][0]["content"]
    assert body["messages"][0]["content"].endswith("Hi")


@pytest.mark.parametrize("request_", [asking(*CONVERSATION), asking(stop=("x",))], ids=["image", "stop"])
def test_what_cannot_be_said_is_refused(request_: Any):
    with pytest.raises(Unsupported):
        built("straico", request_)


def test_where_it_goes():
    request = DIALECT.build_request(asking(), target_for("straico", url="https://api.straico.com/v2"))
    assert request.url == "https://api.straico.com/v2/chat/completions"
    assert dict(request.headers)["authorization"] == "Bearer sk-1"
