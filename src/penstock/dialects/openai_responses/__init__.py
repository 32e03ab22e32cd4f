"""OpenAI Responses (`POST {base}/responses`), both directions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.canon.wire import HttpRequest
from penstock.dialects.base import endpoint, key_headers
from penstock.dialects.openai_responses import encode, errors, request
from penstock.dialects.openai_responses.build import build_body
from penstock.dialects.openai_responses.decode import ResponsesDecoder
from penstock.dialects.openai_responses.wire import OWN

if TYPE_CHECKING:
    from collections.abc import Mapping

    from penstock.canon.request import ChatRequest
    from penstock.canon.target import Target
    from penstock.dialects.base import RequestHead
from penstock.dialects.mapping import renamed_body


class OpenAIResponses:
    name = OWN
    path = "/responses"
    streams_as = "sse"
    stream_type = "text/event-stream"
    heartbeat = encode.HEARTBEAT
    terminator = b""  # the last event says how it ended
    model_key = "model"
    #: llama.cpp's own stream has no sequence numbers and no output indexes, which strict clients need
    mended_profiles = frozenset({"llamacpp"})

    read_head = staticmethod(request.read_head)
    parse_request = staticmethod(request.parse_request)
    decoder = ResponsesDecoder
    encoder = encode.ResponsesEncoder
    write_document = staticmethod(encode.write_document)
    read_error = staticmethod(errors.read_error)
    write_error = staticmethod(errors.write_error)

    def build_request(self, request: ChatRequest, target: Target) -> HttpRequest:
        body, dropped = build_body(request, target)
        return HttpRequest("POST", endpoint(target, self.path), _headers(target, request.stream), body, dropped)

    def forward_request(self, head: RequestHead, target: Target, headers: Mapping[str, str]) -> HttpRequest:
        body = renamed_body(head, target.model)
        passed = tuple((name, headers[name]) for name in _FORWARDED if name in headers)
        return HttpRequest("POST", endpoint(target, self.path), _headers(target, head.stream) + passed, body)


#: client headers that belong to the dialect and go on to an upstream that speaks it
_FORWARDED = ("openai-beta", "x-session-id", "session_id", "conversation_id")


def _headers(target: Target, stream: bool) -> tuple[tuple[str, str], ...]:
    accept = "text/event-stream" if stream else "application/json"
    return ("content-type", "application/json"), ("accept", accept), *target.headers, *key_headers(target)


DIALECT = OpenAIResponses()
