"""What we write, judged by Google's own SDK over HTTP on the loopback interface."""

from __future__ import annotations

import base64
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from penstock.canon.errors import Overloaded, RateLimited, StreamedError, Truncated, Unsupported
from penstock.canon.events import (
    BlockEnd,
    BlockStart,
    Custom,
    Delta,
    Finish,
    KeepAlive,
    Reasoning,
    Start,
    Text,
    ToolCall,
    UsageUpdate,
)
from penstock.canon.request import ToolResult
from penstock.canon.response import fold
from penstock.canon.usage import Usage
from penstock.dialects.gemini import ARRAY, DIALECT
from penstock.dialects.gemini.path import is_sse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from penstock.canon.events import Event

genai = pytest.importorskip("google.genai")
types = genai.types

#: the SDK is built on a library that warns of what Python will do one day
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

SIGNATURE = base64.b64encode(b"\xfb\xffsigned").decode()


class Asked:
    """What the server was asked."""

    path = ""
    body = b""


@contextmanager
def client_of(body: bytes, *, content_type: str, status: int = 200) -> Iterator[tuple[Any, Asked]]:
    """The SDK's client, of a server that gives this answer to whatever it is asked."""
    asked = Asked()

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.path = self.path
            asked.body = self.rfile.read(int(self.headers["content-length"]))
            self.send_response(status)
            self.send_header("content-type", content_type)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        options = types.HttpOptions(base_url=f"http://127.0.0.1:{server.server_port}", api_version="v1beta")
        client = genai.Client(api_key="k", http_options=options)
        try:
            yield client, asked
        finally:
            client.close()
            server.shutdown()
            thread.join()


def stream_of(*events: Event, after: bytes = b"") -> bytes:
    encoder = DIALECT.encoder(model="gem-x", include_usage=True, request_id="req_1", created=0)
    return b"".join(encoder.encode([event]) for event in events) + after


START = Start("upstream-model", "openai", "resp_1")
USAGE = Usage(input=12, input_cached=2, output=7, output_reasoning=3, total=19)
IMAGE = {"inlineData": {"mimeType": "image/png", "data": "aGk="}}


def everything() -> list[Event]:
    return [
        START,
        UsageUpdate(USAGE),
        KeepAlive("comment"),
        BlockStart(0, "reasoning"),
        Delta(0, "Let me "),
        Delta(0, "think"),
        BlockEnd(0, Reasoning("Let me think", SIGNATURE, signed_by="gemini")),
        BlockStart(1, "text"),
        Delta(1, "Hé\u2028"),
        Delta(1, "llo"),
        BlockEnd(1, Text("Hé\u2028llo")),
        BlockStart(2, "tool_call", "call_a", "weather", signature=SIGNATURE),
        BlockStart(3, "tool_call", "call_b", "clock"),
        Delta(2, '{"city":'),
        Delta(3, '{"zone":"UTC"}'),
        Delta(2, '"Oslo"}'),
        BlockEnd(3, ToolCall("call_b", "clock", '{"zone":"UTC"}', {"zone": "UTC"})),
        BlockEnd(2, ToolCall("call_a", "weather", '{"city":"Oslo"}', {"city": "Oslo"}, signature=SIGNATURE)),
        BlockStart(4, "file", None, "inline_data"),
        BlockEnd(4, Custom("inline_data", IMAGE)),
        Finish("tool_calls", "tool_calls", USAGE),
    ]


def assert_everything(parts: list[Any], last: Any, texts: list[str], thoughts: list[str]) -> None:
    assert texts == [part.text for part in parts if part.text and not part.thought]
    assert thoughts == [part.text for part in parts if part.text and part.thought]
    signed = [part.thought_signature for part in parts if part.thought]
    assert signed[-1] == b"\xfb\xffsigned"
    calls = [part for part in parts if part.function_call]
    assert [(part.function_call.id, part.function_call.name, part.function_call.args) for part in calls] == [
        ("call_a", "weather", {"city": "Oslo"}),
        ("call_b", "clock", {"zone": "UTC"}),
    ]
    assert [part.thought_signature for part in calls] == [b"\xfb\xffsigned", None]
    assert [part.inline_data.data for part in parts if part.inline_data] == [b"hi"]
    assert (last.model_version, last.response_id) == ("gem-x", "resp_1")
    assert last.candidates[0].finish_reason == types.FinishReason.STOP
    usage = last.usage_metadata
    assert (usage.prompt_token_count, usage.cached_content_token_count) == (12, 2)
    assert (usage.candidates_token_count, usage.thoughts_token_count, usage.total_token_count) == (4, 3, 19)


