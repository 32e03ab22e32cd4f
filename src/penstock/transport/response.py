"""The answer to one request, as its reader sees it. Implements `transport.base.HttpResponse`.

`Http1Connection` fills it and takes itself away (`connection` becomes None) the moment the body is whole or lost; what
had arrived by then stays readable. The attributes without documentation of their own are the connection's side.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.canon.errors import ConnectError
from penstock.transport.base import ConnectionLost

if TYPE_CHECKING:
    import asyncio

    from penstock.transport.connection import Http1Connection

ABORTED = "The response was aborted."
RELEASED = "The response was released before its body was read."


class Http1Response:
    """Implements `transport.base.HttpResponse`. `status` is 0 until the head of the answer is whole."""

    __slots__ = (
        "cause",
        "connection",
        "headers",
        "is_ended",
        "is_head",
        "is_whole",
        "lost",
        "pieces",
        "status",
        "until_eof",
        "waiter",
    )

    def __init__(self, connection: Http1Connection, pieces: list[bytes], *, is_head: bool) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.connection: Http1Connection | None = connection
        self.pieces = pieces
        self.waiter: asyncio.Future[None] | None = None
        self.is_head = is_head
        self.until_eof = False
        self.is_whole = False
        self.is_ended = False
        self.lost: str | None = None
        self.cause: BaseException | None = None

    def __repr__(self) -> str:
        state = "whole" if self.is_whole else self.lost or "open"
        return f"<Http1Response {self.status or 'no head yet'}, {sum(map(len, self.pieces))} bytes held, {state}>"

    async def begun(self) -> None:
        """Return when the head is in. If it never will be: `StaleConnection`, `ConnectError`, `ProtocolError`."""
        while not self.status:
            if self.lost is not None:
                raise self.cause or ConnectError(self.lost)
            await self.arrival()

    async def read(self) -> bytes:
        while (data := self.take()) is None:
            await self.arrival()
        return data

    def take(self) -> bytes | None:
        pieces = self.pieces
        if not pieces:
            if self.lost is not None:
                raise ConnectionLost(self.lost) from self.cause
            return b"" if self.is_whole else None
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        connection = self.connection
        if connection is not None and connection.unread_bytes:
            connection.was_read()
        return data

    def release(self) -> None:
        if self.is_ended:
            return
        self.is_ended = True
        if self.connection is not None:
            self.connection.drain()
            self._drop(RELEASED)
        elif self.pieces:
            self._drop(RELEASED)

    def abort(self) -> int:
        if self.is_ended:
            return 0
        self.is_ended = True
        unread = sum(map(len, self.pieces))
        if self.connection is not None:
            self.connection.close(ABORTED)
        self._drop(ABORTED)  # even when the body was whole: who aborts does not want the rest
        return unread

    def _drop(self, why: str) -> None:
        self.connection = None
        self.pieces = []  # not cleared: the connection may own the list
        self.lost = why
        self.cause = None
        self.wake()

    def arrival(self) -> asyncio.Future[None]:
        if self.waiter is not None and not self.waiter.done():
            raise RuntimeError("Two tasks read one response at the same time.")
        assert self.connection is not None, "a response without a connection is whole or lost"
        self.waiter = waiter = self.connection.loop.create_future()
        return waiter

    def wake(self) -> None:
        waiter = self.waiter
        if waiter is not None:
            self.waiter = None
            if not waiter.done():  # done: the reader was cancelled
                waiter.set_result(None)
