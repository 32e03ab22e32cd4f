"""What a program calls a conversation, in each of its forms, and what is refused before anything is sent."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest

import penstock
from penstock.canon.request import Message, ToolResult
from penstock.canon.response import Ending
from penstock.client.conversation import read_conversation, read_tool
from penstock.dialects import CLIENT_DIALECTS, client_dialect
from penstock.testing import Call, Reply, Turns, Upstream

if TYPE_CHECKING:
    from collections.abc import Iterator

NOWHERE = "http://127.0.0.1:9/v1"
CALL = penstock.ToolCall("c1", "look", '{"at":"sea"}', {"at": "sea"})
PIXEL = "iVBORw0KGgo="


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream(Reply(text="Hello")) as upstream:
        yield upstream


def read(given: Any) -> tuple[Message, ...]:
    return read_conversation(given)[0]


OURS = (
    Message.of("user", "Look.", penstock.Image(data=PIXEL, media_type="image/png")),
    Message("assistant", (penstock.Text("I look."), CALL)),
    Message("tool", (ToolResult("c1", (penstock.Text("a horse"),)),)),
)

OPENAI: list[dict[str, Any]] = [
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "Look."},
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
        ],
    },
    {
        "role": "assistant",
        "content": "I look.",
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at":"sea"}'}}],
    },
    {"role": "tool", "tool_call_id": "c1", "content": "a horse"},
]

ANTHROPIC: list[dict[str, Any]] = [
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "Look."},
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}},
        ],
    },
    {
        "role": "assistant",
        "content": [
            {"type": "text", "text": "I look."},
            {"type": "tool_use", "id": "c1", "name": "look", "input": {"at": "sea"}},
        ],
    },
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "a horse"}]},
]


@pytest.mark.parametrize("given", [OPENAI, ANTHROPIC, OURS, [OPENAI[0], *ANTHROPIC[1:]], [*OURS[:2], OPENAI[2]]])
def test_the_forms_of_both_apis_mean_what_ours_do(given: Any) -> None:
    assert read(given) == OURS


def test_what_else_a_message_may_be() -> None:
    assert read("Hi") == (Message.of("user", "Hi"),)
    assert read(["Hi", Message.of("assistant", "Ho"), {"role": "user", "content": "He"}]) == (
        Message.of("user", "Hi"),
        Message.of("assistant", "Ho"),
        Message.of("user", "He"),
    )
    image = penstock.Image(url="https://example.org/a.png")
    assert read({"role": "user", "content": ["What is it?", image]}) == (Message.of("user", "What is it?", image),)
    assert read({"role": "user", "content": image}) == (Message.of("user", image),)
    reply = penstock.Response(parts=(penstock.Text("I look."), CALL))
    result = ToolResult.of(CALL, "a horse")
    assert read(["Look.", reply, result]) == (Message.of("user", "Look."), reply.message, Message("tool", (result,)))
    assert (result.id, result.name) == ("c1", "look")


def test_a_signed_thought_in_a_dict_keeps_its_signature() -> None:
    (message,) = read({"role": "assistant", "content": [{"type": "thinking", "thinking": "Hm", "signature": "EqQB"}]})
    assert message.parts == (penstock.Reasoning("Hm", "EqQB", signed_by="anthropic-messages"),)


@pytest.mark.parametrize(
    ("given", "param", "said"),
    [
        ([], "messages", "Pass a string"),
        ([7], "messages[0]", "no message"),
        (["Hi", {"role": "usr", "content": "x"}], "messages[1].role", "Use one of"),
        (["Hi", {"content": "x"}], "messages[1]", "required field `role` at `messages[1]`"),
        (["Hi", {"role": "usr", "content": [penstock.Text("x")]}], "messages[1].role", "Use one of"),
        (
            ["Hi", {"role": "user", "content": ["x", {"type": "text", "text": "y"}]}],
            "messages[1].content[1]",
            "one way",
        ),
        (["Hi", {"role": "user", "content": [{"type": "tool_result"}]}], "messages[1].content[0].tool_use_id", ""),
        (["Hi", {"role": "user", "content": object()}], "messages[1]", "no JSON"),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}, {"type": "tool_result"}]}],
            "messages[0]",
            "one of the two",
        ),
        ([ToolResult("c1", (penstock.Text("x"),))], "messages[0]", "before its result"),
        ([OPENAI[0], OPENAI[2]], "messages[1]", "`c1`"),
        ([ANTHROPIC[0], ANTHROPIC[2]], "messages[1]", "`c1`"),
        ([OPENAI[2], *OPENAI[:2]], "messages[0]", "`c1`"),
    ],
)
def test_a_wrong_conversation_says_where_and_what_to_do(given: Any, param: str, said: str) -> None:
    with pytest.raises(penstock.RequestError) as caught:
        penstock.stream("here:m", given, base_url=NOWHERE)
    assert caught.value.param == param
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("option", "nearest"),
    [("temprature", "temperature"), ("max_token", "max_tokens"), ("tool", "tools"), ("reasoning", "reasoning_effort")],
)
async def test_an_unknown_option_names_the_nearest_one(option: str, nearest: str) -> None:
    options: Any = {option: 1, "base_url": NOWHERE}
    for call in (penstock.stream, penstock.generate, penstock.run_tools, penstock.astream):
        with pytest.raises(penstock.InvalidRequest, match=rf"no option `{option}`. Did you mean `{nearest}`") as caught:
            call("here:m", "Hi", **options)
        assert caught.value.param == option


def test_every_option_reaches_the_wire(upstream: Upstream) -> None:
    def look(at: str) -> str:
        return at

    penstock.generate(
        "here:m",
        "Hi",
        base_url=upstream.url,
        system="Be brief.",
        max_tokens=9,
        temperature=0.5,
        top_p=0.9,
        top_k=3,
        stop="x",
        seed=4,
        presence_penalty=0.1,
        frequency_penalty=0.2,
        tools=[look],
        tool_choice="look",
        parallel_tool_calls=False,
        reasoning_effort="low",
        user="u",
        extra={"openai-chat": {"logit_bias": {}}},
    )
    sent = json.loads(upstream.seen[0].body)
    sent.pop("tools")
    assert sent == {
        "model": "m",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 3,
        "stop": ["x"],
        "seed": 4,
        "presence_penalty": 0.1,
        "frequency_penalty": 0.2,
        "tool_choice": {"type": "function", "function": {"name": "look"}},
        "parallel_tool_calls": False,
        "reasoning_effort": "low",
        "user": "u",
        "logit_bias": {},
    }


@pytest.mark.parametrize(
    ("choice", "said"), [("lok", "Did you mean `look`"), ("any", "Pass tools"), ("anything", "no tool `anything`")]
)
def test_a_tool_choice_that_is_none(choice: str, said: str) -> None:
    tools = [] if choice == "any" else [penstock.Tool("look")]
    with pytest.raises(penstock.InvalidRequest, match=said):
        penstock.stream("here:m", "Hi", base_url=NOWHERE, tools=tools, tool_choice=choice)


SCHEMA = {"type": "object", "properties": {"at": {"type": "string"}}}


@pytest.mark.parametrize(
    "given",
    [
        {"type": "function", "function": {"name": "look", "description": "Look", "parameters": SCHEMA}},
        {"type": "function", "name": "look", "description": "Look", "parameters": SCHEMA},
        {"name": "look", "description": "Look", "parameters": SCHEMA},
        {"name": "look", "description": "Look", "input_schema": SCHEMA},
    ],
)
def test_a_tool_in_each_apis_form(given: dict[str, Any]) -> None:
    assert read_tool(given, 0) == penstock.Tool("look", "Look", SCHEMA)


@pytest.mark.parametrize(
    ("tools", "param", "said"),
    [
        ([penstock.Tool("a"), penstock.Tool("a")], "tools[1]", "Two tools"),
        ([penstock.Tool("a"), {"type": "web_search_preview"}], "tools[1].type", "function tool"),
        ([penstock.Tool("a"), {"type": "web_search_20250305", "name": "w"}], "tools[1].type", "function tool"),
        ([7], "tools[0]", "Pass a function"),
        ({"name": "a"}, "tools", "tools=["),
    ],
)
def test_wrong_tools_say_where_and_what_to_do(tools: Any, param: str, said: str) -> None:
    with pytest.raises(penstock.RequestError) as caught:
        penstock.stream("here:m", "Hi", base_url=NOWHERE, tools=tools)
    assert caught.value.param == param
    assert said in str(caught.value)


# --- a reply goes back into the next call ----------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", sorted(CLIENT_DIALECTS - {"openai-completions"}))
def test_a_reply_goes_back_with_its_calls(dialect: str) -> None:
    with Upstream(Turns(Reply(text="I look.", calls=(Call("look", {"at": "sea"}),)), Reply(text="A horse."))) as up:
        where: Any = {"base_url": up.url_for(dialect), "dialect": dialect, "tools": [penstock.Tool("look")]}
        first = penstock.generate("here:m", "What is there?", **where)
        (call,) = first.tool_calls
        asked: list[penstock.OneMessage] = ["What is there?", first.message, ToolResult.of(call, "a horse")]
        assert penstock.generate("here:m", asked, **where).text == "A horse."
        seen = up.seen[1]
        request = client_dialect(dialect).parse_request(seen.body, seen.path)
    parts = [part for message in request.messages for part in message.parts]
    (back,) = [part for part in parts if isinstance(part, penstock.ToolCall)]
    (result,) = [part for part in parts if isinstance(part, ToolResult)]
    assert (back.name, back.arguments) == ("look", {"at": "sea"})
    assert result.id == back.id
    assert penstock.Text("I look.") in parts


SIGNED = {
    "anthropic-messages": b"""\
