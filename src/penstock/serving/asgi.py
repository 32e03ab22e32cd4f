"""ASGI in plain callables: a request's body within its bound, an answer in one go, a table of routes.

A table entry is found by method and path in one look-up; what is not in it gets a typed error in the dialect that the
path suggests. No exception of ours reaches the server, and no traceback a client.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import os
import re
import secrets
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

from penstock.canon.errors import PenstockError, ShuttingDown, TooLarge, UnknownRoute
from penstock.serving.connection import WRITE_S, connection_of
from penstock.serving.logs import REQUEST_ID
from penstock.serving.running import Running, running_of

if TYPE_CHECKING:
    from penstock.dialects.base import Dialect
    from penstock.serving.connection import Connection

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Route = Callable[[Scope, Receive, Send], Awaitable[None]]
Header = tuple[bytes, bytes]
#: given a request and the route that was found for it, the route to take
Door = Callable[[Scope, Route], Route]

#: where a scope holds the key (`canon.key.Key`) that its request came with
KEY = "penstock.key"


class ClientHeaders(Mapping[str, str]):
    """A request's headers by lower-case name, decoded when one is asked for, which most never are."""

    __slots__ = ("_raw",)

    def __init__(self, raw: Iterable[Header]) -> None:
        self._raw = dict(raw)

    def __getitem__(self, name: str) -> str:
        return self._raw[name.encode("latin-1")].decode("latin-1")

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.encode("latin-1") in self._raw

    def __iter__(self) -> Iterator[str]:
        return (name.decode("latin-1") for name in self._raw)

    def __len__(self) -> int:
        return len(self._raw)


#: what is read, and for how long, of a body that was refused
_PASSED_OVER_BYTES = 4 * 1024 * 1024
_PASSED_OVER_S = 0.5


class ClientGone(Exception):
    """The client left before its request was whole."""


_random = 0
_numbers = itertools.count()


def _seed() -> None:
    global _random
    _random = secrets.SystemRandom().getrandbits(64)


_seed()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_seed)  # else two workers would give the same ids


def new_request_id() -> str:
    """Unique in this process and, by its random half, among all of them. Says nothing and guards nothing."""
    return f"req_{_random:016x}{next(_numbers):08x}"


_SANE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@+/=-]{0,127}")


def request_id_of(scope: Scope) -> str:
    """What this request is called: as its client says, where that is fit for a log and a header, else a new name."""
    given = header(scope, b"x-request-id")
    found = given if given is not None and _SANE_ID.fullmatch(given) else new_request_id()
    REQUEST_ID.set(found)
    return found


def header(scope: Scope, name: bytes) -> str | None:
    for key, value in scope["headers"]:
        if key == name:
            return str(value.decode("latin-1"))
    return None


async def read_body(scope: Scope, receive: Receive, max_bytes: int) -> bytes:
    """The whole body. Refused before it is read when its declared length is over the bound."""
    declared = header(scope, b"content-length")
    if declared is not None and declared.isdigit() and int(declared) > max_bytes:
        raise _too_large(max_bytes)
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientGone
    body: bytes = message.get("body", b"")
    if not message.get("more_body"):
        if len(body) > max_bytes:
            raise _too_large(max_bytes)
        return body
    pieces, size = [body], len(body)
    while message.get("more_body"):
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        pieces.append(message.get("body", b""))
        size += len(pieces[-1])
        if size > max_bytes:
            await pass_over(receive)
            raise _too_large(max_bytes)
    return b"".join(pieces)


async def pass_over(receive: Receive) -> None:
    """Read on for a little: who is closed upon while writing often never reads why."""
    left = _PASSED_OVER_BYTES
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_PASSED_OVER_S):
            while left > 0 and (message := await receive()).get("more_body"):
                left -= len(message.get("body", b""))


def _too_large(max_bytes: int) -> TooLarge:
    return TooLarge(f"The request's body is larger than {max_bytes} bytes.", fix="Send less, or raise server.max_body.")


async def respond(
    send: Send,
    status: int,
    body: bytes,
    headers: Iterable[Header] = (),
    *,
    content_type: bytes = b"application/json",
    connection: Connection | None = None,
) -> None:
    """An answer in one go."""
    given = [*headers, (b"content-type", content_type), (b"content-length", b"%d" % len(body))]
    if connection is not None and connection.write_whole(send, status, given, body):
        return
    await send({"type": "http.response.start", "status": status, "headers": given})
    await send({"type": "http.response.body", "body": body})


def retry_after(seconds: float) -> Header:
    """Whole seconds, at least one, and no more than clients can count."""
    return b"retry-after", b"%d" % min(max(1, math.ceil(seconds)), 10**9)


async def refuse(
    send: Send, error: PenstockError, dialect: Dialect, request_id: str, more: Iterable[Header] = ()
) -> None:
    """An error as an HTTP status, in the caller's dialect."""
    headers: list[Header] = [(b"x-request-id", request_id.encode()), *more]
    if isinstance(error, UnknownRoute | TooLarge | ShuttingDown):
        # The body was not read: the connection cannot be used again.
        headers.append((b"connection", b"close"))
    retry_after_s = getattr(error, "retry_after_s", None)
    if retry_after_s is not None:
        headers.append(retry_after(retry_after_s))
    await respond(send, error.status, dialect.write_error(error, request_id), headers)


