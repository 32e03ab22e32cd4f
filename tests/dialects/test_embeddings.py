"""Embeddings of each dialect: what is asked, what an answer means, what is none."""

from __future__ import annotations

import contextlib
import json
import struct
from base64 import b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.canon.embedding import Embeddings, EmbedRequest
from penstock.canon.errors import InvalidRequest, PenstockError, ProtocolError, StreamedError, Truncated, Unsupported
from penstock.canon.events import Custom
from penstock.canon.response import Ending, fold
from penstock.canon.usage import Usage
from penstock.dialects.embedding import EMBEDDINGS, EmbeddingReader, client_embedding, embedding, packed, unpacked
from penstock.framing.base import Frame
from penstock.testing.replay import check_events
from tests.dialects.conversations import target_for

VECTORS = ((0.5, 1.0), (0.25, -2.0))
ANSWERS: dict[str, Any] = {
    "openai-chat": {
        "data": [{"embedding": VECTORS[1], "index": 1}, {"embedding": VECTORS[0], "index": 0}],
        "model": "real",
        "usage": {"prompt_tokens": 7, "total_tokens": 7},
    },
    "ollama": {"embeddings": VECTORS, "model": "real", "prompt_eval_count": 7},
    "gemini": {"embeddings": [{"values": vector} for vector in VECTORS]},
    "cohere": {"embeddings": {"float": VECTORS}, "meta": {"billed_units": {"input_tokens": 7.0}}},
}
each = pytest.mark.parametrize("name", sorted(ANSWERS))
each_client = pytest.mark.parametrize("name", ["ollama", "openai-chat"])

ASKED = EmbedRequest("m", ("one", "two"), dimensions=2, user="me", extras={"elsewhere": {"new": 1}})


def body_of(name: str) -> bytes:
    return json.dumps(ANSWERS[name]).encode()


def read(name: str, answer: Any) -> Embeddings:
    return embedding(name).read_answer(json.dumps(answer).encode()).embeddings()


# --- asked of an upstream ---------------------------------------------------------------------------------------------


REQUESTS: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "openai-chat": (
        "/v1/embeddings",
        {"model": "m", "input": ["one", "two"], "dimensions": 2, "user": "me"},
        ("new",),
    ),
    "ollama": ("/api/embed", {"model": "m", "input": ["one", "two"], "dimensions": 2}, ("user", "new")),
    "gemini": (
        "/v1/models/m:batchEmbedContents",
        {
            "requests": [
                {"model": "models/m", "content": {"parts": [{"text": text}]}, "outputDimensionality": 2}
                for text in ("one", "two")
            ]
        },
        ("user", "new"),
    ),
    "cohere": (
        "/v1/embed",
        {
            "model": "m",
            "texts": ["one", "two"],
            "input_type": "search_document",
            "embedding_types": ["float"],
            "output_dimension": 2,
        },
        ("user", "new"),
    ),
}


@each
def test_what_is_asked(name: str):
    path, body, dropped = REQUESTS[name]
    request = embedding(name).build_request(ASKED, target_for(name))
    assert (request.method, request.url) == ("POST", f"https://up.example{path}")
    assert (json.loads(request.body), request.dropped) == (body, dropped)
    assert "sk-1" in str(request.headers)


def test_a_dialect_without_embeddings_says_so():
    with pytest.raises(Unsupported, match="has no embeddings"):
        embedding("anthropic-messages")


# --- from a client ----------------------------------------------------------------------------------------------------


@each_client
def test_what_only_its_own_dialect_says_is_kept_for_it(name: str):
    given = client_embedding(name).parse_request(b'{"model":"m","input":"x","new":1,"nothing":null}')
    assert (given.inputs, given.extras) == (("x",), {name: {"new": 1}})
    assert json.loads(embedding(name).build_request(given, target_for(name)).body)["new"] == 1


@each_client
@pytest.mark.parametrize(
    "given",
    ["[]", "7", "[1, 2]", '[["x"]]', "null", '["x", 1]', '"x", "new": "\\ud800"', '"x", "dimensions": "2"', "["],
)
def test_a_mistake_is_the_callers(name: str, given: str):
    with pytest.raises(InvalidRequest):
        client_embedding(name).parse_request(f'{{"model":"m","input":{given}}}'.encode())


@each_client
def test_bytes_that_are_no_text_are_the_callers_mistake(name: str):
    with pytest.raises(InvalidRequest):
        client_embedding(name).parse_request(b'{"model":"m","input":"x","new":"\xff"}')


