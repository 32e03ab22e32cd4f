"""What an exporter is: somewhere that records go.

Constructing one opens nothing. `export` and `close` are called from one thread of the bus, which is the exporter's own:
it may wait as long as it likes and holds up nobody. It raises `ExportFailed` when the records could not be delivered;
the bus counts them and goes on, so it must be fit for the next call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from penstock.canon.errors import PenstockError

if TYPE_CHECKING:
    from penstock.telemetry.record import CallRecord


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
