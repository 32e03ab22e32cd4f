"""Straico (`POST {base}/chat/completions`), towards an upstream. It cannot stream: every reply is one document."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.canon.wire import HttpRequest
from penstock.dialects.base import endpoint, key_headers
from penstock.dialects.openai_chat import errors
from penstock.dialects.straico.build import build_body
from penstock.dialects.straico.decode import decoder

if TYPE_CHECKING:
    from penstock.canon.request import ChatRequest
    from penstock.canon.target import Target


class Straico:
    name = "straico"
    streams_as = "sse"  # should it learn to stream, it will be in OpenAI's way

    decoder = staticmethod(decoder)
    read_error = staticmethod(errors.read_error)

    def build_request(self, request: ChatRequest, target: Target) -> HttpRequest:
        body, dropped = build_body(request, target)
        headers = (("content-type", "application/json"), ("accept", "application/json"), *target.headers)
        url = endpoint(target, "/chat/completions")
        return HttpRequest("POST", url, headers + key_headers(target), body, dropped)


DIALECT = Straico()
