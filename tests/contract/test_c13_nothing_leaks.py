"""C13: what people say stays between them and their model, and nothing is left behind when they have gone."""

from __future__ import annotations

import json
import random
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.contract.simulated import ERROR_FAULTS, at_once, each_form
from tests.gateways import KEYS, serving, two_upstreams, until
from tests.upstreams import Answer, Upstream, document, sse
from tests.wires import PAIRS, WIRES, each_pair

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.contract.clients import Client
    from tests.contract.simulated import Bench
    from tests.contract.simulated import Pair as AnyPair
    from tests.gateways import Gateway
    from tests.upstreams import Exchange
    from tests.wires import Pair, Wire

pytestmark = pytest.mark.process

PROMPT, REPLY, CLIENT_KEY = "the-prompt-7c1d", "the-reply-e02b", "sk-client-41aa9e"


def answers(wire: Wire) -> dict[str, Answer]:
    """One of each kind; every one holds the reply, and some repeat what they should not."""
    begun = [*wire.opening(), wire.text(REPLY), wire.text(PROMPT)]
    echo = f"{REPLY} {PROMPT} {KEYS['CHAT_KEY']} {KEYS['ANTH_KEY']}"
    return {
        "complete": sse(*begun, *wire.closing()),
        "a call": sse(*begun, *wire.call("look", [json.dumps({"at": REPLY})]), *wire.closing(stop="tool_calls")),
        "a document": document(wire.document(REPLY)),
        "cut": sse(*begun, end="cut"),
        "reset": sse(*begun, end="reset"),
        "an error in the stream": sse(*begun, wire.error("api_error", f"{REPLY} {PROMPT}")),
        "an error first": sse(wire.error(REPLY, f"{REPLY} {PROMPT}")),
        "malformed": sse(*begun, f"data: {{{REPLY}\n\n".encode()),
        "a fault": document(wire.error_body("api_error", echo), status=500),
        "a rejected key": document(wire.error_body("authentication_error", echo), status=401),
        "a strange code": document(wire.error_body(PROMPT, echo), status=400),
        "a page": document(f"<html>{echo}".encode(), content_type="text/html"),
        "text": document(echo.encode(), content_type="text/plain"),
        "no answer": Answer(end="cut", has_head=False),
        "hang": sse(*begun, end="hang"),
    }


KINDS = tuple(answers(WIRES["openai-chat"]))


def wire_of(exchange: Exchange) -> Wire:
    return next(wire for wire in WIRES.values() if wire.upstream_path == exchange.path)


def ask(gateway: Gateway, pair: Pair, kind: str, *, stream: bool = True, leave: bool = False) -> bytes:
    """The upstream reads from the request which answer is wanted. Who leaves has heard a first word."""
    stream = stream or kind == "hang"
    asked = gateway.ask(
        pair,
        stream=stream,
        headers={"authorization": f"Bearer {CLIENT_KEY}", "x-api-key": CLIENT_KEY},
        messages=[{"role": "user", "content": PROMPT}],
        user=kind if pair.client.name == "openai-chat" else None,
        metadata={"user_id": kind} if pair.client.name != "openai-chat" else None,
    )
    if kind == "hang" or (leave and stream):
        asked.receive()
        asked.leave()
        return b""
    return asked.body()


def choose(exchange: Exchange) -> Answer:
    said = json.loads(exchange.body)
    kind: str = said.get("user") or said["metadata"]["user_id"]
    return answers(wire_of(exchange))[kind]


def everything(gateway: Gateway) -> str:
    store = b"".join(path.read_bytes() for path in gateway.folder.glob("penstock.db*"))
    return "\n".join(gateway.running.lines) + gateway.stderr + store.decode("latin-1")


def test_c13_no_key_prompt_or_reply_is_logged_or_kept(upstream: Upstream, tmp_path: Path) -> None:
    upstream.answers(choose)
    with serving(two_upstreams(upstream), tmp_path) as gateway:
        number = 0
        for pair in PAIRS:
            for kind in KINDS:
                for stream in (True, False):
                    body = ask(gateway, pair, kind, stream=stream)
                    number += 1
                    # Not even to the client, when the upstream repeats it.
                    assert KEYS["CHAT_KEY" if "chat" in pair.upstream.name else "ANTH_KEY"].encode() not in body
            for wrong in (b'{"model": "%b', b'{"model": {"%b": 1}}', b'{"model": "m", "messages": "%b"}'):
                gateway.post(pair.client, wrong % PROMPT.encode(), {"x-api-key": CLIENT_KEY}).body()
        until(lambda: len(gateway.records()) == number, f"{number} records")
        until(lambda: len(gateway.stored()) == number, f"{number} rows")
    found = everything(gateway)
    assert '"outcome":"complete"' in found
    for secret in (PROMPT, REPLY, CLIENT_KEY, *KEYS.values()):
        assert secret not in found


