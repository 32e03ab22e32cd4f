"""One entry in a user's file is a provider: called by the library and by a gateway, priced, asked for its models."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import yaml

import penstock
from penstock.canon.errors import ConfigError
from penstock.config.load import check, destinations, price, upstream_target
from tests.catalogue.conftest import KEY
from tests.gateways import serving
from tests.processes import command, run
from tests.upstreams import document, sse
from tests.wires import WIRES

if TYPE_CHECKING:
    from pathlib import Path

    from tests.upstreams import Answer, Upstream

USAGE = {"prompt_tokens": 1000, "completion_tokens": 500, "prompt_tokens_details": {"cached_tokens": 400}}
#: 600 at 2, 400 at 0.5, 500 at 8 dollars a million
DOLLARS = 0.0012 + 0.0002 + 0.004


def reply(model: str = "small-1", **usage: Any) -> Answer:
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": model}
    frames = [
        {**head, "choices": [{"index": 0, "delta": {"role": "assistant", "content": "Hi"}, "finish_reason": None}]},
        {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        {**head, "choices": [], "usage": {**USAGE, "total_tokens": 1500, **usage}},
    ]
    return sse(*(f"data: {json.dumps(frame)}\n\n".encode() for frame in frames), b"data: [DONE]\n\n")


def test_an_entry_of_ones_own_is_called(upstream: Upstream, mine: Path) -> None:
    upstream.answers(reply())
    response = penstock.generate("mine:small-1", "Hello")
    assert (response.text, response.outcome) == ("Hi", "complete")
    asked = upstream.wait_for()
    assert (asked.path, asked.headers["x-my-key"], asked.headers["x-mine"]) == ("/v1/chat/completions", KEY, "yes")
    assert "authorization" not in asked.headers
    assert response.usage is not None
    assert response.usage.cost == pytest.approx(DOLLARS)


@pytest.mark.parametrize(
    ("model", "usage", "dollars"),
    [
        ("small-1-2026", {}, DOLLARS),  # the one that answered has a price
        ("large", {}, DOLLARS),  # it has none, the one that was asked for has
        ("small-1", {"cost": 0.25}, 0.25),  # the provider's own word wins
    ],
)
def test_whose_price_counts(upstream: Upstream, mine: Path, model: str, usage: dict[str, Any], dollars: float) -> None:
    upstream.answers(reply(model, **usage))
    told = penstock.generate("mine:small-1", "Hello").usage
    assert told is not None
    assert told.cost == pytest.approx(dollars)


def test_c6_a_model_without_a_price_has_no_cost(upstream: Upstream, mine: Path) -> None:
    upstream.answers(reply("large"))
    told = penstock.generate("mine:large", "Hello").usage
    assert told is not None
    assert told.cost is None


def test_what_is_missing_is_named(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MY_HOST")
    with pytest.raises(ConfigError, match=r"The url of `mine` needs its host\. Set MY_HOST"):
        penstock.stream("mine:m", "Hello")


@pytest.mark.process
def test_an_entry_of_ones_own_is_an_upstream_of_the_gateway(upstream: Upstream, mine: Path, tmp_path: Path) -> None:
    listing = document(b'{"data":[{"id":"small-1"},{"id":"b"}]}')
    upstream.answers(lambda exchange: reply() if exchange.method == "POST" else listing)
    request = {"model": "small-1", "stream": True, "messages": [{"role": "user", "content": "Hello"}]}
    folder = tmp_path / "gateway"
    folder.mkdir()
    with serving({"upstreams": {"it": {"provider": "mine"}}, "models": {"*": "it"}}, folder) as gateway:
        asked = gateway.post(WIRES["openai-chat"], request)
        asked.body()
        listed = json.loads(gateway.send("GET", "/v1/models").body())
        record = gateway.record(asked.request_id)
    assert [exchange.headers["x-my-key"] for exchange in upstream.exchanges] == [KEY, KEY]
    assert [entry["id"] for entry in listed["data"]] == ["small-1", "b"]
    assert record["cost"] == pytest.approx(DOLLARS)


@pytest.mark.process
def test_the_gateway_lists_the_models_of_every_dialect(upstream: Upstream, tmp_path: Path) -> None:
    answers = {
        "/gem/v1beta/models": b'{"models":[{"name":"models/gemini-9"}]}',
        "/oll/api/tags": b'{"models":[{"name":"qwen3:8b"}]}',
        "/coh/v1/models": b'{"models":[{"name":"command-z"}]}',
        "/own/catalog": b'[{"id":"own-1"}]',
    }
    upstream.answers(lambda exchange: document(answers[exchange.path.partition("?")[0]]))
    config = {
        "upstreams": {
            "gem": {"url": upstream.url("/gem/v1beta"), "dialect": "gemini"},
            "oll": {"url": upstream.url("/oll"), "dialect": "ollama"},
            "coh": {"url": upstream.url("/coh/v2"), "dialect": "cohere"},
            "own": {"url": upstream.url("/own"), "models_path": "/catalog"},
        },
        "models": {"gemini-*": "gem", "command-*": "coh", "own-*": "own", "*": "oll"},
    }
    with serving(config, tmp_path) as gateway:
        listed = json.loads(gateway.send("GET", "/v1/models").body())
    assert {entry["id"]: entry["owned_by"] for entry in listed["data"]} == {
        "gemini-9": "gem",
        "qwen3:8b": "oll",
        "command-z": "coh",
        "own-1": "own",
    }


# --- the configuration -----------------------------------------------------------------------------------------------


def test_an_upstream_takes_what_its_provider_has() -> None:
    config = check({"upstreams": {"claude": {"provider": "anthropic"}}}, environ={})
    upstream = config.upstreams["claude"]
    assert (upstream.url, upstream.dialect) == ("https://api.anthropic.com/v1", "anthropic-messages")
    target = destinations(config, {"ANTHROPIC_API_KEY": KEY})["*"].first
    assert target.key is not None
    assert target.key.reveal() == KEY
    found = price(config, target, "claude-haiku-4-5")
    assert found is not None
    assert found.cached == 0.1
    assert price(config, target, "unheard-of") is None


def test_what_the_upstream_says_itself_wins() -> None:
    own = {"provider": "anthropic", "url": "http://127.0.0.1:1/v1", "key_env": "A", "cost": {"m": {"input": 1}}}
    upstream = check({"upstreams": {"o": own}}, environ={}).upstreams["o"]
    assert (upstream.url, upstream.key_variables, upstream.dialect) == (
        "http://127.0.0.1:1/v1",
        ("A",),
        "anthropic-messages",
    )
    assert {"m", "claude-haiku-4-5"} <= set(upstream.cost)


def test_at_another_dialect_the_providers_kind_of_server_means_nothing() -> None:
    given = {"upstreams": {"a": {"provider": "azure", "url": "https://a.example", "dialect": "anthropic-messages"}}}
    upstream = check(given, environ={}).upstreams["a"]
    assert (upstream.profile, upstream.auth) == (None, None)


def test_c13_the_list_of_another_url_is_not_asked_with_this_ones_key() -> None:
    given = {"upstreams": {"a": {"provider": "github"}, "b": {"provider": "github", "url": "https://proxy.example"}}}
    upstreams = check(given, environ={}).upstreams
    assert upstreams["a"].models_path == "https://models.github.ai/catalog/models"
    assert upstreams["b"].models_path is None


def test_a_local_providers_key_is_optional() -> None:
    config = check({"upstreams": {"v": {"provider": "vllm"}}}, environ={})
    assert upstream_target(config, "v", {}).key is None
    assert upstream_target(config, "v", {"VLLM_API_KEY": KEY}).key is not None


def test_any_of_several_keys_will_do_and_none_is_named() -> None:
    config = check({"upstreams": {"g": {"provider": "gemini-openai"}}}, environ={})
    assert destinations(config, {"GOOGLE_API_KEY": KEY})["*"].first.key is not None
    with pytest.raises(ConfigError, match="GEMINI_API_KEY or GOOGLE_API_KEY"):
        destinations(config, {})


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"provider": "antropic"}, "upstreams.u.provider: there is no provider `antropic`. Did you mean `anthropic`?"),
        ({"provider": 5}, "upstreams.u"),
        ({"url": "https://{x}.example"}, "upstreams.u.url: nothing says what `{x}` is."),
        ({"provider": "openai", "cost": {"m": {"inputs": 1}}}, "upstreams.u.cost"),
        ({"provider": "openai", "cost": {"m": {"input": -1}}}, "upstreams.u.cost"),
        ({"url": "https://a.example", "auth": "sigv4"}, "upstreams.u.auth: only the dialect bedrock signs."),
        ({"url": "https://a.example", "auth": "a: b"}, "upstreams.u.auth: `a: b` is no header's name."),
        ({"provider": "openai", "cost": []}, "upstreams.u.cost"),
    ],
)
def test_a_mistake_in_an_upstream_is_one_sentence(entry: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        check({"upstreams": {"u": entry}}, environ={})
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


# --- the commands ----------------------------------------------------------------------------------------------------


@pytest.mark.process
def test_the_models_command(upstream: Upstream, mine: Path, tmp_path: Path) -> None:
    upstream.answers(document(b'{"data":[{"id":"small-1","context_length":8192},{"id":"large\\u001b[2J"}]}'))
    ended = run("models", "mine", cwd=tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == "small-1\t-\t8192\t-\nlarge [2J\t-\t-\t-\n"
    assert upstream.wait_for().headers["x-my-key"] == KEY
    (told,) = json.loads(run("models", "mine", "SMALL", "--json", cwd=tmp_path).stdout)
    assert (told["id"], told["context"], told["raw"]["context_length"]) == ("small-1", 8192, 8192)
    ended = run("models", "mine", "nothing", cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("penstock: mine has no model like `nothing`.")


@pytest.mark.process
def test_the_models_command_asks_an_upstream_of_a_configuration(upstream: Upstream, tmp_path: Path) -> None:
    upstream.answers(document(b'{"models":[{"name":"qwen3:8b"}]}'))
    config = {"upstreams": {"box": {"url": upstream.url(""), "dialect": "ollama"}}}
    (tmp_path / "penstock.yaml").write_text(yaml.safe_dump(config))
    ended = run("models", "box", "--config", "penstock.yaml", cwd=tmp_path)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "qwen3:8b\t-\t-\t-\n", "")
    ended = run("models", "bax", "--config", "penstock.yaml", cwd=tmp_path)
    assert (ended.returncode, ended.stderr) == (1, "penstock: There is no upstream `bax`. Did you mean `box`?\n")


@pytest.mark.process
def test_the_providers_command(mine: Path, tmp_path: Path) -> None:
    ended = run("providers", cwd=tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    rows = [line.split("\t") for line in ended.stdout.splitlines()]
    assert len(rows) > 80
    assert {len(row) for row in rows} == {6}
    assert next(row for row in rows if row[0] == "mine")[4] == "MY_KEY (set)"
    assert KEY not in ended.stdout
    told = json.loads(run("providers", "--dialect", "openai-chat", "--local", "--json", cwd=tmp_path).stdout)
    assert all(entry["local"] and entry["dialect"] == "openai-chat" for entry in told)
    assert {"llamacpp", "vllm"} <= {entry["id"] for entry in told}
    (entry,) = json.loads(run("providers", "mine", "--json", cwd=tmp_path).stdout)
    assert (entry["key_is_set"], entry["headers"]) == (True, ["x-mine"])


@pytest.mark.process
def test_on_a_terminal_it_is_a_table(mine: Path, tmp_path: Path) -> None:
    ours, theirs = os.openpty()
    ended = subprocess.run(
        command("providers", "mine"), stdout=theirs, cwd=tmp_path, env={**os.environ, "COLUMNS": "160"}, check=False
    )
    os.close(theirs)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    assert ended.returncode == 0
    assert "documentation" in shown
    assert "MY_KEY (set)" in shown
    assert KEY not in shown


@pytest.mark.process
def test_importing_penstock_reads_no_catalogue(tmp_path: Path) -> None:
    program = "import penstock, sys; print([name for name in sys.modules if 'catalogue' in name or name == 'tomllib'])"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert ended.stdout == "[]\n"


@pytest.mark.process
@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("providers", "no-such-thing"), 1, "No provider is like that."),
        (("providers", "--dialect", "openai"), 2, "There is no dialect `openai`. Did you mean `openai-chat`?"),
        (("models", "grok"), 1, "There is no provider `grok`. Did you mean `groq`?"),
        (("models", "x", "--base-url", "http://127.0.0.1:9/v1"), 1, "Nothing listens on 127.0.0.1:9."),
        (("models", "x", "--dialect", "gemini"), 2, "--dialect belongs to --base-url."),
        (("models", "x", "--config", "a.yaml", "--base-url", "http://a"), 2, "--base-url and --dialect are for"),
        (("models", "x", "--config", "nowhere.yaml"), 1, "Cannot read nowhere.yaml"),
    ],
)
def test_a_mistake_is_one_sentence(arguments: tuple[str, ...], code: int, said: str, tmp_path: Path) -> None:
    ended = run(*arguments, cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (code, "")
    assert ended.stderr.startswith(f"penstock: {said}")
    assert ended.stderr.count("\n") == 1
