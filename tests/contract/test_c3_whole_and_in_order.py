"""C3: every delta once, in order, however the network cuts the bytes."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.contract.clients import CLIENTS
from tests.contract.simulated import ALL_PAIRS, UPSTREAMS, check_whole
from tests.contract.simulated import Pair as AnyPair
from tests.upstreams import Answer, sse
from tests.wires import PAIRS, each_pair

if TYPE_CHECKING:
    from tests.contract.simulated import Bench
    from tests.gateways import Gateway
    from tests.upstreams import Exchange, Upstream
    from tests.wires import Pair

pytestmark = pytest.mark.process

TEXTS = [
    "Žluť",
    "oučký ",
    "кінь 🐎",
    "\u2028\u0085\x0b",
    'says "\\n"',
    "\n\ndata: [DONE]\n\n",
    "\r\n",
    " ",
    "漢字",
    "🏳️‍🌈",
]
FRAGMENTS = ["", '{"ä', '": "🐎', '\\u00e9", "b": [1', ", 2.50]}"]


@each_pair
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize("size", [1, 3, 7, None])
def test_c3_all_deltas_once_and_in_order(
    size: int | None, line_end: bytes, pair: Pair, upstream: Upstream, gateway: Gateway
) -> None:
    wire = pair.upstream
    frames = [*wire.opening(), *(wire.text(text) for text in TEXTS), *wire.call("look", FRAGMENTS)]
    sent = b"".join([*frames, *wire.closing((19, 12), stop="tool_calls")])
    upstream.answers(sse(sent.replace(b"\n", line_end), cut=size))
    body = gateway.ask(pair).body()
    said = pair.client.read(body.replace(b"\r\n", b"\n"))
    assert said.text == "".join(TEXTS)
    ((name, arguments),) = said.calls
    assert (name, arguments) == ("look", "".join(FRAGMENTS))
    assert json.loads(arguments) == {"ä": "🐎é", "b": [1, 2.5]}
    assert (said.usage, said.terminators, said.errors) == ((19, 12), 1, [])


@each_pair
def test_c3_each_delta_is_a_delta_of_its_own(pair: Pair, upstream: Upstream, gateway: Gateway) -> None:
    """A read that brings many is not folded into one."""
    wire = pair.upstream
    words = [f"{k} " for k in range(200)]
    upstream.answers(sse(b"".join([*wire.opening(), *map(wire.text, words), *wire.closing()])))
    asked = gateway.ask(pair)
    said = asked.said()
    found = []
    for _, data in said.frames:
        if isinstance(data, dict) and data.get("delta", {}).get("text"):
            found.append(data["delta"]["text"])
        elif isinstance(data, dict) and data.get("choices"):
            found += [c["delta"]["content"] for c in data["choices"] if c["delta"].get("content")]
    assert found == words
    assert gateway.record(asked.request_id)["chunks"] == 200


def test_c3_streams_side_by_side_are_not_mixed(upstream: Upstream, gateway: Gateway) -> None:
    def choose(exchange: Exchange) -> Answer:
        name = json.loads(exchange.body)["model"]
        wire = next(pair.upstream for pair in PAIRS if pair.upstream.upstream_path == exchange.path)
        words = [f"{name}:{k} " for k in range(30)]
        return sse(*wire.opening(), *map(wire.text, words), *wire.closing(), cut=97)

    upstream.answers(choose)

    def ask(k: int) -> bool:
        pair = PAIRS[k % 4]
        model = f"{pair.upstream.model}-{k}"
        return gateway.ask(pair, model=model).said().text == "".join(f"{model}:{n} " for n in range(30))

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(ask, range(64)))


# --- every form of client before every upstream -----------------------------------------------------------------------


SAID = [(pair, kind) for pair in ALL_PAIRS for kind in ("text", "thought", "call") if pair.can(kind)]


@pytest.mark.parametrize(("pair", "kind"), SAID, ids=[f"{kind}, {pair}" for pair, kind in SAID])
def test_c3_every_pair_is_told_everything_once(pair: AnyPair, kind: str, bench: Bench) -> None:
    """As it comes, frame by frame; and in one read, where a relay has everything at hand to fold or to lose."""
    for looks in ("", "one-write"):
        check_whole(pair, bench.tell(pair, looks, kind), kind)


@pytest.mark.parametrize("upstream", UPSTREAMS)
def test_c3_every_upstream_may_cut_its_bytes_anywhere(upstream: str, bench: Bench) -> None:
    """Each byte in a write of its own, translated and as it is."""
    for client in CLIENTS:
        if client.name in ("openai-chat", "anthropic-messages") or client.dialect == upstream:
            pair = AnyPair(client, upstream)
            check_whole(pair, bench.tell(pair, "bytewise", "text"), "text")
