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
    context_window: Callable[[Target], int | None] | None = None,
    price: Callable[[Target, str], Price | None] | None = None,
    in_flight: InFlight | None = None,
    begun: Callable[[Tally], None] | None = None,
) -> Layer:
    """Publish one record per call. `publish` must neither wait nor raise (`Bus.publish`); what it raises is logged.

    `context_window` gives the size of a target's context in tokens, from memory, or None; `price` what the tokens of a
    model cost there, or None. Calls in flight are counted in `in_flight`, or per use of this function. `begun` is given
    each call's tally when the call begins, for whoever wants to know how it goes.
    """
    counted = InFlight() if in_flight is None else in_flight

    def layer(inner: Handler) -> Handler:
        def handle(call: Call) -> _Recording:
            return _Recording(call, inner, counted, publish, context_window, price, begun)

        return handle

    return layer


class _Recording:
    """One call, from before it is handed on to after its stream is closed."""

    __slots__ = (
        "_begun", "_call", "_context_window", "_in_flight", "_inner", "_opened", "_price", "_publish", "_tally",
    )  # fmt: skip

    def __init__(
        self,
        call: Call,
        inner: Handler,
        in_flight: InFlight,
        publish: Callable[[CallRecord], None],
        context_window: Callable[[Target], int | None] | None,
        price: Callable[[Target, str], Price | None] | None,
        begun: Callable[[Tally], None] | None,
    ) -> None:
        self._call = call
        self._inner = inner
        self._in_flight = in_flight
        self._publish = publish
        self._context_window = context_window
        self._price = price
        self._begun = begun

    async def __aenter__(self) -> EventStream:
        self._in_flight.count += 1
        tally = self._tally = Tally(self._call, concurrent=self._in_flight.count)
        if self._begun is not None:
            self._begun(tally)
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
        self._in_flight.count -= 1
        _deliver(self._tally, self._publish, self._context_window, self._price)


def _deliver(
    tally: Tally,
    publish: Callable[[CallRecord], None],
    context_window: Callable[[Target], int | None] | None,
    price: Callable[[Target, str], Price | None] | None,
) -> None:
    """Nothing that goes wrong here may reach the call (C5)."""
    context_total = None
    try:
        target = tally.target
        if context_window is not None and target is not None:
            context_total = context_window(target)
    except Exception:
        _log.exception("The size of a target's context could not be looked up; the record goes without it.")
    cost = None
    try:
        if price is not None:
            cost = tally.cost(price)
    except Exception:
        _log.exception("A call's price could not be looked up; the record goes without it.")
    try:
        publish(tally.record(context_total, cost))
    except Exception:
        _log.exception("A record could not be published.")
