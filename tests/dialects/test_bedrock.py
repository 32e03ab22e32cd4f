"""Bedrock Converse: what is sent and how it is signed, and what is made of what comes back."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from penstock.canon.errors import ConfigError, MalformedFrame, RateLimited, StreamedError, Truncated, Unsupported
from penstock.canon.events import Custom, Reasoning, Text, ToolCall
from penstock.canon.request import Audio, File, Image, Message, OutputFormat, ToolChoice, ToolResult
from penstock.canon.target import Secret
from penstock.dialects.bedrock import DIALECT
from penstock.framing.eventstream import write_message
from penstock.testing.replay import Driven, Recording, check_events, replayed
from tests.corpus import each
from tests.dialects.conversations import CONVERSATION, LOOK, PIXEL, SCHEMA, THOUGHT, asking, built, target_for

EVENTSTREAM = "application/vnd.amazon.eventstream"


def message(name: str, payload: Any, kind: str = "event") -> bytes:
    headers = {":message-type": kind, f":{kind if kind == 'exception' else 'event'}-type": name}
    return write_message(headers, json.dumps(payload).encode())


def told(*messages: bytes) -> Driven:
    driven = replayed("bedrock", Recording("messages", b"".join(messages), EVENTSTREAM))
    check_events(driven.events, complete=driven.error is None)
    return driven


def delta(index: int, **fields: Any) -> bytes:
    return message("contentBlockDelta", {"contentBlockIndex": index, "delta": fields, "p": "abcdef"})


def start(index: int, **fields: Any) -> bytes:
    return message("contentBlockStart", {"contentBlockIndex": index, "start": fields})


def stop(index: int) -> bytes:
    return message("contentBlockStop", {"contentBlockIndex": index})


def ended(reason: str = "end_turn") -> bytes:
    return message("messageStop", {"stopReason": reason})


USAGE = message(
    "metadata",
    {"usage": {"inputTokens": 5, "outputTokens": 2, "cacheReadInputTokens": 3}, "metrics": {"latencyMs": 9}},
)


def test_thoughts_text_and_a_call():
    """Quirk: messages are padded by a member `p`, and usage comes after the stop reason."""
    driven = told(
        message("messageStart", {"role": "assistant", "p": "abc"}),
        delta(0, reasoningContent={"text": "Hm"}),
        delta(0, reasoningContent={"signature": "EqQB"}),
        stop(0),
        delta(1, text="I "),
        delta(1, text="look."),
        stop(1),
        start(2, toolUse={"toolUseId": "t1", "name": "look"}),
        delta(2, toolUse={"input": '{"at":'}),
        delta(2, toolUse={"input": '"sea"}'}),
        stop(2),
        ended("tool_use"),
        USAGE,
    )
    response = driven.response
    assert response.parts == (
        Reasoning("Hm", "EqQB", signed_by="bedrock"),
        Text("I look."),
        ToolCall("t1", "look", '{"at":"sea"}', {"at": "sea"}),
    )
    assert response.finish is not None
    assert (response.finish.reason, response.finish.raw) == ("tool_calls", "tool_use")
    assert response.usage is not None
    assert (response.usage.input, response.usage.input_cached, response.usage.output) == (8, 3, 2)
    assert response.metadata["metrics"] == {"latencyMs": 9}


def test_text_blocks_have_no_start_and_calls_may_have_no_input():
    driven = told(delta(0, text="a"), delta(1, text="b"), start(2, toolUse={"toolUseId": "t", "name": "f"}), ended())
    assert driven.response.parts == (Text("a"), Text("b"), ToolCall("t", "f", "", {}))
    assert told(start(0, image={"format": "png"}), ended()).response.parts == (Custom("image", {"format": "png"}),)


@pytest.mark.parametrize(
    ("name", "payload", "status"),
    [
        ("throttlingException", {"message": "slow"}, 429),
        ("validationException", {"message": "bad"}, 400),
        ("modelStreamErrorException", {"originalStatusCode": 503, "originalMessage": "busy"}, 503),
        ("somethingNewException", {}, 502),
    ],
)
def test_c4_an_exception_in_the_stream(name: str, payload: dict[str, Any], status: int):
    driven = told(delta(0, text="Hi"), message(name, payload, "exception"))
    assert isinstance(driven.error, StreamedError)
    assert (driven.error.type, driven.error.status) == (name, status)
    assert driven.response.text == "Hi"


def test_c4_the_models_own_failure():
    assert isinstance(told(delta(0, text="Hi"), ended("malformed_tool_use")).error, StreamedError)


def test_c4_the_connections_end_proves_nothing():
    assert isinstance(told(delta(0, text="Hi"), stop(0)).error, Truncated)


def test_lines_name_their_events():
    said = b'{"contentBlockDelta":{"contentBlockIndex":0,"delta":{"text":"Hi"}}}\n'
    lines = said + b'{"messageStop":{"stopReason":"end_turn"}}\n'
    driven = replayed("bedrock", Recording("lines", lines, "application/x-ndjson"))
    check_events(driven.events, complete=True)
    assert driven.response.text == "Hi"
    lines = b'{"throttlingException":{"message":"slow"}}\n'
    assert isinstance(replayed("bedrock", Recording("lines", lines, "application/x-ndjson")).error, StreamedError)


def test_a_document():
    content = [
        {"reasoningContent": {"reasoningText": {"text": "Hm", "signature": "EqQB"}}},
        {"text": "Hi"},
        {"toolUse": {"toolUseId": "t1", "name": "look", "input": {"at": "sea"}}},
    ]
    body = {
        "output": {"message": {"role": "assistant", "content": content}},
        "stopReason": "tool_use",
        "usage": {"inputTokens": 5},
    }
    driven = replayed("bedrock", Recording("document", json.dumps(body).encode(), "application/json"))
    check_events(driven.events, complete=True)
    assert driven.response.reasoning == "Hm"
    assert driven.response.tool_calls == (ToolCall("t1", "look", '{"at":"sea"}', {"at": "sea"}),)


def chunk(payload: Any) -> bytes:
    return message("chunk", {"bytes": base64.b64encode(json.dumps(payload).encode()).decode(), "p": "ab"})


@each("bedrock-invoke")
def test_quirk_invoke_wraps_other_dialects_in_base64(recording: Any):
    """Anthropic's and Nova's events are read; Titan's has no event of its own, and is said to be cut."""
    driven = replayed("bedrock", Recording(recording.name, recording.data, EVENTSTREAM))
    if "titan" in recording.name:
        assert isinstance(driven.error, Truncated)
        return
    assert driven.error is None
    check_events(driven.events, complete=True)
    expected, response = recording.expected, driven.response
    assert response.text == expected["text"]
    assert [(call.name, call.arguments) for call in response.tool_calls] == [
        (call["name"], call["arguments"]) for call in expected["tool_calls"]
    ]
    assert response.finish is not None
    assert response.finish.raw == expected["finish_reason_raw"]


