"""Hostile HTTP against a running gateway: no crash, no leak, and not a byte of one client's stream in another's.

Beside each case a stream of another client's runs, which began before it and ends after it, and must be whole. What is
sent, and what must come of it, is in `hostile`.
"""

from __future__ import annotations

import itertools
import json
import socket
import time
from typing import TYPE_CHECKING

import pytest

from tests.gateway.hostile import KINDS, LAST, LIMITS, Case, answers_in, body, post, whole
from tests.gateways import Asked, Gateway, serving, until
from tests.upstreams import Answer, Gate, Upstream, sse
from tests.wires import CHAT, MESSAGES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.upstreams import Exchange

pytestmark = pytest.mark.process

CASES = [(kind, case) for kind, cases in KINDS.items() for case in cases]

_numbers = itertools.count()


@pytest.fixture(scope="module")
def scripted() -> Iterator[Upstream]:
    upstream = Upstream()
    yield upstream
    upstream.close()


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    Asked.close_all()


@pytest.fixture(scope="module")
def gateway(scripted: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    config = {
        "server": LIMITS,
        "upstreams": {
            "chat": {"url": scripted.url("/chat/v1")},
            "messages": {"url": scripted.url("/anth/v1"), "dialect": "anthropic-messages"},
        },
        "models": {"other": "messages", "plain*": "chat", "beside-*": "chat"},
        "telemetry": {"store": {"path": None}},
    }
    with serving(config, tmp_path_factory.mktemp("hostile")) as running:
        yield running


class Neighbour:
    """Another client, whose stream has begun."""

    def __init__(self, gateway: Gateway, upstream: Upstream) -> None:
        self.gateway = gateway
        self.name = f"beside-{next(_numbers)}"
        self.gate = Gate()
        self.others: list[Exchange] = []
        upstream.answers(self._answer)
        self.asked = gateway.post(CHAT, CHAT.request(self.name))
        while self.name.encode() not in self.asked.frame():
            pass

    def _answer(self, exchange: Exchange) -> Answer:
        if self.name.encode() in exchange.body:
            pieces = [CHAT.text(f"{self.name} {k} ") for k in range(3)]
            return sse(*CHAT.opening(), pieces[0], self.gate, *pieces[1:], *CHAT.closing())
        self.others.append(exchange)
        wire = MESSAGES if exchange.path.startswith("/anth/") else CHAT
        return sse(*wire.opening(), wire.text("plain"), *wire.closing())

    def check_whole(self) -> None:
        self.gate.open()
        said = self.asked.said()
        assert said.text == "".join(f"{self.name} {k} " for k in range(3))
        assert (said.terminators, said.errors, said.stops) == (1, [], ["stop"])
        assert self.gateway.record(self.asked.request_id)["outcome"] == "complete"


def speak(gateway: Gateway, case: Case) -> bytes:
    """Say it, and return all that came back until the gateway closed the connection."""
    heard = b""
    with gateway.connect() as client:
        try:
            for part in (*case.said, LAST) if case.is_last_said else case.said:
                if isinstance(part, float):
                    client.settimeout(part)
                    try:
                        heard += client.recv(1 << 16)
                    except TimeoutError:
                        client.settimeout(10)
                        continue
                    client.settimeout(10)
                else:
                    client.sendall(part)
        except ConnectionError:
            pass  # it was refused while it still spoke; what was said of that may still be there to read
        if case.closes == "all":
            return heard
        if case.closes == "half":
            client.shutdown(socket.SHUT_WR)
        try:
            while data := client.recv(1 << 16):
                heard += data
        except ConnectionResetError:
            pass
    return heard


def sockets(gateway: Gateway) -> int:
    return sum(name.startswith("socket:") for name in gateway.open_files)


@pytest.mark.parametrize(("kind", "case"), CASES, ids=[f"{kind}: {case.name}" for kind, case in CASES])
def test_c3_hostile_http_harms_nobody_else(kind: str, case: Case, gateway: Gateway, scripted: Upstream) -> None:
    gateway.pass_through()
    before = sockets(gateway)
    neighbour = Neighbour(gateway, scripted)
    heard = speak(gateway, case)
    assert neighbour.name.encode() not in heard
    answers = answers_in(heard)
    statuses = [status for status, _, _ in answers]
    refused = case.answers[-1:] != (200,)
    assert statuses == list(case.answers), heard[:2000]
    for status, headers, content in answers:
        assert b"x-evil" not in headers
        assert b"Traceback" not in content
        if status >= 400 and refused:
            assert content
    assert len(neighbour.others) == int(case.asks)
    neighbour.check_whole()
    for exchange in neighbour.others:
        assert "smuggled" not in str(exchange.headers)
        exchange.wait_over()
    # Nothing of it is left: the sockets are closed, but for those that are kept for the next call, and no call goes on.
    until(lambda: sockets(gateway) <= before + 2, "every socket is closed")
    last = gateway.post(CHAT, CHAT.request("plain"))
    assert last.said().text == "plain"
    assert gateway.record(last.request_id)["concurrent"] == 1


def test_there_are_kinds_enough() -> None:
    assert len(KINDS) >= 24


def test_answers_come_in_the_order_of_their_requests(gateway: Gateway, scripted: Upstream) -> None:
    """A request whose answer is slow holds back those behind it, and takes none of their bytes."""
    gates = {f"plain-{k}": Gate() for k in range(3)}

    def answer(exchange: Exchange) -> Answer:
        name = json.loads(exchange.body)["model"]
        return sse(*CHAT.opening(), gates[name], CHAT.text(name), *CHAT.closing())

    scripted.answers(answer)
    with gateway.connect() as client:
        client.sendall(b"".join(whole(body(model=name)) for name in gates) + LAST)
        for gate in reversed(gates.values()):
            gate.open()
        heard = b""
        while data := client.recv(1 << 16):
            heard += data
    found = [content for _, _, content in answers_in(heard)]
    assert [next((name for name in gates if name.encode() in content), None) for content in found] == [*gates, None]


def test_c7_a_client_that_leaves_with_requests_behind_its_stream_is_gone(gateway: Gateway, scripted: Upstream) -> None:
    """Whole requests, and half of one, wait behind a stream: its end is seen all the same, and they are never asked."""
    gate = Gate()
    scripted.forget()
    scripted.answers(sse(*CHAT.opening(), CHAT.text("One"), gate, *CHAT.closing()))
    client = gateway.connect()
    model = f"plain-{next(_numbers)}-left"
    client.sendall(whole(body(model=model)))
    heard = b""
    while b"One" not in heard:
        heard += client.recv(1 << 16)
    client.sendall(whole(body()) * 2 + whole(body())[:-9])
    gateway.pass_through()
    client.close()
    assert scripted.wait_for().wait_over().closed_at is not None
    record = gateway.record_of(model)
    assert (record["outcome"], record["attempts"]) == ("cancelled", 1)
    gateway.pass_through()
    assert len(scripted.exchanges) == 1
    gate.open()


@pytest.mark.parametrize(
    "said", [b"EHLO\r\n", post(b"transfer-encoding: chunked", data=b"zz\r\n")], ids=["head", "body"]
)
def test_a_client_that_was_refused_and_stays_is_closed_upon(said: bytes, gateway: Gateway) -> None:
    gateway.pass_through()
    before = sockets(gateway)
    with gateway.connect() as client:
        client.sendall(said)
        assert client.recv(1 << 16).startswith(b"HTTP/1.1 400 ")
        assert client.recv(1 << 16) == b""
        until(lambda: sockets(gateway) <= before, "its socket is closed")


def test_a_stream_outlives_the_time_for_heads(gateway: Gateway, scripted: Upstream) -> None:
    """The clocks of a client's words say nothing of answers, nor of what waits behind them."""
    gate = Gate()
    scripted.answers(sse(*CHAT.opening(), CHAT.text("One"), 1.0, CHAT.text("Two"), *CHAT.closing()))
    with gateway.connect() as client:
        client.sendall(whole(body()) + b"GET /health HTTP/1.1\r\nhost: 127.0")
        heard = b""
        while b"[DONE]" not in heard:
            heard += client.recv(1 << 16)
        client.sendall(b".0.1\r\nconnection: close\r\n\r\n")
        while data := client.recv(1 << 16):
            heard += data
    assert [status for status, _, _ in answers_in(heard)] == [200, 200]
    gate.open()


def test_a_large_body_may_take_longer_than_its_time_if_it_goes_on(gateway: Gateway, scripted: Upstream) -> None:
    scripted.answers(sse(*CHAT.opening(), CHAT.text("One"), *CHAT.closing()))
    request = whole(body(messages=[{"role": "user", "content": "x" * 60_000}]))
    began = time.monotonic()
    with gateway.connect() as client:
        for k in range(0, len(request), 2000):
            client.sendall(request[k : k + 2000])
            time.sleep(0.08)
        client.sendall(LAST)
        heard = b""
        while data := client.recv(1 << 16):
            heard += data
    assert time.monotonic() - began > 2  # twice its time
    assert [status for status, _, _ in answers_in(heard)] == [200, 200]


def test_c11_many_slow_clients_keep_nobody_from_asking(gateway: Gateway, scripted: Upstream) -> None:
    scripted.answers(sse(*CHAT.opening(), CHAT.text("One"), *CHAT.closing()))
    gateway.pass_through()
    before = sockets(gateway)
    slow = [gateway.connect() for _ in range(300)]
    for number, client in enumerate(slow):
        client.sendall(b"GET /health HTTP/1.1\r\nx: " if number % 2 else whole(body())[:-20])
    asked = gateway.post(CHAT, CHAT.request("plain"))
    assert asked.said().text == "One"
    until(lambda: sockets(gateway) <= before + 2, "all of them are closed")
    heard = {client.recv(1 << 16)[:12] for client in slow}
    assert heard == {b"HTTP/1.1 408"}
    for client in slow:
        client.close()
