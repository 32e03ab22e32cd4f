"""`adapt`: a stream of another library's, or any iterable of chunks, with the life of a stream of ours.

It is read lazily, one item at a time. Its clocks are those of every stream (`Timeouts.first_content`, `idle`, `total`):
time that the consumer takes counts for none. It ends as every stream does: `complete` only when an item proved it, with
what comes after that item; otherwise in an error of ours, or `cancelled`. The source is closed on every path.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypedDict

from penstock.canon.errors import ConfigError, PenstockError, StreamingTimeout, UpstreamError
from penstock.canon.events import Delta, is_content
from penstock.canon.target import Target
from penstock.client.foreign_errors import mapped
from penstock.client.recovering import Recover, Seam
from penstock.client.shapes import Items
from penstock.client.sources import Aborted, AsyncSource, Over, Source, ThreadSource
from penstock.streams.batch import Batch
from penstock.streams.clocks import Clocks, Timeouts
from penstock.streams.handler import Attempt
from penstock.streams.stream import EventStream

if TYPE_CHECKING:
    from penstock.canon.errors import ClockName
    from penstock.canon.events import Event
    from penstock.streams.handler import Call, Handler
    from penstock.streams.stream import Tap

#: a source's package → the provider that it is
_PROVIDERS = {"openai": "openai", "anthropic": "anthropic", "ollama": "ollama", "google": "gemini"}


class Adapting(TypedDict, total=False):
    """The options of `adapt`; their defaults are 60 s, no recovery, no metadata, and whose package it is."""

    timeout: float | Timeouts | None
    recovery: Recover | None
    metadata: bool
    provider: str | None


class AdaptedReply:
    """The batches of one source, one per item that means something. Implements `streams.stream.Source`."""

    framing = "items"

    def __init__(self, made: Any, call: Call, timeouts: Timeouts, *, name: str, provider: str | None) -> None:
        self._source = source_of(made)
        self._call = call
        self._timeouts = timeouts
        self._name = name
        self._provider = provider
        self._items = Items(provider)
        self._clocks: Clocks | None = None
        self._tap: Tap | None = None
        self._error: PenstockError | None = None
        self._seam: Seam | None = None
        self._ended = self._cancelled = False
        self._has_begun = self._has_content = False
        self._expired: tuple[ClockName, float] | None = None

    def recovers(self, recover: Recover) -> None:
        self._seam = Seam(recover)

    def __aiter__(self) -> AdaptedReply:
        return self

    async def __anext__(self) -> Batch:
        tap = self._tap
        try:
            while not self._ended:
                batch = await self._next() if self._error is None else await self._recovered(self._error)
                if batch.events:
                    if tap is not None:
                        tap.see(batch)
                    return batch
        except Exception as error:
            if tap is not None:
                tap.failed(error)
            raise
        if tap is not None:
            tap.ended()
        raise StopAsyncIteration

    async def _next(self) -> Batch:
        clocks = self._clocks
        if clocks is None:  # they begin with the first read: what comes before it is the consumer's own time
            call = self._call
            clocks = self._clocks = Clocks(self._timeouts, now=call.now, began=call.began)
            clocks.watch(self._expire)
        clocks.resume()
        item, raised = None, None
        try:
            item = await self._source.next()
        except Exception as error:
            raised = error
        batch = self._take(item, raised)
        if self._seam is not None:
            self._seam.see(batch)
        if self._ended or self._error is not None:
            self._stop()
        else:
            clocks.has_read(batch.at, batch.has_content, self._items.proved)
        return batch

    def _take(self, item: Any, raised: Exception | None) -> Batch:
        """One item → one batch. Sets `_error` for the next call when the source is over and not well."""
        batch = Batch(self._call.now(), [], [], [])
        items = self._items
        try:
            if self._cancelled:
                self._ended = True
                return batch
            if self._expired is not None:
                raise StreamingTimeout(*self._expired)
            if raised is None:
                self._has_begun = True
                items.decode(item, batch.events)
            elif not isinstance(raised, Over | Aborted) and not items.proved:
                raise mapped(raised, has_begun=self._has_begun, has_content=self._has_content)
            if raised is not None or items.done:
                items.close(batch.events)
                self._ended = batch.is_last = True
        except PenstockError as error:
            error.target = error.target or self._name
            self._error = error  # this batch first, then the error
        for event in batch.events:
            if (type(event) is Delta and event.text) or is_content(event):
                batch.has_content = self._has_content = True
                break
        return batch

    async def _recovered(self, error: PenstockError) -> Batch:
        """Go on with another source, if the caller has one; raise the error otherwise."""
        await self._close_source()
        made = None
        if self._seam is not None and not self._cancelled and isinstance(error, UpstreamError):
            made = await self._seam.ask(error, in_thread=isinstance(self._source, ThreadSource))
        if made is None or self._seam is None:
            self._ended = True
            raise error
        self._call.attempts.append(Attempt(self._name))
        self._source, self._items = source_of(made), Items(self._provider)
        self._error = self._expired = None
        self._has_begun = False
        if self._cancelled:  # while the caller made it
            self._source.abort()
        return self._seam.mark(self._call.now(), error)

    def _expire(self, clock: ClockName | None, after_s: float) -> None:
        if clock is not None:  # else nothing more is waited for after a proved ending, and all is well
            self._expired = (clock, after_s)
        self._source.abort()

    def tap(self, tap: Tap) -> None:
        self._tap = tap

    def cancel(self) -> None:
        if not self._ended:
            self._cancelled = True
            self._source.abort()

    @property
    def is_complete(self) -> bool:
        return self._items.proved and self._error is None and not self._cancelled

    @property
    def in_hand(self) -> tuple[Event, ...]:
        """None: nothing is read before somebody asks for it."""
        return ()

    @property
    def error(self) -> PenstockError | None:
        return self._error

    def _stop(self) -> None:
        if self._clocks is not None:
            self._clocks.stop()
            self._clocks = None

    async def _close_source(self) -> None:
        self._source.abort()
        await self._source.closed()

    async def aclose(self) -> None:
        self._ended = True
        self._stop()
        await self._close_source()


def source_of(made: Any) -> Source:
    """Raises `ConfigError` for what cannot be read in items."""
    return AsyncSource(made) if is_async(made) else ThreadSource(made)


def is_async(made: Any) -> bool:
    can_async, can_sync = hasattr(made, "__aiter__"), hasattr(made, "__iter__")
    if can_async and can_sync:  # LiteLLM's wrapper has both and means one of them: that of the stream inside
        return hasattr(getattr(made, "completion_stream", None), "__aiter__")
    if can_async or inspect.isawaitable(made):
        return True
    if not can_sync or isinstance(made, str | bytes | bytearray | Mapping):
        fix = "Give a stream, a generator or a list of chunks."
        if hasattr(made, "__enter__") or hasattr(made, "__aenter__"):
            fix = "It is a context manager: enter it, and give what that gives."
        raise ConfigError(f"A {type(made).__name__} is no stream of chunks.", fix=fix)
    return False


class _Adapting:
    """One adapted stream, from its source to that source's closing."""

    def __init__(
        self, call: Call, made: Any, timeouts: Timeouts, recover: Recover | None, provider: str | None
    ) -> None:
        self._call = call
        name = provider or type(made).__module__.partition(".")[0]
        self._target = Target(name, "", "adapted", call.model or None)
        self._reply = AdaptedReply(made, call, timeouts, name=name, provider=provider)
        if recover is not None:
            self._reply.recovers(recover)

    async def __aenter__(self) -> EventStream:
        self._call.attempts.append(Attempt(self._target.upstream))
        return EventStream(self._reply, target=self._target, dialect="adapted")

    async def __aexit__(self, *exc: object) -> None:
        await self._reply.aclose()


def adapting(made: Any, *, timeout: float | Timeouts | None, recover: Recover | None, provider: str | None) -> Handler:
    """The handler whose stream is the source's. Raises `ConfigError` for what is no source."""
    is_async(made)
    timeouts = timeout if isinstance(timeout, Timeouts) else Timeouts(first_content=timeout, idle=timeout, silence=None)
    return lambda call: _Adapting(call, made, timeouts, recover, provider)


def provider_of(made: Any) -> str | None:
    """By the package that it comes from; None for one that says nothing of who answers."""
    return _PROVIDERS.get(type(made).__module__.partition(".")[0])