def test_invoke_wraps_openai():
    head = {"id": "c", "model": "m"}
    driven = told(
        chunk({**head, "choices": [{"index": 0, "delta": {"content": "Hi"}}]}),
        chunk({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}),
    )
    assert (driven.error, driven.response.text) == (None, "Hi")
    assert isinstance(told(message("chunk", {"bytes": "%"})).error, MalformedFrame)


def test_a_conversation():
    body, dropped = built("bedrock", asking(*CONVERSATION, tools=(LOOK,), max_tokens=5, stop=("x",), temperature=0.5))
    assert body["system"] == [{"text": "Be brief."}]
    assert body["messages"] == [
        {
            "role": "user",
            "content": [{"text": "What is there?"}, {"image": {"format": "png", "source": {"bytes": PIXEL.data}}}],
        },
        {
            "role": "assistant",
            "content": [
                {"text": "I look."},
                {"toolUse": {"toolUseId": "call_1", "name": "look", "input": {"at": "sea"}}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"toolResult": {"toolUseId": "call_1", "content": [{"text": "a horse"}]}},
                {"text": "And now?"},
            ],
        },
    ]
    assert body["inferenceConfig"] == {"maxTokens": 5, "temperature": 0.5, "stopSequences": ["x"]}
    spec = {"name": "look", "description": "Look somewhere", "inputSchema": {"json": SCHEMA}}
    assert body["toolConfig"] == {"tools": [{"toolSpec": spec}]}
    assert dropped == ()


def test_tools_that_must_or_must_not_be_called():
    def config(choice: ToolChoice, *messages: Message) -> Any:
        return built("bedrock", asking(*messages, tools=(LOOK,), tool_choice=choice))[0].get("toolConfig", {})

    assert config(ToolChoice("any"))["toolChoice"] == {"any": {}}
    assert config(ToolChoice("tool", "look"))["toolChoice"] == {"tool": {"name": "look"}}
    assert config(ToolChoice("none")) == {}
    with pytest.raises(Unsupported, match="forbid"):
        config(ToolChoice("none"), *CONVERSATION)


