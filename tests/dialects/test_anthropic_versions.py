"""`anthropic-version`: 2023-06-01, which we ask for, and 2026-10-21, which clients and targets may name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from penstock.canon.errors import InvalidRequest, Unsupported
from penstock.canon.events import Text
from penstock.canon.request import ChatRequest, File, Message
from penstock.canon.target import Target
from penstock.dialects.anthropic_messages import DIALECT, DIALECT_2026_10_21

OLD, NEW = "2023-06-01", "2026-10-21"
TARGET = Target("claude", "https://api.anthropic.com/v1", "anthropic-messages")
NEWER = Target("claude", TARGET.url, TARGET.dialect, headers=(("Anthropic-Version", NEW),))
USER = Message.of("user", "Hi")
SAMPLED = ChatRequest("claude-x", (USER,), temperature=0.5, top_p=0.9, top_k=5, seed=1)


def body_of(**fields: Any) -> bytes:
    return json.dumps(
        {"model": "claude-x", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}], **fields}
    ).encode()


# --- towards an upstream ----------------------------------------------------------------------------------------------


def test_the_older_version_is_pinned_and_takes_sampling_parameters():
    request = DIALECT.build_request(SAMPLED, TARGET)
    assert dict(request.headers)["anthropic-version"] == OLD
    body = json.loads(request.body)
    assert (body["temperature"], body["top_p"], body["top_k"]) == (0.5, 0.9, 5)
    assert request.dropped == ("seed",)
    assert dict(DIALECT.build_request(ChatRequest("m", (USER,)), TARGET).headers)["anthropic-version"] == OLD


def test_a_target_of_the_newer_version_is_sent_none_and_they_are_named():
    request = DIALECT.build_request(SAMPLED, NEWER)
    assert dict(request.headers)["anthropic-version"] == NEW
    assert not {"temperature", "top_p", "top_k"} & json.loads(request.body).keys()
    assert request.dropped == ("temperature", "top_p", "top_k", "seed")


@pytest.mark.parametrize("target", [TARGET, NEWER], ids=[OLD, NEW])
def test_what_the_newer_version_refuses_is_built_for_neither(target: Target):
    cited = Message("user", (Text("Hi", ({"type": "char_location", "cited_text": "H"},)),))
    assert "citations" not in DIALECT.build_request(ChatRequest("m", (cited,)), target).body.decode()
    shown = Message("assistant", (File(text="a"),))
    with pytest.raises(Unsupported):
        DIALECT.build_request(ChatRequest("m", (USER, shown)), target)


def test_a_clients_own_version_is_forwarded_with_what_it_said():
    body = body_of(temperature=1)
    for client in (DIALECT, DIALECT_2026_10_21):
        request = client.forward_request(client.read_head(body), TARGET, {"anthropic-version": NEW})
        assert dict(request.headers)["anthropic-version"] == NEW
        assert request.body == body, "the upstream's own refusal is the best there is"


# --- from a client, for another dialect -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": 1.0}, "temperature"),
        ({"top_p": 0.5}, "top_p"),
        ({"top_k": 5}, "top_k"),
        (
            {
                "messages": [
                    {"role": "user", "content": "Hi"},
                    {
                        "role": "assistant",
                        "content": [{"type": "document", "source": {"type": "text", "data": "x"}}],
                    },
                ]
            },
            "messages.1.content.0.document",
        ),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "text", "text": "Hi", "citations": [{"type": "char_location"}]}],
                    }
                ]
            },
            "messages.0.content.0.text.citations",
        ),
    ],
)
def test_what_the_newer_version_refuses_of_a_client(fields: dict[str, Any], param: str):
    body = body_of(**fields)
    DIALECT.parse_request(body)
    with pytest.raises(InvalidRequest) as caught:
        DIALECT_2026_10_21.parse_request(body)
    assert caught.value.param == param
    said = json.loads(DIALECT_2026_10_21.write_error(caught.value, "req_1"))["error"]
    assert said["type"] == "invalid_request_error"
    assert said["message"].startswith(f"{param}: Extra inputs are not permitted")


def test_everything_else_is_the_same_in_both():
    fields: dict[str, Any] = {
        "temperature": None,
        "system": "Be brief.",
        "messages": [
            {"role": "user", "content": [{"type": "document", "source": {"type": "text", "data": "x"}}]},
            {"role": "assistant", "content": [{"type": "text", "text": "Hi", "citations": []}]},
        ],
    }
    assert DIALECT.parse_request(body_of(**fields)) == DIALECT_2026_10_21.parse_request(body_of(**fields))
