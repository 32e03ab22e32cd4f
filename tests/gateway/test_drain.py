"""A gateway that is told to end: what runs finishes, what does not is told so truly, and every record is kept."""

from __future__ import annotations

import signal
import socket
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.gateways import Asked, Gateway, started, two_upstreams, until
from tests.processes import Running
from tests.upstreams import Answer, Gate, Upstream, document, sse
from tests.wires import CHAT, MESSAGES, Pair, each_client, each_pair

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.wires import Wire

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def scripted() -> Iterator[Upstream]:
    upstream = Upstream()
    yield upstream
    upstream.close()


@pytest.fixture
def upstream(scripted: Upstream) -> Iterator[Upstream]:
    scripted.forget()
    yield scripted
    Asked.close_all()
    assert scripted.errors == []


@contextmanager
def ending(upstream: Upstream, folder: Path, drain: str, **more: Any) -> Iterator[Gateway]:
    """A gateway that the test itself ends."""
    with started(two_upstreams(upstream, server={"drain": drain}, **more), folder) as process:
        yield Gateway(Running(process), folder)


def ended(gateway: Gateway, within_s: float = 10.0) -> int:
    """Its exit code; it must have written nothing on standard error."""
    code = gateway.running.process.wait(within_s)
    assert gateway.stderr == ""
    return code


def begun(wire: Wire) -> list[bytes]:
    return [*wire.opening(), wire.text("One ")]


@each_pair
def test_a_running_stream_finishes(pair: Pair, upstream: Upstream, tmp_path: Path) -> None:
    gate = Gate()
    upstream.answers(sse(*begun(pair.upstream), gate, pair.upstream.text("two"), *pair.upstream.closing()))
    with ending(upstream, tmp_path, "20s") as gateway:
        asked = gateway.ask(pair)
        assert asked.frame()
        gateway.running.process.send_signal(signal.SIGTERM)
        until(lambda: refused(gateway), "that the listener is closed")
        gate.open()
        said = asked.said()
        assert (said.text, said.terminators or said.stops != [], said.errors) == ("One two", True, [])
        assert ended(gateway) == 0
        (record,) = gateway.stored()
        assert (record["outcome"], record["request_id"]) == ("complete", asked.request_id)


def refused(gateway: Gateway) -> bool:
    try:
        socket.create_connection(("127.0.0.1", gateway.port), 1).close()
    except ConnectionError:
        return True
    return False


def health(connection: socket.socket) -> bytes:
    connection.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
    answer = b""
    while not answer.endswith(b"}"):
        data = connection.recv(4096)
        assert data, "closed"
        answer += data
    return answer


