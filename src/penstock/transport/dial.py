"""Making a connection: names, TCP, proxy, TLS; every failure becomes a `ConnectError` that says what to do about it.

Never leaves a socket behind, whatever the moment in which it fails or is cancelled. No message holds a credential.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import socket
import ssl
from functools import cache
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from penstock.canon.errors import ConnectError

if TYPE_CHECKING:
    from collections.abc import Callable

    from penstock.transport.connection import Http1Connection
    from penstock.transport.origin import Origin, Proxy

P = TypeVar("P", bound=asyncio.Protocol)

#: Of several addresses each gets this long before the next is tried: a name whose IPv6 leads nowhere must not use up
#: the whole connect clock.
ADDRESS_S = 2.0

_MAX_PROXY_ANSWER_BYTES = 64 * 1024


@cache  # reading the system's certificates takes 20 ms, in which nothing else runs
def default_ssl_context() -> ssl.SSLContext:
    """The one that all transports share."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


async def dial(
    origin: Origin,
    proxy: Proxy | None,
    make: Callable[[], Http1Connection],
    ssl_context: Callable[[], ssl.SSLContext],
) -> Http1Connection:
    """A connection to `origin`, ready to send on. Raises `ConnectError`."""
    tls = ssl_context() if origin.scheme == "https" else None
    if proxy is None:
        return await _connect(origin, make, tls, _UPSTREAM)
    proxy_tls = ssl_context() if proxy.origin.scheme == "https" else None
    tunnel = await _connect(proxy.origin, _Tunnel, proxy_tls, _PROXY)
    try:
        return await _move_in(await tunnel.lead_to(origin, proxy), origin, make(), tls)
    except BaseException:
        tunnel.abort()
        raise


async def _connect(origin: Origin, make: Callable[[], P], tls: ssl.SSLContext | None, role: _Role) -> P:
    """The first of the host's addresses that answers. Certificates are the host's, so a bad one ends the search."""
    loop = asyncio.get_running_loop()
    addresses = await _resolve(origin, role)
    failure: OSError | None = None
    for address in addresses:
        is_last = address is addresses[-1]
        try:
            async with asyncio.timeout(None if is_last else ADDRESS_S):
                _, protocol = await loop.create_connection(
                    make, address, origin.port, ssl=tls, server_hostname=origin.host if tls else None
                )
            return protocol
        except ssl.SSLError as error:
            raise _explain(origin, error, role) from error
        except OSError as error:  # a TimeoutError is one
            failure = error
    assert failure is not None
    raise _explain(origin, failure, role) from failure


async def _resolve(origin: Origin, role: _Role) -> list[str]:
    with contextlib.suppress(ValueError):
        return [str(ipaddress.ip_address(origin.host))]
    try:
        found = await asyncio.get_running_loop().getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ConnectError(
            f"The name {origin.host} cannot be resolved.", fix=f"Check {role.url} and the DNS."
        ) from error
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


# --- proxies ---------------------------------------------------------------------------------------------------------


