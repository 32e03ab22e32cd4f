"""C11: whatever comes from either side has a limit, an error with a type, and an end; a slow reader slows his own."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.contract.simulated import WORDS, each_form, each_pair_of_all
from tests.contract.simulated import Pair as AnyPair
from tests.gateways import DEADLINE_S
from tests.upstreams import Answer, Gate, sse
from tests.wires import CHAT, PAIRS, Pair, each_client, each_pair

if TYPE_CHECKING:
    from tests.contract.clients import Client
    from tests.contract.simulated import Bench
    from tests.gateways import Gateway
    from tests.upstreams import Upstream
    from tests.wires import Wire

pytestmark = pytest.mark.process

MIB = 1024 * 1024


def check_refused(wire: Wire, body: bytes, said: str) -> None:
    (error,) = wire.read_document(body).errors
    assert said in error["message"]
    assert (error["type"], error.get("code", "request_too_large")) in (
        ("invalid_request_error", "request_too_large"),
        ("request_too_large", "request_too_large"),
    )


# --- from the client -------------------------------------------------------------------------------------------------


@each_client
@pytest.mark.parametrize("declared", [True, False], ids=["declared", "chunked"])
def test_c11_a_body_over_the_limit_is_413(declared: bool, wire: Wire, upstream: Upstream, beating: Gateway) -> None:
    """Said before it has come, where it was declared; while it comes, where it was not."""
    if declared:
        asked = beating.send("POST", wire.route, b"", {"content-length": str(MIB + 1)}, wire)
    else:
        piece = b"8000\r\n" + b" " * 0x8000 + b"\r\n"
        chunked = {"content-length": "", "transfer-encoding": "chunked"}
        asked = beating.send("POST", wire.route, piece * 33, chunked, wire)
    assert asked.status == 413
    assert asked.headers["connection"] == "close"
    check_refused(wire, asked.body(), "1048576 bytes")
    assert upstream.exchanges == []


@each_pair
def test_c11_a_large_body_below_the_limit_passes(pair: Pair, upstream: Upstream, beating: Gateway) -> None:
    text = "ä" * 150_000
    upstream.answers(sse(*pair.upstream.opening(), pair.upstream.text("One"), *pair.upstream.closing()))
    asked = beating.ask(pair, messages=[{"role": "user", "content": text}])
    assert asked.said().text == "One"
    assert json.loads(upstream.wait_for().body)["messages"] == [{"role": "user", "content": text}]


HEAD = b"POST /v1/messages HTTP/1.1\r\nhost: localhost\r\n"

#: what a client sends first, and then without end
HEADS = {
    "one long header": (HEAD + b"x-first: ", b"x" * 65536),
    "many headers": (HEAD, b"x-more: 1\r\n" * 6000),
    "a long path": (b"POST /v1/", b"p" * 65536),
    "many trailers": (HEAD + b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n", b"x-more: 1\r\n" * 6000),
    "one long chunk extension": (HEAD + b"transfer-encoding: chunked\r\n\r\n2;", b"x" * 65536),
}


@pytest.mark.parametrize("how", HEADS)
def test_c11_a_head_without_end_is_refused(how: str, upstream: Upstream, gateway: Gateway) -> None:
    first, piece = HEADS[how]
    before = gateway.memory_bytes
    with gateway.connect() as client:
        client.sendall(first)
        with pytest.raises(ConnectionError):
            client.sendall(piece * 500)
    assert gateway.memory_bytes - before < 4 * MIB
    assert gateway.send("GET", "/health").body()
    assert upstream.exchanges == []


def test_c11_a_head_over_the_limit_is_answered(gateway: Gateway) -> None:
    with gateway.connect() as client:
        client.sendall(HEAD + b"x-more: 1\r\n" * 6000)
        answer = b""
        while data := client.recv(65536):
            answer += data
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert answer.endswith(b"The request's head is larger than 65536 bytes.")


def test_c11_a_head_below_the_limit_passes(gateway: Gateway) -> None:
    with_headers = {f"x-{k}": "x" * 1000 for k in range(60)}
    for _ in range(2):
        assert gateway.send("GET", "/health", b"", with_headers).body()


# --- from the upstream -----------------------------------------------------------------------------------------------


@each_pair
def test_c11_a_frame_over_the_limit_ends_the_stream(pair: Pair, upstream: Upstream, gateway: Gateway) -> None:
    wire = pair.upstream
    upstream.answers(sse(*wire.opening(), wire.text("One"), b"data: ", *([b"x" * MIB] * 40)))
    asked = gateway.ask(pair)
    said = asked.said()
    (error,) = said.errors
    assert "larger than 16777216 bytes" in error["message"]
    assert (said.text, said.terminators, said.stops) == ("One", 0, [])
    record = gateway.record(asked.request_id)
    assert (record["outcome"], record["error_type"]) == ("capped", "frame_too_large")
    assert upstream.wait_for().wait_over().closed_at is not None


@each_pair
def test_c11_a_document_over_the_limit_is_an_error(pair: Pair, upstream: Upstream, gateway: Gateway) -> None:
    upstream.answers(Answer((b'{"x": "', *([b"x" * MIB] * 40)), content_type="application/json"))
    asked = gateway.ask(pair, stream=False)
    (error,) = asked.said().errors
    assert asked.status == 502
    assert "larger than 16777216 bytes" in error["message"]
    assert gateway.record(asked.request_id)["outcome"] == "capped"
    assert upstream.wait_for().wait_over().closed_at is not None


@each_client
@pytest.mark.parametrize("what", [b": busy\n\n", b"\n"], ids=["comments", "blank lines"])
def test_c11_a_preamble_without_end_is_an_error(what: bytes, wire: Wire, upstream: Upstream, gateway: Gateway) -> None:
    """Comments, or nothing at all, and never a reply."""
    upstream.answers(sse(*([what * 65536] * 200)))
    asked = gateway.ask(Pair(wire, wire))
    (error,) = asked.said().errors
    assert asked.status == 502
    assert "without content" in error["message"] or "nothing but blank lines" in error["message"]
    assert gateway.record(asked.request_id)["error_type"] == "protocol"


@each_client
def test_c11_a_head_over_the_limit_is_an_error(wire: Wire, upstream: Upstream, gateway: Gateway) -> None:
    upstream.answers(Answer((), headers=tuple((f"x-{k}", "x" * 1000) for k in range(100))))
    asked = gateway.ask(Pair(wire, wire))
    (error,) = asked.said().errors
    assert (asked.status, "65536 bytes" in error["message"]) == (502, True)
    assert gateway.record(asked.request_id)["error_type"] == "protocol"


@each_client
def test_c11_an_error_body_without_end_is_read_no_further_than_it_is_of_use(
    wire: Wire, upstream: Upstream, gateway: Gateway
) -> None:
    upstream.answers(Answer([b"x" * 65536] * 500, status=500, content_type="text/plain"))
    asked = gateway.ask(Pair(wire, wire))
    assert asked.status == 500
    assert len(asked.body()) < 2 * 65536
    assert upstream.wait_for().wait_over().written < 500 * 65536


# --- a slow reader ---------------------------------------------------------------------------------------------------


@each_client
def test_c11_a_slow_reader_slows_his_own_upstream_and_nobody_else(
    wire: Wire, upstream: Upstream, gateway: Gateway
) -> None:
    """Pathology 48. Verbatim to the one, translated to the other."""
    pair, number = Pair(wire, CHAT), 500
    flood = [CHAT.text(f"{k:>6}" + "x" * 50_000) for k in range(number)]  # 25 MB
    # Its connection is not used again: who has read so much is sent 30 MB ahead by the kernel when he reads no more.
    upstream.answers(Answer([*CHAT.opening(), *flood, *CHAT.closing()], headers=(("connection", "close"),)))
    before = gateway.memory_bytes
    body = json.dumps(pair.request()).encode()
    slow = gateway.send("POST", pair.client.route, body, None, pair.client, receive_buffer=64 * 1024)
    exchange = upstream.wait_for()
    assert exchange.blocked.wait(DEADLINE_S), "the upstream could write it all"
    held = exchange.written
    assert held < 15 * MIB  # what sockets hold

    # Others go on, in lock step with their own upstreams.
    for other in PAIRS:
        gate = Gate()
        upstream.answers(sse(*other.upstream.opening(), other.upstream.text("One "), gate, *other.upstream.closing()))
        asked = gateway.ask(other)
        while b"One" not in asked.frame():
            pass
        gate.open()
        assert asked.said().terminators == 1

    assert exchange.written == held
    # What was said is kept until its block ends; what was not read is not.
    assert gateway.memory_bytes - before < held + 4 * MIB, "what is not read piles up in the gateway"
    # He reads on, and has lost nothing.
    text = slow.said().text
    assert [text[k * 50_006 : k * 50_006 + 6] for k in range(number)] == [f"{k:>6}" for k in range(number)]
    assert len(text) == number * 50_006
    record = gateway.record(slow.request_id)
    assert (record["outcome"], record["chunks"]) == ("complete", number)


def test_c11_heartbeats_do_not_pile_up_before_a_slow_reader(upstream: Upstream, beating: Gateway) -> None:
    upstream.answers(sse(*CHAT.opening(), *([CHAT.text("x" * 50_000)] * 600), *CHAT.closing()))
    body = json.dumps(Pair(CHAT, CHAT).request()).encode()
    slow = beating.send("POST", CHAT.route, body, receive_buffer=64 * 1024)
    assert upstream.wait_for().blocked.wait(DEADLINE_S)
    said = slow.said()
    assert len(said.text) == 600 * 50_000
    assert beating.record(slow.request_id)["heartbeats"] == said.heartbeats <= 2


@each_client
def test_c11_many_slow_readers_cost_little(wire: Wire, upstream: Upstream, gateway: Gateway) -> None:
    before = gateway.memory_bytes
    comments = [b": " + b"x" * 50_000 + b"\n\n"] * 600
    upstream.answers(sse(*wire.opening(), wire.text("One"), *comments, *wire.closing()))
    body = json.dumps(wire.request(wire.model)).encode()
    slow = [gateway.send("POST", wire.route, body, None, wire, receive_buffer=32 * 1024) for _ in range(8)]
    for number in range(1, 9):
        assert upstream.wait_for(number).blocked.wait(DEADLINE_S)
    assert gateway.memory_bytes - before < 8 * 3 * MIB  # of 30 MB that each is sent
    for asked in slow:
        asked.leave()
    for exchange in upstream.exchanges:
        assert exchange.wait_over().closed_at is not None


# --- every form of client before every upstream -----------------------------------------------------------------------


@each_pair_of_all
def test_c11_in_every_pair_a_frame_of_a_megabyte_passes_whole(pair: AnyPair, bench: Bench) -> None:
    """Providers send images and whole thoughts in one frame."""
    told = bench.tell(pair, "giant")
    assert told.status == 200
    assert told.said.errors == []
    assert (told.said.text[: len(WORDS[0])], len(told.said.text)) == (WORDS[0], sum(map(len, WORDS)) + 1_200_000)


@each_form
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "document"])
def test_c11_every_client_is_told_in_its_dialect_that_its_body_is_too_large(
    stream: bool, client: Client, beating_bench: Bench
) -> None:
    pair = AnyPair(client, "openai-chat")
    model = beating_bench.model(pair.upstream)
    asked = beating_bench.ask(pair, model, stream=stream, prompt="x" * MIB)
    assert asked.status == 413
    (error,) = client.read_document(asked.body()).errors
    assert "1048576 bytes" in error["message"]
    assert beating_bench.seen(model) == []
