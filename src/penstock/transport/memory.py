"""A network that plays a script: for tests, and for recorded streams. Implements `transport.base.Transport`.

In: an `HttpRequest`, which is kept. Out: the `Reply` that the script has for it, each piece of bytes as one read, each
`Pause` as time on the loop's own clock, so that a loop with a virtual clock plays an hour in no time. Nothing is sent
anywhere. How each response ended is on the response: `released`, `aborted` or neither.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal, TypeAlias

from msgspec import Struct

from penstock.canon.errors import ConnectError
from penstock.transport.base import ConnectionLost

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from penstock.canon.wire import HttpRequest


class Pause(Struct, frozen=True):
    """Nothing comes for so long."""

    seconds: float


class Break(Struct, frozen=True):
    """The connection ends here, before the answer does."""

    message: str = "The upstream closed the connection before the body's end."


class Hang(Struct, frozen=True):
    """Nothing comes any more, and the connection stays open."""


Step: TypeAlias = "bytes | Pause | Break | Hang"


class Reply(Struct, frozen=True, kw_only=True):
    """One answer. `opening` is played before the headers; `error` is raised instead of them."""

    status: int = 200
    headers: Mapping[str, str] = {}
    opening: Sequence[Pause | Break | Hang] = ()
    chunks: Sequence[Step] = ()
    error: Exception | None = None


Script: TypeAlias = "Reply | Sequence[Reply] | Callable[[HttpRequest], Reply]"


class MemoryResponse:
    """What `MemoryTransport.open` gives: an `HttpResponse` that remembers how it ended."""

    def __init__(self, reply: Reply) -> None:
        self.status = reply.status
        self.headers: Mapping[str, str] = {name.lower(): value for name, value in reply.headers.items()}
        self.ended: Literal["released", "aborted"] | None = None
        self._steps = list(reversed(reply.chunks))
        self._player = _Player()
        self._arrived: bytes | None = None
        self._lost: ConnectionLost | None = None

    def __repr__(self) -> str:
        return f"<MemoryResponse {self.status}, {len(self._steps)} steps to play, {self.ended or 'open'}>"

    def take(self) -> bytes | None:
        if self._lost is not None:
            raise self._lost
        data, self._arrived = self._arrived, None
        return data

    async def arrival(self) -> None:
        try:
            self._arrived = await self.read()
        except ConnectionLost as lost:  # `take` says it
            self._lost = lost

    async def read(self) -> bytes:
        while self._steps and not self.ended:
            step = self._steps[-1]
            if isinstance(step, bytes):
                self._steps.pop()
                if step:
                    return step
            elif isinstance(step, Break):
                raise ConnectionLost(step.message)
            elif await self._player.wait(step):
                self._steps.pop()
        if self.ended == "aborted" or self._steps:
            raise ConnectionLost(f"The response was {self.ended}.")
        return b""

    def release(self) -> None:
        self._end("released")

    def abort(self) -> int:
        self._end("aborted")
        return 0

    def _end(self, how: Literal["released", "aborted"]) -> None:
        if self.ended is None:
            self.ended = how
            self._player.stop()


class MemoryTransport:
    """`script` is one reply for every request, replies in order of the requests, or a function from request to reply.

    `requests` and `responses` are what came in and went out, in order; `is_closed` says whether `aclose` was called.
    """

    def __init__(self, script: Script) -> None:
        self.requests: list[HttpRequest] = []
        self.responses: list[MemoryResponse] = []
        self.is_closed = False
        self._reply_to = _reply_function(script)

    def __repr__(self) -> str:
        return f"<MemoryTransport {len(self.requests)} requests{', closed' if self.is_closed else ''}>"

    async def open(self, request: HttpRequest, *, connect_s: float | None = None) -> MemoryResponse:
        """`connect_s` is not played: for a connection that never comes, script `error=TimedOut("connect", …)`."""
        if self.is_closed:
            raise ConnectError("The transport is closed.")
        self.requests.append(request)
        reply = self._reply_to(request)
        for step in reply.opening:
            if isinstance(step, Break):
                raise ConnectError(step.message)
            await _Player().wait(step)
        if reply.error is not None:
            raise reply.error
        response = MemoryResponse(reply)
        self.responses.append(response)
        return response

    async def aclose(self) -> None:
        self.is_closed = True
        for response in self.responses:
            response.abort()


class _Player:
    """Waits a step out. One that is cancelled and waited for again goes on from there, as time does."""

    def __init__(self) -> None:
        self._due: float | None = None
        self._over: asyncio.Future[bool] | None = None

    async def wait(self, step: Pause | Hang) -> bool:
        """True when the step was played to its end, False when `stop` ended it."""
        loop = asyncio.get_running_loop()
        over: asyncio.Future[bool] = loop.create_future()
        self._over = over
        timer = None
        if isinstance(step, Pause):
            if self._due is None:
                self._due = loop.time() + step.seconds
            timer = loop.call_at(self._due, self._settle, True)
        try:
            is_played = await over
        finally:
            if timer is not None:
                timer.cancel()
        self._due = None
        return is_played

    def stop(self) -> None:
        self._settle(False)

    def _settle(self, is_played: bool) -> None:
        if self._over is not None and not self._over.done():
            self._over.set_result(is_played)


def _reply_function(script: Script) -> Callable[[HttpRequest], Reply]:
    if isinstance(script, Reply):
        return lambda request: script
    if callable(script):
        return script
    replies: Iterator[Reply] = iter(script)

    def next_reply(request: HttpRequest) -> Reply:
        for reply in replies:
            return reply
        raise LookupError("The script has no reply left for this request.")

    return next_reply
