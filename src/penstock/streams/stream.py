"""A reply under way: bytes of one response → batches, with one true ending.

`Reply` is the source: it reads, frames, decodes, watches the clocks, and ends in exactly one way: it stops (complete),
or raises what ended it. `EventStream` is what handlers give: the batches behind the stages, and `cancel()`, which
works from any task and any number of times. Neither is an async generator, so nothing is ever suspended inside a scope.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from penstock.canon.errors import (
    MalformedFrame,
    PenstockError,
    ProtocolError,
    ReplyTooLarge,
    StreamedError,
    TimedOut,
    Truncated,
)
from penstock.canon.events import Delta, Progress, is_content
from penstock.canon.wire import ConnectionLost
from penstock.dialects.base import Mark
from penstock.streams.batch import Batch

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable

    from penstock.canon.errors import ClockName
    from penstock.canon.events import Event
    from penstock.canon.target import Target
    from penstock.canon.wire import HttpResponse
    from penstock.dialects.base import Decoder
    from penstock.framing.base import Framing
    from penstock.streams.clocks import Clocks
    from penstock.streams.handler import Batches, Stage

#: What may wait for the first content: a provider's preamble and its pings, never a reply.
MAX_PREAMBLE_BYTES = 1024 * 1024

#: What one reply may be in all: half a million tokens with a frame for each, or 2,048 vectors of 3,072 numbers as JSON.
MAX_REPLY_BYTES = 256 * 1024 * 1024


#: Given what has come of a body, and whether it is all: how it is delimited and what it means, or None: not yet.
Chooser = Callable[[bytes, bool], "tuple[Framing, Decoder] | None"]


class Tap(Protocol):
    """Who looks on: at each batch as it is handed over, and at the end. Never waits, never raises."""

    def see(self, batch: Batch) -> None: ...

    def failed(self, error: BaseException) -> None: ...

    def ended(self) -> None: ...


class Reply:
    """The batches of one response. Batches whose events all are true come before the error that ended the reply."""

    def __init__(
        self,
        response: HttpResponse,
        choose: Chooser,
        *,
        now: Callable[[], float],
        target: str,
        attempt: int = 1,
        clocks: Clocks | None = None,
        max_bytes: int = MAX_REPLY_BYTES,
    ) -> None:
        self._response = response
        self._max_bytes = max_bytes
        self._size = 0
        #: what had come of it and was read by nobody when it was closed
        self.unread_bytes = 0
        self._choose = choose
        self._first = b""  # what has come before anybody could tell what it is
        self._framing: Framing | None = None
        self._decoder: Decoder | None = None
        self._now = now
        self._target = target
        self._attempt = attempt
        self._clocks = clocks
        if clocks is not None:
            clocks.watch(self.expire)
        self._ready: deque[Batch] = deque()
        self._tap: Tap | None = None
        self._error: PenstockError | None = None
        self._ended = False
        self._cancelled = False

    def __aiter__(self) -> Reply:
        return self

    async def __anext__(self) -> Batch:
        tap = self._tap
        if self._ready:
            batch = self._ready.popleft()
            if tap is not None:
                tap.see(batch)
            return batch
        response, clocks = self._response, self._clocks
        try:
            while not self._ended:
                if self._error is not None:
                    self._ended = True
                    raise self._error
                broken: ConnectionLost | None = None
                try:
                    while (data := response.take()) is None:
                        if clocks is not None:
                            clocks.resume()
                        await response.arrival()
                except ConnectionLost as error:
                    data, broken = b"", error
                batch = self._take(data, broken)
                if batch.frames or batch.events:
                    if tap is not None:
                        tap.see(batch)
                    return batch
            self._stop()
            if self._error is not None:
                raise self._error
        except Exception as error:
            # Not CancelledError: a caller that gave up one read may come back for it. If it does not, it has left.
            if tap is not None:
                tap.failed(error)
            raise
        if tap is not None:
            tap.ended()
        raise StopAsyncIteration

    async def begin(self, narrate: Callable[[Progress], None] | None = None, *, hold: bool) -> None:
        """Return when the reply has begun, what has come kept in order; raise if it does not.

        `hold`: it has begun with its first content, because somebody could still ask elsewhere. Otherwise `Start` will
        do, and what the upstream has sent goes on at once (C2). Progress that is narrated beside the stream is held
        with the rest; where nobody narrates, whoever asked for it reads it here, and it begins the reply.
        """
        size = 0
        held: deque[Batch] = deque()
        while True:
            try:
                batch = await self.__anext__()
            except StopAsyncIteration:
                break
            held.append(batch)
            if batch.has_content:
                break
            if not hold and batch.events and self._error is None:
                break
            size += sum(len(frame.raw) for frame in batch.frames)
            if size > MAX_PREAMBLE_BYTES:
                raise ProtocolError(f"The upstream sent {size} bytes without content.", target=self._target)
            progress = [event for event in batch.events if type(event) is Progress]
            if narrate is not None:
                for event in progress:
                    narrate(event)
            elif progress and self._error is None:
                break
        self._ready = held

    def _take(self, data: bytes, broken: ConnectionLost | None) -> Batch:
        """One read → one batch. Sets `_error` for the next call when the reply is over and not well."""
        batch = Batch(self._now(), [], [], [])
        if self._error is not None or self._cancelled:  # a clock, or the caller, ended it while we read
            self._ended = True
            return batch
        try:
            self._size += len(data)
            if self._size > self._max_bytes:
                data = self._cut_off(data)
            if self._framing is None or self._decoder is None:
                self._first += data
                if not self._first:
                    raise Truncated("The upstream closed the connection before its reply began.")
                chosen = self._choose(self._first, not data)
                if chosen is None:  # blank lines that keep a connection alive, or too little to tell
                    self._hold_first(batch.at)
                    return batch
                self._framing, self._decoder = chosen
                if not data:  # all of it was too little to tell: no whole frame either
                    self._framing.feed(self._first)
                data, self._first = data and self._first, b""
            decoder = self._decoder
            if data:
                batch.frames = self._framing.feed(data)
                self._decode(batch, decoder)
            else:
                self._ended = True
                self._flush(batch, self._framing, decoder)
                decoder.close(batch.events)
            if decoder.done and not self._ended:
                self._ended = True
                decoder.close(batch.events)
            if self._ended:
                batch.is_last = True
        except PenstockError as error:
            ending = error
            if isinstance(error, Truncated) and broken is not None:
                ending = broken.reason or error
                ending.__cause__ = broken
            ending.target = ending.target or self._target
            ending.attempt = self._attempt
            self._error = ending
            self._ended = False  # this batch first, then the error
        for event in batch.events:
            if (type(event) is Delta and event.text) or is_content(event):
                batch.has_content = True
                break
        if self._clocks is not None and not self._ended:
            self._clocks.has_read(batch.at, batch.has_content, self._decoder is not None and self._decoder.proved)
        return batch

    def _cut_off(self, data: bytes) -> bytes:
        """The reply is too long. One that has ended, by its own proof, is whole without what came after."""
        if self._decoder is None or not self._decoder.proved:
            raise ReplyTooLarge(f"The reply is longer than {self._max_bytes} bytes.", fix="Raise limits.max_reply.")
        self._response.abort()
        return data[:0]

    def _hold_first(self, at: float) -> None:
        if len(self._first) > MAX_PREAMBLE_BYTES and not self._first.strip():
            raise ProtocolError(f"The upstream sent {len(self._first)} bytes, and nothing but blank lines.")
        if self._clocks is not None:
            self._clocks.has_read(at, has_content=False, proved=False)

    @staticmethod
    def _decode(batch: Batch, decoder: Decoder) -> None:
        decode, events, number = decoder.decode, batch.events, 0
        frames = iter(batch.frames)
        while True:
            try:
                for frame in frames:
                    mark = decode(frame, events)
                    if mark is not None:
                        batch.marks.append((number, mark))
                    number += 1
                return
            except StreamedError:
                batch.marks.append((number, Mark.ERROR))
                del batch.frames[number + 1 :]
                raise
            except MalformedFrame:
                if not decoder.proved:
                    del batch.frames[number:]
                    raise
                # The reply is whole: what nobody can read after its end takes nothing of it away.
                batch.marks.append((number, Mark.AFTER))
                number += 1

    def _flush(self, batch: Batch, framing: Framing, decoder: Decoder) -> None:
        """The end of the bytes: a last frame without its delimiter counts only when it is whole after all."""
        for frame in framing.close():
            if frame.unterminated and not frame.data:
                continue  # half of one that has nothing to say yet; ended for it, it would be an event without data
            batch.frames = [frame]
            try:
                self._decode(batch, decoder)
            except MalformedFrame:
                if not frame.unterminated:
                    raise
                batch.frames = []

    def expire(self, clock: ClockName | None, after_s: float) -> None:
        """A clock ran out. After a proved ending that only means that nothing more is waited for."""
        if clock is None:
            self._response.abort()  # the reader finds the connection lost and closes the proved reply
        elif self._error is None and not self._ended and not self._cancelled:
            self._error = TimedOut(clock, after_s, target=self._target)
            self._error.attempt = self._attempt
            self._response.abort()

    def tap(self, tap: Tap) -> None:
        self._tap = tap

    def cancel(self) -> None:
        if not self._ended:  # after the end there is nothing to cancel
            self._cancelled = True
            self._response.abort()

    def _stop(self) -> None:
        if self._clocks is not None:
            self._clocks.stop()
            self._clocks = None

    @property
    def error(self) -> PenstockError | None:
        """What ended it, where it did not end well."""
        return self._error

    @property
    def in_hand(self) -> Iterable[Event]:
        """The events that have come and that nobody has read yet."""
        return (event for batch in self._ready for event in batch.events)

    @property
    def is_complete(self) -> bool:
        proved = self._decoder is not None and self._decoder.proved
        return proved and self._error is None and not self._cancelled

    @property
    def framing(self) -> str:
        """The name of the reply's framing; empty until the first read."""
        return self._framing.name if self._framing is not None else ""

    def close(self) -> None:
        """Give the connection back when nothing more is to come, close it otherwise."""
        self._stop()
        if self._ended and self._error is None and not self._cancelled:
            self._response.release()
        else:
            self.unread_bytes += self._response.abort()
        self._ended = True


