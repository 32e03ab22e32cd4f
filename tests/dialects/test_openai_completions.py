"""Text completions: a prompt both ways, and nothing that a prompt cannot say."""

from __future__ import annotations

import json
from typing import Any

import pytest

from penstock.canon.errors import InvalidRequest, Unsupported
from penstock.canon.request import Message
from penstock.dialects.openai_completions import DIALECT
from penstock.testing.replay import Recording, check_events, replayed
from tests.dialects.conversations import CONVERSATION, LOOK, asking, built, target_for


def parsed(**fields: Any) -> Any:
    return DIALECT.parse_request(json.dumps({"model": "m", "prompt": "Once", **fields}).encode())


def test_a_prompt_is_what_the_user_says():
    request = parsed(stream=True, max_tokens=5, stop="x", logit_bias={"1": 2}, n=1, best_of=1, echo=False)
    assert request.messages == (Message.of("user", "Once"),)
    assert (request.stream, request.max_tokens, request.stop) == (True, 5, ("x",))
    body, dropped = built("anthropic-messages", request)
    assert body["messages"] == [{"role": "user", "content": "Once"}]
    assert dropped == ("logit_bias",)
    assert parsed(prompt=["Once"]).messages == request.messages


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"best_of": 2}, "best_of"),
        ({"echo": True}, "echo"),
        ({"suffix": "x"}, "suffix"),
        ({"prompt": ["a", "b"]}, "prompt"),
        ({"prompt": [1, 2]}, "prompt"),
        ({"prompt": [[1, 2]]}, "prompt"),
    ],
)
def test_what_only_a_completing_model_can_do_is_refused(fields: dict[str, Any], param: str):
    with pytest.raises(Unsupported) as caught:
        parsed(**fields)
    assert caught.value.param == param


@pytest.mark.parametrize("prompt", ["", None, []])
def test_an_empty_prompt_is_a_mistake(prompt: Any):
    with pytest.raises(InvalidRequest) as caught:
        parsed(prompt=prompt)
    assert caught.value.param == "prompt"


def test_one_message_is_a_prompt():
    body, dropped = built("openai-completions", asking(stream=True, max_tokens=3, reasoning_effort="low"))
    assert body == {
        "model": "m",
        "prompt": "Hi",
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 3,
    }
    assert dropped == ("reasoning_effort",)


@pytest.mark.parametrize(
    "request_", [asking(*CONVERSATION), asking(tools=(LOOK,)), asking(Message.of("assistant", "Hi"))]
)
def test_a_conversation_is_none(request_: Any):
    with pytest.raises(Unsupported, match="completes text"):
        built("openai-completions", request_)


def test_the_same_dialect_is_forwarded():
    head = DIALECT.read_head(b'{"model":"m","prompt":[1,2],"stream":true,"suffix":"x"}')
    request = DIALECT.forward_request(head, target_for("openai-completions", model="real"), {})
    assert request.url == "https://up.example/v1/completions"
    assert json.loads(request.body) == {
        "model": "real",
        "prompt": [1, 2],
        "stream": True,
        "suffix": "x",
        "stream_options": {"include_usage": True},
    }


def test_quirk_text_beside_a_delta_is_one_text():
    """Together and Hugging Face say it twice."""
    choice = {"index": 0, "text": "Hi", "delta": {"content": "Hi"}, "finish_reason": "stop"}
    data = f"data: {json.dumps({'id': 'c', 'model': 'm', 'choices': [choice]})}\n\n".encode()
    for name in ("openai-chat", "openai-completions"):
        driven = replayed(name, Recording("twice", data, "text/event-stream"))
        check_events(driven.events, complete=True)
        assert driven.response.text == "Hi"
