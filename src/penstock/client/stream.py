"""The streams that programs hold: `AsyncStream` in a program's own loop, `Stream` over the private one.

Iterating gives events; `.text`, `.reasoning`, `.tool_calls` and `.chunks()` are views of the same, read once: whatever
is read a second time raises `AlreadyConsumed`, and no view hides an error. Leaving `with` closes the socket at once.
`.response` is the whole reply; for one that failed it raises the same error, whose `.partial` is what had come.
"""

from __future__ import annotations

import time
import warnings
from collections import deque
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from penstock.canon.errors import AlreadyConsumed, PenstockError
from penstock.canon.events import BlockEnd, BlockStart, Delta, Event, Finish, KeepAlive, ToolCall, UsageUpdate
from penstock.canon.response import Fold, Response, Timing
from penstock.client.left_out import warned, warnings_of
from penstock.telemetry.recorder import recorded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from typing import Self

    from penstock.canon.price import Price
    from penstock.canon.target import Target
    from penstock.client.loop import LoopThread
    from penstock.streams.handler import Call, Handler
    from penstock.streams.stream import EventStream
    from penstock.telemetry.record import CallRecord


class ChunkMetadata(Struct, frozen=True):
    """`timestamp` is Unix time in seconds, `chunk_size` the content's length in bytes."""

    index: int
    timestamp: float
    chunk_size: int
    provider: str


class Chunk(Struct, frozen=True):
    """The flat form. The last one has the finish reason, the usage and the tool calls."""

    content: str
    finish_reason: str | None
    usage: dict[str, int | None] | None
    tool_calls: tuple[ToolCall, ...]
    delta: dict[str, str]
    chunk_metadata: ChunkMetadata | None = None


class AsyncStream:
    """One reply. `async with` sends the request and checks its status; so does the first iteration without it."""

    def __init__(
        self,
        handler: Handler,
        call: Call,
        *,
        closed: Callable[[], Awaitable[None]] | None = None,
        price: Callable[[Target, str], Price | None] | None = None,
    ) -> None:
        self._call = call
        self._handler = recorded(self._note, price=price)(handler)
        self._closed = closed
        self._opened = AsyncExitStack()
        self._stream: EventStream | None = None
        self._ready: deque[Event] = deque()
        self._folding = Fold()
        self._record: CallRecord | None = None
        self._error: BaseException | None = None
        self._is_over = False
        self._is_taken = False
        self._is_cancelled = False

    # --- its life ---------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self._begin()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def _begin(self) -> None:
        if self._stream is not None or self._is_over:
            return
        try:
            self._stream = await self._opened.enter_async_context(self._handler(self._call))
        except BaseException as error:
            self._error = error
            await self._finish()
            raise
        if self._is_cancelled:
            self._stream.cancel()

    async def aclose(self) -> None:
        """Close the upstream's connection, unless the reply was read to its end. Any number of times."""
        if not self._is_over:
            await self._finish()

    def cancel(self) -> None:
        """Stop now; whoever iterates ends quietly with what there is. In the loop's own thread, any number of times."""
        self._is_cancelled = True
        if self._stream is not None:
            self._stream.cancel()

    async def _finish(self) -> None:
        self._is_over = True
        await self._opened.aclose()
        self._stream = None
        if isinstance(self._error, PenstockError):
            self._error.partial = self._response()
        if self._closed is not None:
            closed, self._closed = self._closed, None
            await closed()

    def _note(self, record: CallRecord) -> None:
        self._record = record

    def __del__(self, _warn: Callable[..., None] = warnings.warn) -> None:
        if getattr(self, "_stream", None) is not None:
            _warn(f"{self!r} was left open; use `async with`.", ResourceWarning, source=self)
            self._stream.cancel()  # type: ignore[union-attr]

    def __repr__(self) -> str:
        state = "over" if self._is_over else "open" if self._stream is not None else "not begun"
        return f"<{type(self).__name__} {self._call.target} {state}>"

    # --- reading it -------------------------------------------------------------------------------------------------

    def __aiter__(self) -> Self:
        self._take()
        return self

    def _take(self) -> None:
        if self._is_taken:
            raise AlreadyConsumed("This stream was read already.", fix="Keep what you need of it, or use `.response`.")
        self._is_taken = True

    async def __anext__(self) -> Event:
        while not self._ready:
            if not await self._read():
                raise StopAsyncIteration
        return self._ready.popleft()

    async def _read(self) -> bool:
        """Take one batch; False at the end."""
        if self._is_over:
            if self._error is not None:
                raise self._error
            return False
        await self._begin()
        assert self._stream is not None
        try:
            batch = await self._stream.__anext__()
        except StopAsyncIteration:
            await self._finish()
            return False
        except BaseException as error:
            self._error = error
            await self._finish()
            raise
        self._folding.feed(batch.events)
        events = warned(self._call, batch.events) if self._call.dropped else batch.events
        self._ready.extend(event for event in events if type(event) is not KeepAlive)
        return True

    @property
    def text(self) -> AsyncIterator[str]:
        """The pieces of text, as they come."""
        self._take()
        return self._pieces("text")

    @property
    def reasoning(self) -> AsyncIterator[str]:
        self._take()
        return self._pieces("reasoning")

    @property
    def tool_calls(self) -> AsyncIterator[ToolCall]:
        """Each call when its arguments are whole."""
        self._take()
        return self._calls()

    def chunks(self, *, metadata: bool = False) -> AsyncIterator[Chunk]:
        self._take()
        return self._chunks(metadata)

    async def _pieces(self, kind: str) -> AsyncIterator[str]:
        wanted: set[int] = set()
        while self._ready or await self._read():
            while self._ready:
                event = self._ready.popleft()
                if type(event) is Delta:
                    if event.i in wanted:
                        yield event.text
                elif type(event) is BlockStart and event.kind == kind:
                    wanted.add(event.i)

    async def _calls(self) -> AsyncIterator[ToolCall]:
        while self._ready or await self._read():
            while self._ready:
                event = self._ready.popleft()
                if type(event) is BlockEnd and isinstance(event.part, ToolCall) and not event.part.server:
                    yield event.part

    async def _chunks(self, metadata: bool) -> AsyncIterator[Chunk]:
        flat = _Flat(self._provider, metadata)
        while self._ready or await self._read():
            while self._ready:
                chunk = flat.chunk(self._ready.popleft())
                if chunk is not None:
                    yield chunk

    @property
    def _provider(self) -> str:
        return self._call.target.upstream if self._call.target is not None else "unknown"

    @property
    def response(self) -> Response:
        """The whole reply, once the stream is over."""
        if self._error is not None:
            raise self._error
        if not self._is_over:
            raise PenstockError("The stream is not over.", fix="Iterate to its end first, or use `agenerate`.")
        return self._response()

    def _response(self) -> Response:
        record = self._record
        timing = None
        if record is not None:
            timing = Timing(
                record.ttfb_ms,
                record.ttft_ms,
                record.duration_ms,
                record.itl_p50_ms,
                record.itl_p95_ms,
                record.itl_max_ms,
            )
        response = self._folding.response(
            outcome=record.outcome if record is not None else None,
            timing=timing,
            attempts=len(self._call.attempts),
            request_id=self._call.request_id,
            warnings=warnings_of(self._call),
        )
        if record is not None and record.cost is not None and response.usage is not None:
            return replace(response, usage=replace(response.usage, cost=record.cost))
        return response