@each_client
def test_a_kept_connection_is_told_to_ask_again(wire: Wire, upstream: Upstream, tmp_path: Path) -> None:
    gate = Gate()
    upstream.answers(sse(*begun(CHAT), gate, *CHAT.closing()))
    with ending(upstream, tmp_path, "20s") as gateway:
        kept = [gateway.connect() for _ in range(2)]
        for connection in kept:
            assert b'"ok"' in health(connection)
        running = gateway.ask(Pair(CHAT, CHAT))
        assert running.frame()
        gateway.running.process.send_signal(signal.SIGTERM)
        until(lambda: refused(gateway), "that the listener is closed")
        assert b'"draining"' in health(kept[0])
        kept[0].sendall(b"GET /ready HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert kept[0].recv(4096).startswith(b"HTTP/1.1 503 ")
        kept[1].sendall(f"POST {wire.route} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\n{{}}".encode())
        answer = b""
        while data := kept[1].recv(4096):  # and then it is closed
            answer += data
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 1" in head
        assert b"shutting down" in body
        assert wire.read_document(body).errors
        gate.open()
        assert running.said().errors == []
        for connection in kept:
            connection.close()
        assert ended(gateway) == 0


@each_pair
def test_what_does_not_finish_is_told_so(pair: Pair, upstream: Upstream, tmp_path: Path) -> None:
    """After content, and before anything: an error in the stream, an error as a status; both on the record."""
    first, second = Gate(), Gate()
    answers = [sse(*begun(pair.upstream), first, end="hang"), Answer((), before=second)]
    upstream.answers(lambda exchange: answers.pop(0))
    with ending(upstream, tmp_path, "300ms") as gateway:
        streaming = gateway.ask(pair)
        assert streaming.frame()
        first.wait_reached()
        waiting = gateway.ask(pair)
        upstream.wait_for(2)
        gateway.running.process.send_signal(signal.SIGTERM)
        said = streaming.said()
        assert (said.text, said.terminators, said.stops) == ("One ", 0, [])
        assert "shutting down" in said.errors[0]["message"]
        assert waiting.status == 503
        assert waiting.headers["retry-after"] == "1"
        assert pair.client.read_document(waiting.body()).errors
        assert ended(gateway) == 0
        records = {record["request_id"]: record for record in gateway.stored()}
        assert len(records) == 2
        for asked in (streaming, waiting):
            record = records[asked.request_id]
            assert (record["outcome"], record["error_type"]) == ("cancelled", "shutting_down")
        assert records[waiting.request_id]["http_status"] == 503
    for exchange in upstream.exchanges:
        exchange.wait_over()


def test_a_stream_of_heartbeats_alone_is_ended_in_the_stream(upstream: Upstream, tmp_path: Path) -> None:
    upstream.answers(Answer((), before=Gate()))
    with ending(upstream, tmp_path, "300ms", heartbeat={"interval": "50ms"}) as gateway:
        asked = gateway.ask(Pair(MESSAGES, MESSAGES))
        assert b"ping" in asked.frame()
        gateway.running.process.send_signal(signal.SIGTERM)
        assert "shutting down" in asked.said().errors[0]["message"]
        assert ended(gateway) == 0


def test_what_does_not_stream_is_refused(upstream: Upstream, tmp_path: Path) -> None:
    upstream.answers(Answer((), before=Gate()))
    with ending(upstream, tmp_path, "300ms") as gateway:
        asked = gateway.ask(Pair(CHAT, CHAT), stream=False)
        embed = gateway.send("POST", "/v1/embeddings", b'{"model":"c-1","input":"a"}')
        upstream.wait_for(2)
        gateway.running.process.send_signal(signal.SIGTERM)
        assert (asked.status, embed.status) == (503, 503)
        assert b"shutting down" in asked.body()
        assert b"shutting down" in embed.body()
        assert ended(gateway) == 0
        assert [record["error_type"] for record in gateway.stored()] == ["shutting_down"] * 2


def test_a_second_signal_ends_at_once(upstream: Upstream, tmp_path: Path) -> None:
    upstream.answers(sse(*begun(CHAT), end="hang"))
    with ending(upstream, tmp_path, "10m") as gateway:
        asked = gateway.ask(Pair(CHAT, CHAT))
        assert asked.frame()
        gateway.running.process.send_signal(signal.SIGTERM)
        until(lambda: refused(gateway), "that the listener is closed")
        time.sleep(0.3)
        assert asked.is_silent() or asked.frame()  # it is left to run
        assert gateway.running.process.poll() is None
        gateway.running.process.send_signal(signal.SIGTERM)
        assert "shutting down" in asked.said().errors[0]["message"]
        assert ended(gateway) == 0
        (record,) = gateway.stored()
        assert (record["outcome"], record["error_type"]) == ("cancelled", "shutting_down")


def test_a_client_that_does_not_read_holds_nothing_up(upstream: Upstream, tmp_path: Path) -> None:
    many = [CHAT.text("x" * 60_000) for _ in range(400)]
    upstream.answers(sse(*CHAT.opening(), *many, *CHAT.closing()))
    with ending(upstream, tmp_path, "300ms") as gateway:
        gateway.send("POST", CHAT.route, raw(), receive_buffer=4096)
        upstream.wait_for(1).blocked.wait(10)
        gateway.running.process.send_signal(signal.SIGTERM)
        assert ended(gateway) == 0
        (record,) = gateway.stored()
        assert record["outcome"] == "cancelled"


def raw() -> bytes:
    return b'{"model":"c-1","stream":true,"messages":[{"role":"user","content":"x"}]}'


def test_an_idle_gateway_ends_soon(upstream: Upstream, tmp_path: Path) -> None:
    upstream.answers(document(b"{}"))
    with ending(upstream, tmp_path, "10m") as gateway:
        kept = gateway.connect()
        assert health(kept)
        gateway.running.process.send_signal(signal.SIGINT)
        assert ended(gateway, 8) == 0
        kept.close()