class Source(Protocol):
    """Where a stream's batches come from: one `Reply`, or several that follow each other. The words are `Reply`'s."""

    def __aiter__(self) -> Batches: ...

    def __anext__(self) -> Awaitable[Batch]: ...

    def tap(self, tap: Tap) -> None: ...

    def cancel(self) -> None: ...

    @property
    def framing(self) -> str: ...

    @property
    def in_hand(self) -> Iterable[Event]: ...

    @property
    def error(self) -> PenstockError | None: ...

    @property
    def is_complete(self) -> bool: ...


class EventStream:
    """One call's stream of batches. Read once; `cancel()` and `close()` any number of times."""

    def __init__(
        self,
        reply: Source,
        *,
        target: Target,
        dialect: str,
        status: int = 200,
        attempt: int = 1,
    ) -> None:
        self._reply = reply
        self._batches: Batches = aiter(reply)
        self.target = target
        #: the dialect that the upstream answered in
        self.dialect = dialect
        self.status = status
        #: how the upstream's bytes are delimited
        self.framing = reply.framing
        #: the upstream did not stream: frames are a document, not a client's stream
        self.is_document = reply.framing == "document"
        self.attempt = attempt
        self._seen = 0

    def __aiter__(self) -> Batches:
        return self._batches

    def __anext__(self) -> Awaitable[Batch]:
        return self._batches.__anext__()

    def tap(self, tap: Tap) -> None:
        """Let somebody look on, at what is still to come. A tap costs a call per batch, a stage a coroutine."""
        self._reply.tap(tap)

    def through(self, stage: Stage) -> None:
        """Put a stage round what is still to come."""
        self._batches = stage(self._batches)

    def cancel(self) -> None:
        """Close the upstream's connection now; whoever reads ends quietly with what there is."""
        self._reply.cancel()

    @property
    def in_hand(self) -> Iterable[Event]:
        """The events that have come and that nobody has read yet."""
        return self._reply.in_hand

    @property
    def error(self) -> PenstockError | None:
        """What ended it, where it did not end well."""
        return self._reply.error

    @property
    def is_complete(self) -> bool:
        return self._reply.is_complete

    def __repr__(self) -> str:
        return f"<EventStream {self.target} attempt {self.attempt}{' document' if self.is_document else ''}>"
