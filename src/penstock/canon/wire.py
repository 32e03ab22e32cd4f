"""HTTP as values: the request that a dialect builds and a transport sends, and what its answer must offer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Mapping

    from penstock.canon.errors import PenstockError


class HttpRequest(Struct, frozen=True):
    """`url` is absolute. `headers` are in order, names in lower case; host, length and encoding are the transport's.

    `dropped` names what the caller asked for and this wire has no word for. `upload` is a body that comes piece by
    piece, instead of `body`; `upload_length` its length, where that is known.
    """

    method: str
    url: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    dropped: tuple[str, ...] = ()
    upload: AsyncIterator[bytes] | None = None
    upload_length: int | None = None


class ConnectionLost(Exception):
    """The connection ended inside a body that was not yet whole (reset, or closed before its declared end).

    `reason` is the error that the reply then ends in, where somebody knows better than that it was cut off.
    """

    reason: PenstockError | None = None


class HttpResponse(Protocol):
    """`headers` has lower-case names; a repeated header is joined by `, `.

    Exactly one of `release` and `abort` ends a response; both may be called any number of times, in any order, from the
    loop's thread; the first call counts.
    """

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    def take(self) -> bytes | None:
        """Whatever has arrived since the last call; `b""` at the body's proper end; None: nothing yet, see `arrival`.

        Raises `ConnectionLost` when the connection ended before the body did, and after `abort()`.
        """
        ...

    def arrival(self) -> Awaitable[None]:
        """To be awaited when `take` gave None: returns when there is something to take. One reader at a time."""
        ...

    async def read(self) -> bytes:
        """`take`, waiting as long as it gives None."""
        ...

    def release(self) -> None:
        """Done with it: a whole body gives its connection back, a rest is drained within bounds."""
        ...

    def abort(self) -> int:
        """Close the socket now. A reader that waits in `read` gets `ConnectionLost`. How many bytes nobody has read."""
        ...
