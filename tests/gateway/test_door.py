"""Who comes in: with keys whoever gives one, in any place and dialect; without keys this machine's programs alone."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import anthropic
import openai
import pytest
import yaml
from google import genai

from penstock.canon.key import digest
from tests.gateway.sdk_clients import close_google
from tests.gateways import Asked, Gateway, a_model, serving, until
from tests.processes import run
from tests.upstreams import Answer, Exchange, Upstream, sse
from tests.wires import CHAT, MESSAGES, PAIRS, Pair, each_client, each_pair

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.wires import Wire

pytestmark = pytest.mark.process

TEAM, OLD = "pnsk_of-the-team-0123456789", "pnsk_over-0123456789"
PAGE = "https://app.example.com"

ROUTES = {
    "/v1/chat/completions": ("error", "message"),
    "/v1/completions": ("error", "message"),
    "/v1/responses": ("error", "message"),
    "/v1/embeddings": ("error", "message"),
    "/v1/messages": ("error", "message"),
    "/v1beta/models/m:generateContent": ("error", "message"),
    "/api/chat": ("error",),
    "/v1/nothing": ("error", "message"),
}


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    """It lists two models, and answers every call in its own dialect."""
    made = Upstream()

    def answer(exchange: Exchange) -> Answer:
        if exchange.method == "GET":
            return Answer([b'{"data": [{"id": "qwen3-4b"}, {"id": "secret-1"}]}'], content_type="application/json")
        wire = MESSAGES if exchange.path.startswith("/anth") else CHAT
        if not json.loads(exchange.body).get("stream"):
            return Answer([wire.document()], content_type="application/json")
        return sse(*wire.opening(), wire.text("Hello"), *wire.closing())

    made.answers(answer)
    yield made
    made.close()


def config(upstream: Upstream, **server: Any) -> dict[str, Any]:
    entries = {
        "chat": {"url": upstream.url("/chat/v1"), "key_env": "CHAT_KEY"},
        "anth": {"url": upstream.url("/anth/v1"), "dialect": "anthropic-messages", "key_env": "ANTH_KEY"},
    }
    models = {"fast": "chat:qwen3-4b", "a-*": "anth", "*": "chat"}
    return {"upstreams": entries, "models": models, "server": server}


@pytest.fixture(scope="module")
def keyed(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """At an address that others can reach. `keys.json` is empty to begin with."""
    folder = tmp_path_factory.mktemp("keyed")
    (folder / "keys.json").touch(0o600)
    (folder / "keys.json").write_text('{"keys": []}')
    keys = [
        {"name": "team", "sha256": digest(TEAM), "models": ["fast", "qwen*", "c-*", "a-*"]},
        {"name": "old", "sha256": digest(OLD), "expires": "2020-01-01"},
    ]
    given = config(upstream, host="0.0.0.0", keys=keys, keys_file="keys.json", cors_origins=[PAGE])
    with serving(given, folder) as running:
        yield running


@pytest.fixture(scope="module")
def keyless(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    given = config(upstream, cors_origins=[PAGE], hosts=["penstock.lan"])
    with serving(given, tmp_path_factory.mktemp("keyless")) as running:
        yield running


@pytest.fixture(autouse=True)
def _fresh(upstream: Upstream) -> Iterator[None]:
    upstream.forget()
    yield
    Asked.close_all()


def bearer(key: str = TEAM) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def said(asked: Asked, *path: str) -> str:
    found = json.loads(asked.body())
    for step in path or ("error", "message"):
        found = found[step]
    return str(found)


# --- keys ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("given", [{}, bearer("wrong-0123456789"), bearer(digest(TEAM)), {"authorization": TEAM}])
def test_without_a_known_key_nothing_is_asked(given: dict[str, str], route: str, keyed: Gateway) -> None:
    """A status and an error in the caller's dialect; a hash is no key."""
    asked = keyed.send("POST", route, b"{}", given)
    assert (asked.status, asked.headers["www-authenticate"]) == (401, "Bearer")
    message = said(asked, *ROUTES[route])
    assert "key" in message
    assert TEAM not in message


