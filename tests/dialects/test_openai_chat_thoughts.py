"""Signatures through a chat client: several thoughts come back as several, each its owner's; a call's with the call."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from penstock.canon.events import BlockEnd, BlockStart, Reasoning, Text, ToolCall
from penstock.canon.request import Message
from penstock.canon.response import Ending, Response
from penstock.dialects.openai_chat import DIALECT
from penstock.dialects.openai_chat.thoughts import FORMATS, read_thoughts, written_details
from tests.dialects.conversations import THOUGHT, asking, built

_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
_thoughts = st.lists(
    st.builds(Reasoning, _text, st.just("EqQB"), signed_by=st.sampled_from(sorted(FORMATS)))
    | st.builds(
        lambda data, by: Reasoning("", redacted=data, signed_by=by), st.just("opaque"), st.sampled_from(sorted(FORMATS))
    ),
    max_size=4,
)


@given(_thoughts, _text)
def test_thoughts_come_back_as_they_went(thoughts: list[Reasoning], rest: str):
    text = "".join(part.text for part in thoughts) + rest
    details = [detail for part in thoughts for detail in written_details(part)]
    unsigned = [Reasoning(rest)] if rest else []
    assert read_thoughts(text, details) == thoughts + unsigned


def test_openrouters_own_details_stay_as_they_are():
    details = [{"type": "reasoning.text", "text": "Hm", "signature": "EqQB", "format": "anthropic-claude-v1"}]
    assert read_thoughts("Hm", details) == [Reasoning("Hm", details=tuple(details))]
    odd: list[Any] = [{"chars": -1, "format": "google-gemini-v1"}, {"chars": "1"}, 7]
    assert read_thoughts("Hm", odd) == [Reasoning("Hm", details=tuple(odd))]


def answered(*parts: Any) -> dict[str, Any]:
    """The message that a client gets, and sends back."""
    response = Response(parts=parts, finish=Ending("stop"))
    document = json.loads(DIALECT.write_document(response, model="m", request_id="r", created=0))
    message: dict[str, Any] = document["choices"][0]["message"]
    return message


def test_a_turn_goes_home_to_its_own_provider():
    thoughts = (
        Reasoning("One.", "sig1", signed_by="anthropic-messages"),
        Reasoning("Two.", "sig2", signed_by="anthropic-messages"),
    )
    body = json.dumps({"model": "m", "messages": [answered(*thoughts), {"role": "user", "content": "Hi"}]}).encode()
    request = DIALECT.parse_request(body)
    assert request.messages[0].parts[:2] == thoughts
    there, dropped = built("anthropic-messages", request)
    assert there["messages"][0]["content"] == [
        {"type": "thinking", "thinking": "One.", "signature": "sig1"},
        {"type": "thinking", "thinking": "Two.", "signature": "sig2"},
    ]
    assert dropped == ()
    assert built("openai-responses", request)[1] == ("reasoning",), "another provider gets none of it"


def test_a_geminis_call_keeps_its_signature():
    call = ToolCall("c1", "look", "{}", {}, signature="GSIG")
    message = answered(call)
    assert message["tool_calls"][0]["extra_content"] == {"google": {"thought_signature": "GSIG"}}
    request = DIALECT.parse_request(json.dumps({"model": "m", "messages": [message]}).encode())
    assert request.messages[0].parts[-1] == call
    assert built("openai-chat", request)[0]["messages"][0]["tool_calls"] == message["tool_calls"]
    encoder = DIALECT.encoder(model="m", include_usage=False, request_id="r", created=0)
    data = encoder.encode([BlockStart(0, "tool_call", "c1", "look", False, "GSIG"), BlockEnd(0, call)])
    assert b'"extra_content":{"google":{"thought_signature":"GSIG"}}' in data


def test_functions_of_before_there_were_tools():
    body = {
        "model": "m",
        "messages": [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": None, "function_call": {"name": "look", "arguments": "{}"}},
            {"role": "function", "name": "look", "content": "a horse"},
        ],
        "functions": [{"name": "look", "parameters": {"type": "object"}}],
        "function_call": {"name": "look"},
    }
    there, _ = built("anthropic-messages", DIALECT.parse_request(json.dumps(body).encode()))
    assert [tool["name"] for tool in there["tools"]] == ["look"]
    assert there["tool_choice"] == {"type": "tool", "name": "look"}
    assert there["messages"][1]["content"] == [{"type": "tool_use", "id": "look", "name": "look", "input": {}}]
    assert there["messages"][2]["content"] == [{"type": "tool_result", "tool_use_id": "look", "content": "a horse"}]


def test_allowed_tools_are_the_only_ones_told():
    tools = [{"type": "function", "function": {"name": name}} for name in ("a", "b")]
    allowed = {"mode": "required", "tools": [{"type": "function", "function": {"name": "b"}}]}
    body = {
        "model": "m",
        "messages": [{"role": "user", "content": "Hi"}],
        "tools": tools,
        "tool_choice": {"type": "allowed_tools", "allowed_tools": allowed},
    }
    there, _ = built("anthropic-messages", DIALECT.parse_request(json.dumps(body).encode()))
    assert [tool["name"] for tool in there["tools"]] == ["b"]
    assert there["tool_choice"] == {"type": "any"}


def test_a_custom_call_in_history_is_a_call_with_one_argument():
    call = {"id": "c1", "type": "custom", "custom": {"name": "run", "input": "x = 1"}}
    body = {"model": "m", "messages": [{"role": "assistant", "tool_calls": [call]}]}
    (message,) = DIALECT.parse_request(json.dumps(body).encode()).messages
    assert message.parts == (ToolCall("c1", "run", '{"input":"x = 1"}', {"input": "x = 1"}),)


def test_a_reply_in_the_form_of_before_there_were_tools():
    from penstock.testing.replay import Recording, check_events, replayed

    deltas = [{"function_call": {"name": "look", "arguments": '{"at":'}}, {"function_call": {"arguments": '"sea"}'}}]
    chunks = [{"id": "c", "model": "m", "choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    chunks.append({"id": "c", "model": "m", "choices": [{"index": 0, "delta": {}, "finish_reason": "function_call"}]})
    data = b"".join(f"data: {json.dumps(chunk)}\n\n".encode() for chunk in chunks)
    driven = replayed("openai-chat", Recording("old", data, "text/event-stream"))
    check_events(driven.events, complete=True)
    assert driven.response.tool_calls == (ToolCall("call_c_0", "look", '{"at":"sea"}', {"at": "sea"}),)
    assert asking().stream is False


def test_a_thought_of_another_providers_is_named_where_it_is_not_sent() -> None:
    redacted = Reasoning("", redacted="R3D", signed_by="anthropic-messages")
    for thought, profile, dropped in (
        (THOUGHT, None, ("reasoning",)),
        (THOUGHT, "zai", ()),  # its words are sent
        (redacted, "zai", ("reasoning",)),
        (Reasoning("Hm"), None, ()),  # nobody's, and nothing is proved by it
    ):
        asked = asking(Message.of("user", "Hi"), Message("assistant", (thought, Text("Ho"))), Message.of("user", "He"))
        body, named = built("openai-chat", asked, profile=profile)
        assert named == dropped
        assert "EqQB" not in str(body)
