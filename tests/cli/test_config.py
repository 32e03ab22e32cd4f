"""`penstock config` as a process: what it prints, and its exit codes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.processes import run
from tests.upstreams import Exchange, Upstream, document

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.process


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    upstream = Upstream()
    upstream.answers(document(json.dumps({"object": "list", "data": [{"id": "m-1"}, {"id": "m-2"}]}).encode()))
    yield upstream
    upstream.close()


def written(folder: Path, given: object) -> str:
    (folder / "penstock.yaml").write_text(yaml.safe_dump(given))
    return "penstock.yaml"


def test_a_right_file_is_right(tmp_path: Path) -> None:
    given = {"upstreams": {"a": {"url": "http://127.0.0.1:9/v1"}}, "models": {"x": "a"}}
    ended = run("config", "check", "--config", written(tmp_path, given), cwd=tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == "penstock.yaml is right: 1 upstream, 1 model.\n"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"upstream": {}}, "there is no key `upstream`. Did you mean `upstreams`?"),
        ({"upstreams": {"a": {"provider": "groq"}}}, "Put it in the variable GROQ_API_KEY."),
        ({}, "there is no upstream"),
        (
            {
                "upstreams": {"a": {"url": "http://127.0.0.1:9/v1"}},
                "server": {"keys": [{"name": "k", "env": "NO_KEY"}]},
            },
            "The gateway key `k` is not set. Put it in the variable NO_KEY.",
        ),
        (
            {"upstreams": {"a": {"url": "http://127.0.0.1:9/v1"}}, "server": {"keys_file": "none.json"}},
            "There is no keys file none.json.",
        ),
    ],
    ids=["unknown key", "no API key", "nobody", "no key of the gateway's", "no file of keys"],
)
def test_a_wrong_file_is_one_sentence_and_1(tmp_path: Path, given: object, said: str) -> None:
    ended = run("config", "check", "--config", written(tmp_path, given), cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert said in ended.stderr
    assert ended.stderr.count("\n") == 1
    ended = run("config", "check", "--json", "--config", written(tmp_path, given), cwd=tmp_path)
    assert (ended.returncode, ended.stderr) == (1, "")
    told = json.loads(ended.stdout)
    assert told["ok"] is False
    assert said in told["problems"][0]


def test_every_missing_key_is_told(tmp_path: Path) -> None:
    given = {"upstreams": {"a": {"provider": "groq"}, "b": {"provider": "mistral"}}}
    ended = run("config", "check", "--config", written(tmp_path, given), cwd=tmp_path)
    assert ended.returncode == 1
    assert ended.stderr.count("is not set") == 2


def test_a_wrong_call_is_2(tmp_path: Path) -> None:
    assert run("config", "check", "--nonsense", cwd=tmp_path).returncode == 2
    assert run("config", cwd=tmp_path).returncode == 2


def test_a_probe_asks_each_upstream_once_and_says_what_it_answers(tmp_path: Path, upstream: Upstream) -> None:
    entries = {
        "good": {"url": upstream.url("/v1")},
        "gone": {"url": "http://127.0.0.1:9/v1"},
        "silent": {"url": "http://127.0.0.1:9/v1", "dialect": "bedrock", "auth": "none"},
    }
    given = {"upstreams": entries, "models": {"x": "good:m-1", "y": "good:m-9"}}
    ended = run("config", "check", "--probe", "--json", "--config", written(tmp_path, given), cwd=tmp_path)
    assert (ended.returncode, ended.stderr) == (1, "")
    told = {it["upstream"]: it for it in json.loads(ended.stdout)["upstreams"]}
    assert (told["good"]["state"], told["good"]["models"], told["good"]["missing"]) == ("ok", 2, ["m-9"])
    assert (told["gone"]["state"], told["gone"]["error"].partition(".")[0]) == ("failed", "Nothing listens on 127")
    assert told["silent"]["state"] == "unknown"
    assert [(it.method, it.path) for it in upstream.exchanges] == [("GET", "/v1/models")]


def test_a_good_probe_is_0_and_a_line_each(tmp_path: Path, upstream: Upstream) -> None:
    given = {"upstreams": {"good": {"url": upstream.url("/v1")}}, "models": {"x": "good:m-1"}}
    ended = run("config", "check", "--probe", "--config", written(tmp_path, given), cwd=tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.splitlines()[1].startswith("good\tok\t2 models in ")


def test_an_upstream_that_refuses_is_told_without_its_key(
    tmp_path: Path, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOD_KEY", "sk-secret-0123456789")

    def refuses(exchange: Exchange):  # it repeats the key, as some do
        return document(json.dumps({"error": {"message": exchange.headers["authorization"]}}).encode(), status=401)

    upstream.answers(refuses)
    given = {"upstreams": {"good": {"url": upstream.url("/v1"), "key_env": "GOOD_KEY"}}}
    for command in (("check", "--probe"), ("check", "--probe", "--json"), ("show",), ("show", "--json")):
        ended = run("config", *command, "--config", written(tmp_path, given), cwd=tmp_path)
        assert "secret" not in ended.stdout + ended.stderr, command
        assert "***" in ended.stdout


def test_show_is_yaml_with_its_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_SERVER__PORT", "9001")
    given = {"upstreams": {"a": {"url": "http://127.0.0.1:9/v1"}}}
    ended = run("config", "show", "--config", written(tmp_path, given), cwd=tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert yaml.safe_load(ended.stdout)["server"]["port"] == 9001
    (line,) = [line for line in ended.stdout.splitlines() if "port:" in line]
    assert line.endswith("# PENSTOCK_SERVER__PORT")
    rows = json.loads(run("config", "show", "--json", "--config", "penstock.yaml", cwd=tmp_path).stdout)
    assert {"key": "upstreams.a.url", "value": "http://127.0.0.1:9/v1", "source": "penstock.yaml"} in rows


def test_schema_is_json(tmp_path: Path) -> None:
    ended = run("config", "schema", cwd=tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert json.loads(ended.stdout)["properties"]["upstreams"]["description"]
