"""C11: a reply has a length that it may not exceed, and a client a time in which it must read on."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest

from tests.gateways import Asked, Gateway, serving, two_upstreams
from tests.upstreams import Answer, sse
from tests.wires import CHAT, Pair, each_client, each_pair

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.upstreams import Upstream
    from tests.wires import Wire

pytestmark = pytest.mark.process

MIB = 1024 * 1024
#: `capped`'s, in seconds
WRITE_S = 0.4


@pytest.fixture(scope="module")
def capped(scripted: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A reply may be 1 MiB, and a client must read on within 400 ms."""
    config = two_upstreams(scripted, limits={"max_reply": "1MiB"}, timeouts={"write": f"{WRITE_S}s"})
    with serving(config, tmp_path_factory.mktemp("capped")) as running:
        yield running


@pytest.fixture(scope="module")
def single(scripted: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A client must read on within 400 ms; one call at a time."""
    config = two_upstreams(scripted, limits={"concurrency": 1}, timeouts={"write": f"{WRITE_S}s"})
    with serving(config, tmp_path_factory.mktemp("single")) as running:
        yield running


# --- a reply without end ---------------------------------------------------------------------------------------------


@each_pair
def test_c11_a_stream_over_the_limit_ends_there(pair: Pair, upstream: Upstream, capped: Gateway) -> None:
    """Of many small frames, none of which is too large. What came below it has reached the client."""
    wire = pair.upstream
    upstream.answers(sse(*wire.opening(), *([wire.text("x" * 1000)] * 20_000), *wire.closing()))
    asked = capped.ask(pair)
    said = asked.said()
    (error,) = said.errors
    assert "longer than 1048576 bytes" in error["message"]
    assert "limits.max_reply" in error["message"]
    assert (said.terminators, said.stops) == (0, [])
    assert 0.6 * MIB < len(said.text) < MIB
    record = capped.record(asked.request_id)
    assert (record["outcome"], record["error_type"]) == ("capped", "reply_too_large")
    assert record["chunks"] == len(said.text) // 1000
    exchange = upstream.wait_for().wait_over()
    assert exchange.closed_at is not None
    assert exchange.written < 15 * MIB


@each_pair
def test_c11_a_document_over_the_limit_of_replies(pair: Pair, upstream: Upstream, capped: Gateway) -> None:
    upstream.answers(Answer([pair.upstream.document("x" * 2 * MIB)], content_type="application/json"))
    asked = capped.ask(pair, stream=False)
    (error,) = asked.said().errors
    assert (asked.status, "longer than 1048576 bytes" in error["message"]) == (502, True)
    assert capped.record(asked.request_id)["outcome"] == "capped"


@each_pair
def test_c11_a_reply_below_the_limit_is_whole(pair: Pair, upstream: Upstream, capped: Gateway) -> None:
    wire = pair.upstream
    upstream.answers(sse(*wire.opening(), *([wire.text("x" * 1000)] * 700), *wire.closing()))
    said = capped.ask(pair).said()
    assert (len(said.text), said.terminators, said.errors) == (700_000, 1, [])


# --- a client that reads nothing ------------------------------------------------------------------------------------


def ask_and_read_nothing(gateway: Gateway, pair: Pair, *, stream: bool = True) -> Asked:
    body = json.dumps(pair.request(stream=stream)).encode()
    return gateway.send("POST", pair.client.route, body, None, pair.client, receive_buffer=32 * 1024)


@each_client
def test_c11_who_reads_nothing_is_cut_off(wire: Wire, upstream: Upstream, single: Gateway) -> None:
    """Its upstream is closed with it, and its place is free for the next."""
    pair = Pair(wire, CHAT)
    upstream.answers(sse(*CHAT.opening(), *([CHAT.text("x" * 50_000)] * 600), *CHAT.closing()))
    slow = ask_and_read_nothing(single, pair)
    exchange = upstream.wait_for().wait_over()
    assert exchange.closed_at is not None
    assert exchange.written < 25 * MIB
    record = single.record(slow.request_id)
    assert (record["outcome"], record["error_type"]) == ("timeout", "timeout_write")
    assert record["duration_ms"] >= WRITE_S * 1000
    while slow.receive():
        pass
    assert slow.ended == "broken"
    upstream.answers(sse(*CHAT.opening(), CHAT.text("Two"), *CHAT.closing()))
    assert single.ask(pair).said().text == "Two"


@each_client
def test_c11_who_reads_slowly_is_not(wire: Wire, upstream: Upstream, single: Gateway) -> None:
    """For many times as long as a client may read nothing."""
    pair, number = Pair(wire, CHAT), 160
    upstream.answers(sse(*CHAT.opening(), *([CHAT.text("x" * 50_000)] * number), *CHAT.closing()))
    slow = ask_and_read_nothing(single, pair)
    began = time.monotonic()
    while time.monotonic() - began < 5 * WRITE_S:
        slow.receive()
        time.sleep(WRITE_S / 20)
    said = slow.said()
    assert (len(said.text), said.terminators) == (number * 50_000, 1)
    assert single.record(slow.request_id)["outcome"] == "complete"


@each_client
def test_c11_a_document_that_nobody_reads_is_not_kept(wire: Wire, upstream: Upstream, single: Gateway) -> None:
    pair = Pair(wire, CHAT)
    upstream.answers(Answer([CHAT.document("x" * 12 * MIB)], content_type="application/json"))
    slow = ask_and_read_nothing(single, pair, stream=False)
    assert slow.status == 200
    over = single.ask(pair)
    assert over.status == 429, "whoever reads slowly holds its place"
    size = 0
    time.sleep(3 * WRITE_S)
    while data := slow.receive():
        size += len(data)
    assert size < 12 * MIB
    upstream.answers(sse(*CHAT.opening(), CHAT.text("Two"), *CHAT.closing()))
    assert single.ask(pair).said().text == "Two"
