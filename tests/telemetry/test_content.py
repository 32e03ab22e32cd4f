"""What goes onto a span where content is asked for: both directions, bounded, and no bytes of pictures."""

from __future__ import annotations

import json
from typing import Any

from penstock.canon.events import Reasoning, Text, ToolCall
from penstock.canon.request import ChatRequest, Image, Message, Tool, ToolResult
from penstock.canon.response import Ending, Response
from penstock.dialects import client_dialect
from penstock.streams.handler import Call
from penstock.telemetry.content import MAX_CHARS, MAX_TEXT_CHARS, ContentTally, content

CALL = ToolCall("t1", "weather", '{"city":"Bern"}', {"city": "Bern"})


def told(request: ChatRequest | None, *parts: Any, finish: Any = "stop") -> dict[str, Any]:
    found = content(request, Response(parts=parts, finish=Ending(finish) if finish else None))
    return {name: json.loads(value) for name, value in found.items()}


def test_both_directions_in_the_conventions_form():
    request = ChatRequest(
        "m",
        (
            Message.of("system", "Be brief."),
            Message.of("user", "What is this?", Image(data="aGk=", media_type="image/png"), Image(url="https://x/y.png")),
            Message.of("assistant", CALL),
            Message.of("tool", ToolResult.of(CALL, "Rain")),
        ),
        tools=(Tool("weather", "Tells it"),),
    )  # fmt: skip
    found = told(request, Reasoning("Hm", signature="secret-signature"), Text("Rain."), CALL)
    assert found["gen_ai.system_instructions"] == [{"type": "text", "content": "Be brief."}]
    assert found["gen_ai.tool.definitions"] == [{"type": "function", "name": "weather", "description": "Tells it"}]
    asked, called, result = found["gen_ai.input.messages"]
    assert asked["parts"] == [
        {"type": "text", "content": "What is this?"},
        {"type": "blob", "modality": "image", "mime_type": "image/png"},
        {"type": "uri", "modality": "image", "uri": "https://x/y.png"},
    ]
    call = {"type": "tool_call", "id": "t1", "name": "weather", "arguments": {"city": "Bern"}}
    assert (called["role"], called["parts"]) == ("assistant", [call])
    assert result["parts"] == [
        {"type": "tool_call_response", "id": "t1", "response": [{"type": "text", "content": "Rain"}]}
    ]
    (answered,) = found["gen_ai.output.messages"]
    assert answered["finish_reason"] == "stop"
    assert answered["parts"] == [{"type": "reasoning", "content": "Hm"}, {"type": "text", "content": "Rain."}, call]
    assert "secret-signature" not in json.dumps(found)
    assert "aGk=" not in json.dumps(found)


def test_a_request_that_is_no_chat_has_no_messages():
    """Embeddings are asked for in a client's dialect as well."""
    call = Call(request_id="r", model="m", stream=False, dialect=client_dialect("openai-chat"), body=b'{"input": "a"}')
    assert ContentTally(call, concurrent=1).content() == {}


def test_a_picture_in_its_url_is_no_text():
    request = ChatRequest("m", (Message.of("user", Image(url="data:image/png;base64,aGk=")),))
    assert "aGk=" not in json.dumps(told(request))


def test_a_reply_that_broke_is_what_had_come():
    (answered,) = told(None, Text("half"), finish=None)["gen_ai.output.messages"]
    assert answered == {"role": "assistant", "parts": [{"type": "text", "content": "half"}], "finish_reason": None}


def test_no_request_and_no_reply_are_no_attributes():
    assert told(None) == {}


def test_c11_a_long_text_is_cut_and_of_a_long_conversation_the_last_is_kept():
    long = "x" * (MAX_TEXT_CHARS + 1)
    request = ChatRequest("m", (Message.of("user", "first"), *(Message.of("user", long) for _ in range(20))))
    found = content(request, Response(parts=(ToolCall("t", "f", long),)))
    assert len(found["gen_ai.input.messages"]) <= MAX_CHARS + 100
    messages = json.loads(found["gen_ai.input.messages"])
    assert 0 < len(messages) < 21
    assert messages[-1]["parts"][0]["content"] == "x" * MAX_TEXT_CHARS + "…"
    assert len(found["gen_ai.output.messages"]) < MAX_TEXT_CHARS + 200