def test_an_error_is_shaped_as_its_dialect_has_it(keyed: Gateway) -> None:
    chat = json.loads(keyed.send("POST", CHAT.route, b"{}").body())["error"]
    assert (chat["type"], chat["code"]) == ("authentication_error", "invalid_api_key")
    messages = json.loads(keyed.send("POST", MESSAGES.route, b"{}").body())
    assert (messages["type"], messages["error"]["type"]) == ("error", "authentication_error")
    gemini = json.loads(keyed.send("POST", "/v1beta/models/m:generateContent", b"{}").body())["error"]
    assert (gemini["code"], gemini["status"]) == (401, "UNAUTHENTICATED")
    listed = json.loads(keyed.send("GET", "/v1/models", headers={"anthropic-version": "2023-06-01"}).body())
    assert listed["error"]["type"] == "authentication_error"


PLACES = {
    "bearer": ({"authorization": f"Bearer {TEAM}"}, ""),
    "bearer, its scheme in capitals": ({"authorization": f"BEARER {TEAM}"}, ""),
    "x-api-key": ({"x-api-key": TEAM}, ""),
    "x-goog-api-key": ({"x-goog-api-key": TEAM}, ""),
    "query": ({}, f"?key={TEAM}&alt=sse"),
    "the second of two": ({"authorization": "Bearer another-0123456789", "x-api-key": TEAM}, ""),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_key_opens_from_every_place_and_goes_nowhere(place: str, keyed: Gateway, upstream: Upstream) -> None:
    headers, query = PLACES[place]
    model = a_model(Pair(CHAT, CHAT))
    asked = keyed.send("POST", CHAT.route + query, json.dumps(CHAT.request(model)).encode(), headers)
    assert asked.said().text == "Hello"
    line = json.dumps(record := keyed.record(asked.request_id))
    assert record["key_name"] == "team"
    sent = upstream.wait_for()
    assert sent.headers["authorization"] == "Bearer sk-chat-5f2c81"
    for text in (
        line,
        sent.path,
        json.dumps(sent.headers),
        sent.body.decode(),
        keyed.stderr,
        json.dumps(asked.headers),
    ):
        assert TEAM not in text
        assert digest(TEAM) not in text


def test_the_key_is_nowhere_in_the_store(keyed: Gateway) -> None:
    pair = Pair(CHAT, CHAT)
    asked = keyed.ask(pair, headers=bearer())
    asked.said()
    rows = until(lambda: [row for row in keyed.stored() if row["request_id"] == asked.request_id], "the row")
    assert rows[0]["key_name"] == "team"
    for path in keyed.folder.glob("penstock.db*"):
        assert TEAM.encode() not in path.read_bytes()


def test_each_sdk_gives_its_key_where_it_does(keyed: Gateway) -> None:
    with openai.OpenAI(base_url=f"{keyed.url}/v1", api_key=TEAM, max_retries=0) as sdk:
        assert sdk.chat.completions.create(model="c-1", messages=[{"role": "user", "content": "Hi"}]).choices
        with pytest.raises(openai.AuthenticationError):
            sdk.with_options(api_key="wrong-0123456789").models.list()
    with anthropic.Anthropic(base_url=keyed.url, api_key=TEAM, max_retries=0) as other:
        assert other.messages.create(model="a-1", max_tokens=9, messages=[{"role": "user", "content": "Hi"}]).content
        with pytest.raises(anthropic.AuthenticationError):
            other.with_options(api_key="wrong-0123456789").models.list()
    google = genai.Client(api_key=TEAM, http_options=genai.types.HttpOptions(base_url=keyed.url))
    assert google.models.generate_content(model="c-1", contents="Hi").text == "Hello"
    close_google(google)


def test_a_key_that_is_over(keyed: Gateway) -> None:
    asked = keyed.ask(PAIRS[0], headers=bearer(OLD))
    assert asked.status == 401
    assert "The key `old` has expired" in said(asked)


@each_pair
def test_a_model_that_a_key_may_not_ask_for(pair: Pair, keyed: Gateway, upstream: Upstream) -> None:
    asked = keyed.ask(pair, model="secret-1", headers=bearer())
    assert asked.status == 403
    assert "The key `team` may not ask for `secret-1`" in said(asked)
    record = keyed.record(asked.request_id)
    assert (record["error_type"], record["http_status"], record["key_name"]) == ("forbidden", 403, "team")
    assert upstream.exchanges == []


def test_a_key_sees_what_it_may_ask_for(keyed: Gateway) -> None:
    def names(path: str, member: str = "data", name: str = "id") -> list[str]:
        return [entry[name] for entry in json.loads(keyed.send("GET", path, headers=bearer()).body())[member]]

    assert names("/v1/models") == ["fast", "qwen3-4b"]
    assert names("/v1beta/models", "models", "name") == ["models/fast", "models/qwen3-4b"]
    assert names("/api/tags", "models", "name") == ["fast", "qwen3-4b"]
    assert keyed.send("GET", "/v1/models/qwen3-4b", headers=bearer()).status == 200
    hidden = keyed.send("GET", "/v1/models/secret-1", headers=bearer())
    assert (hidden.status, "Known: fast, qwen3-4b" in said(hidden)) == (404, True)


@pytest.mark.parametrize("path", ["/health", "/", "/api/version"])
def test_whoever_only_looks_whether_it_lives_is_not_asked(path: str, keyed: Gateway, keyless: Gateway) -> None:
    assert keyed.send("GET", path).status == 200
    assert keyless.send("GET", path, headers={"host": "10.1.2.3"}).status == 200


def test_any_name_will_do_where_there_are_keys(keyed: Gateway) -> None:
    asked = keyed.ask(PAIRS[0], headers={**bearer(), "host": "gateway.example.com", "origin": "https://other.example"})
    assert asked.said().text == "Hello"


def test_a_refusal_reaches_who_is_still_sending(keyed: Gateway) -> None:
    """A large body is not read as one, and its sender reads why all the same."""
    asked = keyed.send("POST", CHAT.route, b"x" * 3_000_000)
    assert (asked.status, asked.headers["connection"]) == (401, "close")
    assert "none came" in said(asked)


def test_keys_come_and_go_while_it_runs(keyed: Gateway) -> None:
    made = run("keys", "new", "guest", "--file", "keys.json", "--json", cwd=keyed.folder)
    key = json.loads(made.stdout)["key"]
    until(lambda: keyed.send("GET", "/v1/models", headers=bearer(key)).status == 200, "the new key")
    assert run("keys", "revoke", "guest", "--file", "keys.json", cwd=keyed.folder).returncode == 0
    until(lambda: keyed.send("GET", "/v1/models", headers=bearer(key)).status == 401, "the revoked key")


# --- where it listens ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_another_address_without_keys_is_refused(host: str, tmp_path: Path) -> None:
    ended = run("serve", "--upstream", "http://127.0.0.1:9/v1", "--host", host, "--port", "0", cwd=tmp_path)
    assert (ended.returncode, ended.stderr.count("\n")) == (1, 1)
    assert "penstock keys new NAME" in ended.stderr
    assert "server.keys_file" in ended.stderr


def test_a_keys_file_as_an_option(upstream: Upstream, tmp_path: Path) -> None:
    key = json.loads(run("keys", "new", "me", "--json", cwd=tmp_path).stdout)["key"]
    with serving(config(upstream), tmp_path, "--keys-file", "penstock-keys.json", "--host", "0.0.0.0") as gateway:
        assert gateway.send("GET", "/v1/models").status == 401
        assert gateway.send("GET", "/v1/models", headers=bearer(key)).status == 200
    missing = run("serve", "--upstream", "http://127.0.0.1:9/v1", "--keys-file", "none.json", cwd=tmp_path)
    assert (missing.returncode, "penstock keys new" in missing.stderr) == (1, True)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200), ("localhost:8066", 200), ("[::1]:8066", 200), ("127.9.9.9", 200), ("a.localhost", 200),
        ("LocalHost", 200), ("penstock.lan:80", 200), ("evil.example", 403), ("127.0.0.1.evil.example", 403),
        ("localhost.evil.example:8066", 403), ("10.0.0.1", 403), ("[::2]", 403), ("127.0.0.1@evil.example", 403),
    ],
)  # fmt: skip
def test_without_keys_it_answers_by_names_of_this_machine(host: str, status: int, keyless: Gateway) -> None:
    """DNS rebinding: a page's own name that leads here, so that a browser takes us for the page's server."""
    asked = keyless.send("GET", "/v1/models", headers={"host": host})
    assert asked.status == status
    if status == 403:
        assert "server.hosts" in said(asked)


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("https://evil.example", 403), ("null", 403), ("http://127.0.0.1.evil.example", 403), (PAGE, 200),
        ("http://127.0.0.1:3000", 403), ("http://localhost", 200),
    ],
)  # fmt: skip
def test_without_keys_a_foreign_page_cannot_ask(origin: str, status: int, keyless: Gateway, upstream: Upstream) -> None:
    """A browser sends a plain POST without asking first, and only then withholds the answer from the page."""
    asked = keyless.ask(Pair(CHAT, CHAT), headers={"origin": origin, "content-type": "text/plain"})
    assert asked.status == status
    assert len(asked.body()) > 0
    assert len(upstream.exchanges) == (status == 200)


