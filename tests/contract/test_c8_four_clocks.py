"""C8: each wait has a clock of its own and an error of its own; what is not content winds no content clock up.

The clocks are short here: see `conftest`. A ping comes each 50 ms, so that the silence clock of 200 ms is kept fed.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from tests.contract.clients import CLIENTS
from tests.contract.conftest import CROWDS, DOCUMENT_S, FIRST_CONTENT_S, IDLE_S, SILENCE_S, TOTAL_S
from tests.contract.simulated import WORDS, Bench, at_once, check_failed, simulators_config
from tests.contract.simulated import Pair as AnyPair
from tests.gateways import Gateway, serving, two_upstreams
from tests.upstreams import Answer, Gate, Piece, sse
from tests.wires import Pair, each_client, each_pair

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from penstock.testing import Upstream as Simulator
    from tests.gateways import Asked
    from tests.upstreams import Upstream
    from tests.wires import Wire

pytestmark = pytest.mark.process


def pinging(wire: Wire, piece: bytes | None = None, number: int = 60) -> list[Piece]:
    """One each 50 ms, for 3 s."""
    return [part for _ in range(number) for part in (piece or wire.comment, 0.05)]


#: on a machine with other work a clock may be late; another clock of these tests would say its own name
LATE_S = 5.0


def check_timed_out(hurried: Gateway, asked: Asked, clock: str, limit_s: float, began: float) -> dict[str, Any]:
    """Ended by this clock, when it was due, and said so: as a status, or in the stream and without a terminator."""
    said = asked.said()
    assert limit_s <= time.monotonic() - began < limit_s + LATE_S
    (error,) = said.errors
    assert f"timeouts.{clock}" in error["message"]
    if asked.status == 200:
        assert (said.terminators, said.stops) == (0, [])
        assert said.frames[-1][1]["error"] == error
    else:
        assert asked.status == 504
    record = hurried.record(asked.request_id)
    assert (record["outcome"], record["error_type"]) == ("timeout", f"timeout_{clock}")
    assert record["http_status"] == asked.status
    return record


@each_pair
@pytest.mark.parametrize("opened", [False, True], ids=["before the head", "in the stream"])
def test_c8_pings_are_no_first_content(opened: bool, pair: Pair, upstream: Upstream, hurried: Gateway) -> None:
    began = time.monotonic()
    opening = pair.upstream.opening() if opened else []
    upstream.answers(sse(*opening, *pinging(pair.upstream)))
    asked = hurried.ask(pair)
    check_timed_out(hurried, asked, "first_content", FIRST_CONTENT_S, began)
    assert asked.status == (200 if opened else 504)
    assert upstream.wait_for().wait_over().closed_at is not None


@each_client
def test_c8_a_late_head_is_no_first_content(wire: Wire, upstream: Upstream, hurried: Gateway) -> None:
    """Without one byte the silence clock is the first to run out."""
    began = time.monotonic()
    upstream.answers(Answer((b"",), before=Gate()))
    check_timed_out(hurried, hurried.ask(Pair(wire, wire)), "silence", SILENCE_S, began)
    assert upstream.wait_for().wait_over().closed_at is not None


@each_pair
def test_c8_pings_do_not_wind_idle(pair: Pair, upstream: Upstream, hurried: Gateway) -> None:
    check_does_not_wind_idle(pair, None, upstream, hurried)


@each_client
@pytest.mark.parametrize("what", ["empty deltas", "comments"])
def test_c8_what_is_no_content_does_not_wind_idle(what: str, wire: Wire, upstream: Upstream, hurried: Gateway) -> None:
    piece = wire.text("") if what == "empty deltas" else b": busy\n\n"
    check_does_not_wind_idle(Pair(wire, wire), piece, upstream, hurried)


def check_does_not_wind_idle(pair: Pair, piece: bytes | None, upstream: Upstream, hurried: Gateway) -> None:
    wire = pair.upstream
    began = time.monotonic()
    upstream.answers(sse(*wire.opening(), wire.text("One"), *pinging(wire, piece)))
    record = check_timed_out(hurried, hurried.ask(pair), "idle", IDLE_S, began)
    assert record["chunks"] == 1


@each_client
def test_c8_silence_in_the_stream(wire: Wire, upstream: Upstream, hurried: Gateway) -> None:
    pair = Pair(wire, wire)
    began = time.monotonic()
    upstream.answers(sse(*wire.opening(), wire.text("One"), Gate()))
    check_timed_out(hurried, hurried.ask(pair), "silence", SILENCE_S, began)


@each_client
def test_c8_the_total_ends_what_never_stops_talking(wire: Wire, upstream: Upstream, hurried: Gateway) -> None:
    pair = Pair(wire, wire)
    began = time.monotonic()
    upstream.answers(sse(*wire.opening(), *pinging(wire, wire.text("more "))))
    record = check_timed_out(hurried, hurried.ask(pair), "total", TOTAL_S, began)
    assert record["chunks"] >= 8


@each_client
def test_c8_a_document_has_clocks_as_well(wire: Wire, upstream: Upstream, hurried: Gateway) -> None:
    began = time.monotonic()
    upstream.answers(Answer((wire.document()[:9], Gate()), content_type="application/json"))
    asked = hurried.ask(Pair(wire, wire), stream=False)
    check_timed_out(hurried, asked, "silence", SILENCE_S, began)
    assert asked.status == 504


@each_client
def test_c8_a_document_that_is_still_thought_of_is_not_silent(wire: Wire, upstream: Upstream, hurried: Gateway) -> None:
    """Not one byte of it can come before all of it is there: it has a clock of its own, and is not asked for again."""
    began = time.monotonic()
    upstream.answers(Answer((wire.document(),), content_type="application/json", before=Gate()))
    check_timed_out(hurried, hurried.ask(Pair(wire, wire), stream=False), "document", DOCUMENT_S, began)
    assert len(upstream.exchanges) == 1


@each_client
def test_c8_content_winds_the_clocks_up(wire: Wire, upstream: Upstream, hurried: Gateway) -> None:
    """A stream of more than each of the short limits, and slower than none of them, is left alone."""
    pair = Pair(wire, wire)
    words = [part for k in range(5) for part in (0.1, wire.text(f"{k} "))]
    upstream.answers(sse(*wire.opening(), *words, *wire.closing()))
    asked = hurried.ask(pair)
    assert asked.said().text == "0 1 2 3 4 "
    record = hurried.record(asked.request_id)
    assert record["outcome"] == "complete"
    assert record["duration_ms"] > 1000 * max(IDLE_S, FIRST_CONTENT_S)


@pytest.fixture(scope="module")
def before_the_deaf(scripted: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway whose upstreams never take its calls."""
    with ExitStack() as stack:
        # A queue that is full: whoever knocks now gets no answer at all.
        deaf = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            knocking = stack.enter_context(socket.socket())
            knocking.setblocking(False)
            knocking.connect_ex(deaf.getsockname())
        config = two_upstreams(scripted, timeouts={"connect": "200ms"})
        for entry in config["upstreams"].values():
            entry["url"] = f"http://127.0.0.1:{deaf.getsockname()[1]}/v1"
        yield stack.enter_context(serving(config, tmp_path_factory.mktemp("deaf")))


