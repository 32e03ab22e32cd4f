"""Which dialect a path belongs to: for errors of requests that no route took, and for wires with several forms."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from penstock.dialects import client_dialect

if TYPE_CHECKING:
    from penstock.dialects.base import Dialect
    from penstock.serving.asgi import Receive, Route, Scope, Send

#: the first that fits
_BEGINNINGS = (
    ("/v1/messages", "anthropic-messages"),
    ("/v1/completions", "openai-completions"),
    ("/v1/responses", "openai-responses"),
    ("/v1beta/", "gemini"),
    ("/v1/models/", "gemini"),
    ("/api/", "ollama"),
)


def dialect_of_path(path: str) -> Dialect:
    """The dialect that a client of this path speaks, as far as the path tells."""
    return client_dialect(next((name for start, name in _BEGINNINGS if path.startswith(start)), "openai-chat"))


def by_alt(sse: Route, array: Route) -> Route:
    """Gemini's clients ask for an event stream by `alt=sse`, and get a JSON array otherwise."""

    async def route(scope: Scope, receive: Receive, send: Send) -> None:
        wants_sse = parse_qs(scope["query_string"].decode("latin-1")).get("alt") == ["sse"]
        await (sse if wants_sse else array)(scope, receive, send)

    return route


def by_version(older: Route, newer: Route, newest: bytes) -> Route:
    """Anthropic's clients name the version of the wire that they mean; `newest` is the one that `newer` is for."""

    async def route(scope: Scope, receive: Receive, send: Send) -> None:
        is_newer = (b"anthropic-version", newest) in scope["headers"]
        await (newer if is_newer else older)(scope, receive, send)

    return route
