"""One HTTP request, as values: what a dialect builds and a transport sends."""

from __future__ import annotations

from msgspec import Struct


class HttpRequest(Struct, frozen=True):
    """`url` is absolute. `headers` are in order, names in lower case; host, length and encoding are the transport's."""

    method: str
    url: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
