"""OpenAI embeddings (`POST {base}/embeddings`), both directions. Vectors are numbers, or base64 of 32-bit floats."""

from __future__ import annotations

import base64
import binascii
import sys
from array import array
from typing import TYPE_CHECKING, Any

import msgspec

from penstock.canon.embedding import Embeddings, EmbedRequest
from penstock.canon.errors import ProtocolError
from penstock.canon.wire import HttpRequest
from penstock.dialects.base import decode_body, endpoint, key_headers
from penstock.dialects.embedding import reply_of, texts, vectors
from penstock.dialects.openai_chat.wire import read_usage

if TYPE_CHECKING:
    from penstock.canon.target import Target

PATH = "/embeddings"


class _Request(msgspec.Struct):
    model: str
    input: Any = None
    dimensions: int | None = None
    encoding_format: str | None = None
    user: str | None = None


_request = msgspec.json.Decoder(_Request)


def parse_request(body: bytes) -> EmbedRequest:
    given = decode_body(_request, body)
    return EmbedRequest(
        given.model, texts(given.input, "input"), given.dimensions, given.user, given.encoding_format == "base64"
    )


def build_request(request: EmbedRequest, target: Target) -> HttpRequest:
    body: dict[str, Any] = {"model": target.model or request.model, "input": list(request.inputs)}
    given = {"dimensions": request.dimensions, "user": request.user}
    body.update({name: value for name, value in given.items() if value is not None})
    return HttpRequest("POST", endpoint(target, PATH), _headers(target), msgspec.json.encode(body))


def forward_request(body: bytes, request: EmbedRequest, target: Target) -> HttpRequest:
    """The caller's own bytes; only `model` is ours to change, where it is mapped."""
    if target.model not in (None, request.model):
        body = msgspec.json.encode({**msgspec.json.decode(body), "model": target.model})
    return HttpRequest("POST", endpoint(target, PATH), _headers(target), body)


def _headers(target: Target) -> tuple[tuple[str, str], ...]:
    accept = ("accept", "application/json")
    return ("content-type", "application/json"), accept, *target.headers, *key_headers(target)


def read_response(body: bytes) -> Embeddings:
    """`data` may come in any order: `index` says which input each is of."""
    found = reply_of(body)
    data = found.get("data")
    if not isinstance(data, list) or not all(isinstance(each, dict) for each in data):
        raise ProtocolError("The upstream's reply holds no embeddings.")
    ordered = sorted(enumerate(data), key=lambda pair: _index(pair[1], pair[0]))
    usage, model = found.get("usage"), found.get("model")
    return Embeddings(
        vectors([_vector(each.get("embedding")) for _, each in ordered]),
        model if isinstance(model, str) else None,
        read_usage(usage) if isinstance(usage, dict) else None,
    )


def _index(each: dict[str, Any], position: int) -> int:
    index = each.get("index")
    return index if type(index) is int else position


def _vector(given: Any) -> Any:
    if not isinstance(given, str):
        return given
    try:
        numbers = array("f", base64.b64decode(given, validate=True))
    except (binascii.Error, ValueError):
        raise ProtocolError("The upstream's reply holds an embedding that is no base64 of floats.") from None
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tolist()


def write_response(found: Embeddings, request: EmbedRequest, *, model: str | None) -> bytes:
    data = [
        {"object": "embedding", "index": k, "embedding": _packed(vector) if request.base64 else vector}
        for k, vector in enumerate(found.vectors)
    ]
    prompt = (found.usage.input if found.usage else None) or 0
    usage = {"prompt_tokens": prompt, "total_tokens": prompt}
    return msgspec.json.encode(
        {"object": "list", "data": data, "model": model or found.model or request.model, "usage": usage}
    )


def _packed(vector: tuple[float, ...]) -> str:
    numbers = array("f", vector)
    if sys.byteorder == "big":
        numbers.byteswap()
    return base64.b64encode(numbers.tobytes()).decode()
