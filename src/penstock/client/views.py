"""Views of a stream: events → text, reasoning, tool calls or flat chunks, and the readers that hold what has come.

A view is a function that is given each event once, in order, and says what it is for the view: an item, or None. The
same functions serve programs with a loop (`AsyncView`) and without (`sync_view`). Neither is an async generator, so
nothing has to be closed when somebody stops reading.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from penstock.canon.errors import AlreadyConsumed, CursorLagged
from penstock.canon.events import BlockEnd, BlockStart, Delta, Event, ToolCall

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Self

    from penstock.client.session import Session

T = TypeVar("T")

#: event → what it is for the view, or None
Pick = Callable[[Event], "T | None"]


class Reader:
    """What has come and was not read yet, for one who reads. `limit` bounds it when others read as well."""

    __slots__ = ("is_lagging", "is_taken", "limit", "ready")

    def __init__(self, limit: int) -> None:
        self.ready: deque[Event] = deque()
        self.limit = limit
        self.is_taken = False
        self.is_lagging = False

    def take(self) -> None:
        """A reader reads once."""
        if self.is_taken:
            raise AlreadyConsumed(
                "This stream was read already.",
                fix="Keep what you need of it, use `.response`, or read it twice with `.cursor()`.",
            )
        self.is_taken = True

    def offer(self, events: Sequence[Event]) -> None:
        """What another reader's read has brought."""
        if self.is_lagging or len(self.ready) + len(events) > self.limit:
            self.is_lagging = True
        else:
            self.ready.extend(events)

    def check(self) -> None:
        if self.is_lagging:
            raise CursorLagged(
                f"This reader fell more than {self.limit} events behind another one of the same stream.",
                fix="Read them at the same time, or give the slow one a larger `buffer`.",
            )


def pieces(kind: str) -> Pick[str]:
    """The text of blocks of that kind, piece by piece."""
    wanted: set[int] = set()

    def pick(event: Event) -> str | None:
        if type(event) is Delta:
            return event.text or None if event.i in wanted else None
        if type(event) is BlockStart and event.kind == kind:
            wanted.add(event.i)
        return None

    return pick


def tool_call(event: Event) -> ToolCall | None:
    """A call that the caller is asked to execute, when its arguments are whole."""
    if type(event) is BlockEnd and isinstance(event.part, ToolCall) and not event.part.server:
        return event.part
    return None


class AsyncView(Generic[T]):
    """`owner` is kept alive for as long as somebody reads."""

    __slots__ = ("_owner", "_pick", "_reader", "_session")

    def __init__(self, owner: object, session: Session, reader: Reader, pick: Pick[T]) -> None:
        self._owner = owner
        self._session = session
        self._reader = reader
        self._pick = pick

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        pick, ready = self._pick, self._reader.ready
        while True:
            while ready:
                item = pick(ready.popleft())
                if item is not None:
                    return item
            if not await self._session.pull(self._reader):
                raise StopAsyncIteration


def sync_view(owner: Any, pull: Callable[[], bool], reader: Reader, pick: Pick[T]) -> Iterator[T]:
    """`owner` is kept alive for as long as somebody reads; `pull` waits for one batch and says whether there was."""
    ready = reader.ready
    while True:
        while ready:  # a whole batch per visit to the loop
            item = pick(ready.popleft())
            if item is not None:
                yield item
        if not pull():
            return
