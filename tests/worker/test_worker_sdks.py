"""Every official SDK on a real worker and its real model: each dialect, streamed and not, says the same words."""

from __future__ import annotations

import http.client
import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import urlopen

import anthropic
import ollama
import openai
import pytest
from google import genai

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.processes import Running

pytestmark = pytest.mark.process

PROMPT = "Tell me a story"
MESSAGES: Any = [{"role": "user", "content": PROMPT}]
LIMIT = 24
#: the last version of the wire that has a temperature
VERSION = {"anthropic-version": "2023-06-01"}


def openai_client(at: Running) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{at.url}/v1", api_key="any", max_retries=0)


def anthropic_client(at: Running) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=at.url, api_key="any", max_retries=0, default_headers=VERSION)


def gemini_client(at: Running) -> genai.Client:
    return genai.Client(api_key="any", vertexai=False, http_options={"base_url": at.url})


@contextmanager
def ollama_client(at: Running) -> Iterator[ollama.Client]:
    client = ollama.Client(at.url)
    try:
        yield client
    finally:
        client._client.close()


# --- each way to ask: the text, why it stopped, tokens in and out ----------------------------------------------------


def chat(at: Running) -> Any:
    with openai_client(at) as client:
        reply = client.chat.completions.create(model="tiny", messages=MESSAGES, temperature=0, max_tokens=LIMIT)
    assert reply.usage is not None
    choice = reply.choices[0]
    return choice.message.content, choice.finish_reason, reply.usage.prompt_tokens, reply.usage.completion_tokens


def chat_stream(at: Running) -> Any:
    text, stop, usage = "", None, None
    with openai_client(at) as client:
        for chunk in client.chat.completions.create(
            model="tiny",
            messages=MESSAGES,
            temperature=0,
            max_tokens=LIMIT,
            stream=True,
            stream_options={"include_usage": True},
        ):
            usage = chunk.usage or usage
            for choice in chunk.choices:
                text, stop = text + (choice.delta.content or ""), choice.finish_reason or stop
    assert usage is not None
    return text, stop, usage.prompt_tokens, usage.completion_tokens


def responses(at: Running) -> Any:
    with openai_client(at) as client:
        reply = client.responses.create(model="tiny", input=PROMPT, temperature=0, max_output_tokens=LIMIT)
    assert reply.usage is not None
    assert reply.incomplete_details is not None
    return reply.output_text, reply.incomplete_details.reason, reply.usage.input_tokens, reply.usage.output_tokens


def responses_stream(at: Running) -> Any:
    text, ended = "", None
    with openai_client(at) as client:
        for event in client.responses.create(
            model="tiny", input=PROMPT, temperature=0, max_output_tokens=LIMIT, stream=True
        ):
            if event.type == "response.output_text.delta":
                text += event.delta
            elif event.type == "response.incomplete":
                ended = event.response
    assert ended is not None
    assert ended.usage is not None
    assert ended.incomplete_details is not None
    return text, ended.incomplete_details.reason, ended.usage.input_tokens, ended.usage.output_tokens


def messages(at: Running) -> Any:
    with anthropic_client(at) as client:
        reply = client.messages.create(model="tiny", messages=MESSAGES, extra_body={"temperature": 0}, max_tokens=LIMIT)
    return _of_message(reply)


def messages_stream(at: Running) -> Any:
    with (
        anthropic_client(at) as client,
        client.messages.stream(
            model="tiny", messages=MESSAGES, extra_body={"temperature": 0}, max_tokens=LIMIT
        ) as stream,
    ):
        return _of_message(stream.get_final_message())


def _of_message(reply: anthropic.types.Message) -> Any:
    text = "".join(block.text for block in reply.content if block.type == "text")
    usage = reply.usage
    prompt = usage.input_tokens + (usage.cache_read_input_tokens or 0)
    return text, reply.stop_reason, prompt, usage.output_tokens


def ollama_chat(at: Running) -> Any:
    with ollama_client(at) as client:
        reply = client.chat("tiny", MESSAGES, options={"temperature": 0, "num_predict": LIMIT})
    return reply.message.content, reply.done_reason, reply.prompt_eval_count, reply.eval_count


def ollama_stream(at: Running) -> Any:
    options = {"temperature": 0, "num_predict": LIMIT}
    with ollama_client(at) as client:
        replies = list(client.chat("tiny", MESSAGES, options=options, stream=True))
    last = replies[-1]
    text = "".join(reply.message.content or "" for reply in replies)
    return text, last.done_reason, last.prompt_eval_count, last.eval_count


