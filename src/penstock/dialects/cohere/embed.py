"""Cohere v2 embeddings (`POST {base}/embed`), towards an upstream. What the texts are for must be said: documents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from penstock.canon.usage import Usage, whole
from penstock.canon.wire import HttpRequest
from penstock.dialects.base import endpoint, foreign_extras, key_headers
from penstock.dialects.cohere.wire import OWN
from penstock.dialects.embedding import Answer, read_as

if TYPE_CHECKING:
    from penstock.canon.embedding import EmbedRequest
    from penstock.canon.target import Target


class _Vectors(msgspec.Struct, rename={"floats": "float"}):
    floats: list[msgspec.Raw]


class _Answer(msgspec.Struct):
    embeddings: _Vectors
    meta: Any = None


_answer = msgspec.json.Decoder(_Answer)


def build_request(request: EmbedRequest, target: Target) -> HttpRequest:
    body: dict[str, Any] = {
        "model": target.model or request.model,
        "texts": list(request.inputs),
        "input_type": "search_document",
        "embedding_types": ["float"],
        **request.extras.get(OWN, {}),
    }
    if request.dimensions is not None:
        body["output_dimension"] = request.dimensions
    headers = (("content-type", "application/json"), *target.headers, *key_headers(target))
    dropped = (*(("user",) if request.user is not None else ()), *foreign_extras(request, OWN))
    return HttpRequest("POST", endpoint(target, "/embed"), headers, msgspec.json.encode(body), dropped)


def read_answer(body: bytes) -> Answer:
    found = read_as(_answer, body)
    billed = found.meta.get("billed_units") if isinstance(found.meta, dict) else None
    prompt = whole(billed.get("input_tokens")) if isinstance(billed, dict) else None
    return Answer(
        found.embeddings.floats, usage=None if prompt is None else Usage(input=prompt, total=prompt, raw=billed)
    )
