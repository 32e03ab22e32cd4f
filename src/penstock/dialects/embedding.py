"""Embeddings in the dialects that have them: one module each, with the same functions.

Towards an upstream: `build_request`, `read_response`. Towards a client: `parse_request`, `write_response`, and
`forward_request` for an upstream that speaks the client's own dialect. Pure.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, cast

import msgspec

from penstock.canon.errors import InvalidRequest, ProtocolError, Unsupported
from penstock.dialects.base import load_json

if TYPE_CHECKING:
    from penstock.canon.embedding import Embeddings, EmbedRequest
    from penstock.canon.target import Target
    from penstock.canon.wire import HttpRequest

#: dialect → module
EMBEDDINGS = {
    "cohere": "penstock.dialects.cohere.embed",
    "gemini": "penstock.dialects.gemini.embed",
    "ollama": "penstock.dialects.ollama.embed",
    "openai-chat": "penstock.dialects.openai_chat.embed",
    "openai-completions": "penstock.dialects.openai_chat.embed",
    "openai-responses": "penstock.dialects.openai_chat.embed",
}


class UpstreamEmbedding(Protocol):
    def build_request(self, request: EmbedRequest, target: Target) -> HttpRequest: ...

    def read_response(self, body: bytes) -> Embeddings:
        """Raises `ProtocolError` for what is none."""
        ...


class ClientEmbedding(UpstreamEmbedding, Protocol):
    def parse_request(self, body: bytes) -> EmbedRequest: ...

    def forward_request(self, body: bytes, request: EmbedRequest, target: Target) -> HttpRequest: ...

    def write_response(self, found: Embeddings, request: EmbedRequest, *, model: str | None) -> bytes: ...


@cache
def _module(name: str) -> Any:
    return import_module(EMBEDDINGS[name])


def embedding(name: str) -> UpstreamEmbedding:
    """The embeddings of that dialect. Raises `Unsupported` for one that has none."""
    if name not in EMBEDDINGS:
        raise Unsupported(
            f"This model's dialect ({name}) has no embeddings.", param="model", fix="Ask a model that makes embeddings."
        )
    return cast("UpstreamEmbedding", _module(name))


def client_embedding(name: str) -> ClientEmbedding:
    """For the dialects whose clients ask for embeddings here: `openai-chat` and `ollama`."""
    return cast("ClientEmbedding", _module(name))


def texts(given: Any, field: str) -> tuple[str, ...]:
    """One text, or several. Token numbers are another model's own."""
    listed = [given] if isinstance(given, str) else given
    if not isinstance(listed, list) or not listed:
        raise InvalidRequest(f"`{field}` is empty.", param=field, fix="Send a text, or a list of texts.")
    if not all(isinstance(text, str) for text in listed):
        raise InvalidRequest(f"`{field}` must be text.", param=field, fix="Send texts; tokens are a model's own.")
    return tuple(listed)


def reply_of(body: bytes) -> dict[str, Any]:
    found = load_json(body)
    if not isinstance(found, dict):
        raise ProtocolError("The upstream's reply is not a JSON object.")
    return found


def vectors(listed: Any) -> tuple[tuple[float, ...], ...]:
    """Lists of numbers, checked."""
    try:
        return msgspec.convert(listed, tuple[tuple[float, ...], ...], strict=False)
    except msgspec.ValidationError as error:
        raise ProtocolError(f"The upstream's reply holds no embeddings: {error}.") from None
