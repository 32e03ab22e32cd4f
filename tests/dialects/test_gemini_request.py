"""Gemini requests from a client: paths, heads, forwarding, and the whole of them."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.canon.errors import InvalidRequest, RequestError, UnknownRoute, Unsupported
from penstock.canon.events import Reasoning, Text, ToolCall
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
from penstock.canon.target import Secret, Target
from penstock.dialects.gemini import ARRAY, DIALECT

PATH = "/v1beta/models/gem-x:streamGenerateContent?alt=sse"
TARGET = Target("google", "https://generativelanguage.googleapis.com/v1beta", "gemini")
HI: dict[str, Any] = {"role": "user", "parts": [{"text": "Hi"}]}
USER = Message.of("user", "Hi")


def body_of(**fields: Any) -> bytes:
    return json.dumps({"contents": [HI], **fields}).encode()


def parsed(path: str = PATH, **fields: Any) -> ChatRequest:
    return DIALECT.parse_request(body_of(**fields), path)


def said(*parts: dict[str, Any], role: str = "user") -> tuple[Any, ...]:
    (message,) = parsed(contents=[{"role": role, "parts": list(parts)}]).messages
    return message.parts


def refused(**fields: Any) -> str | None:
    with pytest.raises(RequestError) as caught:
        parsed(**fields)
    assert str(caught.value)
    return caught.value.param


# --- paths and heads ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "model", "stream"),
    [
        ("/v1beta/models/gem-x:generateContent", "gem-x", False),
        ("/v1/models/gem-x:streamGenerateContent", "gem-x", True),
        ("/v1beta/models/gem-x:streamGenerateContent?alt=sse", "gem-x", True),
        ("/v1beta/models/models/gem-x:generateContent", "gem-x", False),
        ("/v1beta/models/models%2Fgem-x:generateContent", "gem-x", False),
        ("/v1beta/models/meta-llama/Llama-3:generateContent", "meta-llama/Llama-3", False),
        ("/v1beta/models/meta-llama%2FLlama-3%3Afree%3AgenerateContent", "meta-llama/Llama-3:free", False),
        ("/v1beta/models/llama3:8b:generateContent?key=a:b", "llama3:8b", False),
        ("/v1/projects/p/locations/l/publishers/google/models/gem-x:generateContent", "gem-x", False),
        ("/v1beta/tunedModels/mine:generateContent", "tunedModels/mine", False),
        ("/v1beta/models/caf%C3%A9:generateContent", "café", False),
    ],
)
def test_the_path_says_the_model_and_what_to_do(path: str, model: str, stream: bool):
    head = DIALECT.read_head(body_of(), path)
    assert (head.model, head.stream, head.include_usage) == (model, stream, True)
    request = ARRAY.parse_request(body_of(), path)
    assert (request.model, request.stream, request.include_usage) == (model, stream, True)


@pytest.mark.parametrize(
    "path", ["/v1beta/models/gem-x", "/v1beta/models/gem-x:countTokens", "", "/v1beta/models", "/a:b?c:generateContent"]
)
def test_a_path_that_does_not_say_what_to_do(path: str):
    with pytest.raises(UnknownRoute, match=":streamGenerateContent"):
        DIALECT.read_head(body_of(), path)


@pytest.mark.parametrize("path", ["/v1beta/models/:generateContent", "/v1beta/:generateContent"])
def test_a_path_that_names_no_model(path: str):
    with pytest.raises(InvalidRequest) as caught:
        DIALECT.read_head(body_of(), path)
    assert caught.value.param == "model"


def test_c13_a_key_in_the_query_is_not_kept():
    path = "/v1beta/models/gem-x:streamGenerateContent?key=AIza-secret&alt=sse&x=1"
    head = DIALECT.read_head(body_of(), path)
    assert head.path == "/models/gem-x:streamGenerateContent?alt=sse"
    request = DIALECT.forward_request(head, TARGET, {"x-goog-api-key": "AIza-secret"})
    assert "AIza-secret" not in repr((head, request, DIALECT.parse_request(body_of(), path)))


@pytest.mark.parametrize(
    ("path", "forwarded", "accept"),
    [
        ("/v1/models/a/b:streamGenerateContent?alt=sse", "a%2Fb:streamGenerateContent?alt=sse", "text/event-stream"),
        ("/v1/models/a:streamGenerateContent", "a:streamGenerateContent", "application/json"),
        ("/v1/models/a:streamGenerateContent?alt=json", "a:streamGenerateContent", "application/json"),
        ("/v1/models/a:generateContent?alt=sse", "a:generateContent", "application/json"),
        ("/v1/models/..%2F..%2Fb%3Fc:generateContent", "..%2F..%2Fb%3Fc:generateContent", "application/json"),
    ],
)
def test_c10_a_request_is_forwarded_as_it_came(path: str, forwarded: str, accept: str):
    body = b'{"contents": [ {"parts":[{"text":"\\u00e9"}]} ],"new":{"a":1.50}}'
    head = DIALECT.read_head(body, path)
    request = DIALECT.forward_request(head, TARGET, {})
    assert (request.method, request.body) == ("POST", body)
    assert request.url == f"{TARGET.url}/models/{forwarded}"
    assert dict(request.headers)["accept"] == accept
    mapped = DIALECT.forward_request(head, msgspec.structs.replace(TARGET, model="models/c"), {})
    assert mapped.url == f"{TARGET.url}/models/c:{forwarded.partition(':')[2]}"


def test_headers():
    target = msgspec.structs.replace(TARGET, key=Secret("k-1"), headers=(("X-Team", "a"),))
    head = DIALECT.read_head(body_of(), PATH)
    expected = {
        "content-type": "application/json",
        "accept": "text/event-stream",
        "x-goog-api-key": "k-1",
        "x-team": "a",
    }
    assert dict(DIALECT.forward_request(head, target, {"authorization": "theirs"}).headers) == expected
    assert dict(DIALECT.build_request(ChatRequest("m", (USER,), stream=True), target).headers) == expected
    bearer = dict(DIALECT.forward_request(head, msgspec.structs.replace(target, auth="bearer"), {}).headers)
    assert bearer["authorization"] == "Bearer k-1"
    assert "x-goog-api-key" not in bearer


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "contents"), ({"contents": []}, "contents"), ({"contents": "Hi"}, "contents"),
        ({"contents": [HI], "tools": {}}, "tools"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_head_is_said_with_its_path(body: dict[str, Any], param: str):
    with pytest.raises(InvalidRequest) as caught:
        DIALECT.read_head(json.dumps(body).encode(), PATH)
    assert caught.value.param == param


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"3", b'{"contents":"\xff"}', b"[" * 100_000])
def test_a_body_that_is_no_object(body: bytes):
    for read in (DIALECT.read_head, DIALECT.parse_request):
        with pytest.raises(InvalidRequest):
            read(body, PATH)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"contents": [{"role": "system", "parts": [{"text": "x"}]}]}, "contents[0].role"),
        ({"contents": [{"parts": [{"text": 3}]}]}, "contents[0].parts[0].text"),
        ({"contents": [{"parts": [{}]}]}, "contents[0].parts[0]"),
        ({"contents": [{"parts": [{"new_kind": {}}]}]}, "contents[0].parts[0]"),
        ({"contents": [{"parts": [{"inline_data": {"data": "x"}}]}]}, "contents[0].parts[0].inlineData"),
        (
            {"contents": [{"parts": [{"functionCall": {"name": "f", "args": []}}]}]},
            "contents[0].parts[0].functionCall.args",
        ),
        ({"contents": [{"parts": [{"executableCode": {}}]}]}, "contents[0].parts[0].executableCode"),
        (
            {"contents": [{"parts": [{"fileData": {"fileUri": "gs://a/b"}, "videoMetadata": {"fps": 1}}]}]},
            "contents[0].parts[0].videoMetadata",
        ),
        (
            {"systemInstruction": {"parts": [{"inlineData": {"mimeType": "a/b", "data": ""}}]}},
            "systemInstruction.parts[0]",
        ),
        ({"generationConfig": {"temperature": "hot"}}, "generationConfig.temperature"),
        ({"generation_config": {"candidate_count": 2}}, "generationConfig.candidateCount"),
        ({"generationConfig": {"responseModalities": ["TEXT", "IMAGE"]}}, "generationConfig.responseModalities[1]"),
        ({"generationConfig": {"responseMimeType": "text/x.enum"}}, "generationConfig.responseMimeType"),
        ({"tools": [{"functionDeclarations": []}, {"google_search": {}}]}, "tools[1].googleSearch"),
        ({"tools": [{"codeExecution": {}}]}, "tools[0].codeExecution"),
        ({"tools": [{"urlContext": {}}]}, "tools[0].urlContext"),
        ({"tools": [{"functionDeclarations": [{"name": "f"}, {}]}]}, "tools[0].functionDeclarations[1]"),
        ({"tools": [{"functionDeclarations": 3}]}, "tools[0].functionDeclarations"),
        ({"toolConfig": {"functionCallingConfig": {"mode": "MAYBE"}}}, "toolConfig.functionCallingConfig.mode"),
        ({"cachedContent": "cachedContents/x"}, "cachedContent"),
        ({"continuationToken": "eA"}, "continuationToken"),
    ],
)  # fmt: skip
def test_what_is_wrong_or_cannot_be_translated_is_said_with_its_path(fields: dict[str, Any], param: str):
    assert refused(**fields) == param


# --- contents -------------------------------------------------------------------------------------------------------


def test_the_least_there_is():
    assert parsed(contents=[{"parts": [{"text": "Hi"}]}]) == ChatRequest("gem-x", (USER,), True, True)


def test_system_user_and_model():
    request = parsed(
        systemInstruction={"parts": [{"text": "Be brief."}, {"text": ""}, {"text": "And kind."}]},
        contents=[HI, {"role": "model", "parts": [{"text": "Hello"}]}, HI],
    )
    assert request.messages == (
        Message("system", (Text("Be brief."), Text("And kind."))),
        USER,
        Message.of("assistant", "Hello"),
        USER,
    )
    assert parsed(system_instruction="Be brief.").messages[0] == Message.of("system", "Be brief.")


def test_media():
    def blob(kind: str, data: str = "aGk") -> dict[str, Any]:
        return {"inlineData": {"mimeType": kind, "data": data}}

    assert said(blob("image/png", "-_8"), blob("audio/mpeg"), blob("audio/flac"), blob("application/pdf")) == (
        Image(data="+/8=", media_type="image/png"),
        Audio("aGk=", "mp3"),
        Audio("aGk=", "flac"),
        File(data="aGk=", media_type="application/pdf"),
    )

    def file(uri: str, kind: str | None = None) -> dict[str, Any]:
        return {"file_data": {"file_uri": uri, "mime_type": kind}}

    own = "https://generativelanguage.googleapis.com/v1beta/files/x"
    picture = file("https://a/b.png", "image/png")
    assert said(picture, file("https://a/b.pdf"), file("gs://a/b"), file(own, "image/png")) == (
        Image(url="https://a/b.png", media_type="image/png"),
        File(url="https://a/b.pdf"),
        File(file_id="gs://a/b"),
        File(file_id=own, media_type="image/png"),
    )  # fmt: skip


def test_thoughts_and_what_proves_them():
    assert said(
        {"text": "Hm", "thought": True},
        {"text": "m", "thought": True, "thoughtSignature": "c2ln"},
        {"text": "And", "thought": True},
        {"text": "Hi", "thoughtSignature": "c2ln"},
        {"text": "!"},
        role="model",
    ) == (
        Reasoning("Hmm", "c2ln", signed_by="gemini"),
        Reasoning("And"),
        Text("Hi"),
        Reasoning("", "c2ln", signed_by="gemini"),
        Text("!"),
    )


def test_a_turn_that_was_kept_as_it_streamed_is_put_together():
    """Google's SDK keeps a history of chunks: a content for each."""
    pieces: list[dict[str, Any]] = [
        {"text": "H", "thought": True}, {"text": "m", "thought": True},
        {"text": "", "thought": True, "thoughtSignature": "c2ln"},
        {"text": "Hel"}, {"text": "lo"}, {"functionCall": {"name": "f"}}, {"text": ""},
    ]  # fmt: skip
    request = parsed(contents=[HI, *({"role": "model", "parts": [piece]} for piece in pieces), HI])
    assert request.messages[1:-1] == (
        Message(
            "assistant",
            (Reasoning("Hm", "c2ln", signed_by="gemini"), Text("Hello"), ToolCall("call_0", "f", "{}", {})),
        ),
    )


