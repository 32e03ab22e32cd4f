"""Ollama (`POST {base}/api/chat` and `/api/generate`), both directions. Streams are NDJSON."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from penstock.canon.wire import HttpRequest
from penstock.dialects.base import key_headers
from penstock.dialects.mapping import renamed_body
from penstock.dialects.ollama import encode, errors, request
from penstock.dialects.ollama.build import build_body
from penstock.dialects.ollama.decode import OllamaDecoder
from penstock.dialects.ollama.wire import OWN

if TYPE_CHECKING:
    from collections.abc import Mapping

    from penstock.canon.request import ChatRequest
    from penstock.canon.target import Target
    from penstock.dialects.base import RequestHead


class Ollama:
    """`path` is `/api/chat`, or `/api/generate` for clients that complete a prompt."""

    name = OWN
    streams_as = "ndjson"
    stream_type = "application/x-ndjson"
    heartbeat = b""  # this wire has nothing that says nothing
    terminator = b""  # its last line says `done`
    model_key = "model"
    mended_profiles: frozenset[str] = frozenset()

    read_head = staticmethod(request.read_head)
    decoder = OllamaDecoder
    read_error = staticmethod(errors.read_error)
    write_error = staticmethod(errors.write_error)

    def __init__(self, path: str) -> None:
        self.path = path
        generate = path == "/api/generate"
        self.parse_request = partial(request.parse_request, generate=generate)
        self.encoder = partial(encode.OllamaEncoder, generate=generate)
        self.write_document = partial(encode.write_document, generate=generate)

    def build_request(self, request: ChatRequest, target: Target) -> HttpRequest:
        body, dropped = build_body(request, target)
        return HttpRequest("POST", base(target) + "/api/chat", _headers(target), body, dropped)

    def forward_request(self, head: RequestHead, target: Target, headers: Mapping[str, str]) -> HttpRequest:
        body = renamed_body(head, target.model)
        return HttpRequest("POST", base(target) + self.path, _headers(target), body)


def base(target: Target) -> str:
    """The server itself: a URL that ends in one of its mounts is taken as meant."""
    return target.url.rstrip("/").removesuffix("/v1").removesuffix("/api")


def _headers(target: Target) -> tuple[tuple[str, str], ...]:
    return ("content-type", "application/json"), *target.headers, *key_headers(target)


DIALECT = Ollama("/api/chat")
GENERATE = Ollama("/api/generate")
