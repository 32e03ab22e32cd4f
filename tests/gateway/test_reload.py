"""A configuration that changes under a gateway that runs: what is new holds for what is new."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.gateways import Asked, Gateway, started, two_upstreams, until
from tests.processes import Running
from tests.upstreams import Gate, Upstream, sse
from tests.wires import CHAT, Pair

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.process

ALIKE = Pair(CHAT, CHAT)


@pytest.fixture(scope="module")
def scripted() -> Iterator[Upstream]:
    upstream = Upstream()
    yield upstream
    upstream.close()


@pytest.fixture
def upstream(scripted: Upstream) -> Iterator[Upstream]:
    scripted.forget()
    scripted.answers(sse(*CHAT.opening(), CHAT.text("One"), *CHAT.closing()))
    yield scripted
    Asked.close_all()
    assert scripted.errors == []


class Reloaded:
    """A gateway and the file that it reads; `stderr` lines are what it has said."""

    def __init__(self, gateway: Gateway, config: dict[str, Any]) -> None:
        self.gateway = gateway
        self.config = config
        self.said = 0

    def write(self, text: str) -> None:
        """In one step, as editors do."""
        new = self.gateway.folder / "penstock.yaml.new"
        new.write_text(text)
        new.replace(self.gateway.folder / "penstock.yaml")

    def change(self, **changes: Any) -> None:
        self.config = {**self.config, **changes}
        self.write(yaml.safe_dump(self.config))

    def hang_up(self) -> None:
        os.kill(self.gateway.pid, signal.SIGHUP)

    def line(self) -> str:
        """The next that it says."""
        lines = until(lambda: (found := self.gateway.stderr.splitlines())[self.said :] and found, "a line")
        self.said += 1
        return str(json.loads(lines[self.said - 1])["message"])

    def names(self) -> set[str]:
        return {model["id"] for model in json.loads(self.gateway.send("GET", "/v1/models").body())["data"]}


@pytest.fixture
def reloaded(upstream: Upstream, tmp_path: Path) -> Iterator[Reloaded]:
    config = two_upstreams(upstream, models={"first": "chat:real-1", "c-1": "chat"})
    with started(config, tmp_path) as process:
        gateway = Gateway(Running(process), tmp_path)
        yield Reloaded(gateway, config)
        assert gateway.running.stop(signal.SIGTERM) == 0


@pytest.mark.parametrize("hung_up", [True, False], ids=["SIGHUP", "a changed file"])
def test_a_new_model_can_be_asked(reloaded: Reloaded, hung_up: bool) -> None:
    assert reloaded.names() == {"first", "c-1"}
    reloaded.change(models={"second": "chat:real-1", "c-1": "chat"})
    if hung_up:
        reloaded.hang_up()
    assert reloaded.line() == ("A new configuration is in force: models.first, models.second changed.")
    assert reloaded.names() == {"second", "c-1"}
    assert reloaded.gateway.post(CHAT, CHAT.request("second")).said().text == "One"
    assert reloaded.gateway.post(CHAT, CHAT.request("first")).status == 404


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("upstreams: [", "penstock.yaml is not YAML"),
        ("upstreams: {chat: {url: 'http://127.0.0.1:9/v1'}}\ntimeout: {}", "there is no key `timeout`"),
        ("upstreams: {a: {url: 'http://127.0.0.1:9/v1', key_env: NO_SUCH_KEY}}", "variable NO_SUCH_KEY"),
    ],
    ids=["no YAML", "unknown key", "no API key"],
)
def test_a_wrong_file_changes_nothing_and_says_why(
    reloaded: Reloaded, monkeypatch: pytest.MonkeyPatch, text: str, said: str
) -> None:
    reloaded.write(text)
    reloaded.hang_up()
    line = reloaded.line()
    assert line.startswith("The configuration stays as it was: ")
    assert said in line
    assert reloaded.names() == {"first", "c-1"}
    assert reloaded.gateway.ask(ALIKE).said().text == "One"
    reloaded.write("not yet right")
    assert "stays as it was" in reloaded.line()
    reloaded.change(models={"third": "chat"})
    assert "models.third" in reloaded.line()
    assert reloaded.gateway.stderr.count("\n") == 3


def test_half_of_a_wrong_configuration_is_not_in_force(reloaded: Reloaded, upstream: Upstream) -> None:
    """What is shared with the next configuration is changed by one that is right alone."""
    upstream.answers(sse(*CHAT.opening(), CHAT.text("One"), end="hang"))
    reloaded.change(limits={"concurrency": 1}, server={"keys_file": "no-such-file.json"})
    reloaded.hang_up()
    assert "There is no keys file no-such-file.json" in reloaded.line()
    for asked in [reloaded.gateway.ask(ALIKE) for _ in range(3)]:
        assert asked.status == 200
        asked.leave()


def test_a_running_stream_finishes_on_what_it_began_with(reloaded: Reloaded, upstream: Upstream) -> None:
    gate = Gate()
    upstream.answers(sse(*CHAT.opening(), CHAT.text("One "), gate, CHAT.text("two"), *CHAT.closing()))
    asked = reloaded.gateway.post(CHAT, CHAT.request("first"))
    assert asked.frame()
    reloaded.change(
        models={"c-1": "chat"},
        upstreams={"chat": {"url": "http://127.0.0.1:9/v1"}},
        telemetry={"store": {"path": "other.db"}},
    )
    reloaded.hang_up()
    assert "in force" in reloaded.line()
    assert reloaded.gateway.ask(ALIKE).status == 502
    gate.open()
    said = asked.said()
    assert (said.text, said.errors, said.models) == ("One two", [], {"first"})
    # Its record goes where records went when it began.
    rows = until(reloaded.gateway.stored)
    assert [(row["model_requested"], row["outcome"]) for row in rows] == [("first", "complete")]
    until(lambda: (reloaded.gateway.folder / "other.db").exists())
    assert reloaded.gateway.record(asked.request_id)["outcome"] == "complete"


def test_what_an_older_configuration_held_is_let_go(reloaded: Reloaded, upstream: Upstream) -> None:
    tasks = Path(f"/proc/{reloaded.gateway.pid}/task")
    files, threads = len(reloaded.gateway.open_files), len(list(tasks.iterdir()))
    for number in range(8):
        assert reloaded.gateway.ask(ALIKE).said().text == "One"
        reloaded.change(telemetry={"store": {"path": f"{number}.db"}})
        reloaded.hang_up()
        assert "in force: telemetry.store.path changed" in reloaded.line()
    assert reloaded.gateway.ask(ALIKE).said().text == "One"
    # Two threads of exporters for each configuration; a pool of a few that is nobody's own may have grown.
    until(lambda: len(list(tasks.iterdir())) <= threads + 8, "that threads end")
    until(lambda: len(reloaded.gateway.open_files) <= files + 4, "that files are closed")


def test_what_needs_a_restart_says_so(reloaded: Reloaded) -> None:
    reloaded.change(server={"host": "127.0.0.2", "drain": "7s"}, models={"c-1": "chat"})
    reloaded.hang_up()
    assert reloaded.line() == "server.host is 127.0.0.1 until a restart, when it will be 127.0.0.2."
    assert reloaded.line() == "A new configuration is in force: server.drain, models.first changed."
    assert reloaded.names() == {"c-1"}


def test_a_reload_cannot_open_the_gateway_to_others(
    upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It listens where it listened: keys cannot go because the file now says loopback."""
    monkeypatch.setenv("DOOR_KEY", "pnsk_0123456789abcdef")
    key = {"name": "a", "env": "DOOR_KEY"}
    config = two_upstreams(upstream, server={"host": "0.0.0.0", "keys": [key]}) | {"models": {"c-1": "chat"}}
    with started(config, tmp_path) as process:
        gateway = Gateway(Running(process), tmp_path)
        reloaded = Reloaded(gateway, config)
        assert gateway.send("GET", "/v1/models").status == 401
        reloaded.change(server={"host": "127.0.0.1"})
        reloaded.hang_up()
        line = reloaded.line()
        assert "stays as it was" in line
        assert "there are no keys" in line
        assert gateway.send("GET", "/v1/models").status == 401
        assert gateway.running.stop(signal.SIGTERM) == 0


def test_nothing_new_is_said_to_be_nothing_new(reloaded: Reloaded) -> None:
    reloaded.hang_up()
    assert reloaded.line() == "The configuration was read again and says what it said."


@pytest.mark.parametrize("form", ["json", "pretty"])
def test_lines_for_programs_and_for_people(upstream: Upstream, tmp_path: Path, form: str) -> None:
    with started(two_upstreams(upstream), tmp_path, "--log", form) as process:
        gateway = Gateway(Running(process), tmp_path)
        os.kill(gateway.pid, signal.SIGHUP)
        line = until(lambda: gateway.stderr)
        said = "The configuration was read again and says what it said."
        if form == "pretty":
            assert line == f"penstock: {said}\n"
        else:
            told = json.loads(line)
            assert (told["level"], told["message"]) == ("info", said)
            assert abs(told["time"] - (tmp_path / "stderr").stat().st_mtime) < 60
        assert gateway.running.stop(signal.SIGTERM) == 0
