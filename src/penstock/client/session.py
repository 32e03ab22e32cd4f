"""One call of the library, from its request to its one ending, for as many readers as there are.

It is begun when it is entered or first read, read one batch at a time for all readers alike, and finished exactly once,
whatever ended it: the reply's end, an error, `cancel`, a caller who left, or one who forgot it. Finishing closes the
upstream's connection or gives it back, and only then tells the hooks.

A session belongs to the loop on which it was begun; only `cancel` and `abandon` may be called from anywhere.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from penstock.canon.errors import PenstockError, SchemaMismatch
from penstock.canon.events import KeepAlive, Progress
from penstock.canon.response import Ending, Fold, Response, Timing
from penstock.client.hooks import Hooks, RequestSent, ResponseStarted, StreamEnd, tell
from penstock.client.left_out import warned, warnings_of
from penstock.telemetry.recorder import InFlight, recorded

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from contextlib import AbstractAsyncContextManager

    from penstock.canon.embedding import EmbedRequest
    from penstock.canon.events import Event
    from penstock.canon.price import Price
    from penstock.canon.target import Target
    from penstock.canon.usage import Usage
    from penstock.client.output import Shape
    from penstock.client.views import Reader
    from penstock.streams.handler import Call, Handler
    from penstock.streams.stream import EventStream
    from penstock.telemetry.record import CallRecord
    from penstock.telemetry.tally import Tally

#: Finishing of forgotten streams, which nobody else holds.
_forgotten: set[asyncio.Task[None]] = set()


class Observers(Struct, frozen=True):
    """Who looks on at a client's calls: its hooks, its prices, and where its records go."""

    hooks: Hooks | None = None
    price: Callable[[Target, str], Price | None] | None = None
    publish: Callable[[CallRecord], None] | None = None
    #: told of each call's end, before its record
    ended: Callable[[Tally], None] | None = None
    in_flight: InFlight | None = None


