"""The official SDKs through the gateway: all four pairs of client and upstream dialect, before a scripted upstream.

What they make of text, tools, usage and of each error is what a program behind them will see.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import anthropic
import openai
import pytest

from tests.gateways import Gateway, serving, two_upstreams
from tests.upstreams import Answer, Gate, Upstream, document, sse
from tests.wires import CHAT, MESSAGES, Wire

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.process

#: who answers, in which dialect; the model's name leads there
each_upstream = pytest.mark.parametrize("wire", [CHAT, MESSAGES], ids=["from chat", "from messages"])

SCHEMA: dict[str, Any] = {"type": "object", "properties": {"at": {"type": "string"}}, "required": ["at"]}
CHAT_TOOLS: Any = [{"type": "function", "function": {"name": "look", "description": "d", "parameters": SCHEMA}}]
MESSAGES_TOOLS: Any = [{"name": "look", "description": "d", "input_schema": SCHEMA}]
ASKED: Any = [{"role": "user", "content": "Tell me"}]


@pytest.fixture(scope="module")
def scripted() -> Iterator[Upstream]:
    upstream = Upstream()
    yield upstream
    upstream.close()


@pytest.fixture(scope="module")
def running(scripted: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    config = two_upstreams(scripted, telemetry={"store": {"path": None}})
    with serving(config, tmp_path_factory.mktemp("sdks")) as gateway:
        yield gateway


@pytest.fixture
def upstream(scripted: Upstream) -> Iterator[Upstream]:
    scripted.forget()
    yield scripted
    assert scripted.errors == []


@pytest.fixture
def chat(running: Gateway) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key="any", max_retries=0, timeout=10) as client:
        yield client


@pytest.fixture
def messages(running: Gateway) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=running.url, api_key="any", max_retries=0, timeout=10) as client:
        yield client


def text_stream(wire: Wire) -> Answer:
    return sse(*wire.opening(), *map(wire.text, ["Hello ", "you ", "🐎"]), *wire.closing((123, 45)))


def tool_stream(wire: Wire) -> Answer:
    call = wire.call("look", ['{"at"', ': "s', 'ea"}'])
    return sse(*wire.opening(), wire.text("Let me see"), *call, *wire.closing((9, 7), stop="tool_calls"))


# --- openai -----------------------------------------------------------------------------------------------------------


@each_upstream
def test_openai_streams_text_and_usage(wire: Wire, upstream: Upstream, chat: openai.OpenAI) -> None:
    upstream.answers(text_stream(wire))
    options: Any = {"include_usage": True}
    chunks = list(chat.chat.completions.create(model=wire.model, messages=ASKED, stream=True, stream_options=options))
    choices = [choice for chunk in chunks for choice in chunk.choices]
    assert "".join(choice.delta.content or "" for choice in choices) == "Hello you 🐎"
    assert [choice.finish_reason for choice in choices if choice.finish_reason] == ["stop"]
    usage = chunks[-1].usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (123, 45, 168)
    assert {chunk.id for chunk in chunks} == {chunks[0].id}


@each_upstream
def test_openai_gets_each_text_when_it_is_sent(wire: Wire, upstream: Upstream, chat: openai.OpenAI) -> None:
    gates = [Gate(), Gate()]
    first, second = wire.text("One "), wire.text("two")
    upstream.answers(sse(*wire.opening(), gates[0], first, gates[1], second, *wire.closing()))
    stream = chat.chat.completions.create(model=wire.model, messages=ASKED, stream=True)
    texts = (chunk.choices[0].delta.content for chunk in stream if chunk.choices and chunk.choices[0].delta.content)
    for gate, text in zip(gates, ["One ", "two"], strict=True):
        gate.open()
        assert next(texts) == text
    assert list(texts) == []


@each_upstream
def test_openai_streams_tools(wire: Wire, upstream: Upstream, chat: openai.OpenAI) -> None:
    upstream.answers(tool_stream(wire))
    with chat.chat.completions.stream(model=wire.model, messages=ASKED, tools=CHAT_TOOLS) as stream:
        for _ in stream:
            pass
        (choice,) = stream.get_final_completion().choices
    assert (choice.message.content, choice.finish_reason) == ("Let me see", "tool_calls")
    assert choice.message.tool_calls is not None
    (call,) = choice.message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("look", {"at": "sea"})
    seen = json.loads(upstream.wait_for().body)["tools"][0]
    assert (seen["function"]["parameters"] if wire is CHAT else seen["input_schema"])["required"] == ["at"]


@each_upstream
def test_openai_documents(wire: Wire, upstream: Upstream, chat: openai.OpenAI) -> None:
    upstream.answers(document(wire.document("Hello", (123, 45))))
    reply = chat.chat.completions.create(model=wire.model, messages=ASKED)
    assert (reply.choices[0].message.content, reply.choices[0].finish_reason) == ("Hello", "stop")
    assert reply.usage is not None
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (123, 45)
    upstream.answers(document(wire.document(calls=True)))
    (choice,) = chat.chat.completions.create(model=wire.model, messages=ASKED, tools=CHAT_TOOLS).choices
    assert choice.message.tool_calls is not None
    (call,) = choice.message.tool_calls
    assert call.type == "function"
    assert (call.function.name, json.loads(call.function.arguments)) == ("look", {"at": "sea"})


CHAT_ERRORS = [
    (400, openai.BadRequestError),
    (401, openai.AuthenticationError),
    (403, openai.PermissionDeniedError),
    (404, openai.NotFoundError),
    (422, openai.UnprocessableEntityError),
    (429, openai.RateLimitError),
    (500, openai.InternalServerError),
    (503, openai.InternalServerError),
    (529, openai.InternalServerError),
]


@each_upstream
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "document"])
@pytest.mark.parametrize(("status", "expected"), CHAT_ERRORS)
def test_openai_raises_the_class_of_a_status(
    status: int, expected: Any, stream: bool, wire: Wire, upstream: Upstream, chat: openai.OpenAI
) -> None:
    upstream.answers(document(wire.error_body("api_error", "Not today"), status=status))
    with pytest.raises(expected) as caught:
        chat.chat.completions.create(model=wire.model, messages=ASKED, stream=stream)
    assert caught.value.status_code == status
    assert "Not today" in caught.value.message
    assert caught.value.request_id.startswith("req_")
    assert len(upstream.exchanges) == 1


@each_upstream
@pytest.mark.parametrize("how", ["error", "cut"])
def test_openai_raises_what_broke_the_stream(how: str, wire: Wire, upstream: Upstream, chat: openai.OpenAI) -> None:
    last = [wire.error("overloaded_error", "Too many cooks")] if how == "error" else []
    upstream.answers(sse(*wire.opening(), wire.text("One "), 0.02, *last, end="cut"))
    stream = chat.chat.completions.create(model=wire.model, messages=ASKED, stream=True)
    texts: list[str | None] = []
    with pytest.raises(openai.APIError) as caught:
        texts.extend(c.delta.content for chunk in stream for c in chunk.choices if c.delta.content)
    assert texts == ["One "]
    expected = (
        "Too many cooks" if how == "error" else "The reply ended before" if wire is MESSAGES else "The stream ended"
    )
    assert expected in caught.value.message


def test_openai_reads_the_gateways_own_errors(running: Gateway, chat: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        chat.chat.completions.create(model="m", messages=[])
    assert (caught.value.param, caught.value.type) == ("messages", "invalid_request_error")
    nowhere = chat.with_options(base_url=f"{running.url}/upstreams/nobody/v1")
    with pytest.raises(openai.NotFoundError, match="There is no upstream `nobody`"):
        nowhere.images.generate(model="m", prompt="a")


# --- anthropic --------------------------------------------------------------------------------------------------------


@each_upstream
def test_anthropic_streams_text_and_usage(wire: Wire, upstream: Upstream, messages: anthropic.Anthropic) -> None:
    upstream.answers(text_stream(wire))
    with messages.messages.stream(model=wire.model, max_tokens=100, messages=ASKED) as stream:
        assert list(stream.text_stream) == ["Hello ", "you ", "🐎"]
        message = stream.get_final_message()
    assert (message.stop_reason, message.role, message.type) == ("end_turn", "assistant", "message")
    assert (message.usage.input_tokens, message.usage.output_tokens) == (123, 45)


@each_upstream
def test_anthropic_gets_each_text_when_it_is_sent(
    wire: Wire, upstream: Upstream, messages: anthropic.Anthropic
) -> None:
    gates = [Gate(), Gate()]
    first, second = wire.text("One "), wire.text("two")
    upstream.answers(sse(*wire.opening(), gates[0], first, gates[1], second, *wire.closing()))
    with messages.messages.stream(model=wire.model, max_tokens=100, messages=ASKED) as stream:
        texts = iter(stream.text_stream)
        for gate, text in zip(gates, ["One ", "two"], strict=True):
            gate.open()
            assert next(texts) == text
        assert list(texts) == []


@each_upstream
def test_anthropic_streams_tools(wire: Wire, upstream: Upstream, messages: anthropic.Anthropic) -> None:
    upstream.answers(tool_stream(wire))
    with messages.messages.stream(model=wire.model, max_tokens=100, messages=ASKED, tools=MESSAGES_TOOLS) as stream:
        message = stream.get_final_message()
    text, call = message.content
    assert text.type == "text"
    assert call.type == "tool_use"
    assert (text.text, call.name, call.input, message.stop_reason) == ("Let me see", "look", {"at": "sea"}, "tool_use")


@each_upstream
def test_anthropic_documents(wire: Wire, upstream: Upstream, messages: anthropic.Anthropic) -> None:
    upstream.answers(document(wire.document("Hello", (123, 45))))
    message = messages.messages.create(model=wire.model, max_tokens=100, messages=ASKED)
    (text,) = message.content
    assert text.type == "text"
    assert (text.text, message.stop_reason) == ("Hello", "end_turn")
    assert (message.usage.input_tokens, message.usage.output_tokens) == (123, 45)
    upstream.answers(document(wire.document(calls=True)))
    message = messages.messages.create(model=wire.model, max_tokens=100, messages=ASKED, tools=MESSAGES_TOOLS)
    call = message.content[-1]
    assert call.type == "tool_use"
    assert (call.name, call.input, message.stop_reason) == ("look", {"at": "sea"}, "tool_use")


MESSAGES_ERRORS = [
    (400, anthropic.BadRequestError),
    (401, anthropic.AuthenticationError),
    (403, anthropic.PermissionDeniedError),
    (404, anthropic.NotFoundError),
    (413, anthropic.APIStatusError),
    (429, anthropic.RateLimitError),
    (500, anthropic.InternalServerError),
    (503, anthropic.InternalServerError),
    (529, anthropic.InternalServerError),
]


@each_upstream
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "document"])
@pytest.mark.parametrize(("status", "expected"), MESSAGES_ERRORS)
def test_anthropic_raises_the_class_of_a_status(
    status: int, expected: Any, stream: bool, wire: Wire, upstream: Upstream, messages: anthropic.Anthropic
) -> None:
    upstream.answers(document(wire.error_body("api_error", "Not today"), status=status))
    with pytest.raises(expected) as caught:
        messages.messages.create(model=wire.model, max_tokens=100, messages=ASKED, stream=stream)
    assert caught.value.status_code == status
    assert caught.value.body["error"]["message"] == "Not today"
    assert len(upstream.exchanges) == 1


@each_upstream
@pytest.mark.parametrize("how", ["error", "cut"])
def test_anthropic_raises_what_broke_the_stream(
    how: str, wire: Wire, upstream: Upstream, messages: anthropic.Anthropic
) -> None:
    last = [wire.error("overloaded_error", "Too many cooks")] if how == "error" else []
    upstream.answers(sse(*wire.opening(), wire.text("One "), 0.02, *last, end="cut"))
    texts: list[str] = []
    with (
        pytest.raises(anthropic.APIStatusError) as caught,
        messages.messages.stream(model=wire.model, max_tokens=100, messages=ASKED) as stream,
    ):
        texts.extend(stream.text_stream)
    assert texts == ["One "]
    body: Any = caught.value.body
    assert body["error"]["message"] == "Too many cooks" or how == "cut"


def test_anthropic_reads_the_gateways_own_errors(running: Gateway, messages: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.BadRequestError) as caught:
        messages.messages.create(model="a-1", max_tokens=100, messages=[])
    body: Any = caught.value.body
    assert body["error"]["type"] == "invalid_request_error"
    assert body["request_id"].startswith("req_")


@each_upstream
def test_leaving_an_sdks_stream_ends_it_upstream(
    wire: Wire, upstream: Upstream, chat: openai.OpenAI, messages: anthropic.Anthropic
) -> None:
    upstream.answers(sse(*wire.opening(), wire.text("One "), end="hang"))
    with chat.chat.completions.create(model=wire.model, messages=ASKED, stream=True) as stream:
        next(iter(stream))
    assert upstream.wait_for().wait_over().closed_at is not None
    with messages.messages.stream(model=wire.model, max_tokens=100, messages=ASKED) as other:
        assert next(iter(other.text_stream)) == "One "
    assert upstream.wait_for(2).wait_over().closed_at is not None
