"""The streams that programs hold: `AsyncStream` in a program's own loop, `Stream` over the private one.

Iterating gives events; `.text`, `.reasoning`, `.tool_calls` and `.chunks()` are views of the same, read once: whatever
is read a second time raises `AlreadyConsumed`, and no view hides an error. Leaving `with` closes the socket at once; a
stream that is dropped without it is closed as well, with a `ResourceWarning`. `.response` is the whole reply; for one
that failed it raises the same error, whose `.partial` is what had come.

`.cursor()`, before the first read, gives one more reader of the same reply. Readers are independent: whoever wants more
than has come reads on for all. What a slow one has not read yet is kept, up to its `buffer` of events; beyond that it
gets what it had and then `CursorLagged`, and the others go on. (Waiting for it instead would hang a program that reads
one after the other.)
"""

from __future__ import annotations

import inspect
import warnings
from typing import TYPE_CHECKING, Any

from penstock.canon.errors import AlreadyConsumed, InvalidRequest, PenstockError
from penstock.canon.events import Event, ToolCall
from penstock.client.chunks import Chunk, ChunkMetadata, Flat
from penstock.client.hooks import StreamEnd, check_plain
from penstock.client.output import Shape, growing
from penstock.client.process import Callbacks, end_told
from penstock.client.session import Observers, Session
from penstock.client.views import AsyncView, Pick, Reader, T, pieces, sync_view, tool_call

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from typing import Self

    from penstock.canon.embedding import EmbedRequest
    from penstock.canon.response import Ending, Response, Timing
    from penstock.canon.usage import Usage
    from penstock.client.loop import LoopThread
    from penstock.streams.handler import Call, Handler

__all__ = ["AsyncCursor", "AsyncStream", "Chunk", "ChunkMetadata", "Cursor", "Stream"]

#: Events that a reader may be behind another one; a delta is about 100 bytes.
BUFFER = 4096


class _Readable:
    """What is the same for all that can be read."""

    _session: Session
    _reader: Reader
    #: whether `.chunks()` has metadata when it is not told
    _metadata = False

    def _flat(self, metadata: bool | None) -> Pick[Chunk]:
        wants = self._metadata if metadata is None else metadata
        return Flat(self._session.provider, metadata=wants).chunk

    def _growing(self, schema: Any) -> Pick[Any]:
        session = self._session
        if schema is not None:
            session.shape = Shape(schema)
        if session.shape is None:
            raise InvalidRequest("Nothing says what the value is.", param="schema", fix="Write .partial(schema).")
        return growing(session.shape)

    @property
    def usage(self) -> Usage | None:
        """The tokens that the provider has reported so far; None while nobody said."""
        return self._session.usage

    @property
    def finish(self) -> Ending | None:
        """Why the model stopped; None until it has said so."""
        return self._session.ending

    @property
    def timing(self) -> Timing | None:
        """The times measured so far, by the network's reads; None before the request is sent."""
        return self._session.timing


class _AsyncReadable(_Readable):
    def __aiter__(self) -> Self:
        self._reader.take()
        return self

    async def __anext__(self) -> Event:
        ready = self._reader.ready
        while not ready:
            if not await self._session.pull(self._reader):
                raise StopAsyncIteration
        return ready.popleft()

    def _view(self, pick: Pick[T]) -> AsyncIterator[T]:
        self._reader.take()
        return AsyncView(self, self._session, self._reader, pick)

    @property
    def text(self) -> AsyncIterator[str]:
        """The pieces of text, as they come."""
        return self._view(pieces("text"))

    @property
    def reasoning(self) -> AsyncIterator[str]:
        return self._view(pieces("reasoning"))

    @property
    def tool_calls(self) -> AsyncIterator[ToolCall]:
        """Each call when its arguments are whole."""
        return self._view(tool_call)

    def partial(self, schema: Any = None) -> AsyncIterator[Any]:
        """What is certain of the value so far, as plain dicts and lists: numbers and enums when they are complete,
        strings as they grow. `schema` is needed where the call had none."""
        return self._view(self._growing(schema))

    def chunks(self, *, metadata: bool | None = None) -> AsyncIterator[Chunk]:
        """The flat form."""
        return self._view(self._flat(metadata))


class AsyncCursor(_AsyncReadable):
    """One more reader of a stream, which it keeps alive; dropped, nothing is kept for it any more."""

    def __init__(self, stream: AsyncStream, buffer: int) -> None:
        self._stream = stream
        self._session = stream._session
        self._metadata = stream._metadata
        self._reader = _new_reader(self._session, buffer)

    def __del__(self) -> None:
        if hasattr(self, "_reader"):
            self._session.drop(self._reader)


