"""What of a client's headers reaches an upstream: what the dialects name, and its key where that is to have it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from penstock.canon.key import digest
from tests.gateways import Asked, Gateway, serving
from tests.upstreams import Answer, Exchange, Upstream, sse
from tests.wires import CHAT, MESSAGES, PAIRS, Pair, each_client, each_pair

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.wires import Wire

pytestmark = pytest.mark.process

OURS, THEIRS = "pnsk_the-gateways-own-0123456789", "sk-of-the-client-0123456789"

#: RFC 9110 §7.6.1, what proxies have added, what names a person or a machine, and a header that `connection` names
NOT_FORWARDED = {
    "connection": "keep-alive, x-of-this-hop",
    "x-of-this-hop": "1",
    "keep-alive": "timeout=5",
    "proxy-authorization": "Basic c2VjcmV0",
    "proxy-connection": "keep-alive",
    "te": "trailers",
    "trailer": "x-later",
    "upgrade": "h2c",
    "expect": "",
    "cookie": "session=secret",
    "origin": "http://localhost",
    "referer": "http://localhost/secret",
    "forwarded": "for=10.0.0.1",
    "x-forwarded-for": "10.0.0.1",
    "x-real-ip": "10.0.0.1",
    "accept-encoding": "gzip, br",
    "x-unknown": "1",
}


def config(upstream: Upstream, **more: Any) -> dict[str, Any]:
    """Per dialect one upstream that has a key of ours, and one that gets the client's (`own-…`)."""
    chat, anth = upstream.url("/chat/v1"), upstream.url("/anth/v1")
    entries = {
        "chat": {"url": chat, "key_env": "CHAT_KEY"},
        "anth": {"url": anth, "dialect": "anthropic-messages", "key_env": "ANTH_KEY"},
        "own-chat": {"url": chat, "key_env": "CHAT_KEY", "forward_auth": True},
        "own-anth": {"url": anth, "dialect": "anthropic-messages", "provider": "anthropic", "forward_auth": True},
        "placed": {"url": chat, "auth": "api-key", "forward_auth": True},
    }
    models = {
        "c-*": "chat",
        "a-*": "anth",
        "own-c": "own-chat",
        "own-a": "own-anth",
        "own-p": "placed",
        "*": "own-chat",
    }
    return {"upstreams": entries, "models": models, **more}


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    made = Upstream()

    def answer(exchange: Exchange) -> Answer:
        given = exchange.headers.get("authorization", "") + exchange.headers.get("x-api-key", "")
        if exchange.method == "GET":
            ok = THEIRS in given
            listed = b'{"data": [{"id": "theirs-1"}]}' if ok else b"{}"
            return Answer([listed], status=200 if ok else 401, content_type="application/json")
        if "refuse" in exchange.body.decode():
            return Answer([f'{{"error": {{"message": "no key {given}"}}}}'.encode()], status=401)
        wire = MESSAGES if exchange.path.startswith("/anth") else CHAT
        return sse(*wire.opening(), wire.text("Hello"), *wire.closing())

    made.answers(answer)
    yield made
    made.close()


