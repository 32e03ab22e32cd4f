"""The network: an HTTP/1.1 client on asyncio and llhttp (httptools). Implements `transport.base.Transport`.

In: an `HttpRequest`. Out: a response whose body is read as it arrives. Connections are kept per origin and lent one at
a time (`pool`), parsed and bounded (`connection`), made through proxies and TLS (`dial`, `origin`). Whoever leaves
`open` early, by an error or by cancellation, leaves no socket and no place in a queue behind.

A request is sent once; a body that comes piece by piece (`HttpRequest.upload`) as fast as the upstream takes it, and no
longer than the answer is open. The one exception is a kept connection that turns out to have been closed before it was
written to: then the request goes out again on a new connection, once. It asks for no compression, follows no redirect,
keeps no cookie, and logs nothing. One transport belongs to one event loop.
"""

from __future__ import annotations

import asyncio
import re
import time
from functools import cache
from typing import TYPE_CHECKING

from penstock.canon.errors import ConnectError, InvalidRequest, TimedOut
from penstock.transport.connection import Bounds, Http1Connection, StaleConnection
from penstock.transport.dial import default_ssl_context, dial
from penstock.transport.origin import Location, Origin, Proxies, locate
from penstock.transport.pool import Pool

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping

    from penstock.canon.wire import HttpRequest
    from penstock.transport.response import Http1Response

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

#: Ours to say: what a caller says about them is not sent.
_OURS = frozenset(("content-length", "transfer-encoding"))

#: Methods whose requests say their length even when it is 0, because servers ask for it (RFC 9110, 8.6).
_WITH_BODY = frozenset(("POST", "PUT", "PATCH"))