class _Tunnel(asyncio.Protocol):
    """A connection to a proxy, until the proxy has opened the way. Parser callbacks are the `on_…` methods."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self._answered: asyncio.Future[int] | None = None
        self._parser = HttpResponseParser(self)
        self._received_bytes = 0
        self._status = 0
        self._too_much = False

    async def lead_to(self, origin: Origin, proxy: Proxy) -> asyncio.Transport:
        """Raises `ConnectError`, which names the proxy but not its credentials."""
        name = proxy.origin.netloc
        if self.transport is None:
            raise ConnectError(f"The proxy {name} closed the connection as soon as it was made.")
        lines = [f"CONNECT {origin.netloc} HTTP/1.1", f"host: {origin.netloc}"]
        if proxy.authorization:
            lines.append(f"proxy-authorization: {proxy.authorization}")
        self._answered = asyncio.get_running_loop().create_future()
        self.transport.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
        try:
            status = await self._answered
        except (HttpParserError, HttpParserUpgrade, OSError) as error:
            raise ConnectError(f"The proxy {name} gave no valid answer to CONNECT.", fix=_PROXY.fix) from error
        if not 200 <= status < 300:
            raise ConnectError(
                f"The proxy {name} refused to connect to {origin.netloc}: it answered {status}.",
                fix="Put user:password into the proxy's url."
                if status == 407
                else "Allow it there, or add the host to NO_PROXY.",
            )
        if self._too_much:
            raise ConnectError(f"The proxy {name} sent more than its answer to CONNECT.", fix=_PROXY.fix)
        return self.transport

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._received_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            self._settle(error)
            return
        if self._status:
            self._settle(None)
        elif self._received_bytes > _MAX_PROXY_ANSWER_BYTES:
            self._settle(HttpParserError("the head of the answer is too large"))

    def connection_lost(self, exc: BaseException | None) -> None:
        self._settle(exc if isinstance(exc, OSError) else ConnectionResetError("closed without an answer"))
        self.transport = None

    def on_headers_complete(self) -> None:
        if not self._status and (status := self._parser.get_status_code()) >= 200:
            self._status = status

    def on_body(self, data: bytes) -> None:
        self._too_much = True

    def _settle(self, error: Exception | None) -> None:
        if self._answered is None or self._answered.done():
            return
        if error is None:
            self._answered.set_result(self._status)
        else:
            self._answered.set_exception(error)


async def _move_in(
    transport: asyncio.Transport, origin: Origin, connection: Http1Connection, tls: ssl.SSLContext | None
) -> Http1Connection:
    """Put the connection where the tunnel was, inside TLS if that is asked for."""
    if tls is None:
        transport.set_protocol(connection)
        connection.connection_made(transport)
        return connection
    loop = asyncio.get_running_loop()
    try:
        inner = await loop.start_tls(transport, connection, tls, server_hostname=origin.host)
    except OSError as error:
        raise _explain(origin, error, _UPSTREAM) from error
    if inner is None:
        raise ConnectError(f"{origin.netloc} closed the connection as soon as it was made.", fix=_UPSTREAM.fix)
    connection.connection_made(inner)
    return connection


# --- saying why ------------------------------------------------------------------------------------------------------


class _Role(NamedTuple):
    """Whom we failed to reach, in words."""

    name: str
    url: str
    fix: str


_UPSTREAM = _Role("", "the upstream's url", "Start the upstream, or correct its url.")
_PROXY = _Role("the proxy ", "HTTP_PROXY and HTTPS_PROXY", "Start the proxy, or correct HTTP_PROXY and HTTPS_PROXY.")

_UNREACHABLE = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN, errno.EADDRNOTAVAIL}


def _explain(origin: Origin, error: OSError, role: _Role) -> ConnectError:
    who = f"{role.name}{origin.netloc}"
    subject = f"{role.name.capitalize()}{origin.netloc}"
    if isinstance(error, ssl.SSLCertVerificationError):
        why = error.verify_message.rstrip(".")
        return ConnectError(
            f"The certificate of {who} is not trusted: {why}.",
            fix="Use the name that the certificate is for, or add its authority to the trusted ones.",
        )
    if isinstance(error, ssl.SSLError):
        why = (error.reason or "handshake failed").replace("_", " ").lower()
        return ConnectError(
            f"{subject} does not speak TLS as we do: {why}.", fix="If it speaks plain HTTP, use http://."
        )
    if isinstance(error, ConnectionRefusedError):
        return ConnectError(f"Nothing listens on {who}.", fix=role.fix)
    if isinstance(error, TimeoutError):
        return ConnectError(f"{subject} does not answer.", fix=f"Check {role.url} and the network.")
    if isinstance(error, ConnectionError) and origin.scheme == "https":
        return ConnectError(
            f"{subject} closed the connection while TLS was being set up.",
            fix=f"Check {role.url}; if it speaks plain HTTP, use http://.",
        )
    if isinstance(error, ConnectionError):
        return ConnectError(f"{subject} closed the connection while it was being made.", fix=f"Check {role.url}.")
    if error.errno in _UNREACHABLE:
        return ConnectError(f"There is no way to {who}.", fix=f"Check {role.url} and the network.")
    why = error.strerror or type(error).__name__
    return ConnectError(f"No connection to {who}: {why}.", fix=f"Check {role.url} and the network.")
