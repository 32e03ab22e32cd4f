"""The recorder: a layer that sees a call's whole life and publishes exactly one `CallRecord`, whatever the ending.

It never waits, and never swallows or replaces an error; an error that the caller catches inside the `async with` is
seen all the same. What it counts, and how it names an ending, is in `tally`.
"""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from penstock.telemetry.tally import Tally

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from penstock.canon.target import Target
    from penstock.streams.batch import Batch
    from penstock.streams.handler import Batches, Call, Handler, Layer
    from penstock.streams.stream import EventStream
    from penstock.telemetry.record import CallRecord

_log = logging.getLogger(__name__)


def recorded(
    publish: Callable[[CallRecord], None], *, context_window: Callable[[Target], int | None] | None = None
) -> Layer:
    """Publish one record per call. `publish` must neither wait nor raise (`Bus.publish`); what it raises is logged.

    `context_window` gives the size of a target's context in tokens, from memory, or None. Calls in flight are counted
    per use of this function.
    """
    in_flight = 0

    def layer(inner: Handler) -> Handler:
        @asynccontextmanager
        async def handle(call: Call) -> AsyncIterator[EventStream]:
            nonlocal in_flight
            in_flight += 1
            tally = Tally(call, concurrent=in_flight)
            try:
                async with inner(call) as stream:
                    tally.opened(stream)
                    stream.through(partial(_Watched, tally))
                    try:
                        yield stream
                    except BaseException as error:
                        tally.caller_left(error)
                        raise
                    tally.caller_left(None)
            except BaseException as error:
                tally.failed(error)
                raise
            finally:
                in_flight -= 1
                _deliver(tally, publish, context_window)

        return handle

    return layer


def _deliver(
    tally: Tally, publish: Callable[[CallRecord], None], context_window: Callable[[Target], int | None] | None
) -> None:
    """Nothing that goes wrong here may reach the call (C5)."""
    context_total = None
    try:
        target = tally.target
        if context_window is not None and target is not None:
            context_total = context_window(target)
    except Exception:
        _log.exception("The size of a target's context could not be looked up; the record goes without it.")
    try:
        publish(tally.record(context_total))
    except Exception:
        _log.exception("A record could not be published.")


class _Watched:
    """The stage: the same batches, seen. Not a generator, so nothing is ever suspended in it."""

    __slots__ = ("_next", "_see", "_tally")

    def __init__(self, tally: Tally, source: Batches) -> None:
        self._next = source.__anext__
        self._see = tally.see
        self._tally = tally

    def __aiter__(self) -> _Watched:
        return self

    async def __anext__(self) -> Batch:
        try:
            batch = await self._next()
        except StopAsyncIteration:
            self._tally.ended()
            raise
        except Exception as error:
            # Not CancelledError: a caller that gave up one read may come back for it. If it does not, it has left.
            self._tally.failed(error)
            raise
        self._see(batch)
        return batch
