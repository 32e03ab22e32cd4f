"""Anthropic Messages (`POST {base}/messages`), both directions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.canon.wire import HttpRequest
from penstock.dialects.anthropic_messages import encode, errors, request
from penstock.dialects.anthropic_messages.build import build_body
from penstock.dialects.anthropic_messages.decode import decoder
from penstock.dialects.base import endpoint, key_headers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from penstock.canon.request import ChatRequest
    from penstock.canon.target import Target
    from penstock.dialects.base import RequestHead
from penstock.dialects.mapping import renamed_body

#: The version that knows sampling parameters, asked for unless the client or the target's headers name another.
VERSION = "2023-06-01"
#: … and the one that refuses them.
NEWER_VERSION = "2026-10-21"


class AnthropicMessages:
    name = "anthropic-messages"
    path = "/messages"
    streams_as = "sse"
    stream_type = "text/event-stream"
    heartbeat = encode.HEARTBEAT
    terminator = encode.TERMINATOR
    model_key = "model"
    #: llama.cpp's own stream opens a tool call without its `input`, which clients fill
    mended_profiles = frozenset({"llamacpp"})

    read_head = staticmethod(request.read_head)
    parse_request = staticmethod(request.parse_request)
    decoder = staticmethod(decoder)
    encoder = encode.MessagesEncoder
    write_document = staticmethod(encode.write_document)
    read_error = staticmethod(errors.read_error)
    write_error = staticmethod(errors.write_error)

    def build_request(self, request: ChatRequest, target: Target) -> HttpRequest:
        headers = self._headers(target, request.stream, {})
        body, dropped = build_body(request, target, samples=dict(headers)["anthropic-version"] != NEWER_VERSION)
        return HttpRequest("POST", endpoint(target, self.path), headers, body, dropped)

    def forward_request(self, head: RequestHead, target: Target, headers: Mapping[str, str]) -> HttpRequest:
        body = renamed_body(head, target.model)
        return HttpRequest("POST", endpoint(target, self.path), self._headers(target, head.stream, headers), body)

    @staticmethod
    def _headers(target: Target, stream: bool, client: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
        """A header that the target's configuration names is as configured."""
        headers = {
            "content-type": "application/json",
            "accept": "text/event-stream" if stream else "application/json",
            "anthropic-version": client.get("anthropic-version", VERSION),
        }
        if "anthropic-beta" in client:
            headers["anthropic-beta"] = client["anthropic-beta"]
        headers.update(key_headers(target, "x-api-key"))
        return tuple((headers | {name.lower(): value for name, value in target.headers}).items())


class _Of2026(AnthropicMessages):
    """For clients of the version of 2026-10-21, which differs in what a request may hold and in nothing else."""

    parse_request = staticmethod(request.parse_2026_10_21)


DIALECT = AnthropicMessages()
DIALECT_2026_10_21 = _Of2026()
