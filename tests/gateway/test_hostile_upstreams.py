"""Upstreams whose HTTP is none, or too much, or meant for somebody else, behind a running gateway.

Whatever they send, the client gets one whole answer that does not call itself complete, the next call is answered as if
nothing had been, and no byte that came unasked is in anybody's answer.
"""

from __future__ import annotations

import gzip
import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.gateway import frames
from tests.gateway.hostile import answers_in, body, whole
from tests.gateways import Gateway, serving
from tests.scripted_upstream import ScriptedUpstream
from tests.wires import CHAT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.scripted_upstream import Exchange

pytestmark = pytest.mark.process

SSE = b"content-type: text/event-stream\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\n" + SSE + b"transfer-encoding: chunked\r\n\r\n"
REPLY = frames.whole("openai-chat", "Hello")
BEGUN = frames.opening("openai-chat") + frames.text("openai-chat", "Hel")
SECRET = b"of another client"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def sized(data: bytes, status: bytes = b"200 OK", *headers: bytes) -> bytes:
    lines = b"".join(line + b"\r\n" for line in headers)
    return b"HTTP/1.1 %b\r\ncontent-length: %d\r\n%b\r\n%b" % (status, len(data), lines, data)


WHOLE = CHUNKED + chunk(REPLY) + b"0\r\n\r\n"

#: what comes instead of an answer: a 502 while there is still a status to say
NO_ANSWERS: dict[str, bytes] = {
    "another protocol": b"SSH-2.0-OpenSSH_9.6\r\n",
    "a frame of HTTP/2": b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64",
    "TLS": bytes.fromhex("15030100020228"),
    "HTTP/0.9": REPLY,
    "a body before its head": b"\r\n\r\n{}" + WHOLE,
    "line ends of LF": WHOLE.replace(b"\r\n", b"\n"),
    "a length and chunks": b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n" + WHOLE.partition(b"\r\n")[2],
    "two lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n" + sized(REPLY).partition(b"\r\n")[2],
    "a length that is none": b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n" + REPLY,
    "a length over 64 bits": b"HTTP/1.1 200 OK\r\ncontent-length: 18446744073709551617\r\n\r\n" + REPLY,
    "a NUL in a header": b"HTTP/1.1 200 OK\r\nx: a\x00b\r\ncontent-length: 2\r\n\r\n{}",
    "a bare CR in a header": b"HTTP/1.1 200 OK\r\nx: a\rset-cookie: b\r\ncontent-length: 2\r\n\r\n{}",
    "a space before the colon": b"HTTP/1.1 200 OK\r\ncontent-length : 2\r\n\r\n{}",
    "a status of two figures": b"HTTP/1.1 20 OK\r\ncontent-length: 2\r\n\r\n{}",
    "a status that is none": b"HTTP/1.1 2OO OK\r\ncontent-length: 2\r\n\r\n{}",
    "another version": b"HTTP/3.0 200 OK\r\ncontent-length: 2\r\n\r\n{}",
    "an upgrade": b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n\x81\x05Hello",
    "one long header": b"HTTP/1.1 200 OK\r\nx: " + b"a" * 300_000,
    "headers without end": b"HTTP/1.1 200 OK\r\n" + b"x-more: y\r\n" * 50_000,
    "a reason without end": b"HTTP/1.1 200 " + b"O" * 300_000,
    "answers to come without end": b"HTTP/1.1 100 Continue\r\n\r\n" * 20_000,
    "hints without end": b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" * 20_000,
    "a coding that nobody knows": b"HTTP/1.1 200 OK\r\ncontent-encoding: br\r\n" + WHOLE.partition(b"\r\n")[2],
    "gzip that is none": b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n" + WHOLE.partition(b"\r\n")[2],
    "nothing": sized(b""),
    "204": b"HTTP/1.1 204 No Content\r\n\r\n",
}  # fmt: skip

#: what breaks off a stream that had begun: an error in it, and no ending
BROKEN: dict[str, bytes] = {
    "a size that is none": b"zz\r\n" + REPLY,
    "a negative size": b"-5\r\n" + REPLY,
    "a size over 64 bits": b"f" * 17 + b"\r\n" + REPLY,
    "sizes with LF": b"%x\n%b\n0\n\n" % (len(REPLY), REPLY),
    "more than its size": b"5\r\n" + REPLY,
    "a head in the middle": b"HTTP/1.1 200 OK\r\n\r\n" + REPLY,
    "extensions without end": b"5;" + b"x" * 300_000,
    "an end in its middle": b"7fffffffffffffff\r\ndata: ",
    "trailers without end": b"0\r\n" + b"x: y\r\n" * 50_000,
}

#: a status that is none of a model's → what the client is told
STATUSES = {302: 502, 304: 502, 407: 407, 418: 418, 499: 499, 599: 599, 600: 502, 999: 502}


@pytest.fixture(scope="module")
def scripted() -> Iterator[ScriptedUpstream]:
    upstream = ScriptedUpstream()
    yield upstream
    upstream.close()