def test_calls_and_results_find_each_other():
    request = parsed(
        contents=[
            HI,
            {
                "role": "model",
                "parts": [
                    {"functionCall": {"name": "f", "args": {"a": 1}}, "thoughtSignature": "c2ln"},
                    {"function_call": {"name": "g", "id": "theirs"}},
                    {"functionCall": {"name": "f", "args": {"a_b": 2}}},
                ],
            },
            {
                "role": "user",
                "parts": [
                    {"text": "So?"},
                    {"functionResponse": {"name": "g", "id": "theirs", "response": {"result": {"x_y": 1}}}},
                    {"functionResponse": {"name": "f", "response": {"output": "one"}}},
                    {"function_response": {"name": "f", "response": {"error": "two"}}},
                    {"functionResponse": {"name": "h", "response": {"a": 1, "output": 2}}},
                ],
            },
        ]
    )
    _, calls, results, user = request.messages
    assert calls.parts == (
        ToolCall("call_0", "f", '{"a":1}', {"a": 1}, signature="c2ln"),
        ToolCall("theirs", "g", "{}", {}),
        ToolCall("call_1", "f", '{"a_b":2}', {"a_b": 2}),
    )
    assert results == Message(
        "tool",
        (
            ToolResult("theirs", (Text('{"x_y":1}'),), False, "g"),
            ToolResult("call_0", (Text("one"),), False, "f"),
            ToolResult("call_1", (Text("two"),), True, "f"),
            ToolResult("call_2", (Text('{"a":1,"output":2}'),), False, "h"),
        ),
    )
    assert user == Message.of("user", "So?")