async def turn_away(
    scope: Scope,
    send: Send,
    error: PenstockError,
    dialect: Dialect,
    request_id: str | None = None,
    more: Iterable[Header] = (),
) -> None:
    """Refuse what never became a call: it has no record, and is counted."""
    running = running_of(scope)
    if running is not None:
        running.has_refused(error)
    await refuse(send, error, dialect, request_id or request_id_of(scope), more)


#: paths that say how a server is: answered while it drains, too
ABOUT = frozenset({"/health", "/ready", "/metrics"})


def _fits(known: str, path: str) -> bool:
    return path == known or (len(known) > 1 and known[-1] == "/" and path.startswith(known))


class App:
    """Routes by (method, path); `startup` and `shutdown` run with the server's own.

    A path that ends in `/` stands for all below it, and is looked for when no other fits. `dialect_of` tells in which
    dialect to say that a path is unknown. `door` sees each request before its route does. `write_s`: a client
    that reads nothing of what there is for it for so long is cut off. `other` is the route of paths that are unknown
    and that `takes_other` is true of.
    """

    def __init__(
        self,
        routes: dict[tuple[str, str], Route],
        *,
        dialect_of: Callable[[str], Dialect],
        door: Door | None = None,
        write_s: float | None = WRITE_S,
        startup: Callable[[], Awaitable[None]] | None = None,
        shutdown: Callable[[], Awaitable[None]] | None = None,
        running: Running | None = None,
        other: Route | None = None,
        takes_other: Callable[[str], bool] | None = None,
    ) -> None:
        self._routes = routes
        self._below = [
            (method, path, route) for (method, path), route in routes.items() if len(path) > 1 and path[-1] == "/"
        ]
        self._dialect_of = dialect_of
        self._door = door
        self._write_s = write_s
        self._other = other
        self._takes_other = takes_other
        self._startup = startup
        self._shutdown = shutdown
        #: the calls that are being answered
        self.running = Running() if running is None else running
        self._requests = 0
        self._idle: Callable[[], None] | None = None
        #: what ended the application from within; the server stops and its caller raises it
        self.failure: PenstockError | None = None
        self.on_failure: Callable[[], None] | None = None

    def fail(self, error: PenstockError) -> None:
        self.failure = error
        if self.on_failure is not None:
            self.on_failure()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            self.running.put_in(scope)
            connection = connection_of(scope)
            if connection is not None:
                connection.write_s = self._write_s
            if self.running.is_draining and scope["path"] not in ABOUT:
                await turn_away(scope, send, ShuttingDown(), self._dialect_of(scope["path"]))
                return
            route = self._routes.get((scope["method"], scope["path"]))
            if route is None:
                route = self._route_below(scope)
            if route is None:
                route = self._no_route
            if self._door is not None:
                route = self._door(scope, route)
            self._requests += 1
            try:
                await route(scope, receive, send)
            finally:
                self._requests -= 1
                if self._idle is not None and not self._requests:
                    idle, self._idle = self._idle, None
                    idle()
        elif scope["type"] == "lifespan":
            await lifespan(receive, send, self.startup, self.shutdown)
        else:  # a WebSocket: nobody speaks it here
            await send({"type": "websocket.close", "code": 1000})

    def _route_below(self, scope: Scope) -> Route | None:
        method, path = scope["method"], scope["path"]
        return next((route for known, below, route in self._below if known == method and path.startswith(below)), None)

    async def _no_route(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        allowed = sorted({method for method, known in self._routes if _fits(known, path)})
        dialect = self._dialect_of(path)
        if allowed:
            error = UnknownRoute(f"{path} takes {' and '.join(allowed)}, not {scope['method']}.", param="path")
            error.status = 405
        elif self._other is not None and self._takes_other is not None and self._takes_other(path):
            await self._other(scope, receive, send)
            return
        else:
            known = ", ".join(sorted({known for _, known in self._routes if known.startswith(("/v1", "/api"))}))
            error = UnknownRoute(f"There is no {path} here.", param="path", fix=f"Known paths: {known}.")
        await turn_away(scope, send, error, dialect)

    async def startup(self) -> None:
        if self._startup is not None:
            await self._startup()

    async def shutdown(self) -> None:
        if self._shutdown is not None:
            await self._shutdown()

    def when_idle(self, idle: Callable[[], None]) -> None:
        """Call this, once, when no request is being answered: now, if none is."""
        if self._requests:
            self._idle = idle
        else:
            idle()


async def lifespan(
    receive: Receive, send: Send, startup: Callable[[], Awaitable[None]], shutdown: Callable[[], Awaitable[None]]
) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await startup()
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await shutdown()
            await send({"type": "lifespan.shutdown.complete"})
            return