@each_client
@given(vectors=st.lists(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=5), min_size=1))
@pytest.mark.parametrize("base64", [True, False])
def test_what_is_written_is_read_again(name: str, base64: bool, vectors: list[list[float]]):
    found = Embeddings(tuple(tuple(vector) for vector in vectors), "m", Usage(input=3))
    asked = EmbedRequest("m", ("x",) * len(vectors), base64=base64)
    again = embedding(name).read_answer(client_embedding(name).write_response(found, asked, model=None)).embeddings()
    assert (again.vectors, again.model) == (found.vectors, "m")
    assert again.usage is not None
    assert again.usage.input == 3


def test_base64_is_of_little_endian_floats():
    assert packed((0.5, -2.0)) == b64encode(struct.pack("<2f", 0.5, -2.0)).decode()
    assert unpacked(packed((0.5, -2.0))) == (0.5, -2.0)


# --- what an answer means ---------------------------------------------------------------------------------------------


@each
def test_an_answer(name: str):
    found = read(name, ANSWERS[name])
    assert found.vectors == VECTORS
    assert found.model == ("real" if name in ("openai-chat", "ollama") else None)
    assert (found.usage.input if found.usage else None) == (None if name == "gemini" else 7)


@given(st.permutations(range(5)))
def test_the_index_says_whose_a_vector_is(places: list[int]):
    found = read("openai-chat", {"data": [{"index": k, "embedding": [k]} for k in places]})
    assert found.vectors == ((0.0,), (1.0,), (2.0,), (3.0,), (4.0,))


def test_without_an_index_the_order_is_kept():
    assert read("openai-chat", {"data": [{"embedding": [1]}, {"embedding": [0]}]}).vectors == ((1.0,), (0.0,))


@pytest.mark.parametrize("places", [[0, 0], [1, 2], [0, -1]])
def test_an_index_that_cannot_be_is_an_error(places: list[int]):
    with pytest.raises(ProtocolError, match="of which text"):
        read("openai-chat", {"data": [{"index": k, "embedding": [0.5]} for k in places]})


def test_ollamas_older_answer():
    assert read("ollama", {"embedding": [0.5]}).vectors == ((0.5,),)


@pytest.mark.parametrize(
    "vector",
    [
        "AAA", "AAAA", "é", b64encode(struct.pack("<f", float("nan"))).decode(),
        b64encode(struct.pack("<f", float("inf"))).decode(), ["0.5"], [None], {}, None, 7, [[0.5]],
    ],
)  # fmt: skip
def test_a_vector_that_is_none(vector: Any):
    with pytest.raises(ProtocolError, match="an embedding that is none"):
        read("openai-chat", {"data": [{"embedding": vector}]})


@each
@pytest.mark.parametrize("error", ["It broke.", {"message": "It broke."}])
def test_an_error_with_200_is_an_error(name: str, error: Any):
    with pytest.raises(StreamedError, match="It broke"):
        embedding(name).read_answer(json.dumps({"error": error}).encode())


@each
@given(data=st.data())
def test_nothing_but_our_own_errors(name: str, data: st.DataObject):
    body = bytearray(body_of(name))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(PenstockError):
        embedding(name).read_answer(bytes(body)).embeddings()


# --- as a reply -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(EMBEDDINGS))
@pytest.mark.parametrize("whole", [True, False])
def test_it_comes_as_the_events_of_a_reply(name: str, whole: bool):
    decoder = EmbeddingReader(name, 2, whole=whole).decoder(document=True, provider="up")
    events: list[Any] = []
    body = body_of(name if name in ANSWERS else "openai-chat")
    decoder.decode(Frame(body, body), events)
    decoder.close(events)
    check_events(events, complete=True)
    response = fold(events)
    (part,) = response.parts
    assert isinstance(part, Custom)
    assert (part.raw.vectors if whole else part.raw) == (VECTORS if whole else None)
    assert (response.finish, response.provider) == (Ending("stop"), "up")


@each
def test_no_beginning_of_an_answer_passes_for_it(name: str):
    body = body_of(name)
    for end in range(len(body)):
        decoder = EmbeddingReader(name, 2, whole=True).decoder(document=True)
        events: list[Any] = []
        with pytest.raises(PenstockError) as caught:  # noqa: PT012
            if end:
                decoder.decode(Frame(body[:end], body[:end]), events)
            decoder.close(events)
        assert isinstance(caught.value, Truncated), end
        assert (decoder.proved, events) == (False, [])
