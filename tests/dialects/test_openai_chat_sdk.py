"""What we write, judged by OpenAI's own SDK over HTTP on the loopback interface."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from penstock.canon.errors import RateLimited, StreamedError, Truncated
from penstock.canon.events import (
    BlockEnd,
    BlockStart,
    Delta,
    Finish,
    KeepAlive,
    Reasoning,
    Refusal,
    Start,
    Text,
    ToolCall,
    UsageUpdate,
)
from penstock.canon.response import fold
from penstock.canon.usage import Usage
from penstock.dialects.openai_chat import DIALECT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from penstock.canon.events import Event

openai = pytest.importorskip("openai")

ASKED: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
START = Start("upstream-model", "anthropic", "msg_1")
USAGE = Usage(input=10, input_cached=2, output=7, output_reasoning=3, total=17)


@contextmanager
def client_of(body: bytes, *, content_type: str, status: int = 200) -> Iterator[Any]:
    """The SDK's client, of a server that gives this answer to whatever it is asked."""

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
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
        try:
            url = f"http://127.0.0.1:{server.server_port}/v1"
            with openai.OpenAI(base_url=url, api_key="k", max_retries=0) as client:
                yield client
        finally:
            server.shutdown()
            thread.join()


def written(*events: Event, include_usage: bool = True) -> bytes:
    encoder = DIALECT.encoder(model="m", include_usage=include_usage, request_id="req_1", created=7)
    return b"".join(encoder.encode([event]) for event in events)


def chunks_of(body: bytes) -> list[Any]:
    with client_of(body, content_type=DIALECT.stream_type) as client:
        return list(client.chat.completions.create(**ASKED, stream=True))


def folded(body: bytes) -> Any:
    """What the SDK's own accumulator makes of it."""
    with (
        client_of(body, content_type=DIALECT.stream_type) as client,
        client.chat.completions.stream(**ASKED) as stream,
    ):
        return stream.get_final_completion()


def everything() -> list[Event]:
    return [
        START,
        UsageUpdate(Usage(input=10)),
        KeepAlive("ping"),
        BlockStart(0, "reasoning"),
        Delta(0, "Let me"),
        Delta(0, " think"),
        BlockEnd(0, Reasoning("Let me think", "EqQB")),
        BlockStart(1, "text"),
        Delta(1, "Hé\u2028llo"),
        BlockEnd(1, Text("Hé\u2028llo")),
        BlockStart(2, "tool_call", "call_a", "weather"),
        BlockStart(3, "tool_call", "call_b", "clock"),
        Delta(2, '{"city":'),
        Delta(3, '{"zone":"UTC"}'),
        Delta(2, '"Oslo"}'),
        BlockEnd(3, ToolCall("call_b", "clock", '{"zone":"UTC"}', {"zone": "UTC"})),
        BlockEnd(2, ToolCall("call_a", "weather", '{"city":"Oslo"}', {"city": "Oslo"})),
        Finish("stop", "end_turn", USAGE),
    ]


def test_the_sdk_reads_a_stream():
    completion = folded(written(*everything()))
    (choice,) = completion.choices
    assert choice.message.content == "Hé\u2028llo"
    assert choice.message.role == "assistant"
    assert [(made.id, made.function.name, made.function.arguments) for made in choice.message.tool_calls] == [
        ("call_a", "weather", '{"city":"Oslo"}'),
        ("call_b", "clock", '{"zone":"UTC"}'),
    ]
    assert choice.finish_reason == "tool_calls"
    assert (completion.id, completion.model, completion.created) == ("msg_1", "m", 7)
    usage = completion.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (10, 7, 17)
    assert usage.prompt_tokens_details.cached_tokens == 2
    assert usage.completion_tokens_details.reasoning_tokens == 3


def test_every_chunk_has_what_the_sdk_expects():
    chunks = chunks_of(written(*everything()))
    assert {chunk.id for chunk in chunks} == {"msg_1"}
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert {(chunk.created, chunk.model) for chunk in chunks} == {(7, "m")}
    roles = [chunk.choices[0].delta.role for chunk in chunks if chunk.choices]
    assert roles == ["assistant", *[None] * (len(roles) - 1)]
    assert "".join(getattr(chunk.choices[0].delta, "reasoning_content", "") for chunk in chunks[:-1]) == "Let me think"
    assert [chunk.choices for chunk in chunks].index([]) == len(chunks) - 1


def test_usage_that_was_not_asked_for_is_not_sent():
    chunks = chunks_of(written(*everything(), include_usage=False))
    assert all(chunk.choices for chunk in chunks)
    assert all(chunk.usage is None for chunk in chunks)


def test_usage_that_nobody_reported_is_not_invented():
    chunks = chunks_of(written(START, BlockStart(0, "text"), Delta(0, "Hi"), BlockEnd(0, Text("Hi")), Finish("stop")))
    assert all(chunk.usage is None for chunk in chunks)


def test_the_sdk_reads_a_refusal():
    completion = folded(
        written(
            START,
            BlockStart(0, "refusal"),
            Delta(0, "I can't"),
            BlockEnd(0, Refusal("I can't")),
            Finish("stop", "stop"),
        )
    )
    assert completion.choices[0].message.refusal == "I can't"
    assert completion.choices[0].finish_reason == "stop"


@pytest.mark.parametrize("error", [StreamedError("Busy", type="overloaded_error"), Truncated("Busy")])
def test_c4_the_sdk_raises_what_a_stream_ends_in(error: Any):
    encoder = DIALECT.encoder(model="m", include_usage=True, request_id="req_1", created=0)
    body = encoder.encode([START, BlockStart(0, "text"), Delta(0, "Hel")]) + DIALECT.heartbeat + encoder.error(error)
    seen: list[str] = []
    with client_of(body, content_type=DIALECT.stream_type) as client:
        stream = client.chat.completions.create(**ASKED, stream=True)
        with pytest.raises(openai.APIError, match="Busy"):
            seen.extend(chunk.choices[0].delta.content for chunk in stream)
    assert "".join(seen) == "Hel"


def test_the_sdk_reads_a_document():
    body = DIALECT.write_document(fold(everything()), model="m", request_id="req_1", created=7)
    with client_of(body, content_type="application/json") as client:
        completion = client.chat.completions.create(**ASKED)
    message = completion.choices[0].message
    assert message.content == "Hé\u2028llo"
    assert [(made.function.name, made.function.arguments) for made in message.tool_calls] == [
        ("weather", '{"city":"Oslo"}'),
        ("clock", '{"zone":"UTC"}'),
    ]
    assert (completion.choices[0].finish_reason, completion.usage.total_tokens) == ("tool_calls", 17)


def test_the_sdk_knows_our_errors():
    body = DIALECT.write_error(RateLimited("Slow down", status=429), "req_1")
    with (
        client_of(body, content_type="application/json", status=429) as client,
        pytest.raises(openai.RateLimitError, match="Slow down"),
    ):
        client.chat.completions.create(**ASKED)
    body = DIALECT.write_error(Truncated("It was cut."), "req_1")
    with (
        client_of(body, content_type="application/json", status=502) as client,
        pytest.raises(openai.InternalServerError, match="It was cut"),
    ):
        client.chat.completions.create(**ASKED)
