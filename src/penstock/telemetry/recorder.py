"""The recorder: a layer that sees a call's whole life and publishes exactly one `CallRecord`, whatever the ending.

It never waits, and never swallows or replaces an error; an error that the caller catches inside the `async with` is
seen all the same. What it counts, and how it names an ending, is in `tally`.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from penstock.telemetry.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from penstock.canon.price import Price
    from penstock.canon.target import Target
    from penstock.streams.handler import Call, Handler, Layer
    from penstock.streams.stream import EventStream
    from penstock.telemetry.record import CallRecord

_log = logging.getLogger(__name__)


class InFlight:
    """How many calls are being answered."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


def recorded(
    publish: Callable[[CallRecord], None],
    *,
    context_window: Callable[[Target, str], int | None] | None = None,
    price: Callable[[Target, str], Price | None] | None = None,
    in_flight: InFlight | None = None,
    tally: type[Tally] = Tally,
    begun: Callable[[Tally], None] | None = None,
    ended: Callable[[Tally], None] | None = None,
) -> Layer:
    """Publish one record per call. `publish` must neither wait nor raise (`Bus.publish`); what it raises is logged.

    `context_window` gives the size of a model's context at a target in tokens, from memory, or None; `price` what the
    tokens of a model cost there, or None. Calls in flight are counted in `in_flight`, or per use of this function.
    `tally` is what counts. `begun` is given each call's tally when the call begins, for whoever wants to know how it
    goes; `ended` when it has ended, before its record is published.
    """
    recorder = _Recorder(publish, context_window, price, in_flight or InFlight(), tally, begun, ended)

    def layer(inner: Handler) -> Handler:
        def handle(call: Call) -> _Recording:
            return _Recording(call, inner, recorder)

        return handle

    return layer


class _Recorder:
    """What all calls of one layer have in common."""

    __slots__ = ("begun", "context_window", "ended", "in_flight", "price", "publish", "tally")

    def __init__(
        self,
        publish: Callable[[CallRecord], None],
        context_window: Callable[[Target, str], int | None] | None,
        price: Callable[[Target, str], Price | None] | None,
        in_flight: InFlight,
        tally: type[Tally],
        begun: Callable[[Tally], None] | None,
        ended: Callable[[Tally], None] | None,
    ) -> None:
        self.publish = publish
        self.context_window = context_window
        self.price = price
        self.in_flight = in_flight
        self.tally = tally
        self.begun = begun
        self.ended = ended

    def deliver(self, tally: Tally) -> None:
        """Nothing that goes wrong here may reach the call (C5)."""
        context_total = None
        try:
            target = tally.target
            if self.context_window is not None and target is not None:
                context_total = self.context_window(target, target.model or tally.call.model)
        except Exception:
            _log.exception("The size of a target's context could not be looked up; the record goes without it.")
        cost = None
        try:
            if self.price is not None:
                cost = tally.cost(self.price)
        except Exception:
            _log.exception("A call's price could not be looked up; the record goes without it.")
        try:
            if self.ended is not None:
                self.ended(tally)
        except Exception:
            _log.exception("What goes with a record could not be kept; the record goes without it.")
        try:
            self.publish(tally.record(context_total, cost))
        except Exception:
            _log.exception("A record could not be published.")


class _Recording:
    """One call, from before it is handed on to after its stream is closed."""

    __slots__ = ("_call", "_inner", "_opened", "_recorder", "_tally")

    def __init__(self, call: Call, inner: Handler, recorder: _Recorder) -> None:
        self._call = call
        self._inner = inner
        self._recorder = recorder

    async def __aenter__(self) -> EventStream:
        recorder = self._recorder
        recorder.in_flight.count += 1
        tally = self._tally = recorder.tally(self._call, concurrent=recorder.in_flight.count)
        if recorder.begun is not None:
            recorder.begun(tally)
        try:
            self._opened = self._inner(self._call)
            stream = await self._opened.__aenter__()
        except BaseException as error:
            tally.failed(error)
            self._end()
            raise
        tally.opened(stream)
        stream.tap(tally)
        return stream

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        self._tally.caller_left(error)
        try:
            return await self._opened.__aexit__(kind, error, trace)
        except BaseException as raised:
            self._tally.failed(raised)
            raise
        finally:
            self._end()

    def _end(self) -> None:
        self._recorder.in_flight.count -= 1
        self._recorder.deliver(self._tally)