event: message_start
data: {"type":"message_start","message":{"id":"m1","model":"m","content":[],"usage":{"input_tokens":1}}}

event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"Hm"}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"EqQB"}}

event: content_block_stop
data: {"type":"content_block_stop","index":0}

event: content_block_start
data: {"type":"content_block_start","index":1,"content_block":{"type":"redacted_thinking","data":"R3D"}}

event: content_block_stop
data: {"type":"content_block_stop","index":1}

event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":3}}

event: message_stop
data: {"type":"message_stop"}

""",
    "gemini": (
        b'data: {"candidates":[{"content":{"role":"model","parts":[{"text":"Hm","thought":true},'
        b'{"functionCall":{"name":"look","args":{}},"thoughtSignature":"c2ln"}]},"finishReason":"STOP"}]}\n\n'
    ),
}


def signed(dialect: str) -> penstock.Response:
    return penstock.replay(SIGNED[dialect], dialect=dialect, content_type="text/event-stream").response


def test_signatures_go_home_to_their_own_provider(upstream: Upstream) -> None:
    reply = signed("anthropic-messages")
    where: Any = {"base_url": upstream.url, "dialect": "anthropic-messages"}
    response = penstock.generate("here:m", ["Hi", reply.message, "And now?"], **where)
    sent = json.loads(upstream.seen[0].body)["messages"]
    assert sent[1]["content"] == [
        {"type": "thinking", "thinking": "Hm", "signature": "EqQB"},
        {"type": "redacted_thinking", "data": "R3D"},
    ]
    assert response.warnings == ()


PROOF = base64.b64encode(b"opaque").decode()


@pytest.mark.parametrize(
    ("dialect", "thought"),
    [
        ("anthropic-messages", penstock.Reasoning("Hm", PROOF, signed_by="anthropic-messages")),
        ("gemini", penstock.Reasoning("Hm", PROOF, signed_by="gemini")),
        ("openai-responses", penstock.Reasoning("Hm", f"rs_1:{PROOF}", signed_by="openai-responses")),
        (
            "openai-chat",
            penstock.Reasoning(
                "Hm", details=({"type": "reasoning.encrypted", "data": PROOF},), signed_by="openai-chat"
            ),
        ),
    ],
)
def test_what_proves_a_thought_comes_in_a_reply_and_goes_back(
    upstream: Upstream, dialect: str, thought: penstock.Reasoning
) -> None:
    said = penstock.Response(parts=(thought, penstock.Text("Hi")), finish=Ending("stop"))
    document = client_dialect(dialect).write_document(said, model="m", request_id="r", created=0)
    reply = penstock.replay(document, dialect=dialect).response
    assert reply.message.parts == (thought, penstock.Text("Hi"))
    where: Any = {"base_url": upstream.url_for(dialect), "dialect": dialect}
    response = penstock.generate("here:m", ["Hello", reply, "And now?"], **where)
    assert PROOF.encode() in upstream.seen[0].body
    assert response.warnings == ()


def test_a_calls_signature_goes_home_to_gemini(upstream: Upstream) -> None:
    reply = signed("gemini")
    (call,) = reply.tool_calls
    where: Any = {"base_url": upstream.url_for("gemini"), "dialect": "gemini"}
    penstock.generate("here:m", ["Hi", reply.message, ToolResult.of(call, "a horse")], **where)
    contents = json.loads(upstream.seen[0].body)["contents"]
    (part,) = [part for part in contents[1]["parts"] if "functionCall" in part]
    assert part["thoughtSignature"] == "c2ln"


@pytest.mark.parametrize("dialect", ["openai-chat", "openai-responses", "gemini", "ollama"])
def test_a_foreign_signature_is_left_out_with_a_warning(upstream: Upstream, dialect: str) -> None:
    reply = signed("anthropic-messages")
    stream = penstock.stream("here:m", ["Hi", reply, "And now?"], base_url=upstream.url_for(dialect), dialect=dialect)
    events = list(stream)
    assert b"EqQB" not in upstream.seen[0].body
    assert b"R3D" not in upstream.seen[0].body
    (warning,) = stream.response.warnings
    assert "its own alone" in warning
    assert dialect in warning
    assert isinstance(events[0], penstock.Start)
    assert events[0].warnings == (warning,)


def test_what_a_dialect_has_no_word_for_is_a_warning(upstream: Upstream) -> None:
    response = penstock.generate("here:m", "Hi", seed=1, base_url=upstream.url, dialect="anthropic-messages")
    assert response.warnings == ("`seed` was left out: anthropic-messages has no word for it.",)


def test_what_a_dict_says_that_we_have_no_word_for_is_a_warning(upstream: Upstream) -> None:
    cached = {"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}}
    given = {"role": "user", "content": [cached, {"type": "document", "source": {"type": "text", "data": "x"}}]}
    response = penstock.generate("here:m", given, base_url=upstream.url)
    assert response.warnings == ("`cache_control` was left out: openai-chat has no word for it.",)


def test_a_server_tool_is_no_part_of_the_message() -> None:
    search = penstock.ToolCall("s", "web_search", "{}", {}, server=True)
    response = penstock.Response(parts=(search, penstock.Text("Found.")))
    assert response.message == Message.of("assistant", "Found.")
