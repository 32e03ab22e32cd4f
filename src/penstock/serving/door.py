"""Who may come in, decided from a request's head alone, before its body is read.

With keys: who gives one that is known, at any name of this machine. Without keys: this machine's programs. A browser's
page reaches this machine as well, so a `Host` that is no name of it (DNS rebinding), and an `Origin` that is another's,
are kept out (docs/decisions/0016). CORS is what lets a page in, and is off by default.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Protocol
from urllib.parse import parse_qs

from penstock.canon.errors import Forbidden, Unauthenticated
from penstock.dialects import client_dialect
from penstock.serving.asgi import KEY, pass_over, turn_away
from penstock.serving.paths import dialect_of_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from penstock.canon.errors import RequestError
    from penstock.canon.key import Key
    from penstock.serving.asgi import Header, Message, Receive, Route, Scope, Send

#: They say nothing but that the process answers, and whoever watches over it has no key.
OPEN = frozenset({"/", "/health", "/ready", "/api/version"})

#: what a page may read of an answer
_EXPOSED = (
    b"x-request-id, retry-after, x-penstock-target, x-penstock-attempts, x-penstock-synthetic, x-penstock-dropped,"
    b" x-penstock-queued-ms"
)

#: Chrome asks so for a page of the internet that wants this machine
_PRIVATE = b"access-control-request-private-network"

#: seconds for which a browser need not ask again
_PREFLIGHT_AGE = b"600"


class Keys(Protocol):
    def find(self, given: Sequence[str]) -> Key:
        """The key that one of these is. Raises `Unauthenticated` where none is."""
        ...


class Door:
    """`keyring` None: no keys. `hosts`: further names of this machine. `origins`: pages that may ask; `*` is all.

    `is_configured` False: nobody can say more of them, and nobody is told that he could.
    """

    def __init__(
        self,
        keyring: Keys | None,
        *,
        origins: Iterable[str] = (),
        hosts: Iterable[str] = (),
        is_configured: bool = True,
    ) -> None:
        self._is_configured = is_configured
        self._keyring = keyring
        self._origins = frozenset(origin.lower().encode() for origin in origins)
        self._any_origin = b"*" in self._origins
        self._hosts = frozenset(host.lower() for host in hosts)

    def __call__(self, scope: Scope, route: Route) -> Route:
        """The route to take: the one that was found, or one that refuses."""
        if b"key=" in scope["query_string"]:
            _key_out_of_the_query(scope)
        headers: dict[bytes, bytes] = dict(scope["headers"])
        origin = headers.get(b"origin")
        if origin is None:
            return self._checked(scope, headers, route)
        if not self._any_origin and origin.lower() not in self._origins:
            return self._checked(scope, headers, route, origin)
        said = self._allowing(origin)
        if scope["method"] == "OPTIONS" and b"access-control-request-method" in headers:
            return _preflight([*said, *_permissions(headers)])
        return _saying(said, self._checked(scope, headers, route))

    def _checked(
        self, scope: Scope, headers: dict[bytes, bytes], route: Route, foreign_origin: bytes | None = None
    ) -> Route:
        try:
            if scope["path"] in OPEN:
                return route
            if self._keyring is None:
                self._check_place(headers, foreign_origin)
            else:
                scope[KEY] = self._keyring.find(credentials(headers))
        except (Unauthenticated, Forbidden) as error:
            return _refusing(error, headers)
        return route

    def _check_place(self, headers: dict[bytes, bytes], foreign_origin: bytes | None) -> None:
        """A browser's page from elsewhere can reach this machine, but not choose what the browser says of it."""
        host = headers.get(b"host", b"")
        if host and not self._is_own(host.decode("latin-1").lower()):
            elsewhere = ", or put the name into server.hosts" if self._is_configured else ""
            raise Forbidden(
                f"There are no keys here, so this answers by names of this machine alone; `{_shown(host)}` is none.",
                fix=f"Ask 127.0.0.1 or localhost{elsewhere}.",
            )
        if foreign_origin is not None and foreign_origin.partition(b"://")[2].lower() != host.lower():
            where = "server.cors_origins" if self._is_configured else "server.cors_origins of a gateway before this"
            raise Forbidden(
                f"Pages of {_shown(foreign_origin)} may not ask here.", fix=f"Put their origin into {where}."
            )

    def _is_own(self, host: str) -> bool:
        name = host.rpartition("]")[0].removeprefix("[") if host.startswith("[") else host.partition(":")[0]
        if name in ("127.0.0.1", "localhost") or name in self._hosts or name.endswith(".localhost"):
            return True
        try:
            return ipaddress.ip_address(name).is_loopback
        except ValueError:
            return False

    def _allowing(self, origin: bytes) -> list[Header]:
        if self._any_origin:
            return [(b"access-control-allow-origin", b"*"), (b"access-control-expose-headers", _EXPOSED)]
        return [
            (b"access-control-allow-origin", origin),
            (b"access-control-expose-headers", _EXPOSED),
            (b"vary", b"Origin"),
        ]


def _key_out_of_the_query(scope: Scope) -> None:
    """Clients of Gemini may give their key as `?key=`: from here on it is in the header that has it otherwise."""
    given = parse_qs(scope["query_string"].decode("latin-1")).get("key", ())
    if given and all(name != b"x-goog-api-key" for name, _ in scope["headers"]):
        scope["headers"] = [*scope["headers"], (b"x-goog-api-key", given[0].encode("latin-1", "replace"))]


def credentials(headers: dict[bytes, bytes]) -> list[str]:
    """Whatever the client gives for a key, in the places where clients of any dialect put theirs."""
    found = []
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() == b"bearer" and token:
        found.append(token.strip().decode("latin-1"))
    return found + [headers[name].decode("latin-1") for name in (b"x-api-key", b"x-goog-api-key") if name in headers]


def _refusing(error: RequestError, headers: dict[bytes, bytes]) -> Route:
    more: list[Header] = [(b"connection", b"close")]
    if isinstance(error, Unauthenticated):
        more.append((b"www-authenticate", b"Bearer"))

    async def route(scope: Scope, receive: Receive, send: Send) -> None:
        if b"content-length" in headers or b"transfer-encoding" in headers:
            await pass_over(receive)
        is_anthropic = b"anthropic-version" in headers
        dialect = client_dialect("anthropic-messages") if is_anthropic else dialect_of_path(scope["path"])
        await turn_away(scope, send, error, dialect, more=more)

    return route


def _permissions(headers: dict[bytes, bytes]) -> list[Header]:
    asked = headers.get(b"access-control-request-headers")
    return [
        (b"access-control-allow-methods", b"GET, HEAD, POST"),
        *([(b"access-control-allow-headers", asked)] if asked else []),
        *([(b"access-control-allow-private-network", b"true")] if _PRIVATE in headers else []),
        (b"access-control-max-age", _PREFLIGHT_AGE),
    ]


def _preflight(said: list[Header]) -> Route:
    async def route(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": said})
        await send({"type": "http.response.body", "body": b""})

    return route


def _saying(said: list[Header], route: Route) -> Route:
    """The same route, its answer's head with these headers as well."""

    async def also(scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *said]
            await send(message)

        await route(scope, receive, sending)

    return also


def _shown(raw: bytes) -> str:
    return raw[:100].decode("ascii", "replace")