class Session:
    """`closed` is awaited after the end: what the call alone has kept open. `request` is that of embeddings.

    `keep_alives`: readers are given the upstream's signs of life too.
    """

    def __init__(
        self,
        handler: Handler,
        call: Call,
        *,
        closed: Callable[[], Awaitable[None]] | None = None,
        observers: Observers | None = None,
        provider: str | None = None,
        shape: Shape | None = None,
        request: EmbedRequest | None = None,
        keep_alives: bool = False,
    ) -> None:
        self.call = call
        self._keeps_alive = keep_alives
        self._request = request
        #: who answers, as far as is known before it does
        self.provider = provider or (call.targets[0].upstream if len(call.targets) == 1 else None)
        #: what the text must be, where somebody said
        self.shape = shape
        self.is_over = False
        self.error: BaseException | None = None
        self.record: CallRecord | None = None
        self._handler: Handler | None = handler
        self._closed = closed
        self._observers = observers or Observers()
        self._opened: AbstractAsyncContextManager[EventStream] | None = None
        self._stream: EventStream | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opener: asyncio.Task[object] | None = None
        self._turn: asyncio.Lock | None = None
        self._readers: list[Reader] = []
        self._folding = Fold()
        self._tally: Tally | None = None
        self._is_cancelled = False
        self._is_whole = False
        self._parsed: Any = None
        self._was_sent = False
        #: whether somebody has begun to read
        self.was_read = False
        self._ends: list[Callable[[StreamEnd], None]] = []

    @property
    def is_open(self) -> bool:
        """Whether there is a connection that somebody must close."""
        return self._stream is not None

    @property
    def has_begun(self) -> bool:
        return self._loop is not None

    # --- its life ---------------------------------------------------------------------------------------------------

    async def begin(self) -> None:
        """Send the request and wait for its reply to begin. Raises what went wrong; returns at once the second time."""
        if self._stream is not None or self.is_over:
            return
        self._loop = asyncio.get_running_loop()
        if self._is_cancelled:  # before anything was sent
            await self.finish()
            return
        self._was_sent = True
        watch = self._observers
        if watch.hooks is not None:
            tell(watch.hooks.on_request, self._request_sent())
        # Made here and not kept: it holds this session, and no call may leave a cycle behind.
        inner, self._handler = self._handler, None
        assert inner is not None, "a call is begun once"
        handler = recorded(
            self._note, price=watch.price, in_flight=watch.in_flight, begun=self._follow, ended=watch.ended
        )(inner)
        opener = self._opener = asyncio.current_task()
        assert opener is not None
        cancelling = opener.cancelling()
        try:
            opened = handler(self.call)
            stream = await opened.__aenter__()
        except BaseException as error:
            self._opener = None
            # As asyncio.timeout does it: a cancellation that somebody else asked for at the same time goes on.
            if self._has_cancelled(error) and opener.uncancel() <= cancelling:
                await self.finish()
                return
            await self.finish(error)
            raise
        self._opener = None
        self._opened, self._stream = opened, stream
        if watch.hooks is not None:
            tell(watch.hooks.on_response, self._response_started(stream))

    async def finish(self, error: BaseException | None = None) -> None:
        """Close what is open and tell of the end. The first time counts; `error` is what ended it."""
        if self.is_over:
            return
        self.is_over = True
        if isinstance(error, Exception):  # a task's own cancellation is no fault of the stream
            self.error = error
        opened, self._opened, self._stream = self._opened, None, None
        try:
            if opened is not None:
                await opened.__aexit__(None, None, None)
        finally:
            closed, self._closed = self._closed, None
            try:
                if closed is not None:
                    await closed()
            finally:
                self._parse()
                self._tell_end()

    def _parse(self) -> None:
        """The value that a whole reply is. One that does not fit is an error like any other."""
        if self.shape is None or not self._is_whole or self._is_cancelled:
            return
        try:
            self._parsed = self.shape.parsed(self.response())
        except SchemaMismatch as error:
            self.error = error

    def cancel(self) -> None:
        """Close the connection now; whoever reads ends quietly. From any thread, any number of times."""
        self._is_cancelled = True
        loop = self._loop
        if loop is None or self.is_over:
            return
        if asyncio._get_running_loop() is loop:
            self._cancel()
        else:
            with suppress(RuntimeError):  # the loop is closed, and its connections with it
                loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        if self._stream is not None:
            self._stream.cancel()
        elif self._opener is not None:
            opener, self._opener = self._opener, None
            opener.cancel()

    def _has_cancelled(self, error: BaseException) -> bool:
        return self._is_cancelled and isinstance(error, asyncio.CancelledError)

    def abandon(self) -> None:
        """Nobody holds it any more: close it and tell of its end, from wherever the garbage collector runs."""
        self._is_cancelled = True
        try:
            assert self._loop is not None
            self._loop.call_soon_threadsafe(self._forget)
        except RuntimeError:  # its loop is closed, and nothing can be waited for
            self._closed = None
            finishing = self.finish()
            with suppress(StopIteration, Exception):
                finishing.send(None)
            finishing.close()

    def _forget(self) -> None:
        assert self._loop is not None
        self._cancel()
        task = self._loop.create_task(self.finish())
        _forgotten.add(task)
        task.add_done_callback(_forgotten.discard)

    # --- reading ----------------------------------------------------------------------------------------------------

    def add(self, reader: Reader) -> None:
        self._readers.append(reader)
        if len(self._readers) > 1 and self._turn is None:
            self._turn = asyncio.Lock()

    def drop(self, reader: Reader) -> None:
        if reader in self._readers:
            self._readers.remove(reader)

    def pull(self, reader: Reader) -> Coroutine[Any, Any, bool]:
        """Give every reader the next batch, if `reader` has nothing left; False at the end. Raises what ended it."""
        return self._read(reader) if self._turn is None else self._read_in_turn(reader, self._turn)

    async def _read_in_turn(self, reader: Reader, turn: asyncio.Lock) -> bool:
        async with turn:
            return bool(reader.ready) or await self._read(reader)

    async def _read(self, reader: Reader) -> bool:
        if reader.is_lagging:
            reader.check()
        stream = self._stream
        if stream is None:
            await self.begin()
            stream = self._stream
            if stream is None:
                if self.error is not None:
                    raise self.error
                return False
        try:
            batch = await stream.__anext__()
        except StopAsyncIteration:
            self._is_whole = True
            await self.finish()
            if self.error is not None:
                raise self.error from None
            return False
        except Exception as error:
            if self.is_over:  # closed by another task while this one read: it ends quietly
                return False
            await self.finish(error)
            raise
        # Not CancelledError: a caller that gave up one read may come back for it. If it does not, it has left.
        events = batch.events
        self.was_read = True
        if batch.seam is None:
            self._folding.feed(events)
        else:
            events = self._taken_up(events, batch.seam)
        if self.call.dropped:
            events = warned(self.call, events)
        if not self._keeps_alive:
            for event in events:
                if type(event) is KeepAlive:
                    events = [event for event in events if type(event) is not KeepAlive]
                    break
        reader.ready.extend(events)
        if self._turn is not None:
            for other in self._readers:
                if other is not reader:
                    other.offer(events)
        return True

    def _taken_up(self, events: list[Event], seam: str) -> list[Event]:
        """Another attempt goes on from here: in a reply that is said again, what was said before is no part of it."""
        if self.call.recovered == "restart":
            self._folding.begin_again(events)
        else:
            self._folding.feed(events)
        return [Progress("recovered", message=seam.removeprefix("penstock: ")), *events]

    # --- what is known of it ----------------------------------------------------------------------------------------

    def call_at_end(self, ended: Callable[[StreamEnd], None]) -> None:
        """Once, when it is over; at once if it is."""
        if self.is_over:
            tell(ended, self.end())
        else:
            self._ends.append(ended)

    def _tell_end(self) -> None:
        if isinstance(self.error, PenstockError):
            self.error.partial = self.response()
        ends, self._ends = self._ends, []
        hooks = self._observers.hooks
        if hooks is not None and hooks.on_end is not None and self._was_sent:
            ends.insert(0, hooks.on_end)
        if ends:
            end = self.end()
            for ended in ends:
                tell(ended, end)

    def end(self) -> StreamEnd:
        return StreamEnd(self.call.request_id, self.response(), self.error, self.record)

    def _note(self, record: CallRecord) -> None:
        self.record = record
        if self._observers.publish is not None:
            self._observers.publish(record)

    def _follow(self, tally: Tally) -> None:
        self._tally = tally

    def _request_sent(self) -> RequestSent:
        call = self.call
        target = str(call.target or self.provider or "adapted")
        request = self._request or (call.request if call.has_request else None)
        return RequestSent(call.request_id, call.model, target, request)

    def _response_started(self, stream: EventStream) -> ResponseStarted:
        is_synthetic = self.call.stream and stream.is_document
        return ResponseStarted(self.call.request_id, str(stream.target), stream.status, stream.attempt, is_synthetic)

    @property
    def usage(self) -> Usage | None:
        usage, record = self._folding.usage, self.record
        if usage is not None and record is not None and record.cost is not None:
            return replace(usage, cost=record.cost)
        return usage

    @property
    def ending(self) -> Ending | None:
        return self._folding.ending

    @property
    def timing(self) -> Timing | None:
        return self._tally.timing() if self._tally is not None else None

    def response(self) -> Response:
        """What has come, and how it ended if it has."""
        outcome = None
        if self.is_over:
            outcome = self.record.outcome if self.record is not None else "cancelled"
        response = self._folding.response(
            outcome=outcome,
            timing=self.timing if self.is_over else None,
            attempts=len(self.call.attempts),
            request_id=self.call.request_id,
            warnings=warnings_of(self.call),
            parsed=self._parsed,
        )
        return replace(response, usage=self.usage) if response.usage is not None else response
