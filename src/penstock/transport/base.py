"""The seam between policy and the network: one method opens a request, the answer is read as it arrives.

What goes in is an `HttpRequest`; what comes out is status, headers and the body's bytes, de-chunked, never decoded. A
transport makes no attempt of its own beyond one: a pooled connection that turns out to be dead before a single byte of
the answer came is replaced once, because the upstream never saw that request's answer begin and had already left.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from penstock.canon.wire import ConnectionLost, HttpResponse

if TYPE_CHECKING:
    from penstock.canon.wire import HttpRequest

__all__ = ["ConnectionLost", "HttpResponse", "Transport"]


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