class _Flat:
    """Events → the flat form, one chunk per piece of text and one at the end."""

    def __init__(self, provider: str, metadata: bool) -> None:
        self._provider = provider
        self._metadata = metadata
        self._index = 0
        self._kinds: dict[int, str] = {}
        self._calls: list[ToolCall] = []
        self._usage: dict[str, int | None] | None = None

    def chunk(self, event: Event) -> Chunk | None:
        match event:
            case Delta() if self._kinds.get(event.i) == "text":
                return self._made(event.text, None)
            case BlockStart():
                self._kinds[event.i] = event.kind
            case BlockEnd(part=ToolCall() as call) if not call.server:
                self._calls.append(call)
            case UsageUpdate(usage=usage) | Finish(usage=usage) if usage is not None:
                self._usage = {
                    "prompt_tokens": usage.input,
                    "completion_tokens": usage.output,
                    "total_tokens": usage.total,
                }
        return self._made("", event.reason) if isinstance(event, Finish) else None

    def _made(self, content: str, finish: str | None) -> Chunk:
        about = None
        if self._metadata:
            about = ChunkMetadata(self._index, time.time(), len(content.encode()), self._provider)
        self._index += 1
        last = finish is not None
        return Chunk(
            content=content,
            finish_reason=finish,
            usage=self._usage if last else None,
            tool_calls=tuple(self._calls) if last else (),
            delta={"content": content, "role": "assistant"},
            chunk_metadata=about,
        )


class Stream:
    """The same for programs without a loop. The request is sent, and its status checked, when it is made."""

    def __init__(self, inner: Callable[[], AsyncStream], loop: LoopThread, *, begin: bool = True) -> None:
        self._loop = loop
        self._inner = loop.run(_made(inner))
        if begin:
            loop.run(self._inner._begin())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self._loop.run(self._inner.aclose())

    def cancel(self) -> None:
        """Stop now; whoever iterates ends quietly with what there is. From any thread, any number of times."""
        self._loop.call(self._inner.cancel)

    def __iter__(self) -> Iterator[Event]:
        self._inner._take()
        return self._events()

    def _events(self) -> Iterator[Event]:
        ready = self._inner._ready
        while True:
            while ready:  # a whole batch per visit to the loop
                yield ready.popleft()
            if not self._loop.run(self._inner._read()):
                return

    @property
    def text(self) -> Iterator[str]:
        """The pieces of text, as they come."""
        return self._each(self._inner.text)

    @property
    def reasoning(self) -> Iterator[str]:
        return self._each(self._inner.reasoning)

    @property
    def tool_calls(self) -> Iterator[ToolCall]:
        """Each call when its arguments are whole."""
        return self._each(self._inner.tool_calls)

    def chunks(self, *, metadata: bool = False) -> Iterator[Chunk]:
        return self._each(self._inner.chunks(metadata=metadata))

    def _each(self, view: AsyncIterator[Any]) -> Iterator[Any]:
        while True:
            try:
                yield self._loop.run(_next(view))
            except StopAsyncIteration:
                return

    @property
    def response(self) -> Response:
        """The whole reply; reads what nobody has read yet."""
        while self._loop.run(self._inner._read()):
            self._inner._ready.clear()
        return self._inner.response

    def __repr__(self) -> str:
        return repr(self._inner).replace("AsyncStream", "Stream")


async def _made(make: Callable[[], AsyncStream]) -> AsyncStream:
    return make()


async def _next(view: AsyncIterator[Any]) -> Any:
    return await view.__anext__()
