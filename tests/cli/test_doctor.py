"""`penstock doctor` as a process: what it finds, when it fails, and that it shows no secret."""

from __future__ import annotations

import json
import os
import subprocess
import time
import tomllib
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from penstock.cli.doctor import EXTRAS
from penstock.testing import Upstream
from tests.processes import command
from tests.scripted_upstream import Exchange, ScriptedUpstream

ROOT = Path(__file__).resolve().parent.parent.parent

#: what of this machine a command needs; whoever runs the tests may have keys
_NEEDED = ("PATH", "PYTHONPATH", "LANG", "LC_ALL", "VIRTUAL_ENV")


def doctor(cwd: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    needed = {name: os.environ[name] for name in _NEEDED if name in os.environ}
    return subprocess.run(
        command("doctor", *arguments), stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=cwd,
        env={**needed, "HOME": str(cwd), **env}, timeout=60, check=False,
    )  # fmt: skip


def findings(ended: subprocess.CompletedProcess[str]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(each["about"], each["name"]): each for each in json.loads(ended.stdout)["findings"]}


def configured(folder: Path, upstreams: dict[str, Any], **more: Any) -> None:
    (folder / "penstock.yaml").write_text(yaml.safe_dump({"upstreams": upstreams, **more}))


def test_it_knows_every_extra() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    assert set(extras) == set(EXTRAS)
    for extra, distribution in EXTRAS.items():
        assert any(each.startswith(distribution) for each in extras[extra]), extra


@pytest.mark.process
def test_a_bare_machine_is_well(tmp_path: Path) -> None:
    ended = doctor(tmp_path, "--json", "--offline")
    told = findings(ended)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert json.loads(ended.stdout)["ok"] is True
    assert told["versions", "penstock"]["said"].startswith("0.")
    assert told["configuration", "the environment"]["state"] == "ok"
    assert told["store", "penstock.db"]["said"] == "not there yet; the gateway makes it"
    assert not [name for about, name in told if about in ("key", "upstream")]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.process
def test_it_says_what_is_configured_and_who_answers(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("MISTRAL_API_KEY=from-the-file\n")
    (tmp_path / "mine.toml").write_text('[mine]\nname = "Mine"\nurl = "https://mine.example/v1"\nauth = "none"\n')
    with Upstream() as upstream:
        configured(tmp_path, {"local": {"url": upstream.url}}, models={"fast": "local:simulated"})
        env = {"OPENAI_API_KEY": "from-the-environment", "PENSTOCK_PROVIDERS": "mine.toml"}
        off = doctor(tmp_path, "--json", "--offline", **env)
        assert upstream.seen == []
        told = findings(off)
        assert off.returncode == 0
        assert told["configuration", "penstock.yaml"]["said"] == "1 upstream, 1 model"
        assert "this file laid over them" in told["providers", "mine.toml"]["said"]
        assert told["key", "openai"]["said"] == "OPENAI_API_KEY in the environment"
        assert told["key", "mistral"]["said"] == "MISTRAL_API_KEY in .env"
        (tmp_path / ".env").unlink()
        ended = doctor(tmp_path)
    assert ended.returncode == 0, ended.stdout
    (row,) = [line.split("\t") for line in ended.stdout.splitlines() if line.startswith("upstream\t")]
    assert row[1:3] == ["local", "ok"]
    assert row[3].startswith("1 model in ")
    assert row[3].endswith(f"({upstream.url})")


@pytest.mark.process
@pytest.mark.parametrize(
    ("config", "env", "about", "said"),
    [
        ("upstreams: [", {}, ("configuration", "penstock.yaml"), "penstock.yaml is not YAML"),
        ("upstream: {}", {}, ("configuration", "penstock.yaml"), "`upstream`"),
        ("upstreams: {a: {url: 'http://127.0.0.1:9/v1'}}", {}, ("upstream", "a"), "Nothing listens on 127.0.0.1:9."),
        ("upstreams: {a: {url: 'http://127.0.0.1:9/v1', key_env: KEY}}", {}, ("upstream", "a"), "variable KEY"),
        ("telemetry: {store: {path: nowhere/it.db}}", {}, ("store", "nowhere/it.db"), "nobody can write in nowhere."),
        ("telemetry: {store: {path: penstock.yaml}}", {}, ("store", "penstock.yaml"), "is no record store."),
        ("{}", {"PENSTOCK_PROVIDERS": "nowhere.toml"}, ("providers", "nowhere.toml"), "Cannot read nowhere.toml"),
        ("{}", {"AZURE_OPENAI_API_KEY": "k" * 20}, ("upstream", "azure"), "needs its"),
    ],
)
def test_it_fails_where_something_configured_does_not_work(
    config: str, env: dict[str, str], about: tuple[str, str], said: str, tmp_path: Path
) -> None:
    (tmp_path / "penstock.yaml").write_text(config)
    ended = doctor(tmp_path, "--json", **env)
    assert (ended.returncode, ended.stderr) == (1, "")
    told = findings(ended)
    assert said in told[about]["said"]
    failed = {name for name, each in told.items() if each["state"] == "failed"}
    # A file of providers that is named in the environment is a key of the configuration too.
    assert failed - {("configuration", "penstock.yaml")} == {about} - {("configuration", "penstock.yaml")}
    assert json.loads(ended.stdout)["ok"] is False


@pytest.mark.process
def test_a_model_that_is_not_there_is_a_failure(tmp_path: Path) -> None:
    with Upstream() as upstream:
        configured(tmp_path, {"local": {"url": upstream.url}}, models={"fast": "local:other"})
        ended = doctor(tmp_path)
    assert ended.returncode == 1
    assert "\tfailed\t1 model in " in ended.stdout
    assert ", but not other (" in ended.stdout


@pytest.mark.process
def test_no_secret_is_shown(tmp_path: Path) -> None:
    secrets = {name: f"sk-{name}-0123456789" for name in ("environment", "env-file", "header", "overlay", "filling")}

    def echoes(exchange: Exchange) -> None:
        """A server that repeats what it was sent."""
        body = json.dumps({"error": {"message": exchange.head.decode(), "type": "invalid_request_error"}}).encode()
        exchange.begin("application/json", "401 Unauthorized")
        exchange.chunk(body)
        exchange.end()

    with closing(ScriptedUpstream()) as upstream:
        upstream.script = echoes
        (tmp_path / ".env").write_text(f"MISTRAL_API_KEY={secrets['env-file']}\n")
        (tmp_path / "mine.toml").write_text(
            f'[mine]\nname = "Mine"\nurl = "{upstream.url}/{{who}}"\nkey_env = "MINE_KEY"\n'
            f'placeholders = {{who = "MINE_WHO"}}\nheaders = {{x-own = "{secrets["overlay"]}"}}\n'
            f'[mistral]\nurl = "{upstream.url}/mistral"\n'
        )
        entry = {"url": upstream.url, "key_env": "OWN_KEY", "headers": {"x-own": secrets["header"]}}
        configured(tmp_path, {"own": entry})
        env = {
            "PENSTOCK_PROVIDERS": "mine.toml",
            "OWN_KEY": secrets["environment"],
            "MINE_KEY": secrets["environment"],
            "MINE_WHO": secrets["filling"],
        }
        shown = [doctor(tmp_path, **env), doctor(tmp_path, "--json", **env)]
    asked = b"".join(upstream.heads).decode()
    for name, secret in secrets.items():
        assert secret in asked, f"{name} was not sent, so nothing is tested"
    for ended in shown:
        assert ended.returncode == 1
        assert "x-own: ***" in ended.stdout  # what the server said is there, and what it repeated is not
        for name, secret in secrets.items():
            assert secret not in ended.stdout + ended.stderr, name


@pytest.mark.process
def test_a_key_in_the_place_of_its_variable_is_not_repeated(tmp_path: Path) -> None:
    configured(tmp_path, {"own": {"url": "http://127.0.0.1:9/v1", "key_env": "sk-own-0123456789"}})
    ended = doctor(tmp_path, "--offline")
    assert (ended.returncode, ended.stderr) == (1, "")
    assert "upstreams.own.key_env: that is no variable's name." in ended.stdout
    assert "sk-own" not in ended.stdout


@pytest.mark.process
def test_those_who_do_not_answer_are_waited_for_together(tmp_path: Path) -> None:
    with ExitStack() as stack:
        silent = [stack.enter_context(closing(ScriptedUpstream())) for _ in range(4)]
        for each in silent:
            each.script = lambda exchange: exchange.wait_until_closed(30)
        configured(tmp_path, {f"u{k}": {"url": each.url} for k, each in enumerate(silent)})
        began = time.monotonic()
        ended = doctor(tmp_path)
        took = time.monotonic() - began
    assert ended.returncode == 1
    assert ended.stdout.count("\tfailed\t") == 4
    assert took < 15  # one after another it would be 20 s
