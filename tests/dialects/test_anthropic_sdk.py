"""What we write, judged by Anthropic's own SDK over HTTP on the loopback interface."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from penstock.canon.errors import Overloaded, RateLimited, Truncated
from penstock.canon.events import (
    BlockEnd,
    BlockStart,
    Delta,
    Finish,
    KeepAlive,
    Reasoning,
    Start,
    Text,
    ToolCall,
    UsageUpdate,
)
from penstock.canon.response import fold
from penstock.canon.usage import Usage
from penstock.dialects.anthropic_messages import DIALECT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anthropic.types import Message

    from penstock.canon.events import Event

anthropic = pytest.importorskip("anthropic")

ASKED: dict[str, Any] = {
    "model": "claude-x",
    "max_tokens": 100,
    "messages": [{"role": "user", "content": "Hi"}],
}


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
            url = f"http://127.0.0.1:{server.server_port}"
            with anthropic.Anthropic(base_url=url, api_key="k", max_retries=0) as client:
                yield client
        finally:
            server.shutdown()
            thread.join()


def streamed(*events: Event) -> Message:
    encoder = DIALECT.encoder(model="claude-x", include_usage=True, request_id="req_1", created=0)
    body = b"".join(encoder.encode([event]) for event in events)
    with client_of(body, content_type=DIALECT.stream_type) as client, client.messages.stream(**ASKED) as stream:
        return stream.get_final_message()


START = Start("upstream-model", "openai", "msg_1")
USAGE = Usage(input=12, input_cached=2, output=7, total=19)


def everything() -> list[Event]:
    return [
        START,
        UsageUpdate(USAGE),
        KeepAlive("comment"),
        BlockStart(0, "reasoning"),
        Delta(0, "Let me "),
        Delta(0, "think"),
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
        BlockStart(4, "tool_call", "call_c", "now"),
        BlockEnd(4, ToolCall("call_c", "now", "", {})),
        Finish("stop", "stop", USAGE),
    ]


def test_the_sdk_reads_a_stream():
    message = streamed(*everything())
    assert [block.type for block in message.content] == ["thinking", "text", "tool_use", "tool_use", "tool_use"]
    thinking, text, weather, clock, now = message.content
    assert thinking.type == "thinking"
    assert (thinking.thinking, thinking.signature) == ("Let me think", "EqQB")
    assert text.type == "text"
    assert text.text == "Hé\u2028llo"
    assert [(call.id, call.name, call.input) for call in (weather, clock, now) if call.type == "tool_use"] == [
        ("call_a", "weather", {"city": "Oslo"}),
        ("call_b", "clock", {"zone": "UTC"}),
        ("call_c", "now", {}),
    ]
    assert (message.id, message.model, message.stop_reason) == ("msg_1", "claude-x", "tool_use")
    usage = message.usage
    assert (usage.input_tokens, usage.cache_read_input_tokens, usage.output_tokens) == (10, 2, 7)


def test_the_sdk_reads_the_text_of_a_stream_without_usage():
    message = streamed(START, BlockStart(0, "text"), Delta(0, "Hi"), BlockEnd(0, Text("Hi")), Finish("length"))
    assert message.content[0].type == "text"
    assert message.content[0].text == "Hi"
    assert message.stop_reason == "max_tokens"
    assert (message.usage.input_tokens, message.usage.output_tokens) == (0, 0)


def test_the_sdk_raises_what_a_stream_ends_in():
    encoder = DIALECT.encoder(model="claude-x", include_usage=True, request_id="req_1", created=0)
    body = encoder.encode([START, BlockStart(0, "text"), Delta(0, "Hel")])
    body += DIALECT.heartbeat + encoder.error(Overloaded("Busy", status=529))
    with client_of(body, content_type=DIALECT.stream_type) as client, client.messages.stream(**ASKED) as stream:
        seen = []
        with pytest.raises(anthropic.APIStatusError, match="Busy"):
            seen.extend(stream.text_stream)
    assert seen == ["Hel"]


def test_the_sdk_reads_a_document():
    body = DIALECT.write_document(fold(everything()), model="claude-x", request_id="req_1", created=0)
    with client_of(body, content_type="application/json") as client:
        message = client.messages.create(**ASKED)
    assert [block.type for block in message.content] == ["thinking", "text", "tool_use", "tool_use", "tool_use"]
    assert message.content[2].input == {"city": "Oslo"}
    assert (message.stop_reason, message.usage.input_tokens) == ("tool_use", 10)


def test_the_sdk_knows_our_errors():
    body = DIALECT.write_error(RateLimited("Slow down", status=429), "req_1")
    with (
        client_of(body, content_type="application/json", status=429) as client,
        pytest.raises(anthropic.RateLimitError, match="Slow down"),
    ):
        client.messages.create(**ASKED)
    body = DIALECT.write_error(Truncated("It was cut."), "req_1")
    with (
        client_of(body, content_type="application/json", status=502) as client,
        pytest.raises(anthropic.InternalServerError, match="It was cut"),
    ):
        client.messages.create(**ASKED)
