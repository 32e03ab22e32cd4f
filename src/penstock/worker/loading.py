"""The engine's life in the worker: loading, ready, crashed and loading again, told to whoever waits or looks.

The first load that fails ends the worker, with why. After a crash whatever ran on the engine ends in `EngineCrashed`,
and it is loaded again: at once, then ever later while it goes on crashing (`Backoff`). A call that comes meanwhile
waits and says so as narration, or is refused with the time to come back after. Nothing polls.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Literal

from penstock.canon.errors import EngineCrashed, Overloaded, PenstockError
from penstock.canon.events import Progress
from penstock.worker.engine import Loaded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from penstock.canon.target import Target
    from penstock.streams.handler import Call, Handler
    from penstock.streams.stream import EventStream
    from penstock.worker.engine import Engine

_log = logging.getLogger(__name__)

Status = Literal["loading", "ok", "restarting", "failed"]

#: an engine that lived as long began well: its end says nothing of the next one
LIVED_S = 60.0
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
#: what who is refused is told to wait, when nothing better is known, and at the most
RETRY_S = 2.0
MAX_RETRY_S = 60.0
#: how long a broken connection may wait for its reason: a process's sockets close before its end is known
REASON_S = 0.5


class Backoff:
    """Seconds before the next start of an engine that lived for so long: none the first time, then ever more."""

    def __init__(self) -> None:
        self._short_lives = 0

    def after(self, lived_s: float) -> float:
        if lived_s >= LIVED_S:
            self._short_lives = 0
        pause = 0.0 if self._short_lives == 0 else min(FIRST_PAUSE_S * 2 ** (self._short_lives - 1), LONGEST_PAUSE_S)
        self._short_lives = min(self._short_lives + 1, 32)
        return pause


class Loading:
    """`failed` is called, once, with what kept the model from loading at all. `refuses`: calls do not wait for it."""

    def __init__(
        self,
        engine: Engine,
        failed: Callable[[PenstockError], None],
        *,
        refuses: bool = False,
        watch: Callable[[Loading], None] | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.engine = engine
        self._failed = failed
        self._refuses = refuses
        self._watch = watch
        self._now = now
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._began_at = now()
        #: the end of the engine that is there now; who was broken off by it finds its reason here
        self._end: asyncio.Future[EngineCrashed] | None = None
        self.status: Status = "loading"
        self.loaded = Loaded("preparing")
        self.target: Target | None = None
        self.error: PenstockError | None = None
        self.restarts = 0

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._live())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        await self.engine.stop()

    # --- the engine ---

    async def _live(self) -> None:
        try:
            target = await self._load()
        except PenstockError as error:
            self._fail(error)
            return
        except Exception as error:
            _log.exception("The engine could not be started.")
            self._fail(EngineCrashed(f"The engine could not be started: {type(error).__name__}."))
            return
        backoff = Backoff()
        while True:
            self._end = asyncio.get_running_loop().create_future()
            self._tell("ok", target)
            ready_at = self._now()
            crash = await self.engine.ended()
            self._end.set_result(crash)
            self._tell("restarting")
            target = await self._again(crash, backoff, ready_at)

    async def _again(self, crash: PenstockError, backoff: Backoff, ready_at: float) -> Target:
        while True:
            pause = backoff.after(self._now() - ready_at)
            self.restarts += 1
            _log.error("%s It is started again %s.", crash.message, f"in {pause:g} s" if pause else "at once")
            await asyncio.sleep(pause)
            ready_at = self._now()
            try:
                return await self._load()
            except PenstockError as error:
                crash = error

    async def _load(self) -> Target:
        self._began_at = self._now()
        self._progressed(Loaded("preparing"))
        return await self.engine.load(self._progressed)

    def _fail(self, error: PenstockError) -> None:
        self.error = error
        self._tell("failed")
        self._failed(error)

    def _progressed(self, loaded: Loaded) -> None:
        self.loaded = loaded
        self._tell(self.status)

    def _tell(self, status: Status, target: Target | None = None) -> None:
        self.status, self.target = status, target
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        if self._watch is not None:
            self._watch(self)

    @property
    def changed(self) -> asyncio.Event:
        """Set when what this tells now is no longer the same. Several changes at once are one."""
        return self._changed

    # --- those who wait ---

    async def ready(self, call: Call | None = None) -> Target:
        """The engine. Raises `Overloaded` where there is none and none is waited for."""
        while self.target is None:
            if self.status == "failed":
                raise Overloaded(f"The model {self.engine.model} could not be loaded.", status=503, target="engine")
            if self._refuses:
                raise self.refusal()
            if call is not None and call.narrate is not None:
                call.narrate(self.progress())
            await self._changed.wait()
        return self.target

    def refusal(self) -> Overloaded:
        what = "is loading" if self.status == "loading" else "is being loaded again"
        return Overloaded(
            f"The model {self.engine.model} {what}.", status=503, retry_after_s=self.retry_after_s(), target="engine"
        )

    def retry_after_s(self) -> float:
        """As long as the rest of the file takes at the speed so far."""
        done, total = self.loaded.bytes_loaded, self.loaded.bytes_total
        if self.loaded.stage != "reading" or not done or not total:
            return RETRY_S
        return min(max(math.ceil((self._now() - self._began_at) * (total - done) / done), RETRY_S), MAX_RETRY_S)

    def progress(self) -> Progress:
        loaded = self.loaded
        if loaded.layers_total and loaded.layers_loaded is not None and loaded.stage == "reading":
            return Progress("loading", loaded.layers_loaded, loaded.layers_total, f"loading {self.engine.model}")
        return Progress("loading", message=f"loading {self.engine.model}")

    def layer(self, inner: Handler) -> Handler:
        """Every call goes to the engine, once there is one."""

        @asynccontextmanager
        async def handle(call: Call) -> AsyncIterator[EventStream]:
            call.target = await self.ready(call)
            async with inner(call) as stream:
                yield stream

        return handle

    # --- those whom a crash breaks off ---

    @property
    def life(self) -> asyncio.Future[EngineCrashed] | None:
        """Of the engine that is there now: done, with why, when it has ended."""
        return self._end


async def reason_of_loss(life: asyncio.Future[EngineCrashed] | None) -> EngineCrashed | None:
    """Why a connection to the engine broke; None: it lives. An error of its own for each who asks."""
    if life is None:
        return None
    await asyncio.wait([life], timeout=REASON_S)
    if not life.done():
        return None
    found = life.result()
    return type(found)(found.message, fix=found.fix)
