"""What the gateway has no route for goes to an upstream and comes back: untouched, as it comes, recorded."""

from __future__ import annotations

import json
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tests.gateways import Asked, Gateway, serving, started, until
from tests.processes import Running
from tests.upstreams import Answer, Exchange, Gate, Upstream, document

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.process

KEY = "sk-up-0123456789abcdef"


@pytest.fixture(scope="module")
def scripted() -> Iterator[Upstream]:
    upstream = Upstream()
    yield upstream
    upstream.close()


@pytest.fixture
def upstream(scripted: Upstream) -> Iterator[Upstream]:
    scripted.forget()
    scripted.answers(document(b'{"a":1}', x_request_id="their-id", set_cookie="a=b", x_kept="yes"))
    yield scripted
    Asked.close_all()
    assert scripted.errors == []


@pytest.fixture(scope="module")
def gateway(scripted: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setenv("UP_KEY", KEY)
    entries = {
        "local": {"url": scripted.url("/base/v1"), "key_env": "UP_KEY", "headers": {"x-ours": "1"}},
        "other": {"url": scripted.url("/other/v1beta"), "dialect": "gemini", "key_env": "UP_KEY"},
        "gone": {"url": "http://127.0.0.1:9/v1"},
        "keyless": {"url": "http://127.0.0.1:9/v1", "key_env": "NO_SUCH_KEY"},
    }
    config = {"upstreams": entries, "models": {"*": "local"}, "server": {"max_body": "8MiB"}}
    with serving(config, tmp_path_factory.mktemp("passing")) as running:
        yield running
    monkeypatch.undo()


@pytest.mark.parametrize(
    ("path", "there"),
    [
        ("/props", "/base/props"),
        ("/slots?fail_on_no_slot=1", "/base/slots?fail_on_no_slot=1"),
        ("/v1/audio/speech", "/base/v1/audio/speech"),
        ("/upstreams/local/v1/files/a%2Fb?x=%20y&x=", "/base/v1/files/a%2Fb?x=%20y&x="),
        ("/upstreams/local/metrics", "/base/metrics"),
        ("/upstreams/other/v1beta/cachedContents", "/other/v1beta/cachedContents"),
        ("/upstreams/local/", "/base/"),
    ],
)
def test_a_path_is_the_upstreams_own(gateway: Gateway, upstream: Upstream, path: str, there: str) -> None:
    asked = gateway.send("GET", path, headers={"content-type": "", "content-length": ""})
    assert (asked.status, asked.body()) == (200, b'{"a":1}')
    (exchange,) = upstream.exchanges
    assert (exchange.method, exchange.path) == ("GET", there)
    record = gateway.record(asked.request_id)
    assert record["outcome"] == "complete"
    assert record["route"] == path.partition("?")[0].replace("%2F", "/")
    assert record["target"] == path.split("/")[2] if path.startswith("/upstreams") else "local"
    assert (record["http_status"], record["bytes_out"], record["model_requested"]) == (200, 7, "")


def test_headers_go_through_but_what_is_one_clients_own(gateway: Gateway, upstream: Upstream) -> None:
    given = {
        "authorization": "Bearer the-clients", "x-api-key": "the-clients", "cookie": "the-clients",
        "accept": "x/y", "x-thing": "kept", "x-hop": "gone", "connection": "x-hop", "x-ours": "2",
        "x-request-id": "job-17.a", "accept-encoding": "br",
    }  # fmt: skip
    asked = gateway.send("PUT", "/v1/things", b"{}", given)
    assert asked.body() == b'{"a":1}'
    sent = upstream.exchanges[0].headers
    assert "the-clients" not in str(sent)
    assert sent["authorization"] == f"Bearer {KEY}"
    assert (sent["accept"], sent["x-thing"], sent["x-ours"], sent["accept-encoding"]) == ("x/y", "kept", "1", "br")
    assert "x-hop" not in sent
    assert sent["host"] == f"127.0.0.1:{upstream.port}"
    assert (asked.headers["x-kept"], asked.headers["x-upstream-request-id"]) == ("yes", "their-id")
    assert asked.headers["x-request-id"] == "job-17.a"
    assert "set-cookie" not in asked.headers
    assert gateway.record("job-17.a")["outcome"] == "complete"


def test_a_clients_key_in_the_query_stays_here(gateway: Gateway, upstream: Upstream) -> None:
    assert gateway.send("GET", "/upstreams/other/v1beta/x?key=the-clients&alt=sse").status == 200
    assert upstream.exchanges[0].path == "/other/v1beta/x?alt=sse"
    assert upstream.exchanges[0].headers["x-goog-api-key"] == KEY


@pytest.mark.parametrize(
    "path",
    [
        "/upstreams/local/../other/v1", "/upstreams/local/v1/../../etc", "/v1/%2e%2e/%2E%2e/admin", "/a/%252e%252e/b",
        "/upstreams/local/..%2f..%2fadmin", "/upstreams/local/a%5c..%5cb", "/x/./y", "/x/..;/y", "/x%00y", "/x%0d%0ay",
        "/x%20y", "/upstreams/local/..",
    ],
)  # fmt: skip
def test_no_path_leads_out_of_an_upstream(gateway: Gateway, upstream: Upstream, path: str) -> None:
    asked = gateway.send("GET", path)
    assert asked.status == 400, asked.body()
    assert b"dot segments" in asked.body()
    assert upstream.exchanges == []


@pytest.mark.parametrize("name", ["nobody", "", "http:%2f%2fevil", "LOCAL", "local%00"])
def test_only_configured_upstreams_are_asked(gateway: Gateway, upstream: Upstream, name: str) -> None:
    asked = gateway.send("GET", f"/upstreams/{name}/v1/x")
    assert asked.status == 404
    assert b"There is no upstream" in asked.body()
    assert upstream.exchanges == []


def test_an_absolute_target_is_no_way_out(gateway: Gateway, upstream: Upstream) -> None:
    with gateway.connect() as connection:
        connection.sendall(b"GET http://evil.example/props HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        answer = b""
        while data := connection.recv(65536):
            answer += data
    assert b" 200 " in answer.split(b"\r\n")[0]
    assert upstream.exchanges[0].path == "/base/props"


def test_what_is_the_gateways_own_is_not_passed_on(gateway: Gateway, upstream: Upstream) -> None:
    assert b"penstock_build_info" in gateway.send("GET", "/metrics").body()
    assert gateway.send("DELETE", "/v1/chat/completions").status == 405
    assert gateway.send("GET", "/api/records").status == 404
    assert upstream.exchanges == []


def test_an_answer_comes_as_it_comes(gateway: Gateway, upstream: Upstream) -> None:
    gate = Gate()
    upstream.answers(Answer((b"data: 1\n\n", gate, b"data: 2\n\n")))
    asked = gateway.send("POST", "/v1/audio/stream", b"{}")
    assert asked.frame() == b"data: 1\n\n"
    gate.open()
    assert asked.frame() == b"data: 2\n\n"
    assert asked.body().endswith(b"data: 2\n\n")
    assert gateway.record(asked.request_id)["stream"] is True


def test_a_body_leaves_as_it_comes(gateway: Gateway) -> None:
    """Before its end has been sent; and in chunks where its length is not said."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        seen: list[bytes] = []
        first = threading.Event()

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                got = b""
                while b"0\r\n\r\n" not in got:
                    got += connection.recv(65536)
                    if b"one" in got:
                        first.set()
                seen.append(got)
                connection.sendall(b"HTTP/1.1 201 Created\r\ncontent-length: 2\r\n\r\nok")

        thread = threading.Thread(target=serve)
        thread.start()
        config = {"upstreams": {"a": {"url": f"http://127.0.0.1:{listening.getsockname()[1]}/v1"}}}
        folder = gateway.folder / "upload"
        folder.mkdir()
        with started(config, folder) as process:
            passing = Gateway(Running(process), folder)
            with passing.connect() as connection:
                head = b"POST /v1/files HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
                connection.sendall(head + b"3\r\none\r\n")
                assert first.wait(10)
                connection.sendall(b"3\r\ntwo\r\n0\r\n\r\n")
                answer = b""
                while not answer.endswith(b"ok"):
                    answer += connection.recv(65536)
            thread.join(10)
            assert answer.startswith(b"HTTP/1.1 201 ")
            body = seen[0].partition(b"\r\n\r\n")[2]
            assert body == b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"
            passing.running.stop()


def test_a_large_body_arrives_whole(gateway: Gateway, upstream: Upstream) -> None:
    body = bytes(range(256)) * 20_000
    asked = gateway.send("POST", "/v1/files", body, {"content-type": "application/octet-stream"})
    assert asked.body() == b'{"a":1}'
    assert upstream.exchanges[0].body == body
    assert upstream.exchanges[0].headers["content-length"] == str(len(body))


def test_a_body_that_is_said_to_be_over_the_limit_is_refused(gateway: Gateway, upstream: Upstream) -> None:
    said = gateway.send("POST", "/v1/files", b"", {"content-length": str(9 << 20)})
    assert said.status == 413
    assert upstream.exchanges == []


def test_a_body_that_grows_over_the_limit_is_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        got = bytearray()

        def drain() -> None:
            connection, _ = listening.accept()
            with connection:
                while data := connection.recv(1 << 20):
                    got.extend(data)

        thread = threading.Thread(target=drain)
        thread.start()
        entry = {"url": f"http://127.0.0.1:{listening.getsockname()[1]}/v1"}
        with serving({"upstreams": {"a": entry}, "server": {"max_body": "1MiB"}}, tmp_path) as gateway:
            with gateway.connect() as connection:
                connection.sendall(b"POST /v1/files HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n")
                for _ in range(17):
                    connection.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")
                assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")
            until(lambda: len(gateway.records()) == 1)
            assert gateway.records()[0]["outcome"] == "capped"
        thread.join(10)
        assert not got.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize(("end", "outcome"), [("cut", "truncated"), ("reset", "truncated")], ids=["cut", "reset"])
def test_an_answer_that_breaks_off_is_cut_off_here_too(
    gateway: Gateway, upstream: Upstream, end: Any, outcome: str
) -> None:
    gate = Gate()
    upstream.answers(Answer((b"data: 1\n\n", gate), end=end))
    asked = gateway.send("GET", "/v1/events")
    assert asked.frame()
    gate.open()
    while asked.receive():
        pass
    assert asked.ended == "broken"
    assert gateway.record(asked.request_id)["outcome"] == outcome


def test_failures_are_told_in_the_dialect_of_the_path(gateway: Gateway) -> None:
    asked = gateway.send("GET", "/upstreams/gone/v1/x")
    assert asked.status == 502
    assert "Nothing listens" in json.loads(asked.body())["error"]["message"]
    record = gateway.record(asked.request_id)
    assert (record["outcome"], record["error_type"], record["http_status"]) == ("upstream_error", "connect", 502)
    asked = gateway.send("GET", "/upstreams/keyless/v1/x")
    assert asked.status == 500
    assert b"NO_SUCH_KEY" in asked.body()


def test_an_upstream_that_repeats_its_key_is_masked(gateway: Gateway, upstream: Upstream) -> None:
    def repeats(exchange: Exchange) -> Answer:
        return document(exchange.headers["authorization"].encode(), status=401)

    upstream.answers(repeats)
    asked = gateway.send("GET", "/v1/whoami")
    assert (asked.status, asked.body()) == (401, b"Bearer ***")


def test_a_client_that_leaves_closes_the_upstream(gateway: Gateway, upstream: Upstream) -> None:
    upstream.answers(Answer((b"data: 1\n\n",), end="hang"))
    asked = gateway.send("GET", "/v1/events", headers={"x-request-id": "left-17"})
    assert asked.frame()
    at = asked.leave()
    exchange = upstream.wait_for(1)
    until(lambda: exchange.closed_at)
    assert exchange.closed_at is not None
    assert exchange.closed_at - at < 10
    assert gateway.record("left-17")["outcome"] == "cancelled"


def test_nobodys_path_without_one_upstream_for_all(upstream: Upstream, tmp_path: Path) -> None:
    config = {"upstreams": {name: {"url": upstream.url("/v1")} for name in "ab"}, "models": {"m": "a", "n": "b"}}
    with serving(config, tmp_path) as gateway:
        assert gateway.send("GET", "/props").status == 404
        assert gateway.send("GET", "/upstreams/b/props").status == 200


def test_a_key_of_certain_models_may_not_ask_past_them(
    upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEY_ALL", "pnsk_all-0123456789")
    monkeypatch.setenv("KEY_ONE", "pnsk_one-0123456789")
    keys = [{"name": "all", "env": "KEY_ALL"}, {"name": "one", "env": "KEY_ONE", "models": ["m"]}]
    config = {"upstreams": {"a": {"url": upstream.url("/v1")}}, "server": {"keys": keys}}
    with serving(config, tmp_path) as gateway:
        for key, status in (("", 401), ("pnsk_one-0123456789", 403), ("pnsk_all-0123456789", 200)):
            asked = gateway.send("GET", "/props", headers={"authorization": f"Bearer {key}" if key else ""})
            assert asked.status == status
        assert gateway.record(asked.request_id)["key_name"] == "all"
        assert len(upstream.exchanges) == 1


@pytest.mark.parametrize(
    ("given", "is_kept"),
    [("job-17", True), ("a" * 128, True), ("a" * 129, False), ("a b", False), ("<script>", False), ('a"b', False)],
)
def test_a_clients_own_id_is_kept_where_it_is_sane(
    gateway: Gateway, upstream: Upstream, given: str, is_kept: bool
) -> None:
    for path in ("/props", "/v1/chat/completions", "/nowhere/../x"):
        asked = gateway.send("POST", path, b"{}", {"x-request-id": given})
        assert (asked.request_id == given) is is_kept
        assert is_kept or asked.request_id.startswith("req_")
