"""HTTP as values: the request that a dialect builds and a transport sends, and what its answer must offer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Mapping


class HttpRequest(Struct, frozen=True):
    """`url` is absolute. `headers` are in order, names in lower case; host, length and encoding are the transport's."""

    method: str
    url: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


class ConnectionLost(Exception):
    """The connection ended inside a body that was not yet whole (reset, or closed before its declared end)."""


class HttpResponse(Protocol):
    """`headers` has lower-case names; a repeated header is joined by `, `.

    Exactly one of `release` and `abort` ends a response; both may be called any number of times, in any order, from the
    loop's thread; the first call counts.
    """

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    async def read(self) -> bytes:
        """Whatever has arrived since the last call, waiting for the first byte of it; `b""` at the body's proper end.

        Raises `ConnectionLost` when the connection ended before the body did, and after `abort()`.
        """
        ...

    def release(self) -> None:
        """Done with it: a whole body gives its connection back, a rest is drained within bounds."""
        ...

    def abort(self) -> None:
        """Close the socket now. A reader that waits in `read` gets `ConnectionLost`."""
        ...
