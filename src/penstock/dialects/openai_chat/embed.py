"""OpenAI embeddings (`POST {base}/embeddings`), both directions. Vectors are numbers, or base64 of 32-bit floats."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from penstock.canon.embedding import Embeddings, EmbedRequest
from penstock.canon.errors import ProtocolError
from penstock.canon.wire import HttpRequest
from penstock.dialects.base import RequestHead, decode_body, endpoint, foreign_extras, key_headers, load_extras
from penstock.dialects.embedding import Answer, packed, read_as, texts
from penstock.dialects.mapping import renamed_body, without_none
from penstock.dialects.openai_chat.wire import read_usage

if TYPE_CHECKING:
    from penstock.canon.target import Target

PATH = "/embeddings"
OWN = "openai-chat"


class _Request(msgspec.Struct):
    model: str
    input: Any = None
    dimensions: int | None = None
    encoding_format: str | None = None
    user: str | None = None


class _Entry(msgspec.Struct):
    embedding: msgspec.Raw
    index: Any = None


class _Answer(msgspec.Struct):
    data: list[_Entry]
    model: Any = None
    usage: Any = None


_request = msgspec.json.Decoder(_Request)
_answer = msgspec.json.Decoder(_Answer)
_KNOWN = frozenset(_Request.__struct_fields__)


def parse_request(body: bytes) -> EmbedRequest:
    given = decode_body(_request, body)
    extras = {key: value for key, value in load_extras(body).items() if key not in _KNOWN and value is not None}
    return EmbedRequest(
        given.model,
        texts(given.input, "input"),
        given.dimensions,
        given.user,
        given.encoding_format == "base64",
        {OWN: extras} if extras else {},
    )


def build_request(request: EmbedRequest, target: Target) -> HttpRequest:
    body: dict[str, Any] = {
        "model": target.model or request.model,
        "input": list(request.inputs),
        **without_none(dimensions=request.dimensions, user=request.user),
        **request.extras.get(OWN, {}),
    }
    dropped = tuple(foreign_extras(request, OWN))
    return HttpRequest("POST", endpoint(target, PATH), _headers(target), msgspec.json.encode(body), dropped)


def forward_request(body: bytes, request: EmbedRequest, target: Target) -> HttpRequest:
    """The caller's own bytes; only `model` is ours to change, where it is mapped."""
    head = RequestHead(request.model, False, False, body)
    return HttpRequest("POST", endpoint(target, PATH), _headers(target), renamed_body(head, target.model))


def _headers(target: Target) -> tuple[tuple[str, str], ...]:
    accept = ("accept", "application/json")
    return ("content-type", "application/json"), accept, *target.headers, *key_headers(target)


def read_answer(body: bytes) -> Answer:
    """`data` may come in any order: `index` says which text each is of."""
    found = read_as(_answer, body)
    places = [each.index if type(each.index) is int else k for k, each in enumerate(found.data)]
    if sorted(places) != list(range(len(places))):
        raise ProtocolError("The upstream's reply does not say which embedding is of which text.")
    vectors = [each.embedding for _, each in sorted(zip(places, found.data, strict=True), key=lambda pair: pair[0])]
    usage = read_usage(found.usage) if isinstance(found.usage, dict) else None
    return Answer(vectors, found.model if isinstance(found.model, str) else None, usage)


def write_response(found: Embeddings, request: EmbedRequest, *, model: str | None) -> bytes:
    data = [
        {"object": "embedding", "index": k, "embedding": packed(vector) if request.base64 else vector}
        for k, vector in enumerate(found.vectors)
    ]
    prompt = (found.usage.input if found.usage else None) or 0
    usage = {"prompt_tokens": prompt, "total_tokens": prompt}
    return msgspec.json.encode(
        {"object": "list", "data": data, "model": model or found.model or request.model, "usage": usage}
    )