def test_thoughts_come_home_and_no_others():
    own = Reasoning("Hm", "EqQB", signed_by="bedrock")
    body, dropped = built("bedrock", asking(Message("assistant", (own, THOUGHT, Text("a")))))
    thought = {"reasoningContent": {"reasoningText": {"text": "Hm", "signature": "EqQB"}}}
    assert body["messages"][0]["content"] == [thought, {"text": "a"}]
    assert dropped == ("reasoning",)


def test_thinking_and_json():
    body, _ = built("bedrock", asking(reasoning_effort="low"), model="anthropic.claude-x")
    assert body["additionalModelRequestFields"] == {"thinking": {"type": "enabled", "budget_tokens": 4096}}
    assert body["inferenceConfig"]["maxTokens"] > 4096
    body, dropped = built(
        "bedrock", asking(reasoning_effort="low", top_k=3, seed=1, output=OutputFormat("schema", SCHEMA))
    )
    assert dropped == ("seed", "top_k", "reasoning_effort")
    assert "JSON schema" in body["system"][0]["text"]


def test_documents_and_what_it_takes_not():
    file = Message("user", (File(data="JVBERg==", name="my file.pdf"), ToolResult("x", (Text("no"),), is_error=True)))
    content = built("bedrock", asking(file))[0]["messages"][0]["content"]
    assert content[0] == {"toolResult": {"toolUseId": "x", "content": [{"text": "no"}], "status": "error"}}
    assert content[1] == {"document": {"format": "pdf", "name": "my filepdf 1", "source": {"bytes": "JVBERg=="}}}
    for part in (
        Audio("aa", "wav"),
        Image(url="https://x/y"),
        File(url="https://x/y"),
        File(data="x", media_type="a/b"),
    ):
        with pytest.raises(Unsupported):
            built("bedrock", asking(Message("user", (part,))))


# --- signing --------------------------------------------------------------------------------------------------------

AWS = "https://bedrock-runtime.eu-west-1.amazonaws.com"
MODEL = "anthropic.claude-x-v1:0"


@pytest.mark.parametrize("token", [None, "session"])
def test_the_signature_is_what_aws_would_compute(token: str | None):
    pair = "AKID:secret" + (f":{token}" if token else "")
    target = target_for("bedrock", url=AWS, model=MODEL, auth="sigv4", key=Secret(pair))
    request = DIALECT.build_request(asking(stream=True), target)
    headers = dict(request.headers)
    assert request.url == f"{AWS}/model/anthropic.claude-x-v1%3A0/converse-stream"
    assert headers.get("x-amz-security-token") == token
    again = AWSRequest("POST", request.url, data=request.body, headers={"X-Amz-Date": headers["x-amz-date"]})
    signed = re.search(r"SignedHeaders=([^,]*), Signature=(\w+)", headers["authorization"])
    assert signed is not None
    for name in signed[1].split(";"):
        if name != "host":
            del again.headers[name]
            again.headers[name] = headers[name]
    judge = SigV4Auth(Credentials("AKID", "secret", token), "bedrock", "eu-west-1")
    again.context["timestamp"] = headers["x-amz-date"]
    canonical = judge.canonical_request(again)
    assert judge.signature(judge.string_to_sign(again, canonical), again) == signed[2]
    assert "eu-west-1/bedrock/aws4_request" in headers["authorization"]


def test_c13_a_bearer_token_and_what_is_wrong_with_a_pair():
    request = DIALECT.build_request(asking(), target_for("bedrock", url=AWS, model=MODEL))
    assert request.url.endswith("/converse")
    assert dict(request.headers)["authorization"] == "Bearer sk-1"
    for wrong in ({"url": "https://up.example"}, {"key": Secret("nopair")}):
        with pytest.raises(ConfigError) as raised:
            DIALECT.build_request(
                asking(),
                target_for("bedrock", **{"url": AWS, "model": MODEL, "auth": "sigv4", "key": Secret("a:b")} | wrong),
            )
        assert "nopair" not in str(raised.value)


def test_an_error_is_read():
    headers = {"x-amzn-errortype": "ThrottlingException:http://internal.amazon.com/"}
    error = DIALECT.read_error(429, headers, b'{"message":"Too many"}', "up")
    assert isinstance(error, RateLimited)
    assert (error.message, error.type) == ("Too many", "ThrottlingException")
    assert DIALECT.read_error(400, {}, b'{"__type":"x#ValidationException"}', "up").type == "ValidationException"