def test_a_result_with_a_picture_and_the_older_role():
    picture = {"inlineData": {"mimeType": "image/png", "data": "aGk="}}
    contents = [
        HI,
        {"role": "function", "parts": [{"functionResponse": {"name": "f", "response": None, "parts": [picture]}}]},
    ]
    (result,) = parsed(contents=contents).messages[1].parts
    assert result == ToolResult("call_0", (Text("{}"), Image(data="aGk=", media_type="image/png")), False, "f")


@pytest.mark.parametrize(
    ("response", "text"),
    [
        ({"name": "f", "content": "42"}, "42"),  # npm's ai
        ({"name": "f", "content": {"a": 1}}, '{"a":1}'),
        ({"name": "g", "content": "42"}, '{"name":"g","content":"42"}'),
        ({"name": "f", "content": "42", "more": 1}, '{"name":"f","content":"42","more":1}'),
    ],
)
def test_a_result_that_names_its_tool_again(response: dict[str, Any], text: str):
    contents = [HI, {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": response}}]}]
    (result,) = parsed(contents=contents).messages[1].parts
    assert result == ToolResult("call_0", (Text(text),), False, "f")


# --- settings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spelling", ["camel", "snake"])
def test_settings_in_both_spellings(spelling: str):
    config = {
        "temperature": 0.5, "top_p": 0.9, "top_k": 3.0, "max_output_tokens": 7, "stop_sequences": ["a"], "seed": 1,
        "presence_penalty": 0.1, "frequency_penalty": 0.2, "candidate_count": 1, "response_modalities": ["TEXT"],
        "thinking_config": {"include_thoughts": True, "thinking_level": "HIGH"}, "response_logprobs": True,
    }  # fmt: skip
    fields: dict[str, Any] = {
        "generation_config": config,
        "safety_settings": [{"category": "C"}],
        "labels": {"a_b": "c"},
    }
    if spelling == "camel":
        fields = json.loads(
            json.dumps(fields).replace("_p", "P").replace("_k", "K").replace("_o", "O").replace("_t", "T")
            .replace("_s", "S").replace("_c", "C").replace("_l", "L").replace("_m", "M")
        )  # fmt: skip
    request = parsed(**fields)
    assert request == ChatRequest(
        "gem-x", (USER,), True, True, 7, 0.5, 0.9, 3, ("a",), 1, 0.1, 0.2, reasoning_effort="high",
        extras={"gemini": {
            "safetySettings": [{"category": "C"}], "labels": {"a_b": "c"}, "generationConfig.responseLogprobs": True,
        }},
    )  # fmt: skip
    assert isinstance(request.top_k, int)


@pytest.mark.parametrize(
    ("thinking", "effort", "budget"),
    [
        ({"thinkingBudget": 0}, "none", None), ({"thinkingBudget": -1}, None, None),
        ({"thinkingBudget": 2048}, None, 2048), ({"thinkingLevel": "LOW"}, "low", None),
        ({"thinkingLevel": "THINKING_LEVEL_UNSPECIFIED"}, None, None), ({"includeThoughts": True}, None, None),
    ],
)  # fmt: skip
def test_thinking(thinking: dict[str, Any], effort: str | None, budget: int | None):
    request = parsed(generationConfig={"thinkingConfig": thinking})
    assert (request.reasoning_effort, request.reasoning_budget) == (effort, budget)


OPENAPI = {
    "type": "OBJECT",
    "properties": {
        "type": {"type": "STRING", "format": "date", "example": "x"},
        "any_of": {"type": "ARRAY", "min_items": "1", "maxItems": "3", "items": {"type": "INTEGER", "nullable": True}},
        "kind": {"type": "STRING", "enum": ["a"], "nullable": True},
        "either": {"any_of": [{"type": "NUMBER"}, {"type": "TYPE_UNSPECIFIED"}], "nullable": True},
    },
    "required": ["type"],
    "propertyOrdering": ["type"],
}
SCHEMA = {
    "type": "object",
    "properties": {
        "type": {"type": "string", "format": "date", "examples": ["x"]},
        "any_of": {"type": "array", "minItems": 1, "maxItems": 3, "items": {"type": ["integer", "null"]}},
        "kind": {"type": ["string", "null"], "enum": ["a", None]},
        "either": {"anyOf": [{"type": "number"}, {}, {"type": "null"}]},
    },
    "required": ["type"],
}


def test_tools_and_their_schemas():
    given = {"type": "object", "properties": {"a_b": {"$ref": "#/$defs/X"}}, "$defs": {"X": {}}}
    request = parsed(
        tools=[
            {"functionDeclarations": [{"name": "f", "description": "F", "parameters": OPENAPI}]},
            {"function_declarations": [{"name": "g", "parameters_json_schema": given}, {"name": "h"}]},
        ]
    )
    assert request.tools == (Tool("f", "F", SCHEMA), Tool("g", None, given), Tool("h"))
    assert request.tool_choice is None


@pytest.mark.parametrize(
    ("config", "choice", "names"),
    [
        ({"mode": "AUTO"}, ToolChoice("auto"), "fgh"), ({"mode": "VALIDATED"}, ToolChoice("auto"), "fgh"),
        ({"mode": "none"}, ToolChoice("none"), "fgh"), ({"mode": "ANY"}, ToolChoice("any"), "fgh"),
        ({"mode": "MODE_UNSPECIFIED"}, None, "fgh"), ({}, None, "fgh"),
        ({"mode": "ANY", "allowedFunctionNames": ["g"]}, ToolChoice("tool", "g"), "fgh"),
        ({"mode": "ANY", "allowedFunctionNames": ["g", "h"]}, ToolChoice("any"), "gh"),
    ],
)  # fmt: skip
def test_tool_choices(config: dict[str, Any], choice: ToolChoice | None, names: str):
    declared = {"functionDeclarations": [{"name": name} for name in "fgh"]}
    request = parsed(tools=[declared], toolConfig={"functionCallingConfig": config})
    assert request.tool_choice == choice
    assert "".join(tool.name for tool in request.tools) == names


@pytest.mark.parametrize(
    ("config", "output"),
    [
        ({"responseMimeType": "text/plain"}, None),
        ({"responseMimeType": "application/json"}, OutputFormat("json")),
        ({"responseMimeType": "application/json", "responseSchema": OPENAPI}, OutputFormat("schema", SCHEMA)),
        ({"response_mime_type": "application/json", "_responseJsonSchema": SCHEMA}, OutputFormat("schema", SCHEMA)),
        ({"responseJsonSchema": SCHEMA}, OutputFormat("schema", SCHEMA)),
    ],
)
def test_structured_output(config: dict[str, Any], output: OutputFormat | None):
    assert parsed(generationConfig=config).output == output


def test_a_request_built_by_us_is_understood_by_us():
    """ours → Gemini's → ours."""
    call = ToolCall("call_1", "f", '{"a":1}', {"a": 1}, signature="c2ln")
    request = ChatRequest(
        "gem-x",
        (
            Message.of("system", "Be brief."),
            Message("user", (Text("Hi"), Image(data="aGk=", media_type="image/png"), Audio("aGk=", "wav"))),
            Message("assistant", (Reasoning("Hm", "c2ln", signed_by="gemini"), Text("I look."), call)),
            Message("tool", (ToolResult("call_1", (Text("Rain"),), False, "f"),)),
            USER,
        ),
        True, True, 7, 0.5, 0.9, 3, ("a",), 1, 0.1, 0.2, (Tool("f", "F", SCHEMA),), ToolChoice("tool", "f"),
        reasoning_budget=2048, output=OutputFormat("schema", SCHEMA),
        extras={"gemini": {"safetySettings": [{"category": "C"}], "generationConfig.responseLogprobs": True}},
    )  # fmt: skip
    built = DIALECT.build_request(request, TARGET)
    assert built.dropped == ()
    assert DIALECT.parse_request(built.body, built.url) == request


def nested(inner: str, depth: int, open_: str, close: str) -> bytes:
    return (open_ * depth + inner + close * depth).encode()


@pytest.mark.parametrize("depth", [50, 100, 300, *range(900, 1000, 3), 5000])
def test_c11_what_is_nested_too_deep_is_refused_and_no_traceback(depth: int):
    schema = nested("{}", depth, '{"properties":{"a":', "}}")
    args = nested("{}", depth, '{"a":[', "]}")
    for body in (
        b'{"contents":[{"parts":[]}],"tools":[{"functionDeclarations":[{"name":"f","parameters":' + schema + b"}]}]}",
        b'{"contents":[{"parts":[{"functionCall":{"name":"f","args":' + args + b"}}]}]}",
        b'{"contents":[{"parts":[{"functionResponse":{"name":"f","response":' + args + b"}}]}]}",
        b'{"contents":[{"parts":[]}],"new":' + args + b"}",
    ):
        try:
            DIALECT.parse_request(body, PATH)
        except RequestError:
            assert depth > 60


_NAMES = [
    "contents", "role", "parts", "text", "thought", "thoughtSignature", "thought_signature", "inlineData", "mimeType",
    "data", "fileData", "fileUri", "functionCall", "functionResponse", "name", "args", "response", "id", "tools",
    "functionDeclarations", "parameters", "type", "properties", "anyOf", "nullable", "enum", "toolConfig",
    "functionCallingConfig", "mode", "allowedFunctionNames", "generationConfig", "thinkingConfig", "thinkingBudget",
    "stopSequences", "topK", "responseSchema", "responseMimeType", "systemInstruction", "safetySettings", "labels",
]  # fmt: skip
_plain: st.SearchStrategy[Any] = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["", "STRING", "ANY"])
)
_shaped = st.recursive(
    _plain,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(_NAMES), inner, max_size=3),
    max_leaves=8,
)


@given(fields=st.dictionaries(st.sampled_from(_NAMES), _shaped, max_size=3), part=_shaped)
def test_no_json_raises_anything_but_a_request_error(fields: dict[str, Any], part: Any):
    for given_ in (fields, {"contents": [{"parts": [part]}], **fields}, {"contents": [HI], "tools": [part]}):
        body = json.dumps(given_).encode()
        try:
            request = DIALECT.parse_request(body, PATH)
            DIALECT.build_request(request, TARGET)
        except RequestError:
            continue


def test_unsupported_says_how_to_go_on():
    with pytest.raises(Unsupported, match="Leave it out"):
        parsed(tools=[{"googleSearch": {}}])
