"""C2: what the upstream has sent, the client has, before the upstream sends any more. Nobody sleeps in these tests."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest

from tests.contract.simulated import WORDS, at_once
from tests.upstreams import Gate, Piece, sse
from tests.wires import CHAT, MESSAGES, Pair, each_client, each_pair

if TYPE_CHECKING:
    from tests.contract.simulated import Bench
    from tests.contract.simulated import Pair as AnyPair
    from tests.gateways import Gateway
    from tests.upstreams import Upstream
    from tests.wires import Wire

pytestmark = pytest.mark.process

LIMIT_S = 0.015


def in_lock_step(frames: list[bytes]) -> tuple[list[Piece], list[Gate]]:
    """Each frame waits at a gate of its own."""
    gates = [Gate() for _ in frames]
    return [piece for pair in zip(gates, frames, strict=True) for piece in pair], gates


@each_client
def test_c2_each_frame_reaches_the_client_before_the_next_is_sent(
    wire: Wire, upstream: Upstream, gateway: Gateway
) -> None:
    frames = [*wire.opening(), wire.text("One "), wire.comment, wire.text("two "), wire.text("three"), *wire.closing()]
    pieces, gates = in_lock_step(frames)
    upstream.answers(sse(*pieces))
    asked = gateway.ask(Pair(wire, wire))
    for gate, frame in zip(gates, frames, strict=True):
        gate.open()
        assert asked.frame() == frame
    assert asked.body() == b"".join(frames)


@each_pair
def test_c2_each_text_reaches_the_client_before_the_next_is_sent(
    pair: Pair, upstream: Upstream, gateway: Gateway
) -> None:
    texts = ["One ", "two ", "three ", "four"]
    pieces, gates = in_lock_step([pair.upstream.text(text) for text in texts])
    upstream.answers(sse(*pair.upstream.opening(), *pieces, *pair.upstream.closing()))
    asked = gateway.ask(pair)
    for gate, text in zip(gates, texts, strict=True):
        gate.open()
        while text.encode() not in (frame := asked.frame()):
            assert b"One" not in frame
    assert asked.said().text == "".join(texts)


@each_pair
def test_c2_no_time_passes_in_between(pair: Pair, upstream: Upstream, gateway: Gateway) -> None:
    """From the test's word to the upstream to the client's read, through three processes' worth of loops: the best of
    three rounds, because a busy machine can hold one up: under a load of nine on two cores a word took 9 ms of the
    15 allowed. One gateway adds 25 ms where this adds less than one."""
    took_s = []
    for _ in range(3):
        texts = [f"word{k} " for k in range(20)]
        pieces, gates = in_lock_step([pair.upstream.text(text) for text in texts])
        upstream.answers(sse(*pair.upstream.opening(), *pieces, *pair.upstream.closing()))
        asked = gateway.ask(pair)
        gates[0].wait_reached()
        began = time.monotonic()
        for gate, text in zip(gates, texts, strict=True):
            gate.open()
            while text.encode() not in asked.frame():
                pass
        took_s.append((time.monotonic() - began) / len(texts))
        asked.body()
        if took_s[-1] < LIMIT_S:
            break
    assert min(took_s) < LIMIT_S, took_s


@each_pair
def test_c2_tool_arguments_are_not_gathered(pair: Pair, upstream: Upstream, gateway: Gateway) -> None:
    wire = pair.upstream
    fragments = ['{"at"', ': "s', 'ea"}']
    gates = {json.dumps(fragment)[1:-1].encode(): Gate() for fragment in fragments}
    pieces: list[Piece] = []
    for frame in wire.call("look", fragments):
        pieces += [gate for said, gate in gates.items() if said in frame]
        pieces.append(frame)
    upstream.answers(sse(*wire.opening(), wire.text("One"), *pieces, *wire.closing(stop="tool_calls")))
    asked = gateway.ask(pair)
    for said, gate in gates.items():
        gate.wait_reached()
        gate.open()
        while said not in asked.frame():
            pass
    assert asked.said().calls == [("look", "".join(fragments))]


@each_pair
def test_c2_headers_leave_with_the_first_event_and_not_before(pair: Pair, upstream: Upstream, gateway: Gateway) -> None:
    gate, more = Gate(), Gate()
    first, *rest = pair.upstream.opening()
    upstream.answers(
        sse(b": preparing\n\n", gate, first, more, *rest, pair.upstream.text("One"), *pair.upstream.closing())
    )
    asked = gateway.ask(pair)
    gate.wait_reached()
    gateway.pass_through()
    assert asked.is_silent()
    gate.open()
    together = asked.receive()
    assert together.startswith(b"HTTP/1.1 200 ")
    head, _, body = together.partition(b"\r\n\r\n")
    assert b"x-request-id" in head
    assert body != b"", "the head left alone"
    more.open()
    assert asked.said().text == "One"


@each_pair
def test_c2_the_last_word_leaves_with_the_end(pair: Pair, upstream: Upstream, gateway: Gateway) -> None:
    """Nobody waits for the upstream's connection once its reply has said that it is over."""
    gate = Gate()
    upstream.answers(sse(*pair.upstream.opening(), pair.upstream.text("One"), *pair.upstream.closing(), gate))
    asked = gateway.ask(pair)
    assert asked.said().terminators == 1
    assert asked.ended == "clean"
    gate.open()


def test_c2_a_pair_that_translates_has_blocks_of_its_own_at_once(upstream: Upstream, gateway: Gateway) -> None:
    """The role chunk of one wire is the message_start of the other; neither waits for content."""
    for pair, word in ((Pair(MESSAGES, CHAT), b"message_start"), (Pair(CHAT, MESSAGES), b'"role":"assistant"')):
        gate = Gate()
        opening, *rest = pair.upstream.opening()
        upstream.answers(sse(opening, gate, *rest, pair.upstream.text("One"), *pair.upstream.closing()))
        asked = gateway.ask(pair)
        assert word in asked.frame()
        gate.open()
        assert asked.said().text == "One"


# --- every form of client before every upstream -----------------------------------------------------------------------


def test_c2_every_pair_hears_each_word_before_the_next_is_sent(bench: Bench) -> None:
    """Both moments are taken in this process: when the simulator wrote a word, and when the client had read it."""

    def check(pair: AnyPair) -> None:
        model = bench.model(pair.upstream, kind="slow")
        asked = bench.ask(pair, model)
        heard, read_at = b"", list[float]()
        while len(read_at) < len(WORDS):
            data = asked.receive()
            assert data, f"the stream ended after {heard!r}"
            heard += data
            while len(read_at) < len(WORDS) and json.dumps(WORDS[len(read_at)]).encode() in heard:
                read_at.append(time.monotonic())
        asked.socket.close()
        sent_at = bench.the_one(model).content_at
        for number in range(len(WORDS) - 1):
            assert read_at[number] < sent_at[number + 1], f"{WORDS[number]!r} came when the next had been sent"

    at_once(check, is_timed=True)
