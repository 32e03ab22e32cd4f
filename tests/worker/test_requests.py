"""What the engine is asked, where that is not what the client said."""

from __future__ import annotations

import json
from typing import Any

import pytest

from penstock.canon.errors import InvalidRequest
from penstock.canon.target import Target
from penstock.dialects import client_dialect
from penstock.streams.handler import Call
from penstock.worker.requests import asks

TARGET = Target("engine", "http://engine/v1", "openai-chat", profile="llamacpp")
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {}}}]


def call(body: bytes) -> Call:
    chat = client_dialect("openai-chat")
    return Call(request_id="r", model="m", stream=False, dialect=chat, head=chat.read_head(body), body=body)


def sent(**more: Any) -> Any:
    body = {"model": "m", "messages": [{"role": "user", "content": "none é"}], "own": [1, 2], **more}
    return json.loads(asks(call(json.dumps(body, ensure_ascii=False).encode()), TARGET)[1].body)


@pytest.mark.parametrize("choice", ["auto", "required", {"type": "function", "function": {"name": "look"}}])
def test_tools_that_may_be_called_stay(choice: Any):
    found = sent(tools=TOOLS, tool_choice=choice)
    assert (found["tools"], found["tool_choice"]) == (TOOLS, choice)


def test_tools_that_may_not_be_called_go_and_nothing_else():
    found = sent(tools=TOOLS, tool_choice="none")
    assert found == {"model": "m", "messages": [{"role": "user", "content": "none é"}], "own": [1, 2]}
    assert sent(tool_choice="none")["tool_choice"] == "none"


def test_a_request_that_needs_no_mending_is_its_own_bytes():
    body = b'{"model": "m",  "messages": [{"role":"user","content":"caf\xc3\xa9 \\"none\\""}]}'
    assert asks(call(body), TARGET)[1].body == body


def test_what_is_no_utf_8_is_refused_without_a_word_of_it():
    with pytest.raises(InvalidRequest) as raised:
        asks(call(b'{"model":"m","messages":[{"role":"user","content":"caf\xe9 secret"}]}'), TARGET)
    assert str(raised.value) == "The body is not UTF-8: byte 54 begins no character."
