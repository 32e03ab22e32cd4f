"""Ollama embeddings (`POST {base}/api/embed`), both directions; clients of `/api/embeddings` ask for one text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from penstock.canon.embedding import Embeddings, EmbedRequest
from penstock.canon.usage import Usage, whole
from penstock.canon.wire import HttpRequest
from penstock.dialects.base import decode_body, key_headers
from penstock.dialects.embedding import reply_of, texts, vectors
from penstock.dialects.ollama.wire import OWN

if TYPE_CHECKING:
    from penstock.canon.target import Target


class _Request(msgspec.Struct):
    model: str
    input: Any = None
    prompt: Any = None
    dimensions: int | None = None
    truncate: bool | None = None
    keep_alive: Any = None
    options: dict[str, Any] | None = None


_request = msgspec.json.Decoder(_Request)
_OWN_FIELDS = ("truncate", "keep_alive", "options")


def parse_request(body: bytes) -> EmbedRequest:
    given = decode_body(_request, body)
    field = "prompt" if given.input is None and given.prompt is not None else "input"
    own = {name: getattr(given, name) for name in _OWN_FIELDS if getattr(given, name) is not None}
    return EmbedRequest(
        given.model, texts(getattr(given, field), field), given.dimensions, extras={OWN: own} if own else {}
    )


def build_request(request: EmbedRequest, target: Target) -> HttpRequest:
    body: dict[str, Any] = {"model": target.model or request.model, "input": list(request.inputs)}
    if request.dimensions is not None:
        body["dimensions"] = request.dimensions
    body.update(request.extras.get(OWN, {}))
    dropped = ("user",) if request.user is not None else ()
    return HttpRequest("POST", _url(target), _headers(target), msgspec.json.encode(body), dropped)


def forward_request(body: bytes, request: EmbedRequest, target: Target) -> HttpRequest:
    """Built anew: clients of the older path must be asked for at this one."""
    return build_request(request, target)


def _url(target: Target) -> str:
    from penstock.dialects.ollama import base

    return base(target) + "/api/embed"


def _headers(target: Target) -> tuple[tuple[str, str], ...]:
    return ("content-type", "application/json"), *target.headers, *key_headers(target)


def read_response(body: bytes) -> Embeddings:
    found = reply_of(body)
    prompt, model = whole(found.get("prompt_eval_count")), found.get("model")
    listed = found.get("embeddings")
    if listed is None and "embedding" in found:  # the older path's
        listed = [found["embedding"]]
    usage = None if prompt is None else Usage(input=prompt, total=prompt, raw={"prompt_eval_count": prompt})
    return Embeddings(vectors(listed), model if isinstance(model, str) else None, usage)


def write_response(found: Embeddings, request: EmbedRequest, *, model: str | None) -> bytes:
    written: dict[str, Any] = {"model": model or found.model or request.model, "embeddings": found.vectors}
    if found.usage is not None and found.usage.input is not None:
        written["prompt_eval_count"] = found.usage.input
    return msgspec.json.encode(written)


def write_older(found: Embeddings) -> bytes:
    """The answer of `/api/embeddings`: one vector."""
    return msgspec.json.encode({"embedding": found.vectors[0] if found.vectors else []})