@each_client
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "document"])
def test_c8_connect_has_a_clock_of_its_own(stream: bool, wire: Wire, before_the_deaf: Gateway) -> None:
    began = time.monotonic()
    asked = before_the_deaf.ask(Pair(wire, wire), stream=stream)
    check_timed_out(before_the_deaf, asked, "connect", 0.2, began)
    assert asked.status == 504


# --- every form of client before every upstream -----------------------------------------------------------------------

#: what the simulator does → the clock that ends it, what had been said
STALLS: dict[str, tuple[str, tuple[str, ...]]] = {
    "silent": ("silence", ()),
    "pings": ("first_content", ()),
    "pings-2": ("idle", WORDS[:2]),
    "stall-after-2": ("silence", WORDS[:2]),
}


@pytest.mark.parametrize("fault", STALLS)
def test_c8_in_every_pair_each_stall_is_ended_by_its_own_clock(fault: str, hurried_bench: Bench) -> None:
    clock, words = STALLS[fault]
    limit_s = CROWDS[clock]

    def check(pair: AnyPair) -> None:
        told = hurried_bench.tell(pair, fault)
        assert limit_s <= told.took_s < limit_s + LATE_S
        record = hurried_bench.record(told.model)
        assert (record["outcome"], record["error_type"]) == ("timeout", f"timeout_{clock}")
        assert record["http_status"] == told.status
        assert limit_s * 1000 <= record["duration_ms"] < (limit_s + LATE_S) * 1000
        if told.status == 200:
            assert f"timeouts.{clock}" in check_failed(told.said, "".join(words))
        else:  # nothing had been said that this client's wire has a word for
            assert (told.status, words) == (504, ())
            assert f"timeouts.{clock}" in str(told.said.errors)
        assert hurried_bench.the_one(told.model).closed_at is not None

    at_once(check, is_timed=True)


def test_c8_in_every_pair_the_total_ends_what_never_stops_talking(hurried_bench: Bench) -> None:
    def check(pair: AnyPair) -> None:
        told = hurried_bench.tell(pair, kind="long")
        assert CROWDS["total"] <= told.took_s < CROWDS["total"] + LATE_S
        assert "timeouts.total" in check_failed(told.said)
        record = hurried_bench.record(told.model)
        assert record["error_type"] == "timeout_total"
        assert record["chunks"] >= 4

    at_once(check, is_timed=True)


def test_c8_a_gateway_that_was_held_up_does_not_take_it_for_its_upstreams_silence(
    simulator: Simulator, tmp_path: Path
) -> None:
    """It gets no time for longer than a clock allows, while the upstream goes on: what has come is read first."""
    pair = AnyPair(CLIENTS[0], "openai-chat")
    clocks = {"idle": "500ms", "silence": "500ms"}
    with serving(simulators_config(simulator, timeouts=clocks), tmp_path, "--store", "off") as running:
        bench = Bench(simulator, running)
        model = bench.model(pair.upstream, kind="long")
        asked = bench.ask(pair, model)
        assert asked.frame()
        for _ in range(2):
            os.kill(running.pid, signal.SIGSTOP)
            time.sleep(1.2)
            os.kill(running.pid, signal.SIGCONT)
            assert asked.frame()
        asked.body()
        assert bench.record(model)["outcome"] == "complete"
