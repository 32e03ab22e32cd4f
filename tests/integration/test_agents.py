"""Claude Code and opencode hold a conversation of two turns, with a tool's result, through the gateway.

The real programs, a real gateway process, and an upstream on a real socket that speaks one dialect and plays the model
(`agent_model`). What the agent prints and what the upstream sees are both checked: in its second turn it must have
been sent the whole first one. `scripts/agents` installs the agents; without them these tests are skipped.

That nothing leaves the machine: run this file under `unshare -n sh -c 'ip link set lo up; exec "$@"' - scripts/test …`.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import threading
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.gateways import Gateway, serving, until
from tests.integration.agent_model import (
    COMMAND,
    COMMANDS,
    FIRST,
    MOUNTS,
    PROOFS,
    SECOND,
    Heard,
    answer,
    answer_with_two_calls,
    broken_answer,
    heard,
    slow_down,
    thinking_answer,
    too_long,
)
from tests.upstreams import Answer, Choose, Gate, Upstream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.process

#: an agent's turn, its start included
TURN_S = 120.0

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "penstock-agents"
PROGRAMS = Path(os.environ.get("PENSTOCK_AGENTS") or CACHE) / "node_modules" / ".bin"

CLAUDE_CODE = {
    "IS_SANDBOX": "1",
    "ANTHROPIC_API_KEY": "sk-dummy",
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "DISABLE_AUTOUPDATER": "1",
    "DISABLE_TELEMETRY": "1",
    "DISABLE_ERROR_REPORTING": "1",
}
OPENCODE = {
    "npm_config_offline": "true",
    "OPENCODE_DISABLE_AUTOUPDATE": "1",
    "OPENCODE_DISABLE_MODELS_FETCH": "1",
    "OPENCODE_DISABLE_LSP_DOWNLOAD": "1",
    "OPENCODE_DISABLE_DEFAULT_PLUGINS": "1",
}


def program(name: str) -> str:
    path = PROGRAMS / name
    if not path.exists():
        pytest.skip(f"{path} is not there; scripts/agents installs it (about 600 MB)")
    return str(path)


class Agent:
    """One of the programs, in a home and a folder of its own."""

    def __init__(self, gateway: Gateway, folder: Path) -> None:
        self.gateway = gateway
        self.home = folder / "home"
        self.work = folder / "work"
        self.home.mkdir()
        self.work.mkdir()

    def claude_code(self, prompt: str, *, is_first: bool) -> str:
        options = ["--output-format", "text", "--dangerously-skip-permissions"] + ([] if is_first else ["--continue"])
        environment = CLAUDE_CODE | {"ANTHROPIC_BASE_URL": self.gateway.url}
        return self._run([program("claude"), "-p", prompt, *options], environment)

    def opencode(self, prompt: str, *, is_first: bool, package: str = "@ai-sdk/openai-compatible") -> str:
        options = {"baseURL": f"{self.gateway.url}/v1", "apiKey": "sk-dummy"}
        models = {"tiny": {"limit": {"context": 100_000, "output": 1024}}}
        provider = {"npm": package, "options": options, "models": models}
        config = {
            "autoupdate": False,
            "share": "disabled",
            "model": "local/tiny",
            "small_model": "local/tiny",
            "enabled_providers": ["local"],
            "provider": {"local": provider},
            "permission": {"bash": "allow"},
        }
        (self.work / "opencode.json").write_text(json.dumps(config))
        return self._run([program("opencode"), "run", *([] if is_first else ["--continue"]), prompt], OPENCODE)

    def _run(self, command: list[str], environment: dict[str, str]) -> str:
        """Its standard output; it must have ended well."""
        code, said, complaint = self.run(command, environment)
        assert code == 0, f"{command[0]} ended with {code}: {said}\n{complaint}"
        return said

    def run(self, command: list[str], environment: dict[str, str]) -> tuple[int, str, str]:
        """How it ended, its standard output and its standard error. What it has started ends with it."""
        clean = {"PATH": f"{PROGRAMS}:/usr/local/bin:/usr/bin:/bin", "TERM": "dumb", "LANG": "C.UTF-8"}
        process = subprocess.Popen(
            command,
            cwd=self.work,
            env=clean | {"HOME": str(self.home)} | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            said, complaint = process.communicate(timeout=TURN_S)
        finally:
            with contextlib.suppress(ProcessLookupError):  # when all of it has ended by itself
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        return process.returncode, said, complaint


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    scripted = Upstream()
    scripted.answers(answer)
    yield scripted
    scripted.close()
    assert scripted.errors == []


@pytest.fixture(params=MOUNTS)
def dialect(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def gateway(dialect: str, upstream: Upstream, tmp_path: Path) -> Iterator[Gateway]:
    entry = {"url": upstream.url(MOUNTS[dialect][0]), "dialect": dialect}
    config = {
        "upstreams": {"model": entry},
        "models": {"*": "model:real-1"},
        "retry": {"attempts": 1},  # what the agents themselves do of a failure is to be seen
        "telemetry": {"store": {"path": None}},
    }
    with serving(config, tmp_path) as running:
        yield running


def requests(upstream: Upstream, dialect: str) -> list[Heard]:
    """The agent's own turns, as the upstream saw them: those that offer tools."""
    _, path = MOUNTS[dialect]
    calls = [exchange for exchange in upstream.exchanges if exchange.path.partition("?")[0] == path]
    return [asked for asked in (heard(dialect, exchange.body) for exchange in calls) if asked.tools]


