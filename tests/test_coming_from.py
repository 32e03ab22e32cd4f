"""The tables for people who come from another library: both cells of each row are run, and give the same.

LiteLLM's cells want a Python that has it, which ours need not: `PENSTOCK_LITELLM=python pytest …`. Without one
Penstock's cells are run alone.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openai
import pytest

import penstock
import penstock.canon.errors
from penstock.testing import Call, Reply, Upstream

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
MESSAGES: Any = [{"role": "user", "content": "Tell me a story"}]
TOOLS: Any = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}]
SAID = Reply(text="Once upon a time.")
CALLED = Reply(text=(), calls=(Call("weather", {"city": "Paris"}),))

#: their error → what makes it
FAULTS = {
    "APIConnectionError": "reset",
    "APIStatusError": "status-418",
    "AuthenticationError": "status-401",
    "RateLimitError": "status-429",
    "InternalServerError": "status-500",
    "OpenAIError": "status-400",
}


def rows(page: str, k: int) -> list[tuple[str, str, str]]:
    """The rows of the page's table number k whose two cells are code: what it is about, theirs, ours."""
    text = (ROOT / "docs/library" / page).read_text(encoding="utf-8")
    table = re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE)[k]
    return re.findall(r"^\| ([^|]*?) ?\| `([^|`]+)` \| `([^|`]+)` \|$", table, re.MULTILINE)


OPENAI, ERRORS, LITELLM = rows("from-openai.md", 0), rows("from-openai.md", 1), rows("from-litellm.md", 0)


@pytest.fixture
def upstream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Upstream]:
    """What both ask, whoever they think that it is."""
    with Upstream(SAID) as started:
        overlay = tmp_path / "providers.toml"
        overlay.write_text("".join(f'[{name}]\nurl = "{started.url}"\n' for name in ("openai", "anthropic")))
        monkeypatch.setenv("PENSTOCK_PROVIDERS", str(overlay))
        for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
            monkeypatch.setenv(name, "any")
        yield started


def ours(cell: str) -> Any:
    return eval(cell, {"penstock": penstock, "messages": MESSAGES, "tools": TOOLS})


def test_no_row_is_passed_over() -> None:
    assert (len(OPENAI), len(ERRORS), len(LITELLM)) == (9, 6, 8)


@pytest.mark.parametrize(("about", "theirs", "own"), OPENAI, ids=[row[0] for row in OPENAI])
def test_a_row_gives_the_same_as_the_openai_sdk(about: str, theirs: str, own: str, upstream: Upstream) -> None:
    upstream.says(CALLED if "tools" in theirs else SAID)
    with openai.OpenAI(base_url=upstream.url, api_key="any", max_retries=0) as client:
        expected = eval(theirs, {"client": client, "messages": MESSAGES, "tools": TOOLS})
    assert expected
    assert ours(own) == expected, about
    if "max_tokens" in own:
        assert json.loads(upstream.seen[1].body).items() >= {"max_completion_tokens": 9}.items()


@pytest.mark.parametrize(("about", "theirs", "own"), ERRORS, ids=[row[1] for row in ERRORS])
def test_a_row_of_errors_is_raised_for_the_same(about: str, theirs: str, own: str, upstream: Upstream) -> None:
    upstream.says(Reply(faults=(FAULTS[theirs.removeprefix("openai.")],)))
    with (
        openai.OpenAI(base_url=upstream.url, api_key="any", max_retries=0) as client,
        pytest.raises(eval(theirs, {"openai": openai})),
    ):
        client.chat.completions.create(model="m", messages=MESSAGES)
    with pytest.raises(eval(own, {"penstock": penstock})):
        penstock.generate("openai:m", MESSAGES)


def test_a_stream_without_its_terminal_is_an_end_to_the_sdk_and_an_error_here(upstream: Upstream) -> None:
    upstream.says(Reply(text="one two three four", faults=("end-after-2",)))
    with openai.OpenAI(base_url=upstream.url, api_key="any", max_retries=0) as client:
        stream: Any = client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices) == "one two"
    with pytest.raises(penstock.Truncated):
        penstock.generate("openai:m", MESSAGES)


@pytest.mark.parametrize(("about", "theirs", "own"), LITELLM, ids=[row[0] for row in LITELLM])
def test_a_row_gives_the_same_as_litellm(about: str, theirs: str, own: str, upstream: Upstream) -> None:
    upstream.says(CALLED if "tools" in theirs else SAID)
    given = ours(own)
    assert given
    if (python := os.environ.get("PENSTOCK_LITELLM")) is None:
        return
    program = (
        "import json, sys, litellm\n"
        f"messages, tools = json.loads({json.dumps(MESSAGES)!r}), json.loads({json.dumps(TOOLS)!r})\n"
        f"print(json.dumps({theirs}))\n"
    )
    env = {
        **os.environ,
        "OPENAI_API_BASE": upstream.url,
        "ANTHROPIC_API_BASE": upstream.root,
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }
    ended = subprocess.run([python, "-c", program], env=env, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout.splitlines()[-1]) == given, about
