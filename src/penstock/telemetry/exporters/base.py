"""What an exporter is: somewhere that records go.

Constructing one opens nothing. `export` and `close` are called from one thread of the bus, which is the exporter's own:
it may wait as long as it likes and holds up nobody. It raises `ExportFailed` when the records could not be delivered;
the bus counts them and goes on, so it must be fit for the next call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from msgspec import Struct

from penstock.canon.errors import PenstockError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from penstock.telemetry.record import CallRecord
    from penstock.telemetry.tally import Tally


class ExportFailed(PenstockError):
    """One sentence that may be shown to anyone: it names no key, token or record."""

    kind = "export_failed"


class Exporter(Protocol):
    @property
    def name(self) -> str: ...

    def export(self, records: list[CallRecord]) -> None:
        """Deliver all of them, oldest first, or raise."""
        ...

    def close(self) -> None:
        """Called once, after the last `export`; not at all when there was none."""
        ...


@runtime_checkable
class Attending(Exporter, Protocol):
    """An exporter that wants more of a call than its record has."""

    def ended(self, tally: Tally) -> None:
        """Called in the streams' own thread when a call has ended, before its record. It neither waits nor raises."""
        ...


class Kept(Struct, frozen=True):
    """Records that an exporter keeps for later, because they could not be sent: `now`, and counted since the start.

    `deferred` were kept instead of sent, `recovered` were sent out of those (this process's and the last one's), `lost`
    had to go. `refused` are what a receiver did not take out of batches that it took. `error`: why some are waiting or
    were refused.
    """

    now: int = 0
    deferred: int = 0
    recovered: int = 0
    lost: int = 0
    refused: int = 0
    error: str | None = None


@runtime_checkable
class Keeping(Exporter, Protocol):
    """An exporter with something to do between records: it keeps what it cannot send, or sends sums now and then."""

    @property
    def kept(self) -> Kept: ...

    def resume(self) -> float | None:
        """Called before the first record and while there is nothing to export: send what is kept or due. In how many
        seconds to call it again; None: not before the next record."""
        ...


@runtime_checkable
class Tracing(Exporter, Protocol):
    """An exporter of spans: for its sake calls have a place in a trace."""

    def context(self) -> Mapping[str, str]:
        """Where the program is in a trace of its own, now and in this task or thread: `traceparent`, `tracestate`.

        Empty where it is in none.
        """
        ...
