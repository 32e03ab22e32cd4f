"""What goes with a record to one exporter and into no row: kept by the call's span until its record is exported.

Put in by the streams' own thread, taken out by the exporter's. Bounded: what nobody has taken goes, oldest first, when
there is no more room (a record that was dropped on its way leaves its own behind).
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Mapping

    from penstock.telemetry.gaps import Gaps

#: as many as the bus holds records for one exporter
MAX_CALLS = 1024
MAX_CHARS = 32 * 1024 * 1024


class Belongings(Struct, frozen=True):
    """Of one call: the gaps between the chunks of its reply, and attributes that hold content, where that is wanted."""

    gaps: Gaps | None = None
    content: Mapping[str, str] = {}

    @property
    def chars(self) -> int:
        return sum(map(len, self.content.values()))


NOTHING = Belongings()


class Beside:
    """By span."""

    def __init__(self, *, max_calls: int = MAX_CALLS, max_chars: int = MAX_CHARS) -> None:
        self._max_calls = max_calls
        self._max_chars = max_chars
        self._held: dict[str, Belongings] = {}
        self._chars = 0
        self._lock = threading.Lock()

    def put(self, span_id: str, belongings: Belongings) -> None:
        with self._lock:
            self._remove(span_id)
            self._held[span_id] = belongings
            self._chars += belongings.chars
            while self._held and (len(self._held) > self._max_calls or self._chars > self._max_chars):
                self._remove(next(iter(self._held)))

    def take(self, span_id: str | None) -> Belongings:
        with self._lock:
            return self._remove(span_id) or NOTHING

    def _remove(self, span_id: str | None) -> Belongings | None:
        found = self._held.pop(span_id, None) if span_id is not None else None
        if found is not None:
            self._chars -= found.chars
        return found

    def __len__(self) -> int:
        return len(self._held)
