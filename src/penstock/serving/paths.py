"""The paths at which models are asked, and the dialect of each: of wires with several forms, and of errors too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol
from urllib.parse import parse_qs

from penstock.dialects import anthropic_messages, client_dialect, gemini, ollama

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


class _Chat(Protocol):
    def __call__(self, dialect: str | Dialect, /) -> Route: ...


class _Embed(Protocol):
    def __call__(self, name: str, /, *, older: bool = False) -> Route: ...


def model_routes(chat: _Chat, embed: _Embed, completions: Route, counting: Route) -> dict[tuple[str, str], Route]:
    """Every path at which a model is asked for something: a server's routes by method and path."""
    generate_content = by_alt(chat(gemini.DIALECT), chat(gemini.ARRAY))
    older, newer = chat("anthropic-messages"), chat(anthropic_messages.DIALECT_2026_10_21)
    return {
        ("POST", "/v1/chat/completions"): chat("openai-chat"),
        ("POST", "/v1/completions"): completions,
        ("POST", "/v1/responses"): chat("openai-responses"),
        ("POST", "/v1/messages"): by_version(older, newer, b"2026-10-21"),
        ("POST", "/v1/messages/count_tokens"): counting,
        ("POST", "/v1beta/models/"): generate_content,
        ("POST", "/v1/models/"): generate_content,
        ("POST", "/api/chat"): chat(ollama.DIALECT),
        ("POST", "/api/generate"): chat(ollama.GENERATE),
        ("POST", "/v1/embeddings"): embed("openai-chat"),
        ("POST", "/api/embed"): embed("ollama"),
        ("POST", "/api/embeddings"): embed("ollama", older=True),
    }
