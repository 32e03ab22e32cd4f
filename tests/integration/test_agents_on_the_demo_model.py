"""Claude Code and opencode call a tool and hear its answer, on a real model of a real worker, through a real gateway.

The demo model knows little: what it asks of the tool is made of words that it has seen, so the tool is one that only
reads, and the agents are told to offer no other, with instructions that fit into its context (Claude Code's own are
larger than its 8,192 tokens). That the agents are sent a call, answer it and are told something of that answer is what
is seen here; what of, in which words, is the model's affair. `scripts/agents` installs the agents.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.gateways import Gateway, serving, until
from tests.integration.test_agents import CLAUDE_CODE, OPENCODE, Agent, program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.processes import Running

pytestmark = pytest.mark.process

INSTRUCTIONS = "You can call tools."
#: Each agent samples as it likes: a model of this size may call nothing, or talk until it is cut off, even in a call.
TRIES = 12
MOST_TOKENS = 200


@pytest.fixture
def gateway(worker: Running, tmp_path: Path) -> Iterator[Gateway]:
    config = {
        "upstreams": {"worker": {"url": f"{worker.url}/v1", "profile": "llamacpp"}},
        "models": {"*": "worker:tiny"},
        "telemetry": {"store": {"path": None}},
    }
    with serving(config, tmp_path) as running:
        yield running


@pytest.fixture
def agent(gateway: Gateway) -> Iterator[Agent]:
    """In a folder of a short name: the model repeats what a tool tells it."""
    with tempfile.TemporaryDirectory(prefix="p") as folder:
        agent = Agent(gateway, Path(folder))
        (agent.work / "note.txt").write_text("the sea is deep\n")
        yield agent


def turn(agent: Agent, command: list[str], environment: dict[str, str], is_whole: Callable[[list[Any]], object]) -> Any:
    """What it printed, as JSON lines, in the first of its turns that went as a turn with a tool should."""
    for _ in range(TRIES):
        code, printed, _ = agent.run(command, environment)
        said = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
        if code == 0 and is_whole(said):
            return said
    raise AssertionError(f"no turn in {TRIES} called the tool and ended; the last one said {printed[-2000:]}")


def check_records(gateway: Gateway) -> None:
    """A reply that ended in a call, and one after it; nothing that failed on its way."""

    def finishes() -> list[str]:
        return [record["finish_reason"] for record in gateway.records()]

    until(lambda: "tool_calls" in finishes()[:-1], "the record of what followed a call")
    assert not {"truncated", "timeout"} & {record["outcome"] for record in gateway.records()}


def blocks_of(said: list[Any]) -> list[Any]:
    return [block for line in said if line["type"] in ("assistant", "user") for block in line["message"]["content"]]


def answered_calls(blocks: list[Any]) -> list[tuple[int, int]]:
    """Where a call of the tool stands that is whole, and where its answer."""
    results = {block["tool_use_id"]: k for k, block in enumerate(blocks) if block["type"] == "tool_result"}
    return [
        (k, results[block["id"]])
        for k, block in enumerate(blocks)
        if block["type"] == "tool_use" and "file_path" in block["input"] and block["id"] in results
    ]


def test_claude_code_completes_a_call_and_its_answer(gateway: Gateway, agent: Agent) -> None:
    options = ["--tools", "Read", "--system-prompt", INSTRUCTIONS, "--dangerously-skip-permissions"]
    command = [program("claude"), "-p", "Use the Read tool for note.txt.", *options]
    more = {"ANTHROPIC_BASE_URL": gateway.url, "CLAUDE_CODE_MAX_OUTPUT_TOKENS": str(MOST_TOKENS)}
    said = turn(
        agent,
        [*command, "--output-format", "stream-json", "--verbose"],
        CLAUDE_CODE | more,
        lambda said: not said[-1]["is_error"] and said[-1]["result"].strip() and answered_calls(blocks_of(said)),
    )
    blocks = blocks_of(said)
    call, result = answered_calls(blocks)[0]
    assert blocks[call]["name"] == "Read"
    assert isinstance(blocks[call]["input"]["file_path"], str)
    assert call < result < len(blocks) - 1
    assert said[-1]["result"].strip()
    check_records(gateway)


def test_opencode_completes_a_call_and_its_answer(gateway: Gateway, agent: Agent) -> None:
    options = {"baseURL": f"{gateway.url}/v1", "apiKey": "sk-dummy"}
    models = {"tiny": {"limit": {"context": 8192, "output": MOST_TOKENS}}}
    config = {
        "autoupdate": False,
        "share": "disabled",
        "model": "local/tiny",
        "small_model": "local/tiny",
        "enabled_providers": ["local"],
        "provider": {"local": {"npm": "@ai-sdk/openai-compatible", "options": options, "models": models}},
        "agent": {"build": {"prompt": INSTRUCTIONS}, "title": {"disable": True}},
        "tools": {"*": False, "read": True},
        "permission": {"bash": "deny", "edit": "deny", "webfetch": "deny"},
    }
    (agent.work / "opencode.json").write_text(json.dumps(config))
    said = turn(
        agent,
        [program("opencode"), "run", "--format", "json", "Use the read tool for note.txt."],
        OPENCODE,
        lambda said: (
            [event["part"]["reason"] for event in said if event["type"] == "step_finish"][:1] == ["tool-calls"]
            and "filePath" in next(event for event in said if event["type"] == "tool_use")["part"]["state"]["input"]
            and any(event["part"]["text"].strip() for event in said if event["type"] == "text")
        ),
    )
    first = next(k for k, event in enumerate(said) if event["type"] == "tool_use")
    part = said[first]["part"]
    assert part["tool"] == "read"
    assert isinstance(part["state"]["input"]["filePath"], str)
    assert part["state"]["status"] in ("completed", "error"), "the tool has answered"
    told = [event["part"]["text"] for event in said[first:] if event["type"] == "text"]
    assert "".join(told).strip()
    check_records(gateway)
