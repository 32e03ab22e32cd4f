"""Callbacks for those who like them: which one an event is for, and the end that the last one is told of."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from penstock.client.views import pieces, tool_call

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from penstock.canon.events import Event, ToolCall
    from penstock.client.hooks import StreamEnd
    from penstock.client.session import Session

_log = logging.getLogger("penstock.hooks")


class Callbacks:
    def __init__(
        self,
        *,
        on_text: Callable[[str], Any] | None,
        on_reasoning: Callable[[str], Any] | None,
        on_tool_call: Callable[[ToolCall], Any] | None,
    ) -> None:
        wanted: list[tuple[Callable[[Event], Any], Callable[[Any], Any] | None]] = [
            (pieces("text"), on_text),
            (pieces("reasoning"), on_reasoning),
            (tool_call, on_tool_call),
        ]
        self._wanted = [(pick, called) for pick, called in wanted if called is not None]

    def call(self, event: Event) -> list[Any]:
        """What the callbacks that this event is for have returned."""
        returned = []
        for pick, called in self._wanted:
            item = pick(event)
            if item is not None:
                returned.append(called(item))
        return returned

    @staticmethod
    def end(session: Session, raised: BaseException | None) -> StreamEnd:
        """What `on_end` is told: the callback's own exception is what ended a stream that was well."""
        end = session.end()
        return replace(end, error=raised) if end.error is None and raised is not None else end


@contextmanager
def end_told(raised: BaseException | None) -> Iterator[None]:
    """What `on_end` raises must not hide what went wrong before it."""
    try:
        yield
    except Exception as error:
        if raised is None:
            raise
        raised.add_note(f"on_end raised as well: {type(error).__name__}")
        _log.exception("on_end raised after the stream had failed.")
