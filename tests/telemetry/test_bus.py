from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from penstock.telemetry.bus import Bus
from penstock.telemetry.exporters.base import ExportFailed
from penstock.telemetry.record import CallRecord
from tests.telemetry.script import example

if TYPE_CHECKING:
    from collections.abc import Callable

#: Far longer than anything here takes: a test that waits for it has failed.
LONG_S = 10.0


class Collector:
    """Keeps what it is given; `reached(n)` waits for the n-th record."""

    def __init__(self, name: str = "collector") -> None:
        self.name = name
        self.batches: list[list[CallRecord]] = []
        self.closed = 0
        self._changed = threading.Condition()

    def export(self, records: list[CallRecord]) -> None:
        with self._changed:
            self.batches.append(records)
            self._changed.notify_all()

    def close(self) -> None:
        self.closed += 1

    @property
    def ids(self) -> list[str]:
        return [record.request_id for batch in self.batches for record in batch]

    def reached(self, number: int) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: len(self.ids) >= number, LONG_S)


class Hanging(Collector):
    """Takes its first batch and does not come back until it is let go."""

    def __init__(self) -> None:
        super().__init__("hanging")
        self.entered, self.let_go = threading.Event(), threading.Event()

    def export(self, records: list[CallRecord]) -> None:
        self.entered.set()
        assert self.let_go.wait(LONG_S)
        super().export(records)


class Failing(Collector):
    """Raises for the first batch, takes the second."""

    def __init__(self, error: BaseException) -> None:
        super().__init__("failing")
        self._errors = [error]
        self.failed = threading.Event()

    def export(self, records: list[CallRecord]) -> None:
        if self._errors:
            self.failed.set()
            raise self._errors.pop()
        super().export(records)


def named(number: int) -> CallRecord:
    return example(request_id=str(number))


def threads_of(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == f"penstock-{name}"]


def test_records_arrive_in_order_and_close_flushes() -> None:
    collector = Collector()
    bus = Bus([collector])
    for number in range(100):
        bus.publish(named(number))
    assert bus.close(LONG_S)
    assert collector.ids == [str(number) for number in range(100)]
    assert collector.closed == 1
    assert threads_of("collector") == []
    (state,) = bus.states()
    assert (state.sent, state.dropped, state.failed, state.lag, state.last_error) == (100, 0, 0, 0, None)


def test_c5_publish_never_waits_for_an_exporter_that_hangs() -> None:
    hanging, well = Hanging(), Collector("well")
    bus = Bus([hanging, well], gather_s=0)
    bus.publish(named(0))
    assert hanging.entered.wait(LONG_S)
    for number in range(1, 10):
        bus.publish(named(number))  # returns, or this test never ends
    assert well.reached(10)  # and nobody else is held up
    assert not bus.close(0)
    hanging.let_go.set()
    assert bus.close(LONG_S)
    assert hanging.ids == well.ids == [str(number) for number in range(10)]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ExportFailed("The disk is\nfull.", fix="Free some space."), "The disk is full. Free some space."),
        (RuntimeError("GET http://influx/?token=s3cret: 401"), "The exporter raised RuntimeError."),
        (SystemExit(1), "The exporter raised SystemExit."),
    ],
)
def test_c5_a_failing_exporter_is_counted(error: BaseException, said: str) -> None:
    failing, well = Failing(error), Collector("well")
    bus = Bus([failing, well], gather_s=0)
    bus.publish(named(0))
    assert failing.failed.wait(LONG_S)
    bus.publish(named(1))
    assert failing.reached(1)  # its thread goes on
    assert bus.close(LONG_S)
    state, other = bus.states()
    assert (state.name, state.sent, state.failed, state.last_error) == ("failing", 1, 1, said)
    assert (other.sent, other.failed) == (2, 0)


def test_c11_the_queue_is_bounded_and_drops_are_counted() -> None:
    hanging = Hanging()
    bus = Bus([hanging], capacity=4, gather_s=0)
    bus.publish(named(0))
    assert hanging.entered.wait(LONG_S)
    for number in range(1, 11):
        bus.publish(named(number))
    (state,) = bus.states()
    assert (state.dropped, state.lag) == (6, 5)  # four queued, one in its hands
    hanging.let_go.set()
    assert bus.close(LONG_S)
    assert hanging.ids == ["0", "1", "2", "3", "4"]  # a run without holes, then the gap that was counted


def test_what_gathers_is_handed_over_as_one_list() -> None:
    collector = Collector()
    bus = Bus([collector], gather_s=LONG_S)
    for number in range(5):
        bus.publish(named(number))
    assert bus.close(LONG_S)  # does not wait for more
    assert [len(batch) for batch in collector.batches] == [5]


def test_half_a_queue_is_not_left_to_gather() -> None:
    collector = Collector()
    bus = Bus([collector], capacity=8, gather_s=LONG_S)
    bus.start()
    for number in range(8):
        bus.publish(named(number))
    assert collector.reached(4)
    assert bus.close(LONG_S)
    assert len(collector.ids) + bus.states()[0].dropped == 8


def test_c13_an_unused_bus_has_no_thread() -> None:
    collector = Collector()
    bus = Bus([collector])
    assert threads_of("collector") == []
    assert bus.close(LONG_S)
    assert collector.closed == 0  # it was never opened
    bus.publish(named(0))
    assert (collector.ids, bus.states()[0].dropped) == ([], 1)


def test_closing_twice_closes_once() -> None:
    collector = Collector()
    bus = Bus([collector])
    bus.start()
    assert bus.close(LONG_S)
    assert bus.close(LONG_S)
    assert collector.closed == 1


def test_an_exporter_that_cannot_close_is_no_obstacle() -> None:
    class Stuck(Collector):
        def close(self) -> None:
            raise ExportFailed("It would not close.")

    bus = Bus([Stuck()])
    bus.start()
    assert bus.close(LONG_S)
    assert bus.states()[0].last_error == "It would not close."


def test_c5_publish_does_not_raise_when_no_thread_can_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    bus = Bus([Collector()])
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        bus.publish(named(0))
        (state,) = bus.states()
        assert (state.dropped, state.lag, state.last_error) == (1, 0, "No thread could be started for the exporter.")
    bus.publish(named(1))
    assert bus.close(LONG_S)
    assert bus.states()[0].sent == 1


def test_many_threads_may_publish() -> None:
    collector = Collector()
    bus = Bus([collector], capacity=10_000, gather_s=0)
    go = threading.Barrier(8)

    def publish() -> None:
        go.wait(LONG_S)
        for number in range(250):
            bus.publish(named(number))

    run_all([publish] * 8)
    assert bus.close(LONG_S)
    assert len(collector.ids) == 2000


def run_all(functions: list[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=function) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG_S)