def gemini(at: Running) -> Any:
    config: Any = {"temperature": 0, "max_output_tokens": LIMIT}
    with gemini_client(at) as client:
        reply = client.models.generate_content(model="tiny", contents=PROMPT, config=config)
    return _of_gemini(reply.text or "", reply)


def gemini_stream(at: Running) -> Any:
    config: Any = {"temperature": 0, "max_output_tokens": LIMIT}
    with gemini_client(at) as client:
        replies = list(client.models.generate_content_stream(model="tiny", contents=PROMPT, config=config))
    return _of_gemini("".join(reply.text or "" for reply in replies), replies[-1])


def _of_gemini(text: str, reply: Any) -> Any:
    usage = reply.usage_metadata
    return text, str(reply.candidates[0].finish_reason), usage.prompt_token_count, usage.candidates_token_count


#: who asks → what it calls an end by the limit
WAYS: dict[Callable[[Running], Any], str] = {
    chat: "length",
    chat_stream: "length",
    responses: "max_output_tokens",
    responses_stream: "max_output_tokens",
    messages: "max_tokens",
    messages_stream: "max_tokens",
    ollama_chat: "length",
    ollama_stream: "length",
    gemini: "FinishReason.MAX_TOKENS",
    gemini_stream: "FinishReason.MAX_TOKENS",
}


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_every_sdk_hears_the_same(way: Callable[[Running], Any], worker: Running) -> None:
    text, stop, prompt, completion = way(worker)
    assert text.startswith("Once upon a time")
    assert (text, prompt, completion) == (chat(worker)[0], chat(worker)[2], LIMIT)
    assert stop == WAYS[way]


@pytest.mark.parametrize("stream", [False, True])
def test_a_text_completion_goes_on_with_the_text_itself(stream: bool, worker: Running) -> None:
    """And not with a chat template round it: its prompt has the words' own tokens alone."""
    asked: Any = {"model": "tiny", "prompt": "Once upon a time", "temperature": 0, "max_tokens": 5, "seed": 1}
    with openai_client(worker) as client:
        if stream:
            options: Any = {"include_usage": True}
            chunks = list(client.completions.create(**asked, stream=True, stream_options=options))
            text = "".join(choice.text for chunk in chunks for choice in chunk.choices)
            usage = chunks[-1].usage
        else:
            reply = client.completions.create(**asked)
            text, usage = reply.choices[0].text, reply.usage
    tokens = post(worker, "/tokenize", {"content": "Once upon a time"})[1]["tokens"]
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (len(tokens), 5)
    assert text.strip()


def test_ollamas_generate_is_a_turn(worker: Running) -> None:
    options = {"temperature": 0, "num_predict": LIMIT}
    with ollama_client(worker) as client:
        assert client.generate("tiny", PROMPT, options=options).response == chat(worker)[0]


def test_every_sdk_finds_the_model(worker: Running) -> None:
    with openai_client(worker) as client:
        assert [model.id for model in client.models.list()] == ["tiny"]
        assert client.models.retrieve("tiny").id == "tiny"
        with pytest.raises(openai.NotFoundError, match="There is no model `other` here"):
            client.models.retrieve("other")
    with anthropic_client(worker) as client:
        assert [model.id for model in client.models.list()] == ["tiny"]
    with ollama_client(worker) as client:
        assert [model.model for model in client.list().models] == ["tiny"]
    with gemini_client(worker) as client:
        assert [model.name for model in client.models.list()] == ["models/tiny"]


def test_anthropics_sdk_counts_tokens(worker: Running) -> None:
    with anthropic_client(worker) as client:
        counted = client.messages.count_tokens(model="tiny", messages=MESSAGES).input_tokens
    assert counted == chat(worker)[2]


def test_embeddings_are_refused_with_what_to_do(worker: Running) -> None:
    said = "Start it with --embedding: penstock worker --embedding."
    with openai_client(worker) as client, pytest.raises(openai.BadRequestError, match=said):
        client.embeddings.create(model="tiny", input="a")
    with ollama_client(worker) as client, pytest.raises(ollama.ResponseError, match=said):
        client.embed("tiny", "a")


# --- bad input: one sentence and the right code, in every dialect ---------------------------------------------------

TOO_LONG = "word " * 20_000


def test_a_prompt_beyond_the_context_is_a_400_with_both_numbers(worker: Running) -> None:
    asked: Any = [{"role": "user", "content": TOO_LONG}]
    said = r"\d{5} tokens.*8192"
    with openai_client(worker) as client:
        with pytest.raises(openai.BadRequestError, match=said):
            client.chat.completions.create(model="tiny", messages=asked)
        with pytest.raises(openai.BadRequestError, match=said):
            client.responses.create(model="tiny", input=TOO_LONG)
        with pytest.raises(openai.BadRequestError, match=said):
            client.completions.create(model="tiny", prompt=TOO_LONG)
    with anthropic_client(worker) as client, pytest.raises(anthropic.BadRequestError, match=said):
        client.messages.create(model="tiny", messages=asked, max_tokens=9)
    with ollama_client(worker) as client, pytest.raises(ollama.ResponseError, match=said) as raised:
        client.chat("tiny", asked)
    assert raised.value.status_code == 400


