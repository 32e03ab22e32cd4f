"""Embeddings through a running gateway: both clients' SDKs before upstreams of four dialects."""

from __future__ import annotations

import base64
import http.client
import json
import struct
from typing import TYPE_CHECKING, Any

import ollama
import openai
import pytest

from tests.gateways import Gateway, serving
from tests.upstreams import Answer, Exchange, Upstream

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.process

TEXTS = ["one", "two", "three"]
VECTORS = [[0.5, 1.0], [0.25, -2.0], [0.0, 4.0]]

#: dialect → the body that its server answers with, out of order where it may be
ANSWERS: dict[str, Any] = {
    "openai-chat": {
        "object": "list",
        "model": "real",
        "data": [{"object": "embedding", "index": k, "embedding": VECTORS[k]} for k in (2, 0, 1)],
        "usage": {"prompt_tokens": 7, "total_tokens": 7},
    },
    "ollama": {"model": "real", "embeddings": VECTORS, "prompt_eval_count": 7},
    "gemini": {"embeddings": [{"values": vector} for vector in VECTORS]},
    "cohere": {"id": "x", "embeddings": {"float": VECTORS}, "meta": {"billed_units": {"input_tokens": 7}}},
}
PATHS = {
    "openai-chat": "/openai-chat/embeddings",
    "ollama": "/ollama/api/embed",
    "gemini": "/gemini/models/real:batchEmbedContents",
    "cohere": "/cohere/embed",
}
each_upstream = pytest.mark.parametrize("name", sorted(ANSWERS))


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    upstream = Upstream()
    yield upstream
    upstream.close()


@pytest.fixture(scope="module")
def gateway(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    names = [*ANSWERS, "anthropic-messages"]
    config = {
        "upstreams": {name: {"url": upstream.url(f"/{name}"), "dialect": name} for name in names},
        "models": {name: f"{name}:real" for name in names},
        "telemetry": {"store": {"path": None}},
    }
    with serving(config, tmp_path_factory.mktemp("embed")) as running:
        yield running


def packed(vector: list[float]) -> str:
    return base64.b64encode(struct.pack("<2f", *vector)).decode()


def answers(upstream: Upstream, name: str) -> None:
    def answer(exchange: Exchange) -> Answer:
        body = ANSWERS[name]
        if json.loads(exchange.body).get("encoding_format") == "base64":
            packed = [base64.b64encode(struct.pack("<2f", *each["embedding"])).decode() for each in body["data"]]
            body = {
                **body,
                "data": [{**each, "embedding": said} for each, said in zip(body["data"], packed, strict=True)],
            }
        return Answer([json.dumps(body).encode()], content_type="application/json")

    upstream.forget()
    upstream.answers(answer)


@each_upstream
def test_openais_sdk_gets_them_in_order(name: str, upstream: Upstream, gateway: Gateway) -> None:
    """It asks for base64 unless it is told otherwise."""
    answers(upstream, name)
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="any", max_retries=0) as client:
        found = client.embeddings.create(model=name, input=TEXTS, dimensions=2)
    assert [each.embedding for each in sorted(found.data, key=lambda each: each.index)] == VECTORS
    assert found.model == name
    assert found.usage.prompt_tokens == (0 if name == "gemini" else 7)
    (exchange,) = upstream.exchanges
    assert exchange.path == PATHS[name]


@each_upstream
def test_ollamas_sdk_gets_them_in_order(name: str, upstream: Upstream, gateway: Gateway) -> None:
    answers(upstream, name)
    client = ollama.Client(host=gateway.url)
    found = client.embed(model=name, input=TEXTS)
    client._client.close()  # it has no way of its own
    assert [list(vector) for vector in found.embeddings] == VECTORS


def post(gateway: Gateway, path: str, body: Any) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=10)
    connection.request("POST", path, json.dumps(body))
    answer = connection.getresponse()
    found = answer.status, json.loads(answer.read())
    connection.close()
    return found


def test_the_older_path_has_one_vector(upstream: Upstream, gateway: Gateway) -> None:
    upstream.answers(Answer([b'{"embeddings": [[1.5]]}'], content_type="application/json"))
    assert post(gateway, "/api/embeddings", {"model": "ollama", "prompt": "one"}) == (200, {"embedding": [1.5]})


def test_fewer_vectors_than_texts_are_an_error(upstream: Upstream, gateway: Gateway) -> None:
    upstream.answers(Answer([b'{"embeddings": [[1.5]]}'], content_type="application/json"))
    status, body = post(gateway, "/v1/embeddings", {"model": "ollama", "input": TEXTS})
    assert (status, "1 embeddings for 3 texts" in body["error"]["message"]) == (502, True)


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"model": "ollama", "input": []}, 400, "empty"),
        ({"model": "ollama", "input": [1, 2]}, 400, "must be text"),
        ({"model": "anthropic-messages", "input": "x"}, 400, "no embeddings"),
        ({"model": "nowhere", "input": "x"}, 404, "no model"),
        ({"input": "x"}, 400, "model"),
    ],
)
def test_mistakes(gateway: Gateway, body: Any, status: int, said: str) -> None:
    found, answer = post(gateway, "/v1/embeddings", body)
    assert found == status
    assert said in answer["error"]["message"]
    assert post(gateway, "/api/embed", body)[0] == status


@pytest.mark.parametrize("answer", [b'{"data": 7}', b"[1]", b'{"embeddings": [["x"]]}', b"{"])
def test_what_is_no_answer(upstream: Upstream, gateway: Gateway, answer: bytes) -> None:
    upstream.answers(Answer([answer], content_type="application/json"))
    assert post(gateway, "/v1/embeddings", {"model": "ollama", "input": "x"})[0] == 502


def test_an_upstreams_refusal(upstream: Upstream, gateway: Gateway) -> None:
    upstream.answers(Answer([b'{"error": "no such model"}'], status=404, content_type="application/json"))
    status, body = post(gateway, "/v1/embeddings", {"model": "ollama", "input": "x"})
    assert (status, body["error"]["message"]) == (404, "no such model")