# --- CORS ------------------------------------------------------------------------------------------------------------

PREFLIGHT = {
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type,x-stainless-os",
    "access-control-request-private-network": "true",
}


@pytest.mark.parametrize("which", ["keyed", "keyless"])
def test_a_preflight_of_a_page_that_may_ask(which: str, request: pytest.FixtureRequest) -> None:
    gateway: Gateway = request.getfixturevalue(which)
    asked = gateway.send("OPTIONS", CHAT.route, headers={"origin": PAGE, **PREFLIGHT})
    assert (asked.status, asked.headers["access-control-allow-origin"]) == (204, PAGE)
    assert asked.headers["access-control-allow-headers"] == "authorization,content-type,x-stainless-os"
    assert "POST" in asked.headers["access-control-allow-methods"]
    assert asked.headers["access-control-allow-private-network"] == "true"
    assert asked.headers["vary"] == "Origin"


@pytest.mark.parametrize("which", ["keyed", "keyless"])
def test_a_preflight_of_another(which: str, request: pytest.FixtureRequest) -> None:
    gateway: Gateway = request.getfixturevalue(which)
    asked = gateway.send("OPTIONS", CHAT.route, headers={"origin": "https://evil.example", **PREFLIGHT})
    assert asked.status in (401, 403)
    assert not [name for name in asked.headers if name.startswith("access-control")]


