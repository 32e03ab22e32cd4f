"""What every engine must do, asked over HTTP: the real one behind its worker, and a scripted one."""

from __future__ import annotations

import http.client
import json
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest

from tests.gateways import until
from tests.processes import running
from tests.worker.scripted_engine import ScriptedEngine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.process


class Engine(NamedTuple):
    url: str
    is_idle: Callable[[], bool]
    #: how many tokens it has made so far
    made: Callable[[], int]

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=60)

    def post(self, path: str, **body: Any) -> tuple[int, Any]:
        connection = self.connect()
        connection.request("POST", path, json.dumps({"model": "tiny", **body}).encode())
        answer = connection.getresponse()
        said = json.load(answer)
        connection.close()
        return answer.status, said

    def reply(self, prompt: str = "Tell me a story", **body: Any) -> Any:
        asked = {"messages": [{"role": "user", "content": prompt}], "temperature": 0, "max_tokens": 60, **body}
        status, said = self.post("/v1/chat/completions", **asked)
        assert status == 200, said
        return said

    def text(self, **body: Any) -> str:
        text: str = self.reply(**body)["choices"][0]["message"]["content"]
        return text

    def stream(self, prompt: str = "Tell me a story", **body: Any) -> list[Any]:
        """Its chunks; it must have ended as the dialect says."""
        asked = {"messages": [{"role": "user", "content": prompt}], "temperature": 0, "max_tokens": 60, **body}
        connection = self.connect()
        connection.request(
            "POST", "/v1/chat/completions", json.dumps({"model": "tiny", "stream": True, **asked}).encode()
        )
        data = connection.getresponse().read()
        connection.close()
        frames = [line.removeprefix(b"data: ") for line in data.split(b"\n\n") if line]
        assert frames.pop() == b"[DONE]"
        return [json.loads(frame) for frame in frames]

    def pieces(self, **body: Any) -> list[str]:
        choices = [choice for chunk in self.stream(**body) for choice in chunk["choices"]]
        return [choice["delta"]["content"] for choice in choices if choice["delta"].get("content")]


@pytest.fixture(scope="module")
def embedding_worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("engine")
    arguments = ("worker", "--demo", "--embedding", "--slots", "2", "--port", "0", "--log", "off")
    with running(*arguments, cwd=folder) as started:
        until(lambda: json.load(urlopen(started.url + "/health", timeout=10))["status"] == "ok", "the model")
        yield started.url


