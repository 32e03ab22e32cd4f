"""OpenAI text completions (`POST {base}/completions`), both directions: a prompt, and the text that follows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.canon.wire import HttpRequest
from penstock.dialects.base import endpoint, key_headers
from penstock.dialects.openai_chat import errors
from penstock.dialects.openai_chat.decode import ChatDecoder
from penstock.dialects.openai_chat.encode import HEARTBEAT, TERMINATOR
from penstock.dialects.openai_chat.profiles import profile_of
from penstock.dialects.openai_chat.request import forwarded_body
from penstock.dialects.openai_completions import encode, request
from penstock.dialects.openai_completions.build import build_body

if TYPE_CHECKING:
    from collections.abc import Mapping

    from penstock.canon.request import ChatRequest
    from penstock.canon.target import Target
    from penstock.dialects.base import RequestHead


class OpenAICompletions:
    name = "openai-completions"
    path = "/completions"
    streams_as = "sse"
    stream_type = "text/event-stream"
    heartbeat = HEARTBEAT
    terminator = TERMINATOR
    model_key = "model"
    mended_profiles: frozenset[str] = frozenset()

    read_head = staticmethod(request.read_head)
    parse_request = staticmethod(request.parse_request)
    decoder = ChatDecoder  # a chunk is a chat chunk with `text` in place of a delta
    encoder = encode.CompletionsEncoder
    write_document = staticmethod(encode.write_document)
    read_error = staticmethod(errors.read_error)
    write_error = staticmethod(errors.write_error)

    def build_request(self, request: ChatRequest, target: Target) -> HttpRequest:
        body, dropped = build_body(request, target)
        return HttpRequest("POST", endpoint(target, self.path), _headers(target, request.stream), body, dropped)

    def forward_request(self, head: RequestHead, target: Target, headers: Mapping[str, str]) -> HttpRequest:
        ask_usage = profile_of(target.profile).stream_options
        body = forwarded_body(head, target.model, ask_usage=ask_usage)
        return HttpRequest("POST", endpoint(target, self.path), _headers(target, head.stream), body)


def _headers(target: Target, stream: bool) -> tuple[tuple[str, str], ...]:
    accept = "text/event-stream" if stream else "application/json"
    return ("content-type", "application/json"), ("accept", accept), *target.headers, *key_headers(target)


DIALECT = OpenAICompletions()
