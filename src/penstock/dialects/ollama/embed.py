"""Ollama embeddings (`POST {base}/api/embed`), both directions; clients of `/api/embeddings` ask for one text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from penstock.canon.embedding import Embeddings, EmbedRequest
from penstock.canon.usage import Usage, whole
from penstock.canon.wire import HttpRequest
from penstock.dialects.base import RequestHead, decode_body, foreign_extras, key_headers, load_extras
from penstock.dialects.embedding import Answer, no_embeddings, read_as, texts
from penstock.dialects.mapping import renamed_body
from penstock.dialects.ollama import base
from penstock.dialects.ollama.wire import OWN

if TYPE_CHECKING:
    from penstock.canon.target import Target


class _Request(msgspec.Struct):
    model: str
    input: Any = None
    prompt: Any = None
    dimensions: int | None = None


class _Answer(msgspec.Struct):
    """`embedding` is the older path's, some servers' only one."""

    embeddings: list[msgspec.Raw] | None = None
    embedding: msgspec.Raw = msgspec.Raw()
    model: Any = None
    prompt_eval_count: Any = None


_request = msgspec.json.Decoder(_Request)
_answer = msgspec.json.Decoder(_Answer)
_KNOWN = frozenset(_Request.__struct_fields__)


def parse_request(body: bytes) -> EmbedRequest:
    given = decode_body(_request, body)
    field = "prompt" if given.input is None and given.prompt is not None else "input"
    extras = {key: value for key, value in load_extras(body).items() if key not in _KNOWN and value is not None}
    return EmbedRequest(
        given.model, texts(getattr(given, field), field), given.dimensions, extras={OWN: extras} if extras else {}
    )


def build_request(request: EmbedRequest, target: Target) -> HttpRequest:
    body: dict[str, Any] = {"model": target.model or request.model, "input": list(request.inputs)}
    if request.dimensions is not None:
        body["dimensions"] = request.dimensions
    body.update(request.extras.get(OWN, {}))
    dropped = (*(("user",) if request.user is not None else ()), *foreign_extras(request, OWN))
    return HttpRequest("POST", _url(target), _headers(target), msgspec.json.encode(body), dropped)


def forward_request(body: bytes, request: EmbedRequest, target: Target) -> HttpRequest:
    """The caller's own bytes; only `model` is ours to change, where it is mapped."""
    head = RequestHead(request.model, False, False, body)
    return HttpRequest("POST", _url(target), _headers(target), renamed_body(head, target.model))


def _url(target: Target) -> str:
    return base(target) + "/api/embed"


def _headers(target: Target) -> tuple[tuple[str, str], ...]:
    return ("content-type", "application/json"), *target.headers, *key_headers(target)


def read_answer(body: bytes) -> Answer:
    found = read_as(_answer, body)
    vectors = found.embeddings
    if vectors is None and bytes(found.embedding):
        vectors = [found.embedding]
    if vectors is None:
        raise no_embeddings(body)
    prompt = whole(found.prompt_eval_count)
    usage = None if prompt is None else Usage(input=prompt, total=prompt, raw={"prompt_eval_count": prompt})
    return Answer(vectors, found.model if isinstance(found.model, str) else None, usage)


def write_response(found: Embeddings, request: EmbedRequest, *, model: str | None) -> bytes:
    written: dict[str, Any] = {"model": model or found.model or request.model, "embeddings": found.vectors}
    if found.usage is not None and found.usage.input is not None:
        written["prompt_eval_count"] = found.usage.input
    return msgspec.json.encode(written)


def write_older(found: Embeddings) -> bytes:
    """The answer of `/api/embeddings`: one vector."""
    return msgspec.json.encode({"embedding": found.vectors[0] if found.vectors else []})
