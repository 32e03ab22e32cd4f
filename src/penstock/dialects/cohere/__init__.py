"""Cohere v2 chat (`POST {base}/chat`), towards an upstream."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.canon.wire import HttpRequest
from penstock.dialects.base import endpoint, key_headers
from penstock.dialects.cohere import errors
from penstock.dialects.cohere.build import build_body
from penstock.dialects.cohere.decode import decoder
from penstock.dialects.cohere.wire import OWN

if TYPE_CHECKING:
    from penstock.canon.request import ChatRequest
    from penstock.canon.target import Target


class Cohere:
    name = OWN
    streams_as = "sse"

    decoder = staticmethod(decoder)
    read_error = staticmethod(errors.read_error)

    def build_request(self, request: ChatRequest, target: Target) -> HttpRequest:
        body, dropped = build_body(request, target)
        accept = "text/event-stream" if request.stream else "application/json"
        headers = (("content-type", "application/json"), ("accept", accept), *target.headers, *key_headers(target))
        return HttpRequest("POST", endpoint(target, "/chat"), headers, body, dropped)


DIALECT = Cohere()