def converse(turn: Callable[..., str], agent: Agent, upstream: Upstream, dialect: str) -> None:
    note = f"the password is {secrets.token_hex(8)}"
    (agent.work / "note.txt").write_text(note + "\n")

    assert f"The note says: {note}" in turn(FIRST, is_first=True)
    first = requests(upstream, dialect)
    assert [len(asked.results) for asked in first] == [0, 1], "the call is answered by the agent, once"
    upstream.forget()
    assert f"Once more: {note}" in turn(SECOND, is_first=False)

    (again,) = requests(upstream, dialect)
    kinds = [piece.kind for piece in again.said]
    call, result = kinds.index("call"), kinds.index("result")
    assert json.loads(again.said[call].text)["command"] == COMMAND
    assert note in again.said[result].text
    if dialect != "ollama":  # whose results name their tool, not their call
        assert again.said[call].id == again.said[result].id
    before, after = again.said[:call], again.said[result + 1 :]
    assert any(piece.kind == "user" and FIRST in piece.text for piece in before)
    assert before[-1] == ("assistant", "I look.", None, None)
    assert after[0] == ("assistant", f"The note says: {note}", None, None)
    assert any(piece.kind == "user" and SECOND in piece.text for piece in after)
    assert kinds.count("call") == kinds.count("result") == 1
    assert set(again.tools) == set(first[0].tools)


def check_records(gateway: Gateway, dialect: str) -> None:
    records = until(lambda: len(found := gateway.records()) >= 3 and found, "a record per call")
    assert {record["dialect_out"] for record in records} == {dialect}
    assert [record["outcome"] for record in records] == ["complete"] * len(records)


def test_claude_code_holds_a_conversation(gateway: Gateway, upstream: Upstream, dialect: str, tmp_path: Path) -> None:
    agent = Agent(gateway, tmp_path)
    converse(agent.claude_code, agent, upstream, dialect)
    check_records(gateway, dialect)


def test_opencode_holds_a_conversation(gateway: Gateway, upstream: Upstream, dialect: str, tmp_path: Path) -> None:
    agent = Agent(gateway, tmp_path)
    converse(agent.opencode, agent, upstream, dialect)
    check_records(gateway, dialect)


@pytest.mark.parametrize("dialect", ["openai-chat"], indirect=True)
@pytest.mark.parametrize("package", ["@ai-sdk/anthropic", "@ai-sdk/openai", "@ai-sdk/google"])
def test_opencode_holds_a_conversation_in_another_dialect(
    gateway: Gateway, upstream: Upstream, dialect: str, package: str, tmp_path: Path
) -> None:
    agent = Agent(gateway, tmp_path)
    converse(partial(agent.opencode, package=package), agent, upstream, dialect)
    check_records(gateway, dialect)


@pytest.mark.parametrize("dialect", PROOFS, indirect=True)
def test_claude_code_sends_a_thought_home(gateway: Gateway, upstream: Upstream, dialect: str, tmp_path: Path) -> None:
    """Each provider sees its own proof again, OpenRouter's `reasoning_details` as well, and no other."""
    upstream.answers(thinking_answer)
    agent = Agent(gateway, tmp_path)
    (agent.work / "note.txt").write_text("the sea is deep\n")
    assert "The note says: the sea is deep" in agent.claude_code(FIRST, is_first=True)
    first, second = requests(upstream, dialect)
    assert (first.proofs, second.proofs) == ([], [PROOFS[dialect]])


