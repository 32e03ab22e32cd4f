"""Embeddings through a running gateway: both clients' SDKs before upstreams of four dialects.

A call for them is one like any other: it is recorded, its failures are statuses, and a client that leaves cancels it.
"""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import struct
from typing import TYPE_CHECKING, Any

import ollama
import openai
import pytest

from tests.gateways import Gateway, serving
from tests.upstreams import Answer, Exchange, Gate, Upstream, document

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


@pytest.fixture(scope="module")
def strict_gateway(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    config = {
        "strict": True,
        "upstreams": {"ollama": {"url": upstream.url("/ollama"), "dialect": "ollama"}},
        "models": {"*": "ollama"},
        "telemetry": {"store": {"path": None}},
    }
    with serving(config, tmp_path_factory.mktemp("strict")) as running:
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


def test_the_sdks_other_clients(upstream: Upstream, gateway: Gateway) -> None:
    async def asked() -> tuple[Any, Any]:
        async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="any", max_retries=0) as client:
            told = await client.embeddings.create(model="cohere", input=TEXTS)
        other = ollama.AsyncClient(host=gateway.url)
        found = await other.embed(model="cohere", input=TEXTS)
        await other._client.aclose()
        return told, found

    answers(upstream, "cohere")
    told, found = asyncio.run(asked())
    assert [each.embedding for each in told.data] == [list(vector) for vector in found.embeddings] == VECTORS
    assert found.prompt_eval_count == 7


def post(gateway: Gateway, path: str, body: Any) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=10)
    connection.request("POST", path, json.dumps(body))
    answer = connection.getresponse()
    found = answer.status, json.loads(answer.read())
    connection.close()
    return found


# --- bytes that pass --------------------------------------------------------------------------------------------------


def test_what_is_in_the_clients_dialect_passes_as_it_is(upstream: Upstream, gateway: Gateway) -> None:
    """Whatever else it says: only the model's name is ours to change, in the request and in the answer."""
    told = b'{"object": "list", "new": 1.50, "data": [{"embedding": [0.10], "index": 0}], "model": "real", "usage": 7}'
    upstream.forget()
    upstream.answers(document(told))
    asked = gateway.send("POST", "/v1/embeddings", b'{"input": ["x"], "model": "openai-chat", "input_type": 2.0}')
    assert asked.body() == told.replace(b'"real"', b'"openai-chat"')
    assert json.loads(upstream.exchanges[0].body) == {"input": ["x"], "model": "real", "input_type": 2.0}
    assert b'"input_type":2.0' in upstream.exchanges[0].body

    told = b'{"model":"real","embeddings":[[0.10]],"total_duration":14143917,"new":[1.50]}'
    upstream.answers(document(told))
    asked = gateway.send("POST", "/api/embed", b'{"model":"ollama","input":"x","keep_alive":0,"new":1.50}')
    assert asked.body() == told.replace(b'"real"', b'"ollama"')
    assert b'"new":1.50' in upstream.exchanges[1].body


def test_an_upstreams_refusal_passes_as_it_is(upstream: Upstream, gateway: Gateway) -> None:
    told = b'{"error": {"message": "Too many texts", "type": "invalid_request_error", "new": 1.50}}'
    upstream.answers(document(told, status=400))
    asked = gateway.send("POST", "/v1/embeddings", b'{"model": "openai-chat", "input": "x"}')
    assert (asked.status, asked.body()) == (400, told)


def test_a_large_answer_comes_whole(upstream: Upstream, gateway: Gateway) -> None:
    """Larger than a frame of a stream may be."""
    told = b'{"model":"real","embeddings":[[0.5]],"pad":"' + b"x" * (17 * 1024 * 1024) + b'"}'
    upstream.answers(document(told))
    asked = gateway.send("POST", "/api/embed", b'{"model":"ollama","input":"x"}')
    assert asked.body() == told.replace(b'"real"', b'"ollama"')


# --- a call like any other --------------------------------------------------------------------------------------------