def test_the_sdk_reads_a_stream():
    body = DIALECT.heartbeat + stream_of(*everything())
    with client_of(body, content_type=DIALECT.stream_type) as (client, asked):
        chunks = list(client.models.generate_content_stream(model="a/b:c", contents="Hi"))
    parts = [part for chunk in chunks for part in chunk.candidates[0].content.parts]
    assert_everything(parts, chunks[-1], ["Hé\u2028", "llo"], ["Let me ", "think"])
    head = DIALECT.read_head(asked.body, asked.path)
    assert (head.model, head.stream) == ("a/b:c", True)
    assert is_sse(asked.path)


async def test_the_asynchronous_sdk_reads_a_stream():
    body = stream_of(*everything())
    with client_of(body, content_type=DIALECT.stream_type) as (client, _):
        stream = await client.aio.models.generate_content_stream(model="gem-x", contents="Hi")
        chunks = [chunk async for chunk in stream]
        await client.aio.aclose()
    parts = [part for chunk in chunks for part in chunk.candidates[0].content.parts]
    assert_everything(parts, chunks[-1], ["Hé\u2028", "llo"], ["Let me ", "think"])


def test_the_sdk_reads_a_document():
    body = DIALECT.write_document(fold(everything()), model="gem-x", request_id="req_1", created=0)
    with client_of(body, content_type="application/json") as (client, asked):
        response = client.models.generate_content(model="gem-x", contents="Hi")
    assert_everything(response.candidates[0].content.parts, response, ["Hé\u2028llo"], ["Let me think"])
    head = DIALECT.read_head(asked.body, asked.path)
    assert (head.model, head.stream) == ("gem-x", False)


async def test_the_asynchronous_sdk_reads_a_document():
    body = DIALECT.write_document(fold(everything()), model="gem-x", request_id="req_1", created=0)
    with client_of(body, content_type="application/json") as (client, _):
        response = await client.aio.models.generate_content(model="gem-x", contents="Hi")
        await client.aio.aclose()
    assert_everything(response.candidates[0].content.parts, response, ["Hé\u2028llo"], ["Let me think"])


def test_the_sdk_gathers_a_text_without_usage():
    body = stream_of(START, BlockStart(0, "text"), Delta(0, "Hi"), BlockEnd(0, Text("Hi")), Finish("length"))
    with client_of(body, content_type=DIALECT.stream_type) as (client, _):
        chunks = list(client.models.generate_content_stream(model="gem-x", contents="Hi"))
    assert "".join(chunk.text for chunk in chunks) == "Hi"
    assert chunks[-1].candidates[0].finish_reason == types.FinishReason.MAX_TOKENS
    assert chunks[-1].usage_metadata is None


@pytest.mark.parametrize(
    ("error", "cls", "code"),
    [
        (Overloaded("Busy", status=529), "ServerError", 529),
        (StreamedError("Busy", status=429), "ClientError", 429),
        (Truncated("Busy"), "ServerError", 502),
    ],
)
def test_the_sdk_raises_what_a_stream_ends_in(error: Any, cls: str, code: int):
    encoder = DIALECT.encoder(model="gem-x", include_usage=True, request_id="req_1", created=0)
    body = encoder.encode([START, BlockStart(0, "text"), Delta(0, "Hel")]) + DIALECT.heartbeat + encoder.error(error)
    seen: list[str] = []
    with (
        client_of(body, content_type=DIALECT.stream_type) as (client, _),
        pytest.raises(getattr(genai.errors, cls), match="Busy") as caught,
    ):
        seen.extend(chunk.text for chunk in client.models.generate_content_stream(model="gem-x", contents="Hi"))
    assert caught.value.code == code


async def test_the_asynchronous_sdk_raises_what_a_stream_ends_in():
    encoder = DIALECT.encoder(model="gem-x", include_usage=True, request_id="req_1", created=0)
    body = encoder.encode([START, BlockStart(0, "text"), Delta(0, "Hel")]) + encoder.error(Truncated("Cut"))
    seen: list[str] = []
    with client_of(body, content_type=DIALECT.stream_type) as (client, _):
        stream = await client.aio.models.generate_content_stream(model="gem-x", contents="Hi")
        seen.append((await anext(stream)).text)
        with pytest.raises(genai.errors.ServerError, match="Cut"):
            await anext(stream)
        await client.aio.aclose()
    assert seen == ["Hel"]


