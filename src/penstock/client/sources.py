"""Where another library's stream is read: one item at a time, when it is asked for, in one place from its first item to
its closing.

An async source is read in a task of its own, a sync one in a daemon thread of its own; so its context, its cancel
scopes and its locals stay where they were made, a sync source that blocks holds up no loop, and a caller that gives up
one `next` may ask again. `abort` closes the source: a task is cancelled; a thread that waits inside the source is woken
by shutting the socket down that it reads from, where there is one (SDKs on httpx). A thread that nothing can wake
closes its source when it comes back.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import queue
import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

#: How long leaving a stream waits for its source to be closed.
CLOSE_S = 1.0

#: What SDKs keep their own stream under: Anthropic's helper, OpenAI's helper, LiteLLM.
_WITHIN = ("_raw_stream", "completion_stream")


class Over(Exception):
    """The source has no more."""


class Aborted(Exception):
    """We closed it."""


class Source(Protocol):
    async def next(self) -> Any:
        """The next item. Raises `Over`, `Aborted`, or what the source raised. Given up, it may be asked again."""
        ...

    def abort(self) -> None:
        """Close it; any number of times."""
        ...

    async def closed(self) -> None:
        """Wait until it is closed, for `CLOSE_S` at most."""
        ...


class _Asked:
    """One `next` under way: what came of it, and who waits."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.is_asked = False
        self.is_aborted = False
        self.over = asyncio.Event()
        self._came: tuple[Any, BaseException | None] | None = None
        self._waiter: asyncio.Future[None] | None = None

    async def answer(self) -> Any:
        while self._came is None:
            if self.is_aborted:
                raise Aborted
            self._waiter = self.loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        (item, error), self._came = self._came, None
        self.is_asked = False
        if error is not None:
            raise error
        return item

    def give(self, item: Any, error: BaseException | None) -> None:
        self._came = (item, error)
        self.wake()

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def closed(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await self.over.wait()


class AsyncSource:
    """`made` is an async iterable, or an awaitable that gives one."""

    def __init__(self, made: Any) -> None:
        self._made = made
        self._asked = _Asked()
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._has_run = False

    async def next(self) -> Any:
        asked = self._asked
        if self._task is None and not asked.is_aborted:
            self._task = asked.loop.create_task(self._run())
        if not asked.is_asked:
            asked.is_asked = True
            self._wanted.set()
        return await asked.answer()

    async def _run(self) -> None:
        asked, iterator = self._asked, None
        self._has_run = True
        try:
            if inspect.isawaitable(self._made):
                self._made = await self._made
            iterator = aiter(self._made)
            while True:
                await self._wanted.wait()
                self._wanted.clear()
                asked.give(await anext(iterator), None)
        except StopAsyncIteration:
            asked.give(None, Over())
        except asyncio.CancelledError:
            asked.give(None, Aborted())
        except BaseException as error:
            asked.give(None, error)
        finally:
            try:
                await _aclose(iterator, self._made)
            finally:
                asked.over.set()

    def abort(self) -> None:
        asked = self._asked
        if asked.is_aborted:
            return
        asked.is_aborted = True
        asked.wake()
        if self._task is not None:
            self._task.cancel()
        if not self._has_run:  # a task that is cancelled before its first step never reaches its `finally`
            self._task = asked.loop.create_task(self._close_unread())

    async def _close_unread(self) -> None:
        try:
            if inspect.iscoroutine(self._made):
                self._made.close()
            else:
                await _aclose(None, self._made)
        finally:
            self._asked.over.set()

    async def closed(self) -> None:
        await self._asked.closed()


class ThreadSource:
    def __init__(self, made: Any) -> None:
        self._made = made
        self._asked = _Asked()
        self._wanted: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._is_reading = False

    async def next(self) -> Any:
        if self._thread is None and not self._asked.is_aborted:
            self._start()
        if not self._asked.is_asked:
            self._asked.is_asked = True
            self._wanted.put(True)
        return await self._asked.answer()

    def _start(self) -> None:
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._run,), name="penstock-adapt", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        iterator: Iterator[Any] | None = None
        try:
            iterator = iter(self._made)
            while self._wanted.get():
                # In this order, and `abort` in the other: either we see that it is over, or `abort` sees us reading.
                self._is_reading = True
                try:
                    if self._asked.is_aborted:
                        break
                    item = next(iterator)
                finally:
                    self._is_reading = False
                self._tell(self._asked.give, item, None)
        except StopIteration:
            self._tell(self._asked.give, None, Over())
        except BaseException as error:  # whatever it is belongs to who reads
            self._tell(self._asked.give, None, error)
        finally:
            for each in (iterator, self._made):
                _close(each)
            self._tell(self._asked.over.set)

    def _tell(self, function: Any, *given: Any) -> None:
        with suppress(RuntimeError):  # the loop has ended, and nobody waits
            self._asked.loop.call_soon_threadsafe(function, *given)

    def abort(self) -> None:
        asked = self._asked
        if asked.is_aborted:
            return
        asked.is_aborted = True
        asked.wake()
        if self._thread is None:
            if not asked.over.is_set():
                self._start()
        elif self._is_reading:
            _shut(self._made)
        self._wanted.put(False)

    async def closed(self) -> None:
        if not self._is_reading or _socket_of(self._made) is not None:
            await self._asked.closed()


def _close(source: Any) -> None:
    """Its own `close`, or that of the stream it wraps. What that raises changes nothing: it is over."""
    close = getattr(source, "close", None)
    if callable(close):
        with suppress(Exception):
            close()
        return
    for name in _WITHIN:
        within = getattr(source, name, None)
        if within is not None:
            _close(within)


async def _aclose(iterator: AsyncIterator[Any] | None, source: Any) -> None:
    for each in (iterator, source):
        for name in ("aclose", "close"):
            close = getattr(each, name, None)
            if callable(close):
                with suppress(Exception):
                    closing = close()
                    if inspect.isawaitable(closing):
                        await closing
                break


def _shut(source: Any) -> None:
    """Wake whoever reads from its socket: closing a file does not, on Linux."""
    held = _socket_of(source)
    if held is not None:
        with suppress(OSError):
            held.shutdown(socket.SHUT_RDWR)


def _socket_of(source: Any) -> socket.socket | None:
    """By what httpx's responses tell (`extensions["network_stream"]`); None where there is none to be found."""
    response = getattr(source, "response", None)
    extensions = getattr(response, "extensions", None)
    if isinstance(extensions, dict) and "network_stream" in extensions:
        held = extensions["network_stream"].get_extra_info("socket")
        return held if isinstance(held, socket.socket) else None
    for name in _WITHIN:
        within = getattr(source, name, None)
        if within is not None:
            return _socket_of(within)
    return None