@each_upstream
def test_c6_a_call_is_recorded(name: str, upstream: Upstream, gateway: Gateway) -> None:
    answers(upstream, name)
    asked = gateway.send("POST", "/v1/embeddings", json.dumps({"model": name, "input": TEXTS}).encode())
    body = asked.body()
    record = gateway.record(asked.request_id)
    assert (record["route"], record["dialect_in"], record["dialect_out"]) == ("/v1/embeddings", "openai-chat", name)
    assert (record["outcome"], record["http_status"], record["attempts"]) == ("complete", 200, 1)
    assert (record["target"], record["model_requested"], record["bytes_out"]) == (f"{name}:real", name, len(body))
    assert (record["prompt_tokens"], record["completion_tokens"]) == (None if name == "gemini" else 7, None)
    assert record["stream"] is False
    assert asked.headers["x-penstock-target"] == f"{name}:real"


@pytest.mark.parametrize(
    ("answer", "status", "outcome", "error"),
    [
        (document(b'{"error": "no such model"}', status=404), 404, "upstream_error", "status"),
        (document(b'{"error": "Slow down."}', status=429), 429, "upstream_error", "rate_limited"),
        (document(b'{"error": "It broke."}'), 502, "upstream_error", "streamed_error"),
        (document(b'{"embeddings": [[1.5]]}'), 502, "upstream_error", "protocol"),
        (document(b'{"embeddings": [[1.5], ["x"], [2.5]]}'), 502, "upstream_error", "protocol"),
        (document(b"<html>", content_type="text/html"), 502, "upstream_error", "not_a_stream"),
        (Answer([b'{"embeddings": [[1.5], [2.5'], content_type="application/json"), 502, "truncated", "truncated"),
        (
            Answer([b'{"embeddings": [[1.5], [2.5'], content_type="application/json", end="cut"),
            502,
            "truncated",
            "truncated",
        ),
    ],
)
def test_c4_a_failure_is_a_status_and_is_recorded(
    answer: Answer, status: int, outcome: str, error: str, upstream: Upstream, gateway: Gateway
) -> None:
    upstream.answers(answer)
    asked = gateway.send("POST", "/v1/embeddings", json.dumps({"model": "ollama", "input": TEXTS}).encode())
    assert asked.status == status
    assert json.loads(asked.body())["error"]["message"]
    record = gateway.record(asked.request_id)
    assert (record["outcome"], record["error_type"], record["http_status"]) == (outcome, error, status)


def test_fewer_vectors_than_texts_are_an_error_even_where_bytes_pass(upstream: Upstream, gateway: Gateway) -> None:
    upstream.answers(document(b'{"embeddings": [[1.5]]}'))
    status, body = post(gateway, "/api/embed", {"model": "ollama", "input": TEXTS})
    assert (status, body) == (502, {"error": "The upstream gave 1 embeddings for 3 texts."})


def test_c7_a_client_that_leaves_cancels_it(upstream: Upstream, gateway: Gateway) -> None:
    upstream.forget()
    upstream.answers(Answer(before=Gate()))
    asked = gateway.send("POST", "/v1/embeddings", b'{"model": "ollama", "input": "x-left-alone"}')
    exchange = upstream.wait_for()
    asked.leave()
    assert exchange.wait_over().closed_at is not None


def test_what_has_no_word_there_is_named(upstream: Upstream, gateway: Gateway) -> None:
    answers(upstream, "cohere")
    body = {"model": "cohere", "input": TEXTS, "truncate": False, "keep_alive": "5m", "options": {"num_ctx": 4096}}
    asked = gateway.send("POST", "/api/embed", json.dumps(body).encode())
    assert (asked.status, asked.headers["x-penstock-dropped"]) == (200, "truncate, keep_alive, options")


def test_strict_refuses_it(upstream: Upstream, strict_gateway: Gateway) -> None:
    upstream.forget()
    status, body = post(strict_gateway, "/v1/embeddings", {"model": "m", "input": "x", "user": "me"})
    assert (status, body["error"]["param"], upstream.exchanges) == (400, "user", [])


# --- what is wrong ----------------------------------------------------------------------------------------------------


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