@pytest.fixture(scope="module", params=["llama.cpp", "scripted"])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    if request.param == "scripted":
        scripted = ScriptedEngine()
        yield Engine(scripted.url, scripted.is_idle, scripted.made)
        assert scripted.upstream.errors == []
        scripted.close()
        return
    url = request.getfixturevalue("embedding_worker")

    def is_idle() -> bool:
        with urlopen(url + "/slots", timeout=10) as answer:
            return not any(slot["is_processing"] for slot in json.load(answer))

    def made() -> int:
        with urlopen(url + "/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("llamacpp:tokens_predicted_total ")))

    yield Engine(url, is_idle, made)


def test_stop_strings_are_found_across_the_borders_of_tokens(engine: Engine):
    """Wherever one lies: nothing of it, and nothing behind it, is ever sent."""
    pieces = engine.pieces()
    whole = "".join(pieces)
    borders = [len("".join(pieces[:k])) for k in range(1, len(pieces) - 1)]
    stops = {whole[at - 2 : at + 2] for at in borders[2:16]}
    assert len(stops) > 5
    for stop in stops:
        expected = whole[: whole.index(stop)]
        assert "".join(engine.pieces(stop=[stop])) == expected, stop
        reply = engine.reply(stop=stop)["choices"][0]
        assert (reply["message"]["content"] or "", reply["finish_reason"]) == (expected, "stop")


def test_what_might_have_become_a_stop_string_is_sent_after_all(engine: Engine):
    whole = engine.text(max_tokens=400)
    stops = [whole[10:14] + "\u2603", whole[-3:] + "\u2603"]
    assert "".join(engine.pieces(stop=stops, max_tokens=400)) == whole


def test_characters_of_several_bytes_are_never_cut(engine: Engine):
    """They are several tokens of a small vocabulary. A grammar makes the model say them."""
    said = "né 漢字 😀 ß"
    schema = {"name": "said", "schema": {"enum": [said]}}
    asked: Any = {"response_format": {"type": "json_schema", "json_schema": schema}}
    pieces = engine.pieces(**asked)
    assert len(pieces) > 3
    assert not any("\ufffd" in piece for piece in pieces)
    assert json.loads("".join(pieces)) == said
    assert json.loads(engine.text(**asked)) == said


@pytest.mark.parametrize("limit", [1, 2, 7])
def test_the_limit_is_exact(limit: int, engine: Engine):
    reply = engine.reply(max_tokens=limit)
    assert (reply["choices"][0]["finish_reason"], reply["usage"]["completion_tokens"]) == ("length", limit)
    chunks = engine.stream(max_tokens=limit, stream_options={"include_usage": True})
    assert [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"]][-1] == "length"
    assert chunks[-1]["usage"]["completion_tokens"] == limit


def test_a_stream_and_a_document_say_the_same(engine: Engine):
    assert "".join(engine.pieces()) == engine.text()


def test_a_seed_makes_it_say_the_same_again(engine: Engine):
    first = [engine.text(temperature=1, seed=seed, max_tokens=30) for seed in range(4)]
    assert [engine.text(temperature=1, seed=seed, max_tokens=30) for seed in range(4)] == first
    assert ["".join(engine.pieces(temperature=1, seed=seed, max_tokens=30)) for seed in range(4)] == first
    assert len(set(first)) > 1


def test_logprobs_are_of_the_tokens_that_were_said(engine: Engine):
    choice = engine.reply(logprobs=True, top_logprobs=3, max_tokens=12)["choices"][0]
    tokens = choice["logprobs"]["content"]
    assert len(tokens) == 12
    raw = b"".join(bytes(token["bytes"]) for token in tokens)
    assert raw.decode("utf-8", "ignore").startswith(choice["message"]["content"])
    for token in tokens:
        likely = [top["logprob"] for top in token["top_logprobs"]]
        assert len(likely) == 3
        assert likely == sorted(likely, reverse=True)
        assert token["logprob"] == likely[0] <= 0  # temperature 0 says the likeliest


def test_a_schema_is_kept_to(engine: Engine):
    properties = {"name": {"type": "string"}, "age": {"type": "integer"}, "kind": {"enum": ["river", "sea"]}}
    schema = {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}
    asked: Any = {"type": "json_schema", "json_schema": {"name": "it", "schema": schema}}
    for prompt in ("Tell me a story", "Hello"):
        found = json.loads(
            engine.reply(prompt, response_format=asked, max_tokens=400)["choices"][0]["message"]["content"]
        )
        assert {name: type(value) for name, value in found.items()} == {"name": str, "age": int, "kind": str}
        assert found["kind"] in ("river", "sea")


def test_a_tool_is_called_with_the_arguments_it_wants(engine: Engine):
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    tool = {"type": "function", "function": {"name": "get_weather", "description": "d", "parameters": parameters}}
    asked: Any = {"tools": [tool], "tool_choice": "required", "max_tokens": 200}
    prompt = "What is the weather in Paris?"
    choice = engine.reply(prompt, **asked)["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    (call,) = choice["message"]["tool_calls"]
    assert call["function"]["name"] == "get_weather"
    arguments = json.loads(call["function"]["arguments"])
    assert isinstance(arguments["city"], str)

    deltas = [choice["delta"] for chunk in engine.stream(prompt, **asked) for choice in chunk["choices"]]
    parts = [part for delta in deltas for part in delta.get("tool_calls") or ()]
    assert {part["index"] for part in parts} == {0}
    assert "".join(part["function"].get("name") or "" for part in parts) == "get_weather"
    assert json.loads("".join(part["function"].get("arguments") or "" for part in parts)) == arguments


def test_c7_who_leaves_stops_it_within_a_few_tokens(engine: Engine):
    """It would go on for thousands."""
    before = engine.made()
    connection = engine.connect()
    body = {"messages": [{"role": "user", "content": "Hello"}], "ignore_eos": True, "max_tokens": 8000, "stream": True}
    connection.request("POST", "/v1/chat/completions", json.dumps({"model": "tiny", **body}).encode())
    answer = connection.getresponse()
    assert answer.read1(64)
    answer.close()
    connection.close()
    until(engine.is_idle, "the slot's freedom")
    assert engine.made() - before < 4000


def test_embeddings_are_of_each_text_in_its_order(engine: Engine):
    texts = ["a drop of water", "the sea", "a drop of water"]
    status, said = engine.post("/v1/embeddings", input=texts)
    assert status == 200, said
    vectors = [entry["embedding"] for entry in sorted(said["data"], key=lambda entry: entry["index"])]
    assert len(vectors) == 3
    assert len({len(vector) for vector in vectors}) == 1
    assert vectors[0] == pytest.approx(vectors[2], abs=1e-4)
    assert vectors[0] != pytest.approx(vectors[1], abs=1e-2)
    assert [sum(it * it for it in vector) for vector in vectors] == pytest.approx([1, 1, 1], abs=1e-3)
    alone = engine.post("/v1/embeddings", input=texts[1])[1]["data"][0]["embedding"]
    assert alone == pytest.approx(vectors[1], abs=1e-3)


def test_a_text_too_long_to_be_embedded_is_a_400_with_both_numbers(embedding_worker: str):
    engine = Engine(embedding_worker, lambda: True, lambda: 0)
    status, said = engine.post("/v1/embeddings", input=["short", "word " * 3000])
    assert status == 400
    assert "input[1] has 3,002 tokens, and the model takes 2,048." in said["error"]["message"]
    assert engine.post("/v1/embeddings", input="word " * 2000)[0] == 200
    assert engine.reply()["choices"][0]["message"]["content"].startswith("Once upon a time")
