"""Cohere v2 embeddings (`POST {base}/embed`), towards an upstream. What the texts are for must be said: documents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from penstock.canon.embedding import Embeddings, EmbedRequest
from penstock.canon.errors import ProtocolError
from penstock.canon.usage import Usage, whole
from penstock.canon.wire import HttpRequest
from penstock.dialects.base import endpoint, key_headers
from penstock.dialects.cohere.wire import OWN
from penstock.dialects.embedding import reply_of, vectors

if TYPE_CHECKING:
    from penstock.canon.target import Target


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
    dropped = ("user",) if request.user is not None else ()
    return HttpRequest("POST", endpoint(target, "/embed"), headers, msgspec.json.encode(body), dropped)


def read_response(body: bytes) -> Embeddings:
    found = reply_of(body)
    embeddings = found.get("embeddings")
    if not isinstance(embeddings, dict):
        raise ProtocolError("The upstream's reply holds no embeddings.")
    meta = found.get("meta")
    billed = meta.get("billed_units") if isinstance(meta, dict) else None
    prompt = whole(billed.get("input_tokens")) if isinstance(billed, dict) else None
    usage = None if prompt is None else Usage(input=prompt, total=prompt, raw=billed)
    return Embeddings(vectors(embeddings.get("float")), None, usage)
