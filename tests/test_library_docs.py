"""Every program on the library's pages runs as it is written, and says what the page says; so do those of other pages.

Those of the README and the quickstart are in `test_quickstart`, those of the library's reference in `test_docs`.
"""

from __future__ import annotations

import base64
import re
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from penstock.testing import Call, Reply, Turns, Upstream
from tests.telemetry.collector import Collector, over_http

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(ROOT.glob("docs/library/*.md"))

#: page → what the models say to each of its programs
SAID: dict[str, list[tuple[Reply, ...]]] = {
    "conversations": [
        (Reply(text="Hello, Ada."), Reply(text="Your name is Ada.")),
        (Reply(text="A cat."),),
        (Reply(text="It is."),),
    ],
    "embeddings": [(Reply(),) * 2, (Reply(),)],
    "from-litellm": [(Reply(text="Once upon a time."),)],
    "from-openai": [(Reply(text="Once upon a time."),)] * 2,
    "several-models": [
        (Reply(faults=("status-529",)), Reply(text="I cannot look outside.")),
        (Reply(faults=("status-500",)),) * 2 + (Reply(text="Once upon a time."),),
        (Reply(text="Once upon a time.", faults=("cut-after-2",)), Reply(text="Once upon a time.")),
    ],
    "structured-output": [
        (Reply(text='{"name":"Lisbon","country":"Portugal","people":567131}'),),
        (Reply(text='{"value":[{"title":"Emma","year":1815},{"title":"Persuasion","year":1817}]}'),),
        (Reply(text=('{"title":"Pan', 'cakes","minutes":2', '0,"difficulty":"ea', 'sy"}')),),
        (Reply(text='{"mood":"ecstatic"}'),),
    ],
    "watching": [
        (Reply(text=("Once", " upon", " a", " time.")), Reply()),
        (Reply(text="Once."),),
        (Reply(text="Once."),),
    ],
    "tools": [
        (Reply(text=(), calls=(Call("weather", {"city": "Paris"}),)), Reply(text="Yes: it will rain in Paris.")),
        (Reply(text=(), calls=(Call("search", {"query": "novels"}),)), Reply(text="Try Emma.")),
        (Reply(text=(), calls=(Call("weather", {"city": "Paris"}),)), Reply(text="Yes.")),
    ],
}

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def programs(page: Path) -> list[tuple[str, str | None]]:
    """Each program of the page, with what the page says that it prints."""
    found = re.findall(
        r"^```python\n(.*?)^```(?:\n+```text\n(.*?)^```)?", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    return [(program, said or None) for program, said in found]


PROGRAMS = [(page, k, *each) for page in PAGES for k, each in enumerate(programs(page))]


def test_there_is_a_script_for_every_program() -> None:
    assert {page.stem: len(programs(page)) for page in PAGES} == {name: len(each) for name, each in SAID.items()}


@pytest.mark.parametrize(
    ("page", "k", "program", "said"), PROGRAMS, ids=[f"{page.stem}-{k}" for page, k, *_ in PROGRAMS]
)
def test_a_program_runs_as_written(
    page: Path, k: int, program: str, said: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (tmp_path / "cat.png").write_bytes(base64.b64decode(PIXEL))
    monkeypatch.chdir(tmp_path)
    with Upstream(Turns(*SAID[page.stem][k])) as upstream, ExitStack() as stack:
        overlay = tmp_path / "providers.toml"
        dialects = {"openai": "openai-chat", "anthropic": "anthropic-messages", "gemini": "gemini"}
        overlay.write_text("".join(f'[{name}]\nurl = "{upstream.url_for(d)}"\n' for name, d in dialects.items()))
        monkeypatch.setenv("PENSTOCK_PROVIDERS", str(overlay))
        for name in dialects:
            monkeypatch.setenv(f"{name.upper()}_API_KEY", "k")
        program = program.replace("http://127.0.0.1:8080/v1", upstream.url)
        if (collector := "http://127.0.0.1:4318") in program:
            program = program.replace(collector, stack.enter_context(over_http(Collector())))
        exec(compile(program, f"{page.name} program {k}", "exec", dont_inherit=True), {"__name__": "__main__"})
        assert len(upstream.seen) == len(SAID[page.stem][k])
    if said is not None:
        assert capsys.readouterr().out == said


# --- the reference ----------------------------------------------------------------------------------------------------

LABORATORY = programs(ROOT / "docs/reference/laboratory.md")
PROVIDERS = programs(ROOT / "docs/reference/providers.md")


def test_no_program_in_the_docs_is_run_nowhere() -> None:
    """One more has its test here, or beside those that are named above."""
    pages = [ROOT / "README.md", *ROOT.glob("docs/**/*.md")]
    found = {str(page.relative_to(ROOT)): len(programs(page)) for page in pages if programs(page)}
    for page in PAGES:
        del found[str(page.relative_to(ROOT))]
    assert found == {
        "README.md": 2,
        "docs/quickstart.md": 4,
        "docs/reference/laboratory.md": 2,
        "docs/reference/library.md": 3,
        "docs/reference/providers.md": 1,
    }


def run_program(program: str) -> None:
    exec(compile(program, "program", "exec", dont_inherit=True), {"__name__": "__main__"})


def test_the_laboratorys_upstream_in_a_test(capsys: pytest.CaptureFixture[str]) -> None:
    run_program(LABORATORY[0][0])
    text, seen, executions, refused = capsys.readouterr().out.splitlines()
    assert (text, executions) == ("One two", "{}")
    assert re.fullmatch(r"\d+ None \d+ [\d.]+", seen)
    assert refused.startswith("Nothing listens on ")


@pytest.mark.process
def test_the_laboratorys_cassette_is_recorded_and_then_played(tmp_path: Path) -> None:
    program, _ = LABORATORY[1]
    remark = re.search(r"in conftest\.py: (.*)$", program, re.MULTILINE)
    assert remark is not None
    (tmp_path / "conftest.py").write_text(remark[1] + "\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_weather.py"]
    with Upstream() as upstream:
        (tmp_path / "test_weather.py").write_text(program.replace("https://api.openai.com/v1", upstream.url))
        for _ in range(2):
            ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
            assert ended.returncode == 0, ended.stdout
        assert len(upstream.seen) == 1
    assert (tmp_path / "cassettes/test_weather/test_the_weather/1").is_dir()


def test_the_providers_pages_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Upstream(Reply(text="Hello.")) as upstream:
        overlay = tmp_path / "providers.toml"
        overlay.write_text(f'[groq]\nurl = "{upstream.url}"\n')
        monkeypatch.setenv("PENSTOCK_PROVIDERS", str(overlay))
        monkeypatch.setenv("GROQ_API_KEY", "k")
        run_program(PROVIDERS[0][0])
    assert capsys.readouterr().out.splitlines() == ["Hello.", "True", "['simulated']"]