@pytest.mark.parametrize("format", ["pretty", "compact"])
def test_c13_the_logs_for_people_say_no_more(format: str, upstream: Upstream, tmp_path: Path) -> None:
    upstream.answers(choose)
    with serving(two_upstreams(upstream), tmp_path, "--log", format) as gateway:
        for kind in KINDS:
            ask(gateway, PAIRS[0], kind)
    found = "\n".join(gateway.running.lines) + gateway.stderr
    assert len(gateway.running.lines) > len(KINDS)
    for secret in (PROMPT, REPLY, CLIENT_KEY, *KEYS.values()):
        assert secret not in found


@each_pair
def test_c13_a_clients_key_is_not_sent_up(pair: Pair, upstream: Upstream, gateway: Gateway) -> None:
    """The upstream gets the key that is meant for it, and no header that is not its dialect's."""
    upstream.answers(choose)
    ask(gateway, pair, "complete")
    (exchange,) = upstream.exchanges
    assert CLIENT_KEY not in str(exchange.headers)
    if pair.upstream.name == "openai-chat":
        assert exchange.headers["authorization"] == f"Bearer {KEYS['CHAT_KEY']}"
        assert "x-api-key" not in exchange.headers
    else:
        assert exchange.headers["x-api-key"] == KEYS["ANTH_KEY"]
        assert "authorization" not in exchange.headers
    assert exchange.headers["accept-encoding"] == "identity"


@pytest.fixture
def own_upstream() -> Iterator[Upstream]:
    """Its connections are this test's alone."""
    upstream = Upstream()
    yield upstream
    upstream.close()
    assert upstream.errors == []


def test_c13_nothing_is_left_after_300_requests_of_every_ending(own_upstream: Upstream, tmp_path: Path) -> None:
    upstream = own_upstream
    upstream.answers(choose)
    with serving(two_upstreams(upstream), tmp_path) as gateway:
        for pair in PAIRS:
            ask(gateway, pair, "complete")
        until(lambda: len(gateway.stored()) == 4, "the store is open")
        before = len(gateway.open_files) - upstream.live
        chance = random.Random(13)
        many = [
            (chance.choice(PAIRS), chance.choice(KINDS), chance.random() < 0.7, chance.random() < 0.2)
            for _ in range(300)
        ]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda it: ask(gateway, it[0], it[1], stream=it[2], leave=it[3]), many))
        for exchange in upstream.exchanges:
            exchange.wait_over()
        until(lambda: len(gateway.records()) == 304, "a record of each")
        # What is open now is kept for the next requests, and is one file each.
        until(lambda: upstream.live <= 8, "connections go")
        until(lambda: len(gateway.open_files) <= before + upstream.live + 2, "files go")
        outcomes = {record["outcome"] for record in gateway.records()}
        assert outcomes == {"complete", "truncated", "upstream_error", "cancelled"}
    until(lambda: upstream.live == 0, "the last go with the gateway")


# --- every form of client before every upstream -----------------------------------------------------------------------


@each_form
def test_c13_in_every_pair_nobodys_key_or_words_go_where_they_should_not(client: Client, bench: Bench) -> None:
    """The upstream gets its own key and not the client's; the log gets neither, and no word of what was said."""

    def check(pair: AnyPair) -> None:
        key = client.key_headers(CLIENT_KEY)
        faults = ("", "status-401", f"{ERROR_FAULTS[pair.upstream]}-2", "cut-after-2")
        for told in [bench.tell(pair, fault, headers=key, prompt=PROMPT) for fault in faults]:
            (seen,) = bench.seen(told.model)
            assert PROMPT.encode() in seen.body
            assert CLIENT_KEY not in f"{seen.path} {seen.headers}"
            assert len([value for value in seen.headers.values() if KEYS["CHAT_KEY"] in value]) == 1
            assert KEYS["CHAT_KEY"].encode() not in told.body
            record = json.dumps(bench.record(told.model))
            for secret in (PROMPT, CLIENT_KEY, KEYS["CHAT_KEY"], "two"):
                assert secret not in record

    at_once(check, client)
    assert bench.gateway.stderr == ""
