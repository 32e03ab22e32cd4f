"""The engine's transport: the network's own, whose broken connections say that the engine crashed, when it did.

A process's sockets close a moment before its end is known, so who is broken off waits for that moment, and no longer.
Nothing else is changed, and a read costs two calls more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.canon.errors import ConnectError
from penstock.canon.wire import ConnectionLost
from penstock.worker.loading import reason_of_loss

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Mapping

    from penstock.canon.errors import EngineCrashed
    from penstock.canon.wire import HttpRequest, HttpResponse
    from penstock.transport.base import Transport

    Life = asyncio.Future[EngineCrashed] | None


class EngineTransport:
    """`life` gives the life of the engine that is there now."""

    def __init__(self, inner: Transport, life: Callable[[], Life]) -> None:
        self._inner = inner
        self._life = life

    async def open(self, request: HttpRequest, *, connect_s: float | None = None) -> HttpResponse:
        life = self._life()
        try:
            response = await self._inner.open(request, connect_s=connect_s)
        except ConnectError as error:
            crash = await reason_of_loss(life)
            if crash is None:
                raise
            raise crash from error
        return _Response(response, life)

    async def aclose(self) -> None:
        await self._inner.aclose()


class _Response:
    def __init__(self, inner: HttpResponse, life: Life) -> None:
        self._inner = inner
        self._life = life
        self._lost: ConnectionLost | None = None
        self._has_reason = False
        self._is_over = False
        self.release = inner.release

    @property
    def status(self) -> int:
        return self._inner.status

    @property
    def headers(self) -> Mapping[str, str]:
        return self._inner.headers

    def take(self) -> bytes | None:
        try:
            return self._inner.take()
        except ConnectionLost as lost:
            if self._is_over or self._has_reason:
                raise self._lost or lost from None
            self._lost = lost
            return None  # `arrival` finds out why

    def arrival(self) -> Awaitable[None]:
        return self._inner.arrival() if self._lost is None else self._find_reason()

    async def _find_reason(self) -> None:
        assert self._lost is not None
        self._lost.reason = await reason_of_loss(self._life)
        self._has_reason = True

    async def read(self) -> bytes:
        while (data := self.take()) is None:
            await self.arrival()
        return data

    def abort(self) -> int:
        self._is_over = True
        return self._inner.abort()