class AsyncStream(_AsyncReadable):
    """One reply. `async with` sends the request and checks its status; so does the first iteration without it."""

    def __init__(
        self,
        handler: Handler,
        call: Call,
        *,
        closed: Callable[[], Awaitable[None]] | None = None,
        observers: Observers | None = None,
        metadata: bool = False,
        provider: str | None = None,
        shape: Shape | None = None,
        request: EmbedRequest | None = None,
        keep_alives: bool = False,
    ) -> None:
        self._metadata = metadata
        self._session = Session(
            handler,
            call,
            closed=closed,
            observers=observers,
            provider=provider,
            shape=shape,
            request=request,
            keep_alives=keep_alives,
        )
        self._reader = Reader(BUFFER)
        self._session.add(self._reader)

    async def __aenter__(self) -> Self:
        await self._session.begin()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._session.finish()

    async def aclose(self) -> None:
        """Close the upstream's connection, unless the reply was read to its end. Any number of times."""
        await self._session.finish()

    def cancel(self) -> None:
        """Stop now; whoever iterates ends quietly with what there is. From any task or thread, any number of times."""
        self._session.cancel()

    def cursor(self, *, buffer: int = BUFFER) -> AsyncCursor:
        """One more reader of this reply, from its beginning, at most `buffer` events behind the others.

        Raises `AlreadyConsumed` once somebody has begun to read.
        """
        return AsyncCursor(self, buffer)

    def on_end(self, ended: Callable[[StreamEnd], None]) -> None:
        """Call a plain function once, when the stream is over, however it ended; on the loop that the stream is on.

        At once if it is over already; never for a stream that was not begun. What it raises is logged.
        """
        check_plain("on_end", ended)
        self._session.call_at_end(ended)

    async def process(
        self,
        *,
        on_text: Callable[[str], Any] | None = None,
        on_reasoning: Callable[[str], Any] | None = None,
        on_tool_call: Callable[[ToolCall], Any] | None = None,
        on_end: Callable[[StreamEnd], Any] | None = None,
    ) -> Response:
        """Read all of it, with callbacks, and return the response. Coroutine functions are awaited, one after another.

        A callback that raises ends the stream, and this raises it. `on_end` is called exactly once, whatever happened;
        what it raises itself is raised if nothing else went wrong, and noted on the error if something did.
        """
        callbacks = Callbacks(on_text=on_text, on_reasoning=on_reasoning, on_tool_call=on_tool_call)
        raised: BaseException | None = None
        try:
            async for event in self:
                for called in callbacks.call(event):
                    if inspect.isawaitable(called):
                        await called
        except BaseException as error:
            raised = error
            raise
        finally:
            await self._session.finish()
            if on_end is not None:
                with end_told(raised):
                    told = on_end(callbacks.end(self._session, raised))
                    if inspect.isawaitable(told):
                        await told
        return self.response

    @property
    def response(self) -> Response:
        """The whole reply, once the stream is over."""
        session = self._session
        if session.error is not None:
            raise session.error
        if not session.is_over:
            raise PenstockError("The stream is not over.", fix="Iterate to its end first, or use `agenerate`.")
        return session.response()

    def __del__(self, _warn: Callable[..., None] = warnings.warn) -> None:
        _abandon(self, _warn, "async with")

    def __repr__(self) -> str:
        return _repr(self, self._session)


class _SyncReadable(_Readable):
    _loop: LoopThread

    def _pull(self) -> bool:
        return self._loop.run(self._session.pull(self._reader))

    def _view(self, pick: Pick[T]) -> Iterator[T]:
        self._reader.take()
        return sync_view(self, self._pull, self._reader, pick)

    def __iter__(self) -> Iterator[Event]:
        return self._view(_same)

    @property
    def text(self) -> Iterator[str]:
        """The pieces of text, as they come."""
        return self._view(pieces("text"))

    @property
    def reasoning(self) -> Iterator[str]:
        return self._view(pieces("reasoning"))

    @property
    def tool_calls(self) -> Iterator[ToolCall]:
        """Each call when its arguments are whole."""
        return self._view(tool_call)

    def partial(self, schema: Any = None) -> Iterator[Any]:
        """What is certain of the value so far, as plain dicts and lists: numbers and enums when they are complete,
        strings as they grow. `schema` is needed where the call had none."""
        return self._view(self._growing(schema))

    def chunks(self, *, metadata: bool | None = None) -> Iterator[Chunk]:
        """The flat form."""
        return self._view(self._flat(metadata))


