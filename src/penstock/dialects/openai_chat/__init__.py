"""OpenAI Chat Completions (`POST {base}/chat/completions`), both directions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.canon.wire import HttpRequest
from penstock.dialects.base import endpoint, key_headers
from penstock.dialects.openai_chat import encode, errors, request
from penstock.dialects.openai_chat.build import build_body
from penstock.dialects.openai_chat.decode import ChatDecoder
from penstock.dialects.openai_chat.profiles import profile_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from penstock.canon.request import ChatRequest
    from penstock.canon.target import Target
    from penstock.dialects.base import RequestHead


class OpenAIChat:
    name = "openai-chat"
    path = "/chat/completions"
    streams_as = "sse"
    stream_type = "text/event-stream"
    heartbeat = encode.HEARTBEAT
    terminator = encode.TERMINATOR
    model_key = "model"
    mended_profiles: frozenset[str] = frozenset()
    # opencode's session headers keep a conversation on one server of a router behind us
    forwarded_headers = frozenset({"openai-beta", "x-session-id", "x-session-affinity"})

    read_head = staticmethod(request.read_head)
    parse_request = staticmethod(request.parse_request)
    decoder = ChatDecoder
    encoder = encode.ChatEncoder
    write_document = staticmethod(encode.write_document)
    read_error = staticmethod(errors.read_error)
    write_error = staticmethod(errors.write_error)

    def build_request(self, request: ChatRequest, target: Target) -> HttpRequest:
        body, dropped = build_body(request, target)
        return HttpRequest("POST", endpoint(target, self.path), self._headers(target, request.stream), body, dropped)

    def forward_request(self, head: RequestHead, target: Target, headers: Mapping[str, str]) -> HttpRequest:
        passed = tuple((name, headers[name]) for name in self.forwarded_headers if name in headers)
        ask_usage = profile_of(target.profile).stream_options
        body = request.forwarded_body(head, target.model, ask_usage=ask_usage)
        return HttpRequest("POST", endpoint(target, self.path), self._headers(target, head.stream) + passed, body)

    @staticmethod
    def _headers(target: Target, stream: bool) -> tuple[tuple[str, str], ...]:
        accept = "text/event-stream" if stream else "application/json"
        return ("content-type", "application/json"), ("accept", accept), *target.headers, *key_headers(target)


DIALECT = OpenAIChat()
