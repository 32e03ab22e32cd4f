"""Where a client's records go: exporters of its own, each in a thread of its bus, or a bus that the program owns.

Nothing waits for a record but the client's own end.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Iterable
from typing import TYPE_CHECKING

from penstock.canon.errors import ConfigError
from penstock.telemetry.bus import Bus

if TYPE_CHECKING:
    from penstock.telemetry.exporters.base import Exporter


class Records:
    def __init__(self, to: Exporter | Iterable[Exporter] | Bus) -> None:
        if isinstance(to, Bus):
            self._bus, self._is_ours = to, False
        else:
            exporters: list[Exporter] = list(to) if isinstance(to, Iterable) else [to]
            for exporter in exporters:
                if not callable(getattr(exporter, "export", None)):
                    raise ConfigError(
                        f"telemetry holds a {type(exporter).__name__}, which is no exporter.",
                        fix="Give one of penstock.telemetry.exporters, as in SqliteExporter('calls.db').",
                    )
            self._bus, self._is_ours = Bus(exporters), True
            # A program that never closes its client still finds its records where it wanted them.
            self._closing = weakref.finalize(self, self._bus.close)
        self.publish = self._bus.publish
        self.ended = self._bus.ended
        #: who wants the calls to be traced
        self.tracing = self._bus.tracing

    async def aclose(self) -> None:
        """Deliver what is queued, and close the exporters that are ours. Later records are dropped, and counted."""
        if self._is_ours and self._closing.detach() is not None:
            await asyncio.to_thread(self._bus.close)