@pytest.mark.parametrize("dialect", ["openai-chat"], indirect=True)
def test_claude_code_answers_calls_that_came_in_turns(
    gateway: Gateway, upstream: Upstream, dialect: str, tmp_path: Path
) -> None:
    upstream.answers(answer_with_two_calls)
    agent = Agent(gateway, tmp_path)
    (agent.work / "note.txt").write_text("the sea is deep\n")
    assert "the sea is deep & seen twice" in agent.claude_code(FIRST, is_first=True)
    _, second = requests(upstream, dialect)
    calls = [(piece.id, json.loads(piece.text)["command"]) for piece in second.pieces if piece.kind == "call"]
    assert calls == list(COMMANDS.items())
    results = {piece.id: piece.text.strip() for piece in second.results}
    assert results == {"call_a": "the sea is deep", "call_b": "seen twice"}


@pytest.mark.parametrize("dialect", ["openai-chat"], indirect=True)
@pytest.mark.parametrize(("failing", "outcome"), [(broken_answer, "truncated"), (slow_down, "upstream_error")])
def test_c4_claude_code_knows_a_failure_and_goes_on(
    failing: Choose, outcome: str, gateway: Gateway, upstream: Upstream, dialect: str, tmp_path: Path
) -> None:
    """A stream that was cut is no reply to it, and a limit is waited for: it asks again."""
    upstream.answers(lambda exchange: failing(exchange) if exchange is upstream.exchanges[0] else answer(exchange))
    agent = Agent(gateway, tmp_path)
    (agent.work / "note.txt").write_text("the sea is deep\n")
    assert agent.claude_code(FIRST, is_first=True).strip() == "The note says: the sea is deep"
    records = until(lambda: len(found := gateway.records()) >= 3 and found, "a record per call")
    assert [record["outcome"] for record in records] == [outcome, "complete", "complete"]


@pytest.mark.parametrize("dialect", ["openai-chat"], indirect=True)
def test_claude_code_knows_a_prompt_that_is_too_long(
    gateway: Gateway, upstream: Upstream, dialect: str, tmp_path: Path
) -> None:
    upstream.answers(too_long)
    agent = Agent(gateway, tmp_path)
    with pytest.raises(AssertionError, match="Prompt is too long"):
        agent.claude_code(FIRST, is_first=True)


@pytest.mark.parametrize("dialect", ["openai-chat", "anthropic-messages"], indirect=True)
@pytest.mark.parametrize("name", ["claude_code", "opencode"])
def test_c9_an_agent_finishes_its_turn_while_its_upstream_is_killed_and_started_again(
    name: str, dialect: str, tmp_path: Path
) -> None:
    """It has taken the request, thought, and is gone; some time later another stands at its port."""
    note = f"the password is {secrets.token_hex(8)}"
    thinking = Gate()
    doomed = Upstream()
    doomed.answers(Answer(before=thinking))
    alive: list[Upstream] = []

    def kill_and_start() -> None:
        thinking.wait_reached()
        doomed.close()
        time.sleep(1.0)  # as long as a small server takes to start
        alive.append(Upstream(doomed.port))
        alive[0].answers(answer)

    entry = {"url": doomed.url(MOUNTS[dialect][0]), "dialect": dialect}
    config = {
        "upstreams": {"model": entry},
        "models": {"*": "model:real-1"},
        "retry": {"attempts": 20, "backoff": "200ms", "max_backoff": "500ms"},
        "telemetry": {"store": {"path": None}},
    }
    with serving(config, tmp_path) as gateway:
        agent = Agent(gateway, tmp_path)
        (agent.work / "note.txt").write_text(note + "\n")
        killer = threading.Thread(target=kill_and_start)
        killer.start()
        assert f"The note says: {note}" in getattr(agent, name)(FIRST, is_first=True)
        killer.join(10)
        records = gateway.records()
        assert {record["outcome"] for record in records} == {"complete"}, "the agent saw no failure"
        assert max(record["attempts"] for record in records) >= 2
    alive[0].close()
    assert alive[0].errors == doomed.errors == []
