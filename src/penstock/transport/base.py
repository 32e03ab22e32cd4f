"""The seam between policy and the network: one method opens a request, the answer is read as it arrives.

What goes in is an `HttpRequest`; what comes out is status, headers and the body's bytes, de-chunked, never decoded. A
transport makes no attempt of its own beyond one: a pooled connection that turns out to be dead before a single byte of
the answer came is replaced once, because the upstream never saw that request's answer begin and had already left.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from penstock.canon.wire import HttpRequest


class ConnectionLost(Exception):
    """The connection ended inside a body that was not yet whole (reset, or closed before its declared end)."""


class HttpResponse(Protocol):
    """`headers` has lower-case names; a repeated header is joined by `, `.

    Exactly one of `release` and `abort` ends a response; both may be called any number of times, in any order, from the
    loop's thread; the first call counts.
    """

    status: int
    headers: Mapping[str, str]

    async def read(self) -> bytes:
        """Whatever has arrived since the last call, waiting for the first byte of it; `b""` at the body's proper end.

        Raises `ConnectionLost` when the connection ended before the body did, and after `abort()`.
        """
        ...

    def release(self) -> None:
        """Done with it. A whole body gives its connection back; a rest is drained within bounds, or the socket closed."""
        ...

    def abort(self) -> None:
        """Close the socket now. A reader that waits in `read` gets `ConnectionLost`."""
        ...


class Transport(Protocol):
    async def open(self, request: HttpRequest, *, connect_s: float | None = None) -> HttpResponse:
        """Send the request, return when the answer's headers are in.

        Raises `ConnectError` when there is no connection, or none that answers; `TimedOut("connect")` after `connect_s`
        seconds without a connection; `ProtocolError` when the answer is not HTTP or breaks a limit.
        """
        ...

    async def aclose(self) -> None:
        """Close every connection, idle or not."""
        ...