@each_client
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "document"])
def test_a_page_reads_its_answer(stream: bool, wire: Wire, keyed: Gateway) -> None:
    pair = Pair(wire, CHAT)
    asked = keyed.ask(pair, stream=stream, headers={**bearer(), "origin": PAGE})
    assert asked.said().text == "Hello"
    assert asked.headers["access-control-allow-origin"] == PAGE
    assert "x-request-id" in asked.headers["access-control-expose-headers"]
    assert asked.headers["vary"] == "Origin"


@pytest.mark.parametrize("given", [{}, bearer()], ids=["401", "404"])
def test_a_page_reads_an_error(given: dict[str, str], keyed: Gateway) -> None:
    """Else all that it learns is that there was one."""
    asked = keyed.send("GET", "/upstreams/nobody/v1/nothing", headers={**given, "origin": PAGE})
    assert asked.status == (404 if given else 401)
    assert asked.headers["access-control-allow-origin"] == PAGE


def test_who_is_no_page_gets_no_word_of_it(keyed: Gateway) -> None:
    for origin in ({}, {"origin": "https://evil.example"}):
        asked = keyed.ask(Pair(CHAT, CHAT), headers={**bearer(), **origin})
        assert asked.said().text == "Hello"
        assert not [name for name in asked.headers if name.startswith("access-control")]


def test_any_page_where_it_is_said(upstream: Upstream, tmp_path: Path) -> None:
    with serving(config(upstream, cors_origins=["*"]), tmp_path) as gateway:
        asked = gateway.ask(Pair(CHAT, CHAT), headers={"origin": "https://any.example"})
        assert (asked.status, asked.headers["access-control-allow-origin"]) == (200, "*")
        assert gateway.send("GET", "/v1/models", headers={"host": "evil.example"}).status == 403


def test_the_configuration_as_it_is_written(tmp_path: Path) -> None:
    """A day is no text in YAML."""
    text = "server: {keys: [{name: a, env: KEY_A, expires: 2027-01-31, models: [fast]}]}\n"
    (tmp_path / "penstock.yaml").write_text(text)
    listed = run("keys", "list", "--config", "penstock.yaml", "--json", cwd=tmp_path)
    (entry,) = json.loads(listed.stdout)
    assert (entry["name"], entry["expires"], entry["env"]) == ("a", "2027-01-31T00:00:00Z", "KEY_A")
    assert yaml.safe_load(text)["server"]["keys"][0]["expires"].year == 2027