@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses", "/api/chat"]
)
def test_invalid_utf_8_is_a_400_that_repeats_nothing(path: str, worker: Running) -> None:
    body = {"model": "tiny", "messages": [{"role": "user", "content": "?secret"}], "prompt": "?", "input": "?secret"}
    raw = json.dumps({**body, "max_tokens": 4}).encode().replace(b"?", b"caf\xe9")
    status, said = post(worker, path, raw)
    assert status == 400
    assert "secret" not in json.dumps(said)
    assert "byte" in json.dumps(said) or "valid JSON" in json.dumps(said)


# --- tools that may not be called ------------------------------------------------------------------------------------

SCHEMA: dict[str, Any] = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


def test_tools_that_may_not_be_called_are_not_shown(worker: Running) -> None:
    """llama.cpp's templates show them all the same: then the prompt is longer, and a small model calls them."""
    weather: Any = [{"role": "user", "content": "What is the weather in Paris?"}]
    tool: Any = {"type": "function", "function": {"name": "get_weather", "parameters": SCHEMA}}
    asked: Any = {"model": "tiny", "messages": weather, "temperature": 0, "max_tokens": 60}
    with openai_client(worker) as client:
        called = client.chat.completions.create(**asked, tools=[tool])
        without = client.chat.completions.create(**asked, tools=[tool], tool_choice="none")
        bare = client.chat.completions.create(**asked)
    assert called.choices[0].message.tool_calls
    assert without.choices[0].message.tool_calls is None
    assert without.choices[0].message.content == bare.choices[0].message.content
    assert without.usage is not None
    assert bare.usage is not None
    assert without.usage.prompt_tokens == bare.usage.prompt_tokens
    with anthropic_client(worker) as client:
        reply = client.messages.create(
            model="tiny",
            messages=weather,
            max_tokens=60,
            extra_body={"temperature": 0},
            tools=[{"name": "get_weather", "input_schema": SCHEMA}],
            tool_choice={"type": "none"},
        )
    assert _of_message(reply)[2] == bare.usage.prompt_tokens
    assert [block.type for block in reply.content] == ["text"]


# --- the engine's own paths ------------------------------------------------------------------------------------------


def test_the_engines_own_paths_are_passed_on(worker: Running) -> None:
    def get(path: str) -> Any:
        with urlopen(worker.url + path, timeout=10) as answer:
            return json.load(answer)

    assert get("/props")["total_slots"] == 4
    assert [slot["n_ctx"] for slot in get("/slots")] == [8192] * 4
    tokens = post(worker, "/tokenize", {"content": "Hello there"})[1]["tokens"]
    assert post(worker, "/detokenize", {"tokens": tokens})[1]["content"] == "Hello there"
    assert "Hello" in post(worker, "/apply-template", {"messages": [{"role": "user", "content": "Hello"}]})[1]["prompt"]
    assert post(worker, "/tokenize", b"{")[0] == 400


def test_metrics_are_ours_and_the_engines(worker: Running) -> None:
    chat(worker)
    with urlopen(worker.url + "/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    assert any(line.startswith("penstock_") and 'model="tiny"' in line for line in lines)
    assert any(line.startswith("llamacpp:tokens_predicted_total ") for line in lines)
    assert not any(line.startswith("#") and "EOF" in line for line in lines)


def test_info_says_what_runs(worker: Running) -> None:
    with urlopen(worker.url + "/v1/info", timeout=10) as answer:
        info = json.load(answer)
    assert info["engine"]["name"] == "llama.cpp"
    assert {name: info[name] for name in ("model", "architecture", "quantisation", "context_tokens", "slots")} == {
        "model": "tiny",
        "architecture": "llama",
        "quantisation": "Q8_0",
        "context_tokens": 8192,
        "slots": 4,
    }
    assert info["threads"] >= 1
    assert "/" not in json.dumps(info), "no path of its owner's"


def post(at: Running, path: str, body: Any) -> tuple[int, Any]:
    connection = http.client.HTTPConnection(urlsplit(at.url).netloc, timeout=30)
    connection.request("POST", path, body if isinstance(body, bytes) else json.dumps(body).encode())
    answer = connection.getresponse()
    data = json.load(answer)
    connection.close()
    return answer.status, data