@pytest.fixture(scope="module")
def keyless(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with serving(config(upstream), tmp_path_factory.mktemp("keyless")) as running:
        yield running


@pytest.fixture(scope="module")
def keyed(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    server = {"keys": [{"name": "team", "sha256": digest(OURS)}]}
    with serving(config(upstream, server=server), tmp_path_factory.mktemp("keyed")) as running:
        yield running


@pytest.fixture(autouse=True)
def _fresh(upstream: Upstream) -> Iterator[None]:
    upstream.forget()
    yield
    Asked.close_all()


def sent(gateway: Gateway, upstream: Upstream, client: Wire, model: str, headers: dict[str, str]) -> dict[str, str]:
    """What the upstream got."""
    assert gateway.post(client, client.request(model), headers).said().text == "Hello"
    return upstream.wait_for().headers


@each_pair
def test_an_upstream_gets_what_the_dialects_name_and_nothing_else(
    pair: Pair, keyless: Gateway, upstream: Upstream
) -> None:
    given = {**NOT_FORWARDED, "authorization": f"Bearer {THEIRS}", "x-api-key": THEIRS, "x-goog-api-key": THEIRS}
    got = sent(keyless, upstream, pair.client, pair.upstream.model, given)
    key = {"openai-chat": "authorization", "anthropic-messages": "x-api-key"}[pair.upstream.name]
    named = {"openai-chat": set[str](), "anthropic-messages": {"anthropic-version"}}[pair.upstream.name]
    own = {"host", "content-length", "content-type", "accept", "accept-encoding", "user-agent"}
    assert set(got) - own == {key} | named
    assert got["accept-encoding"] == "identity"
    assert THEIRS not in json.dumps(got)


GIVEN = {
    "bearer": ({"authorization": f"Bearer {THEIRS}"}, ""),
    "x-api-key": ({"x-api-key": THEIRS}, ""),
    "x-goog-api-key": ({"x-goog-api-key": THEIRS}, ""),
    "query": ({}, f"?key={THEIRS}"),
}


@pytest.mark.parametrize("place", GIVEN)
@each_client
def test_an_upstream_that_is_marked_gets_the_clients_own(
    place: str, wire: Wire, keyless: Gateway, upstream: Upstream
) -> None:
    """In one dialect where it came: a subscription's token is no key. Else where the dialect has it."""
    headers, query = GIVEN[place]
    for model, speaks, own in (("own-c", CHAT, "authorization"), ("own-a", MESSAGES, "x-api-key")):
        upstream.forget()
        body = json.dumps(wire.request(model)).encode()
        asked = keyless.send("POST", wire.route + query, body, headers, wire)
        assert asked.said().text == "Hello"
        got = upstream.wait_for().headers
        came = {"bearer": "authorization", "query": "x-goog-api-key"}.get(place, place)
        where = came if wire.name == speaks.name else own
        assert got[where] == (f"Bearer {THEIRS}" if where == "authorization" else THEIRS)
        assert json.dumps(got).count(THEIRS) == 1
        record = json.dumps(keyless.record(asked.request_id))
        assert THEIRS not in record
        assert "sk-chat" not in json.dumps(got)


def test_where_the_configuration_says_that_a_key_goes_it_goes(keyless: Gateway, upstream: Upstream) -> None:
    got = sent(keyless, upstream, CHAT, "own-p", {"authorization": f"Bearer {THEIRS}"})
    assert got["api-key"] == THEIRS
    assert "authorization" not in got


def test_who_gives_none_is_asked_for_without(keyless: Gateway, upstream: Upstream) -> None:
    got = sent(keyless, upstream, CHAT, "own-c", {"authorization": "Basic c2VjcmV0"})
    assert "authorization" not in got


@each_client
@pytest.mark.parametrize("ours_first", [True, False])
def test_the_gateways_key_is_never_forwarded(ours_first: bool, wire: Wire, keyed: Gateway, upstream: Upstream) -> None:
    one, other = (OURS, THEIRS) if ours_first else (THEIRS, OURS)
    got = sent(keyed, upstream, wire, "own-c", {"authorization": f"Bearer {one}", "x-api-key": other})
    assert THEIRS in json.dumps(got)
    assert OURS not in json.dumps(got)
    upstream.forget()
    got = sent(keyed, upstream, wire, "own-c", {"authorization": f"Bearer {OURS}"})
    assert OURS not in json.dumps(got)


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: f"{pair.client.name} from {pair.upstream.name}")
def test_a_clients_key_that_an_upstream_repeats_is_masked(pair: Pair, keyless: Gateway, upstream: Upstream) -> None:
    model = "own-c" if pair.upstream.name == CHAT.name else "own-a"
    body = {**pair.client.request(model), "messages": [{"role": "user", "content": "refuse"}]}
    asked = keyless.post(pair.client, body, {"authorization": f"Bearer {THEIRS}"})
    assert asked.status == 401
    said = asked.body()
    assert b"***" in said
    assert THEIRS.encode() not in said
    assert THEIRS not in json.dumps(keyless.record(asked.request_id))


def test_what_is_passed_on_has_the_clients_own(keyed: Gateway, upstream: Upstream) -> None:
    """Below `/upstreams/NAME`, whatever it is."""
    given = {"authorization": f"Bearer {OURS}", "x-api-key": THEIRS}
    assert b"theirs-1" in keyed.send("GET", "/upstreams/own-anth/v1/models", headers=given).body()
    got = upstream.wait_for().headers
    assert got["x-api-key"] == THEIRS
    assert OURS not in json.dumps(got)


def test_lists_of_models_are_asked_for_with_the_clients_own(keyless: Gateway) -> None:
    listed = keyless.send("GET", "/v1/models", headers={"authorization": f"Bearer {THEIRS}"})
    assert b"theirs-1" in listed.body()
    assert b"theirs-1" not in keyless.send("GET", "/v1/models").body()
