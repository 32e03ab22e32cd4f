"""Our request → a Gemini body: what is sent, what is left out and named, what is refused."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from penstock.canon.errors import InvalidRequest, Unsupported
from penstock.canon.events import Finish, Reasoning, Refusal, Start, Text, ToolCall
from penstock.canon.request import (
    Audio,
    ChatRequest,
    File,
    Image,
    Message,
    OutputFormat,
    Tool,
    ToolChoice,
    ToolResult,
)
from penstock.canon.response import fold
from penstock.canon.target import Target
from penstock.dialects import client_dialect
from penstock.dialects.gemini import DIALECT
from tests.dialects import streams
from tests.dialects.gemini_wire import call, chunk, text, thought, told

TARGET = Target("google", "https://generativelanguage.googleapis.com/v1beta", "gemini")
USER = Message.of("user", "Hi")
HI = {"role": "user", "parts": [{"text": "Hi"}]}
CALL = ToolCall("call_1", "f", '{"a":1}', {"a": 1})
SKIP = "skip_thought_signature_validator"


def built(*messages: Message, target: Target = TARGET, model: str = "gemini-2.5-pro", **fields: Any) -> dict[str, Any]:
    request = ChatRequest(model, messages or (USER,), **fields)
    body: dict[str, Any] = json.loads(DIALECT.build_request(request, target).body)
    return body


def contents(*messages: Message, **fields: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = built(*messages, **fields)["contents"]
    return found


def parts(*given: Any, role: Any = "user") -> list[dict[str, Any]]:
    (content,) = contents(Message(role, given))
    found: list[dict[str, Any]] = content["parts"]
    return found


def dropped(*messages: Message, **fields: Any) -> tuple[str, ...]:
    return DIALECT.build_request(ChatRequest("m", messages or (USER,), **fields), TARGET).dropped


# --- address and plain fields ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "stream", "path"),
    [
        ("gem-x", True, "models/gem-x:streamGenerateContent?alt=sse"),
        ("gem-x", False, "models/gem-x:generateContent"),
        ("models/gem-x", False, "models/gem-x:generateContent"),
        ("tunedModels/mine", False, "tunedModels/mine:generateContent"),
        ("a/../b?c#d é", False, "models/a%2F..%2Fb%3Fc%23d%20%C3%A9:generateContent"),
    ],
)
def test_the_model_and_the_verb_are_in_the_path(model: str, stream: bool, path: str):
    request = DIALECT.build_request(ChatRequest(model, (USER,), stream=stream), TARGET)
    assert (request.method, request.url) == ("POST", f"{TARGET.url}/{path}")
    mapped = DIALECT.build_request(
        ChatRequest("x", (USER,), stream=stream), msgspec.structs.replace(TARGET, model=model)
    )
    assert mapped.url == request.url


def test_the_least_that_is_sent():
    assert built() == {"contents": [HI]}


def test_the_plain_fields():
    body = built(
        max_tokens=7, temperature=2.0, top_p=0.9, top_k=3, stop=("a", " "), seed=1, presence_penalty=0.1,
        frequency_penalty=0.2,
    )  # fmt: skip
    assert body["generationConfig"] == {
        "maxOutputTokens": 7, "temperature": 2.0, "topP": 0.9, "topK": 3, "stopSequences": ["a", " "], "seed": 1,
        "presencePenalty": 0.1, "frequencyPenalty": 0.2,
    }  # fmt: skip


def test_more_stop_sequences_than_there_may_be_are_refused():
    assert len(built(stop=tuple("abcde"))["generationConfig"]["stopSequences"]) == 5
    with pytest.raises(Unsupported) as caught:
        built(stop=tuple("abcdef"))
    assert caught.value.param == "stop"


def test_what_is_left_out_is_named():
    assert dropped() == ()
    assert dropped(user="u", parallel_tool_calls=False, tools=(Tool("f", strict=True),)) == (
        "user", "parallel_tool_calls", "strict",
    )  # fmt: skip
    assert dropped(parallel_tool_calls=True, tools=(Tool("f", strict=False),)) == ()
    assert dropped(extras={"openai-chat": {"logit_bias": {}}, "gemini": {"labels": {}}}) == ("logit_bias",)
    assert dropped(Message("user", (Image(data="aGk=", detail="high"),))) == ("image_url.detail",)


def test_extras_of_our_own_go_where_they_were():
    extras = {
        "gemini": {"safetySettings": [1], "generationConfig.logprobs": 3, "generationConfig.mediaResolution": "LOW"}
    }
    body = built(extras=extras, temperature=1.0)
    assert body["safetySettings"] == [1]
    assert body["generationConfig"] == {"temperature": 1.0, "logprobs": 3, "mediaResolution": "LOW"}


def test_structured_output():
    assert built(output=OutputFormat("json"))["generationConfig"] == {"responseMimeType": "application/json"}
    assert built(output=OutputFormat("schema", {"type": "object"}))["generationConfig"] == {
        "responseMimeType": "application/json",
        "responseJsonSchema": {"type": "object"},
    }


@pytest.mark.parametrize(
    ("model", "fields", "expected"),
    [
        ("gemini-2.5-pro", {"reasoning_effort": "low"}, {"thinkingBudget": 4096, "includeThoughts": True}),
        ("gemini-2.5-pro", {"reasoning_effort": "none"}, {"thinkingBudget": 0}),
        ("gemini-2.5-pro", {"reasoning_effort": "odd"}, {"thinkingBudget": 8192, "includeThoughts": True}),
        ("gemini-flash-latest", {"reasoning_effort": "max"}, {"thinkingBudget": 24576, "includeThoughts": True}),
        ("gemini-3-pro", {"reasoning_effort": "high"}, {"thinkingLevel": "HIGH", "includeThoughts": True}),
        ("models/gemini-3.6-flash", {"reasoning_effort": "none"}, {"thinkingLevel": "MINIMAL"}),
        ("gemini-10", {"reasoning_effort": "xhigh"}, {"thinkingLevel": "XHIGH", "includeThoughts": True}),
        ("gemini-3-pro", {"reasoning_budget": 2048}, {"thinkingBudget": 2048, "includeThoughts": True}),
        (
            "gemini-2.5-pro", {"reasoning_budget": 9, "reasoning_effort": "high"},
            {"thinkingBudget": 9, "includeThoughts": True},
        ),
    ],
)  # fmt: skip
def test_thinking(model: str, fields: dict[str, Any], expected: dict[str, Any]):
    assert built(model=model, **fields)["generationConfig"] == {"thinkingConfig": expected}
    target = msgspec.structs.replace(TARGET, model=model)
    assert built(model="alias", target=target, **fields)["generationConfig"] == {"thinkingConfig": expected}


# --- tools ----------------------------------------------------------------------------------------------------------


def test_tools():
    schema = {"type": "object", "properties": {"a": {"$ref": "#/$defs/A"}}, "additionalProperties": False}
    body = built(tools=(Tool("f", "F", schema), Tool("g")))
    assert body["tools"] == [
        {"functionDeclarations": [{"name": "f", "description": "F", "parametersJsonSchema": schema}, {"name": "g"}]}
    ]
    assert "toolConfig" not in body


@pytest.mark.parametrize(
    ("choice", "config"),
    [
        (ToolChoice("auto"), {"mode": "AUTO"}), (ToolChoice("any"), {"mode": "ANY"}),
        (ToolChoice("none"), {"mode": "NONE"}),
        (ToolChoice("tool", "f"), {"mode": "ANY", "allowedFunctionNames": ["f"]}),
    ],
)  # fmt: skip
def test_tool_choices(choice: ToolChoice, config: dict[str, Any]):
    assert built(tools=(Tool("f"),), tool_choice=choice)["toolConfig"] == {"functionCallingConfig": config}


def test_a_choice_among_no_tools_is_none():
    assert "toolConfig" not in built(tool_choice=ToolChoice("auto"))


# --- turns ----------------------------------------------------------------------------------------------------------


def test_the_systems_words_in_front_and_in_the_middle():
    body = built(Message.of("system", "A"), Message("system", (Text("B"), Text(""))), USER, Message.of("system", "C"))
    assert body["systemInstruction"] == {"parts": [{"text": "A"}, {"text": "B"}]}
    assert body["contents"] == [{"role": "user", "parts": [{"text": "Hi"}, {"text": "<system>\nC\n</system>"}]}]


def test_the_systems_words_alone_are_said_by_the_user():
    assert built(Message.of("system", "A")) == {"contents": [{"role": "user", "parts": [{"text": "A"}]}]}


def test_turns_of_one_role_are_one_and_empty_ones_none():
    assert contents(
        USER, Message("user", (Text("there"),), name="Ann"), Message.of("assistant", ""), Message.of("assistant", "A"),
        Message("assistant", (Refusal("No."),)),
    ) == [
        {"role": "user", "parts": [{"text": "Hi"}, {"text": "Ann:"}, {"text": "there"}]},
        {"role": "model", "parts": [{"text": "A"}, {"text": "No."}]},
    ]  # fmt: skip


def test_calls_and_results_of_another_dialects_history():
    second = ToolCall("call_2", "g", "{oops", None, "no")
    assert contents(
        USER,
        Message("assistant", (Text("I look."), CALL, second)),
        Message("tool", (ToolResult("call_1", (Text("one"), Text("two"))),)),
        Message("tool", (ToolResult("call_2", (Text("bad"), Image(data="aGk=", media_type="image/png")), True, "g"),)),
        USER,
    )[1:] == [
        {
            "role": "model",
            "parts": [
                {"text": "I look."},
                {"functionCall": {"name": "f", "args": {"a": 1}, "id": "call_1"}, "thoughtSignature": SKIP},
                {"functionCall": {"name": "g", "args": {"_raw": "{oops"}, "id": "call_2"}, "thoughtSignature": SKIP},
            ],
        },
        {
            "role": "user",
            "parts": [
                {"functionResponse": {"name": "f", "response": {"output": "one\ntwo"}, "id": "call_1"}},
                {"functionResponse": {"name": "g", "response": {"error": "bad"}, "id": "call_2"}},
                {"inlineData": {"mimeType": "image/png", "data": "aGk="}},
                {"text": "Hi"},
            ],
        },
    ]


def test_a_step_of_geminis_own_is_sent_as_it_came():
    """Gemini signs the first of parallel calls, and no other."""
    signed = msgspec.structs.replace(CALL, signature="c2ln")
    other = ToolCall("call_2", "g", "", {})
    (content,) = contents(Message("assistant", (signed, other)))
    assert [part.get("thoughtSignature") for part in content["parts"]] == ["c2ln", None]


def test_vertex_knows_no_ids():
    target = msgspec.structs.replace(TARGET, profile="vertex")
    found = contents(Message("assistant", (CALL,)), Message("tool", (ToolResult("call_1"),)), target=target)
    assert found[0]["parts"][0]["functionCall"] == {"name": "f", "args": {"a": 1}}
    assert found[1]["parts"][0]["functionResponse"] == {"name": "f", "response": {"output": ""}}


def test_a_result_of_no_call_is_refused():
    with pytest.raises(InvalidRequest, match="call_9"):
        built(Message("tool", (ToolResult("call_9", (Text("x"),)),)))


def test_a_providers_own_calls_are_left_out():
    assert contents(USER, Message("assistant", (msgspec.structs.replace(CALL, server=True),))) == [HI]


def test_thoughts_go_home_and_nowhere_else():
    mine = Reasoning("Hm", "c2ln", signed_by="gemini")
    assert parts(mine, Text("Hi"), Reasoning("", "c2ln", signed_by="gemini"), role="assistant") == [
        {"thought": True, "text": "Hm", "thoughtSignature": "c2ln"},
        {"text": "Hi"},
        {"text": "", "thoughtSignature": "c2ln"},
    ]
    for foreign in (
        Reasoning("Hm"), Reasoning("Hm", "c2ln"), Reasoning("Hm", "c2ln", signed_by="anthropic-messages"),
        Reasoning("", redacted="x", signed_by="anthropic-messages"),
    ):  # fmt: skip
        message = Message("assistant", (foreign, Text("Hi")))
        assert contents(message) == [{"role": "model", "parts": [{"text": "Hi"}]}]
        assert dropped(message) == ("reasoning",)


# --- media ----------------------------------------------------------------------------------------------------------


def blob(media_type: str, data: str = "aGk=") -> dict[str, Any]:
    return {"inlineData": {"mimeType": media_type, "data": data}}


@pytest.mark.parametrize(
    ("part", "written"),
    [
        (Image(data="aGk=", media_type="image/webp"), blob("image/webp")),
        (Image(data="aGk="), blob("image/png")),
        (Image(url="data:image/jpeg;base64,aGk="), blob("image/jpeg")),
        (Image(url="gs://a/b", media_type="image/png"), {"fileData": {"mimeType": "image/png", "fileUri": "gs://a/b"}}),
        (Audio("aGk=", "mp3"), blob("audio/mp3")),
        (Audio("aGk=", "wav"), blob("audio/wav")),
        (File(data="aGk="), blob("application/pdf")),
        (File(data="data:text/csv;base64,aGk="), blob("text/csv")),
        (File(text="hi", media_type="text/plain"), blob("text/plain")),
        (File(url="https://youtu.be/x"), {"fileData": {"fileUri": "https://youtu.be/x"}}),
        (File(file_id="files/x", media_type="a/b"), {"fileData": {"mimeType": "a/b", "fileUri": "files/x"}}),
        (
            File(url="https://generativelanguage.googleapis.com/v1beta/files/x"),
            {"fileData": {"fileUri": "https://generativelanguage.googleapis.com/v1beta/files/x"}},
        ),
    ],
)
def test_media(part: Any, written: dict[str, Any]):
    assert parts(part) == [written]


@pytest.mark.parametrize(
    "part",
    [
        Image(url="https://example.com/a.png"), File(url="https://example.com/a.pdf"), File(file_id="file-abc"), File(),
        Image(), Image(url="https://youtu.be.example.com/x"),
    ],
)  # fmt: skip
def test_what_google_cannot_read_is_refused_with_a_way_out(part: Any):
    with pytest.raises(Unsupported, match="bytes"):
        built(Message("user", (part,)))


# --- home through another dialect -----------------------------------------------------------------------------------


def test_signatures_come_home_through_a_client_of_messages():
    """Gemini → a client of Anthropic's dialect, which knows nothing of them → Gemini."""
    messages = client_dialect("anthropic-messages")
    reply = told(
        chunk(thought("Hm", thoughtSignature="c2ln")),
        chunk(text("I look."), call("f", {"a": 1}, thoughtSignature="c2lnMg==")),
        chunk(text("", thoughtSignature="c2lnMw==")),
    ).response
    heard = json.loads(messages.write_document(reply, model="m", request_id="r", created=0))
    (used,) = [block for block in heard["content"] if block["type"] == "tool_use"]
    turns = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": heard["content"]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": used["id"], "content": "Rain"}]},
    ]
    asked = messages.parse_request(json.dumps({"model": "m", "max_tokens": 9, "messages": turns}).encode())
    built_ = DIALECT.build_request(asked, TARGET)
    assert built_.dropped == ()
    assert json.loads(built_.body)["contents"][1:] == [
        {
            "role": "model",
            "parts": [
                {"thought": True, "text": "Hm", "thoughtSignature": "c2ln"},
                {"text": "I look."},
                {
                    "functionCall": {"name": "f", "args": {"a": 1}, "id": "call_resp_1_0"},
                    "thoughtSignature": "c2lnMg==",
                },
                {"text": "", "thoughtSignature": "c2lnMw=="},
            ],
        },
        {
            "role": "user",
            "parts": [{"functionResponse": {"name": "f", "response": {"output": "Rain"}, "id": "call_resp_1_0"}}],
        },
    ]


def test_a_proof_of_anothers_comes_home_through_a_client_of_ours():
    """Anthropic → a client of Gemini's dialect → Anthropic."""
    reply = fold(
        [
            Start("m", "anthropic", "msg_1"),
            *streams.of(0, Reasoning("Hm", "EqQB", signed_by="anthropic-messages"), "Hm"),
            *streams.of(1, Reasoning("", redacted="EmwK", signed_by="anthropic-messages")),
            *streams.of(2, Text("Hi"), "Hi"),
            Finish("stop"),
        ]
    )
    heard = json.loads(DIALECT.write_document(reply, model="m", request_id="r", created=0))
    body = {"contents": [{"parts": [{"text": "Hi"}]}, heard["candidates"][0]["content"]]}
    asked = DIALECT.parse_request(json.dumps(body).encode(), "/v1beta/models/m:generateContent")
    target = Target("claude", "https://api.anthropic.com/v1", "anthropic-messages")
    sent = json.loads(client_dialect("anthropic-messages").build_request(asked, target).body)
    assert sent["messages"][1]["content"] == [
        {"type": "thinking", "thinking": "Hm", "signature": "EqQB"},
        {"type": "redacted_thinking", "data": "EmwK"},
        {"type": "text", "text": "Hi"},
    ]
