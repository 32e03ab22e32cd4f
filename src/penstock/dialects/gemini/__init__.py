"""Google Gemini (`POST {base}/models/{model}:generateContent` and `:streamGenerateContent`), both directions.

Its streams have two forms, and so it is two objects of one name: `DIALECT` writes SSE, for a client that asks with
`alt=sse`, and `ARRAY` the elements of one JSON array, for one that does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.canon.wire import HttpRequest
from penstock.dialects.base import endpoint, key_headers
from penstock.dialects.gemini import build, encode, errors, request
from penstock.dialects.gemini.decode import decoder
from penstock.dialects.gemini.path import GENERATE, STREAM, action_of, is_sse, resource

if TYPE_CHECKING:
    from collections.abc import Mapping

    from penstock.canon.request import ChatRequest
    from penstock.canon.target import Target
    from penstock.dialects.base import RequestHead


class Gemini:
    """The form of SSE."""

    name = "gemini"
    streams_as = "sse"
    stream_type = "text/event-stream"
    heartbeat = encode.HEARTBEAT
    terminator = encode.TERMINATOR
    model_key = "modelVersion"
    mended_profiles: frozenset[str] = frozenset()

    read_head = staticmethod(request.read_head)
    parse_request = staticmethod(request.parse_request)
    decoder = staticmethod(decoder)
    encoder: type[encode.StreamEncoder] = encode.StreamEncoder
    write_document = staticmethod(encode.write_document)
    read_error = staticmethod(errors.read_error)
    write_error = staticmethod(errors.write_error)

    def build_request(self, request: ChatRequest, target: Target) -> HttpRequest:
        body, dropped = build.build_body(request, target)
        action = f"{STREAM}?alt=sse" if request.stream else GENERATE
        url = endpoint(target, f"/{resource(target.model or request.model)}:{action}")
        return HttpRequest("POST", url, self._headers(target, request.stream), body, dropped)

    def forward_request(self, head: RequestHead, target: Target, headers: Mapping[str, str]) -> HttpRequest:
        """The caller's own bytes, its verb and `alt` with them; the model is in the path."""
        url = endpoint(target, f"/{resource(target.model or head.model)}:{action_of(head.path)}")
        return HttpRequest("POST", url, self._headers(target, head.stream and is_sse(head.path)), head.body)

    @staticmethod
    def _headers(target: Target, sse: bool) -> tuple[tuple[str, str], ...]:
        """A header that the target's configuration names is as configured."""
        headers = {
            "content-type": "application/json",
            "accept": "text/event-stream" if sse else "application/json",
            **dict(key_headers(target, "x-goog-api-key")),
        }
        return tuple((headers | {name.lower(): value for name, value in target.headers}).items())


class GeminiArray(Gemini):
    """The form of one JSON array."""

    streams_as = "json-array"
    stream_type = "application/json"
    terminator = encode.ARRAY_TERMINATOR
    encoder = encode.ArrayEncoder


DIALECT = Gemini()
ARRAY = GeminiArray()
