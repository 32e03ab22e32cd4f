"""Gemini embeddings (`POST {base}/models/{model}:batchEmbedContents`), towards an upstream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from penstock.canon.wire import HttpRequest
from penstock.dialects.base import endpoint, foreign_extras, key_headers
from penstock.dialects.embedding import Answer, read_as
from penstock.dialects.gemini.path import resource

if TYPE_CHECKING:
    from penstock.canon.embedding import EmbedRequest
    from penstock.canon.target import Target


class _Entry(msgspec.Struct):
    values: msgspec.Raw


class _Answer(msgspec.Struct):
    embeddings: list[_Entry]


_answer = msgspec.json.Decoder(_Answer)


def build_request(request: EmbedRequest, target: Target) -> HttpRequest:
    name = resource(target.model or request.model)
    sized = {} if request.dimensions is None else {"outputDimensionality": request.dimensions}
    asked: list[dict[str, Any]] = [
        {"model": name, "content": {"parts": [{"text": text}]}, **sized} for text in request.inputs
    ]
    headers = (("content-type", "application/json"), *target.headers, *key_headers(target, "x-goog-api-key"))
    dropped = (*(("user",) if request.user is not None else ()), *foreign_extras(request, "gemini"))
    body = msgspec.json.encode({"requests": asked})
    return HttpRequest("POST", endpoint(target, f"/{name}:batchEmbedContents"), headers, body, dropped)


def read_answer(body: bytes) -> Answer:
    """This wire reports no usage and no model."""
    return Answer([each.values for each in read_as(_answer, body).embeddings])