def test_an_array_that_broke_cannot_pass_for_an_answer():
    """The SDK always asks for SSE. Given an array all the same, it raises, whether it broke or not."""
    encoder = ARRAY.encoder(model="gem-x", include_usage=True, request_id="req_1", created=0)
    body = encoder.encode([START, BlockStart(0, "text"), Delta(0, "Hel")]) + encoder.error(Truncated("Cut"))
    with (
        client_of(body, content_type=ARRAY.stream_type) as (client, _),
        pytest.raises(genai.errors.UnknownApiResponseError),
    ):
        list(client.models.generate_content_stream(model="gem-x", contents="Hi"))


def test_the_sdk_knows_our_errors():
    body = DIALECT.write_error(RateLimited("Slow down", status=429, retry_after_s=7), "req_1")
    with (
        client_of(body, content_type="application/json", status=429) as (client, _),
        pytest.raises(genai.errors.ClientError, match="Slow down") as caught,
    ):
        client.models.generate_content(model="gem-x", contents="Hi")
    assert (caught.value.code, caught.value.status) == (429, "RESOURCE_EXHAUSTED")


def test_what_the_sdk_asks_is_understood():
    """A second turn with a signed call and its result, a picture, tools and settings, as the SDK writes them."""
    calling = types.Content(
        role="model",
        parts=[
            types.Part(
                function_call=types.FunctionCall(name="weather", args={"city": "Oslo"}, id="call_a"),
                thought_signature=b"\xfb\xffsigned",
            )
        ],
    )
    answer = types.Part.from_function_response(name="weather", response={"output": "Rain"})
    answer.function_response.id = "call_a"
    schema = types.Schema(type="OBJECT", properties={"city": types.Schema(type="STRING", nullable=True)})
    config = types.GenerateContentConfig(
        system_instruction="Be brief.",
        temperature=0.5,
        top_k=3,
        max_output_tokens=10,
        stop_sequences=["."],
        tools=[types.Tool(function_declarations=[types.FunctionDeclaration(name="weather", parameters=schema)])],
        tool_config=types.ToolConfig(function_calling_config=types.FunctionCallingConfig(mode="ANY")),
        thinking_config=types.ThinkingConfig(include_thoughts=True, thinking_budget=2048),
        automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
    )
    picture = types.Part.from_bytes(data=b"\xfb\xff", mime_type="image/png")
    said = types.Content(role="user", parts=[answer, picture, types.Part(text="And?")])
    body = DIALECT.write_document(fold(everything()), model="gem-x", request_id="req_1", created=0)
    with client_of(body, content_type="application/json") as (client, asked):
        client.models.generate_content(model="gem-x", contents=["Hi", calling, said], config=config)
    request = DIALECT.parse_request(asked.body, asked.path)
    assert [message.role for message in request.messages] == ["system", "user", "assistant", "tool", "user"]
    call = request.messages[2].parts[0]
    assert isinstance(call, ToolCall)
    assert (call.id, call.arguments, call.signature) == ("call_a", {"city": "Oslo"}, "-_9zaWduZWQ=")
    result = request.messages[3].parts[0]
    assert isinstance(result, ToolResult)
    assert (result.id, result.name, result.parts) == ("call_a", "weather", (Text("Rain"),))
    assert getattr(request.messages[4].parts[0], "data", None) == "+/8="
    assert request.tools[0].parameters == {"type": "object", "properties": {"city": {"type": ["string", "null"]}}}
    assert request.tool_choice is not None
    assert request.tool_choice.mode == "any"
    assert (request.temperature, request.top_k, request.max_tokens, request.stop) == (0.5, 3, 10, (".",))
    assert request.reasoning_budget == 2048


def test_the_sdks_own_tools_are_refused_by_name():
    config = types.GenerateContentConfig(tools=[types.Tool(google_search=types.GoogleSearch())])
    body = DIALECT.write_document(fold(everything()), model="gem-x", request_id="req_1", created=0)
    with client_of(body, content_type="application/json") as (client, asked):
        client.models.generate_content(model="gem-x", contents="Hi", config=config)
    with pytest.raises(Unsupported) as caught:
        DIALECT.parse_request(asked.body, asked.path)
    assert caught.value.param == "tools[0].googleSearch"