@pytest.fixture(scope="module")
def gateway(scripted: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    config = {
        "upstreams": {"chat": {"url": scripted.url}},
        "retry": {"attempts": 1},
        "timeouts": {"silence": "2s"},
        "telemetry": {"store": {"path": None}},
    }
    with serving(config, tmp_path_factory.mktemp("hostile-upstreams")) as running:
        yield running


def sends(*pieces: bytes, stays: bool = False) -> Callable[[Exchange], None]:
    def script(exchange: Exchange) -> None:
        for piece in pieces:
            exchange.send(piece)
        if not stays:
            exchange.connection.close()

    return script


def check_unharmed(gateway: Gateway, scripted: ScriptedUpstream) -> None:
    """The next call is answered, and by its own answer."""
    scripted.wait_until_answered()
    scripted.script = sends(WHOLE, stays=True)
    said = gateway.post(CHAT, CHAT.request("plain")).said()
    assert (said.text, said.terminators, said.errors) == ("Hello", 1, [])


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "document"])
@pytest.mark.parametrize("name", NO_ANSWERS)
def test_c4_what_is_no_answer(name: str, stream: bool, gateway: Gateway, scripted: ScriptedUpstream) -> None:
    scripted.executions.clear()
    scripted.script = sends(NO_ANSWERS[name])
    asked = gateway.post(CHAT, CHAT.request("plain", stream=stream))
    said = asked.said()
    assert (asked.status, said.text, said.terminators) == (502, "", 0)
    (error,) = said.errors
    assert "\n" not in error["message"]
    record = gateway.record(asked.request_id)
    assert record["outcome"] in ("upstream_error", "truncated", "capped")
    assert (record["http_status"], len(scripted.executions)) == (502, 1)
    check_unharmed(gateway, scripted)


@pytest.mark.parametrize("name", BROKEN)
def test_c4_what_breaks_off_a_stream(name: str, gateway: Gateway, scripted: ScriptedUpstream) -> None:
    scripted.script = sends(CHUNKED + chunk(BEGUN), BROKEN[name])
    asked = gateway.post(CHAT, CHAT.request("plain"))
    said = asked.said()
    assert asked.status in (200, 502)
    assert (said.terminators, said.stops, len(said.errors)) == (0, [], 1)
    assert said.text in ("", "Hel")
    assert gateway.record(asked.request_id)["outcome"] in ("truncated", "upstream_error")
    check_unharmed(gateway, scripted)


@pytest.mark.parametrize("status", STATUSES)
def test_a_status_of_nobodys_is_said_as_one_that_clients_know(
    status: int, gateway: Gateway, scripted: ScriptedUpstream
) -> None:
    """304 has no body, and 999 no name: an answer that had either would not be read as one."""
    refusal = b'{"error": {"message": "Go away.", "type": "other"}}'
    bodiless = status == 304
    head = b"location: http://evil.example/\r\nset-cookie: a=b"
    scripted.script = sends(sized(b"" if bodiless else refusal, b"%d Other" % status, head))
    with gateway.connect() as client:
        client.sendall(whole(body()) + b"GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n")
        heard = b""
        while data := client.recv(1 << 16):
            heard += data
    (first, headers, said), (second, _, _) = answers_in(heard)
    assert (first, second) == (STATUSES[status], 200)
    assert not {b"location", b"set-cookie"} & set(headers)
    assert json.loads(said)["error"]["message"]
    check_unharmed(gateway, scripted)


@pytest.mark.parametrize(
    "more",
    [sized(SECRET), CHUNKED + chunk(SECRET) + b"0\r\n\r\n", SECRET, b"HTTP/1.1 100 Continue\r\n\r\n" + sized(SECRET)],
    ids=["an answer", "an answer in chunks", "bytes", "an answer after a hint"],
)
@pytest.mark.parametrize("late", [False, True], ids=["at once", "later"])
def test_c3_an_answer_that_nobody_asked_for_is_nobodys(
    late: bool, more: bytes, gateway: Gateway, scripted: ScriptedUpstream
) -> None:
    """Response splitting: what stands behind an answer would be the next call's, were the connection lent again."""

    def script(exchange: Exchange) -> None:
        if late:
            exchange.send(WHOLE)
        exchange.send(more if late else WHOLE + more)

    scripted.script = script
    for _ in range(5):
        asked = gateway.post(CHAT, CHAT.request("plain"))
        heard = asked.body()
        assert SECRET not in heard
        # What comes so late that the connection is already another call's can only be refused there.
        assert (late and asked.status == 502) or CHAT.read(heard).text == "Hello"
    check_unharmed(gateway, scripted)