class Cursor(_SyncReadable):
    """One more reader of a stream, which may be read in another thread; dropped, nothing is kept for it any more."""

    def __init__(self, stream: Stream, buffer: int) -> None:
        self._stream = stream
        self._loop = stream._loop
        self._session = stream._session
        self._metadata = stream._metadata
        self._reader = _new_reader(self._session, buffer)

    def __del__(self) -> None:
        if hasattr(self, "_reader"):
            self._session.drop(self._reader)


class Stream(_SyncReadable):
    """The same for programs without a loop. The request is sent, and its status checked, when it is made."""

    def __init__(self, inner: Callable[[], AsyncStream], loop: LoopThread, *, begin: bool = True) -> None:
        self._loop = loop
        made = loop.run(_made(inner, begin))
        self._session, self._reader, self._metadata = made

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the upstream's connection, unless the reply was read to its end. Any number of times."""
        if not self._session.is_over:
            self._loop.run(self._session.finish())

    def cancel(self) -> None:
        """Stop now; whoever iterates ends quietly with what there is. From any thread, any number of times."""
        self._session.cancel()

    def cursor(self, *, buffer: int = BUFFER) -> Cursor:
        """One more reader of this reply, from its beginning, at most `buffer` events behind the others.

        Raises `AlreadyConsumed` once somebody has begun to read.
        """
        return Cursor(self, buffer)

    def on_end(self, ended: Callable[[StreamEnd], None]) -> None:
        """Call a plain function once, when the stream is over, however it ended; on the private loop's thread.

        At once if it is over already; never for a stream that was not begun. What it raises is logged.
        """
        check_plain("on_end", ended)
        self._loop.run(_called(self._session, ended))

    def process(
        self,
        *,
        on_text: Callable[[str], Any] | None = None,
        on_reasoning: Callable[[str], Any] | None = None,
        on_tool_call: Callable[[ToolCall], Any] | None = None,
        on_end: Callable[[StreamEnd], Any] | None = None,
    ) -> Response:
        """Read all of it, with callbacks, in this thread, and return the response.

        A callback that raises ends the stream, and this raises it. `on_end` is called exactly once, whatever happened;
        what it raises itself is raised if nothing else went wrong, and noted on the error if something did.
        """
        for name, given in (("on_text", on_text), ("on_reasoning", on_reasoning), ("on_tool_call", on_tool_call)):
            check_plain(name, given)
        check_plain("on_end", on_end)
        callbacks = Callbacks(on_text=on_text, on_reasoning=on_reasoning, on_tool_call=on_tool_call)
        raised: BaseException | None = None
        try:
            for event in self:
                callbacks.call(event)
        except BaseException as error:
            raised = error
            raise
        finally:
            self.close()
            if on_end is not None:
                with end_told(raised):
                    on_end(callbacks.end(self._session, raised))
        return self.response

    @property
    def response(self) -> Response:
        """The whole reply; reads what nobody has read yet."""
        session, ready = self._session, self._reader.ready
        while not session.is_over and self._pull():
            ready.clear()
        if session.error is not None:
            raise session.error
        return session.response()

    def __del__(self, _warn: Callable[..., None] = warnings.warn) -> None:
        _abandon(self, _warn, "with")

    def __repr__(self) -> str:
        return _repr(self, self._session)


def _same(event: Event) -> Event:
    return event


async def _made(make: Callable[[], AsyncStream], begin: bool) -> tuple[Session, Reader, bool]:
    made = make()
    # Who holds what it is made of is its owner: the maker's own `__del__` finds nothing to close.
    session, reader = made._session, made._reader
    del made._session
    if begin:
        await session.begin()
    return session, reader, made._metadata


async def _called(session: Session, ended: Callable[[StreamEnd], None]) -> None:
    session.call_at_end(ended)


def _new_reader(session: Session, buffer: int) -> Reader:
    if session.was_read:
        raise AlreadyConsumed("This stream is being read already.", fix="Make cursors before you begin to read.")
    if buffer < 1:
        raise PenstockError(f"A buffer of {buffer} events holds nothing.", fix="Use a size of at least 1.")
    reader = Reader(buffer)
    session.add(reader)
    return reader


def _abandon(stream: AsyncStream | Stream, warn: Callable[..., None], block: str) -> None:
    session: Session | None = getattr(stream, "_session", None)
    if session is not None and session.is_open:
        try:
            warn(f"{stream!r} was left open; use `{block}`.", ResourceWarning, source=stream)
        finally:
            session.abandon()


def _repr(stream: AsyncStream | Stream, session: Session) -> str:
    state = "over" if session.is_over else "open" if session.is_open else "not begun"
    return f"<{type(stream).__name__} {session.call.target or session.provider or 'adapted'} {state}>"
