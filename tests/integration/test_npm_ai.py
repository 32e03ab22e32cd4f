"""npm's `ai` through the gateway: what it makes of each client dialect, from each upstream dialect.

One Node process with the real packages asks; what upstreams send is written by hand. `scripts/clients` installs the
packages; without them, or without Node, these tests are skipped, or fail under PENSTOCK_REQUIRE_SERVERS=1 where there
is an npm.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.gateway.upstream_wires import ARGUMENTS, PIECES, UPSTREAM_WIRES, USAGE
from tests.gateways import Gateway, serving
from tests.upstreams import Upstream

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.process

HERE = Path(__file__).parent / "npm"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "penstock-clients"
FOLDER = Path(os.environ.get("PENSTOCK_CLIENTS") or CACHE)

PROVIDERS = ["openai-chat", "openai-responses", "anthropic-messages", "gemini"]
PAIRS = list(itertools.product(PROVIDERS, UPSTREAM_WIRES))
each_pair = pytest.mark.parametrize(("provider", "name"), PAIRS, ids=[f"{p} from {u}" for p, u in PAIRS])


@dataclass
class Heard:
    """`usage` is prompt and completion tokens; `parts` what the stream gave, by type."""

    text: str = ""
    reasoning: str = ""
    calls: list[tuple[str, Any]] = field(default_factory=list)
    stop: str | None = None
    usage: tuple[int, int] | None = None
    errors: list[Any] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)

    def hear(self, part: dict[str, Any]) -> None:
        self.parts.append(part["type"])
        match part["type"]:
            case "text-delta":
                self.text += part["text"]
            case "reasoning-delta":
                self.reasoning += part["text"]
            case "tool-call":
                self.calls.append((part["toolName"], part["input"]))
            case "finish":
                self.stop = part["finishReason"]
                usage = part["totalUsage"]
                self.usage = (usage.get("inputTokens"), usage.get("outputTokens"))
            case "error" | "tool-error" | "abort":
                self.errors.append(part.get("error"))


class Asking:
    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self._process = process
        self._url = url

    def __call__(self, provider: str, model: str, *, tools: bool = False) -> Heard:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        asked = {"provider": provider, "url": self._url, "model": model, "tools": tools}
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        heard = Heard()
        for line in self._process.stdout:  # it asks with a limit of 15 s of its own
            part = json.loads(line)
            if part["type"] == "end":
                return heard
            heard.hear(part)
        raise AssertionError("node ended")


@pytest.fixture(scope="module")
def scripted() -> Iterator[Upstream]:
    upstream = Upstream()
    yield upstream
    upstream.close()


@pytest.fixture(scope="module")
def gateway(scripted: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    upstreams = {name: {"url": scripted.url(wire.mount), "dialect": name} for name, wire in UPSTREAM_WIRES.items()}
    models = {f"from-{name}": f"{name}:real-1" for name in upstreams}
    config = {"upstreams": upstreams, "models": models, "telemetry": {"store": {"path": None}}}
    with serving(config, tmp_path_factory.mktemp("npm")) as running:
        yield running


@pytest.fixture(scope="module")
def ask(gateway: Gateway, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asking]:
    node = shutil.which("node")
    if node is None:
        pytest.skip("Node is not installed")
    if not (FOLDER / ".installed").exists():
        said = f"{FOLDER} does not hold npm's ai; scripts/clients installs it"
        if os.environ.get("PENSTOCK_REQUIRE_SERVERS") == "1" and shutil.which("npm"):
            pytest.fail(said)
        pytest.skip(said)
    # Node looks for packages beside the program.
    folder = tmp_path_factory.mktemp("node")
    (folder / "node_modules").symlink_to(FOLDER / "node_modules")
    shutil.copy(HERE / "stream.mjs", folder)
    process = subprocess.Popen(
        [node, "stream.mjs"],
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield Asking(process, gateway.url)
            assert process.stdin is not None
            process.stdin.close()
            assert process.wait(15) == 0
        finally:
            process.kill()


@pytest.fixture
def upstream(scripted: Upstream) -> Iterator[Upstream]:
    scripted.forget()
    yield scripted
    assert scripted.errors == []


@each_pair
def test_a_text(provider: str, name: str, ask: Asking, upstream: Upstream) -> None:
    upstream.answers(UPSTREAM_WIRES[name].text)
    heard = ask(provider, f"from-{name}")
    assert heard.errors == []
    assert (heard.text, heard.stop, heard.usage) == ("".join(PIECES), "stop", USAGE)
    assert heard.parts.count("text-delta") == len(PIECES)
    assert heard.parts.count("text-start") == heard.parts.count("text-end") == heard.parts.count("finish") == 1


@each_pair
def test_a_thought(provider: str, name: str, ask: Asking, upstream: Upstream) -> None:
    upstream.answers(UPSTREAM_WIRES[name].thought)
    heard = ask(provider, f"from-{name}")
    assert heard.errors == []
    assert (heard.reasoning, heard.text) == ("Let me see.", "".join(PIECES))
    assert heard.parts.index("reasoning-end") < heard.parts.index("text-start")


@each_pair
def test_a_tool_call(provider: str, name: str, ask: Asking, upstream: Upstream) -> None:
    upstream.answers(UPSTREAM_WIRES[name].tool)
    heard = ask(provider, f"from-{name}", tools=True)
    assert heard.errors == []
    assert (heard.text, heard.calls, heard.stop) == ("Let me see", [("look", ARGUMENTS)], "tool-calls")
    assert UPSTREAM_WIRES[name].tools_of(upstream.exchanges[0].body) == ["look"]


@each_pair
def test_c4_a_failure_half_way(provider: str, name: str, ask: Asking, upstream: Upstream) -> None:
    upstream.answers(UPSTREAM_WIRES[name].failure)
    heard = ask(provider, f"from-{name}")
    assert heard.text == "".join(PIECES)[: len(heard.text)]
    assert "It broke." in json.dumps(heard.errors)
    assert heard.stop in (None, "error", "other")


@each_pair
def test_a_refusal_before_the_stream(provider: str, name: str, ask: Asking, upstream: Upstream) -> None:
    upstream.answers(UPSTREAM_WIRES[name].refusal)
    heard = ask(provider, f"from-{name}")
    (error,) = heard.errors
    assert (error["name"], error["statusCode"], error["message"]) == ("AI_APICallError", 429, "Too fast.")
    assert heard.text == ""
