"""The engine's life in the worker: loading in a thread, ready or failed once, told to whoever waits.

A call that comes while the model loads waits for it, says so as narration, and is bounded by its own clocks no more
than by the load; nothing polls.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from penstock.canon.errors import Overloaded, PenstockError
from penstock.canon.events import Progress

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from penstock.canon.target import Target
    from penstock.streams.handler import Call, Handler
    from penstock.streams.stream import EventStream
    from penstock.worker.engine import Engine


class Loading:
    """`failed` is called, once, with what kept the model from loading."""

    def __init__(self, engine: Engine, failed: Callable[[PenstockError], None]) -> None:
        self.engine = engine
        self._failed = failed
        self._done = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.target: Target | None = None

    @property
    def status(self) -> str:
        if self.target is not None:
            return "ok"
        return "failed" if self._done.is_set() else "loading"

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._load())

    async def _load(self) -> None:
        try:
            self.target = await asyncio.to_thread(self.engine.load)
        except PenstockError as error:
            self._failed(error)
        finally:
            self._done.set()

    async def stop(self) -> None:
        if self._task is not None:
            # A load cannot be interrupted; it is short, or the process ends under it.
            await asyncio.wait([self._task], timeout=1.0)
        await asyncio.to_thread(self.engine.stop)

    async def ready(self, call: Call | None = None) -> Target:
        if self.target is None:
            if call is not None and call.narrate is not None:
                call.narrate(Progress("loading", message=f"loading {self.engine.model}"))
            await self._done.wait()
        if self.target is None:
            raise Overloaded(f"The model {self.engine.model} could not be loaded.", status=503, target="engine")
        return self.target

    def layer(self, inner: Handler) -> Handler:
        """Every call goes to the engine, once there is one."""

        @asynccontextmanager
        async def handle(call: Call) -> AsyncIterator[EventStream]:
            call.target = await self.ready(call)
            async with inner(call) as stream:
                yield stream

        return handle
