"""Gemini embeddings (`POST {base}/models/{model}:batchEmbedContents`), towards an upstream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from penstock.canon.embedding import Embeddings, EmbedRequest
from penstock.canon.errors import ProtocolError
from penstock.canon.wire import HttpRequest
from penstock.dialects.base import endpoint, key_headers
from penstock.dialects.embedding import reply_of, vectors
from penstock.dialects.gemini.path import resource

if TYPE_CHECKING:
    from penstock.canon.target import Target


def build_request(request: EmbedRequest, target: Target) -> HttpRequest:
    name = resource(target.model or request.model)
    sized = {} if request.dimensions is None else {"outputDimensionality": request.dimensions}
    asked: list[dict[str, Any]] = [
        {"model": name, "content": {"parts": [{"text": text}]}, **sized} for text in request.inputs
    ]
    headers = (("content-type", "application/json"), *target.headers, *key_headers(target, "x-goog-api-key"))
    dropped = ("user",) if request.user is not None else ()
    body = msgspec.json.encode({"requests": asked})
    return HttpRequest("POST", endpoint(target, f"/{name}:batchEmbedContents"), headers, body, dropped)


def read_response(body: bytes) -> Embeddings:
    """This wire reports no usage and no model."""
    listed = reply_of(body).get("embeddings")
    if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
        raise ProtocolError("The upstream's reply holds no embeddings.")
    return Embeddings(vectors([each.get("values") for each in listed]))