class Http1Transport:
    """`environ` is where HTTP_PROXY, HTTPS_PROXY and NO_PROXY are looked up; None means no proxies.

    Limits, each per connection but for the first: `max_connections_per_origin` (more callers wait in line), `idle_s`
    until a kept connection is closed, `max_header_bytes` for an answer's head, `high_water_bytes` held unread before
    the upstream is slowed down, `drain_bytes` and `drain_s` to finish a released body, `stale_s` in which a kept
    connection's close still counts as having crossed our request.
    """

    def __init__(
        self,
        *,
        max_connections_per_origin: int = 1000,
        idle_s: float = 30.0,
        max_header_bytes: int = 64 * 1024,
        high_water_bytes: int = 128 * 1024,
        drain_bytes: int = 64 * 1024,
        drain_s: float = 0.25,
        stale_s: float = 1.0,
        user_agent: str | None = None,
        ssl_context: ssl.SSLContext | None = None,
        environ: Mapping[str, str] | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit = max_connections_per_origin
        self._idle_s = idle_s
        self._bounds = Bounds(
            header_bytes=max_header_bytes,
            high_water_bytes=high_water_bytes,
            drain_bytes=drain_bytes,
            drain_s=drain_s,
            stale_s=stale_s,
        )
        self._user_agent = _default_user_agent() if user_agent is None else user_agent
        self._ssl_context = ssl_context
        self._proxies = Proxies(environ)
        self._now = now
        self._pools: dict[Origin, Pool] = {}
        self._is_closed = False

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else f"{len(self._pools)} origins"
        return f"<Http1Transport {state}, {self.open_connections} open, {self.idle_connections} idle>"

    @property
    def open_connections(self) -> int:
        return sum(pool.open_connections for pool in self._pools.values())

    @property
    def idle_connections(self) -> int:
        return sum(pool.idle_connections for pool in self._pools.values())

    @property
    def waiting(self) -> int:
        """Callers in line for a connection."""
        return sum(pool.waiting for pool in self._pools.values())

    async def open(self, request: HttpRequest, *, connect_s: float | None = None) -> Http1Response:
        location = locate(request.url)
        data = encode_request(request, location, self._user_agent)
        pool = self._pools.get(location.origin) or self._add_pool(location.origin)
        if request.upload is not None:  # it comes once: a kept connection, which may be stale, is no place for it
            connection = await self._acquire(pool, connect_s, fresh=True)
            return await self._exchange(connection, data, request.method, request)
        connection = pool.take_idle() or await self._acquire(pool, connect_s)
        try:
            return await self._exchange(connection, data, request.method)
        except StaleConnection:
            pool = self._pools.get(location.origin) or self._add_pool(location.origin)
            connection = await self._acquire(pool, connect_s, fresh=True)
            return await self._exchange(connection, data, request.method)

    async def aclose(self) -> None:
        self._is_closed = True
        for pool in tuple(self._pools.values()):
            await pool.aclose()

    async def _exchange(
        self, connection: Http1Connection, data: bytes, method: str, uploading: HttpRequest | None = None
    ) -> Http1Response:
        response = connection.send(data, is_head=method == "HEAD")
        if uploading is not None and uploading.upload is not None:
            connection.upload(uploading.upload, uploading.upload_length)
        try:
            await response.begun()
        except BaseException:
            response.abort()
            raise
        return response

    async def _acquire(self, pool: Pool, connect_s: float | None, *, fresh: bool = False) -> Http1Connection:
        try:
            async with asyncio.timeout(connect_s) as clock:
                return await pool.acquire(fresh=fresh)
        except TimeoutError:
            if clock.expired() and connect_s is not None:
                raise TimedOut("connect", connect_s) from None
            raise

    def _add_pool(self, origin: Origin) -> Pool:
        if self._is_closed:
            raise ConnectError("The transport is closed.", fix="Open requests before it is closed, or make a new one.")
        # Origins that nobody calls any more: cleared away when one comes, so that no timer is needed for it.
        for known, pool in tuple(self._pools.items()):
            if pool.is_empty:
                del self._pools[known]
        pool = Pool(origin, self._connect, limit=self._limit, idle_s=self._idle_s, now=self._now)
        self._pools[origin] = pool
        return pool

    async def _connect(self, pool: Pool) -> Http1Connection:
        loop = asyncio.get_running_loop()
        origin, bounds = pool.origin, self._bounds
        return await dial(
            origin,
            self._proxies.choose(origin),
            lambda: Http1Connection(origin, pool, loop=loop, bounds=bounds),
            self._get_ssl_context,
        )

    def _get_ssl_context(self) -> ssl.SSLContext:
        # Loading the authorities takes tens of milliseconds: not before the first https url, and once.
        if self._ssl_context is None:
            self._ssl_context = default_ssl_context()
        return self._ssl_context


@cache  # it looks for a file, and a program may make a transport for each call
def _default_user_agent() -> str:
    from importlib.metadata import version  # 15 ms, for whoever makes a transport and not for whoever imports this

    return f"penstock/{version('penstock')}"


# --- the bytes of a request ------------------------------------------------------------------------------------------


def encode_request(request: HttpRequest, location: Location, user_agent: str) -> bytes:
    """Head and body, to be written at once. Raises `InvalidRequest` for what would break out of its line."""
    lines = [f"{request.method} {location.target} HTTP/1.1"]
    named: set[str] = set()
    for name, value in request.headers:
        if name not in _OURS:
            named.add(name)
            lines.append(f"{name}: {value}")
    # Each is a token of HTTP if all of them in a row are one.
    if not request.method or "" in named or not _TOKEN.fullmatch("".join((request.method, *named))):
        raise InvalidRequest("A request's method, or the name of a header, holds a character that HTTP forbids there.")
    if "host" not in named:
        lines.append(f"host: {location.host_header}")
    if "accept-encoding" not in named:
        lines.append("accept-encoding: identity")  # a compressed stream is a buffered stream
    if "user-agent" not in named:
        lines.append(f"user-agent: {user_agent}")
    if request.upload is not None:
        length = request.upload_length
        lines.append("transfer-encoding: chunked" if length is None else f"content-length: {length}")
    elif request.body or request.method in _WITH_BODY:
        lines.append(f"content-length: {len(request.body)}")
    ends = len(lines) + 1
    lines += ("", "")
    head = "\r\n".join(lines)
    # A line break that came in with a value makes one too many; counting is cheaper than looking through each value.
    if head.count("\r") != ends or head.count("\n") != ends or "\0" in head or not head.isascii():
        _check_values((*request.headers, ("user-agent", user_agent)))
    return head.encode("latin-1") + request.body


def _check_values(headers: tuple[tuple[str, str], ...]) -> None:
    for name, value in headers:
        if any(c in value for c in "\r\n\0"):
            raise InvalidRequest(f"The header {name} holds a line break or a NUL.", param=name)
        try:
            value.encode("latin-1")
        except UnicodeEncodeError:
            raise InvalidRequest(f"The header {name} holds a character that HTTP cannot carry.", param=name) from None
