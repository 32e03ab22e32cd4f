"""What is wrong with a request is said in the caller's dialect, in one sentence, with the right status and field."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import sqlite3
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from tests.gateway import frames
from tests.gateway.conftest import PATHS, Answer, request_body
from tests.processes import run, running
from tests.scripted_upstream import ScriptedUpstream

if TYPE_CHECKING:
    from pathlib import Path

    from tests.gateway.conftest import Bench
    from tests.scripted_upstream import Exchange

pytestmark = pytest.mark.process

DIALECTS = tuple(PATHS)
clients = pytest.mark.parametrize("client", DIALECTS)


def post(bench: Bench, path: str, body: bytes, method: str = "POST") -> Answer:
    connection = bench.connect()
    connection.request(method, path, body)
    answer = Answer(connection.getresponse())
    connection.close()
    return answer


MESSAGES = [{"role": "user", "content": "hi"}]
WRONG: list[tuple[Any, int, str, str | None]] = [
    (b'{"model": ', 400, "not valid JSON", None),
    (b"\xff\xfe", 400, "not valid JSON", None),
    ({"messages": MESSAGES, "max_tokens": 1}, 400, "missing required field `model`", "model"),
    ({"model": "chat", "max_tokens": 1}, 400, "missing required field `messages`", "messages"),
    ({"model": "chat", "messages": "hi", "max_tokens": 1}, 400, "got `str`", "messages"),
    ({"model": "chat", "messages": [], "max_tokens": 1}, 400, "empty", "messages"),
    ({"model": 7, "messages": MESSAGES, "max_tokens": 1}, 400, "got `int`", "model"),
    ({"model": "chat", "messages": MESSAGES, "max_tokens": "x"}, 400, "got `str`", "max_tokens"),
    ({"model": "chat", "messages": MESSAGES, "max_tokens": 1, "stream": "yes"}, 400, "got `str`", "stream"),
    ({"model": "nowhere", "messages": MESSAGES, "max_tokens": 1}, 404, "no model `nowhere`", "model"),
    ({"model": "gone", "messages": MESSAGES, "max_tokens": 1}, 502, "127.0.0.1:9", None),
]


@clients
@pytest.mark.parametrize(("body", "status", "said", "param"), WRONG, ids=range(len(WRONG)))
def test_a_mistake_is_named(bench: Bench, client: str, body: Any, status: int, said: str, param: str | None) -> None:
    answer = post(bench, PATHS[client], body if isinstance(body, bytes) else json.dumps(body).encode())
    error = answer.json["error"]
    assert answer.status == status
    assert said in error["message"]
    assert "\n" not in error["message"]
    if client == "openai-chat":
        assert error["param"] == param
    else:
        assert answer.json["type"] == "error"
        assert answer.json["request_id"] == answer.headers["x-request-id"]
    assert bench.upstream.executions == []


@clients
def test_c11_a_body_over_the_limit_is_refused(bench: Bench, client: str) -> None:
    connection = bench.connect()
    connection.putrequest("POST", PATHS[client])
    connection.putheader("content-length", str(2 * 1024 * 1024))
    connection.endheaders()
    answer = Answer(connection.getresponse())  # refused before it was sent
    connection.close()
    assert answer.status == 413
    assert "1048576 bytes" in answer.json["error"]["message"]


def test_c11_a_chunked_body_over_the_limit_is_refused(bench: Bench) -> None:
    connection = bench.connect()
    connection.request("POST", PATHS["openai-chat"], iter([b"x" * 300_000] * 4), encode_chunked=True)
    assert Answer(connection.getresponse()).status == 413
    connection.close()


def test_an_unknown_path_and_a_wrong_method(bench: Bench) -> None:
    unknown = post(bench, "/v1/messages/nothing", b"{}")
    assert (unknown.status, unknown.json["error"]["type"]) == (404, "not_found_error")
    wrong = post(bench, "/v1/chat/completions", b"", "GET")
    assert (wrong.status, wrong.json["error"]["message"].count("POST")) == (405, 1)


def test_models_health_and_head(bench: Bench) -> None:
    names = [entry["id"] for entry in post(bench, "/v1/models", b"", "GET").json["data"]]
    assert sorted(names) == ["alias", "chat", "gone", "messages"]
    assert post(bench, "/health", b"", "GET").json["status"] == "ok"
    assert post(bench, "/", b"", "HEAD").status == 200


def test_a_taken_port_is_one_sentence(bench: Bench, tmp_path: Path) -> None:
    port = str(urlsplit(bench.gateway.url).port)
    ended = run("serve", "--upstream", "http://127.0.0.1:9/v1", "--port", port, cwd=tmp_path)
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"penstock: Cannot listen on 127.0.0.1:{port}: Address already in use.")
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("servr: {port: 1}", "Did you mean `server`?"),
        ("server: {prot: 1}", "Did you mean `port`?"),
        ("upstreams: {a: {url: http://x/v1, dialct: openai-chat}}", "Did you mean `dialect`?"),
        ("upstreams: {a: {url: http://x/v1, dialect: openai}}", "Did you mean `openai-chat`?"),
        ("upstreams: {a: {url: http://x/v1}}\nmodels: {m: b}", "there is no upstream `b`"),
        ("timeouts: {idle: soon}", "`soon` is no duration"),
        ("server: [", "is not YAML"),
        ("server: {port: x}", "server.port"),
    ],
)
def test_a_wrong_configuration_names_the_key_and_the_nearest(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "penstock.yaml").write_text(text)
    ended = run("serve", "--config", "penstock.yaml", cwd=tmp_path)
    assert ended.returncode == 1
    assert said in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_a_missing_key_names_its_variable(tmp_path: Path) -> None:
    ended = run("serve", "--upstream", "http://127.0.0.1:9/v1", "--key-env", "NO_SUCH_KEY", cwd=tmp_path)
    assert (ended.returncode, "NO_SUCH_KEY" in ended.stderr) == (1, True)


@pytest.mark.parametrize("with_signal", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_a_stream_finish_and_keeps_its_record(with_signal: signal.Signals, tmp_path: Path) -> None:
    upstream = ScriptedUpstream()
    begun, go_on = threading.Event(), threading.Event()

    def script(exchange: Exchange) -> None:
        exchange.begin()
        exchange.chunk(frames.opening("openai-chat") + frames.text("openai-chat", "one "))
        begun.set()
        assert go_on.wait(10)
        exchange.chunk(
            frames.text("openai-chat", "two") + frames.finish("openai-chat") + frames.terminator("openai-chat")
        )
        exchange.end()

    upstream.script = script
    options = ("--upstream", upstream.url, "--port", "0", "--log", "json")
    with running("serve", *options, cwd=tmp_path) as gateway:
        client = socket.create_connection(("127.0.0.1", int(urlsplit(gateway.url).port or 0)), 10)
        body = request_body("openai-chat", "m", stream=True)
        client.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
        )
        assert begun.wait(10)
        gateway.process.send_signal(with_signal)
        go_on.set()
        data = b""
        while read := client.recv(65536):
            data += read
        client.close()
        assert b"two" in data
        assert b"[DONE]" in data
        assert '"complete"' in gateway.wait_for_line(r'"outcome"')
        assert gateway.process.wait(15) == 0
    upstream.close()


def test_two_gateways_on_one_store(tmp_path: Path) -> None:
    upstream = ScriptedUpstream()

    def script(exchange: Exchange) -> None:
        exchange.begin()
        exchange.chunk(frames.whole("openai-chat", "a"))
        exchange.end()

    upstream.script = script
    options = ("--upstream", upstream.url, "--port", "0", "--log", "json")
    with running("serve", *options, cwd=tmp_path) as one, running("serve", *options, cwd=tmp_path) as two:
        for gateway in (one, two):
            for _ in range(5):
                connection = http.client.HTTPConnection(urlsplit(gateway.url).netloc, timeout=10)
                connection.request("POST", "/v1/chat/completions", request_body("openai-chat", "m", stream=True))
                connection.getresponse().read()
                connection.close()
    with sqlite3.connect(tmp_path / "penstock.db") as store:
        assert store.execute("SELECT count(*), count(DISTINCT request_id) FROM records").fetchone() == (10, 10)
    store.close()
    upstream.close()