@pytest.mark.parametrize(
    "hints", [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" * 3]
)
def test_hints_before_an_answer_are_passed_over(hints: bytes, gateway: Gateway, scripted: ScriptedUpstream) -> None:
    scripted.script = sends(hints, WHOLE)
    asked = gateway.post(CHAT, CHAT.request("plain"))
    assert asked.said().text == "Hello"
    assert "link" not in asked.headers


@pytest.mark.parametrize("asked_for", ["-5", "nan", "1e400", "9" * 400, "soon", "1e300", "0"])
def test_a_time_to_wait_that_is_none_is_not_passed_on(
    asked_for: str, gateway: Gateway, scripted: ScriptedUpstream
) -> None:
    refusal = b'{"error": {"message": "Slow down.", "type": "rate_limit_error"}}'
    scripted.script = sends(sized(refusal, b"429 Slow", b"retry-after: " + asked_for.encode()))
    asked = gateway.post(CHAT, CHAT.request("plain"))
    assert asked.status == 429
    asked.body()
    said = asked.headers.get("retry-after", "1")
    assert said.isdigit()
    assert len(said) <= 10
    check_unharmed(gateway, scripted)


def bomb(text: bytes) -> bytes:
    packed = gzip.compress(text)
    return sized(packed, b"200 OK", b"content-encoding: gzip", b"content-type: application/json")


def test_c11_a_bomb_does_not_go_off(gateway: Gateway, scripted: ScriptedUpstream) -> None:
    before = gateway.memory_bytes
    scripted.script = sends(bomb(b'{"x": "' + b"a" * 300_000_000))
    asked = gateway.post(CHAT, CHAT.request("plain"))
    (error,) = asked.said().errors
    assert (asked.status, "16777216 bytes" in error["message"]) == (502, True)
    assert gateway.memory_bytes - before < 120 * 1024 * 1024
    check_unharmed(gateway, scripted)


def deep(opening: bytes, closing: bytes) -> Any:
    return sized(b'{"error":' + opening * 30_000 + b"1" + closing * 30_000 + b"}", b"400 Bad")


@pytest.mark.parametrize(
    "wire",
    [
        deep(b"[", b"]"),
        deep(b'{"error":', b"}"),
        sized(b'{"error": {"message": "\\ud800", "code": "\\udc00"}}', b"400 Bad"),
        sized(b'{"error": {"message": "a\\r\\nx-evil: 1\\u0000", "code": "a\\r\\nb", "param": "\\u2028"}}', b"400 Bad"),
        sized(b'{"error": {"message": ' + b"9" * 50_000 + b', "code": 1e999}}', b"400 Bad"),
        sized(b"\xff\xfe{\x00}\x00", b"400 Bad", b"content-type: \xff\xfe"),
        sized(b"<html>" + b"x" * 200_000, b"400 Bad", b"content-type: text/html"),
        sized(b"", b"400 Bad"),
    ],
    ids=["arrays", "objects", "half a pair", "line ends", "numbers", "UTF-16", "a page", "nothing"],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/responses", "/api/chat"])
def test_a_refusal_of_any_kind_is_a_refusal(
    path: str, wire: bytes, gateway: Gateway, scripted: ScriptedUpstream
) -> None:
    scripted.script = sends(wire)
    given: dict[str, Any] = {"model": "plain", "messages": [{"role": "user", "content": "x"}], "max_tokens": 9}
    given |= {"input": "x"} if path == "/v1/responses" else {}
    asked = gateway.send("POST", path, json.dumps(given).encode())
    assert asked.status == 400
    asked.body()
    assert "x-evil" not in asked.headers
    assert gateway.record(asked.request_id)["outcome"] == "upstream_error"
    check_unharmed(gateway, scripted)


#: what a path that is passed on answers → what its client is told
PASSED = {
    b"200 OK": 200, b"204 No Content": 204, b"302 Found": 302, b"304 Not Modified": 304, b"418 Teapot": 418,
    b"599 Late": 599, b"600 Strange": 502, b"999 Denied": 502,
}  # fmt: skip


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
@pytest.mark.parametrize("status", PASSED, ids=lambda status: status.decode())
def test_a_path_that_is_passed_on_has_a_status_that_http_knows(
    status: bytes, method: bytes, gateway: Gateway, scripted: ScriptedUpstream
) -> None:
    """A 304 tells the length of what it does not send."""
    has_body = method == b"GET" and status[:3] not in (b"204", b"304")
    length = b"" if status.startswith(b"204") else b"content-length: 2\r\n"
    scripted.script = sends(b"HTTP/1.1 %b\r\n%b\r\n%b" % (status, length, b"{}" if has_body else b""))
    request = method + b" /upstreams/chat/v1/files HTTP/1.1\r\nhost: 127.0.0.1\r\n"
    with gateway.connect() as client:
        client.sendall(request + b"\r\n" + b"GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n")
        heard = b""
        while data := client.recv(1 << 16):
            heard += data
    statuses = [int(found) for found in re.findall(rb"HTTP/1\.1 (\d{3}) ", heard)]
    assert statuses == [PASSED[status], 200]
    if method == b"GET":
        assert heard.count(b"{}") == int(has_body and PASSED[status] != 502)
    check_unharmed(gateway, scripted)
