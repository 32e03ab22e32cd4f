"""What the pages say that code can check: the configuration's defaults, routes, names, links, the README's programs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

import penstock
from penstock.catalogue.catalogue import catalogue
from penstock.config.load import check, parse_duration, parse_size
from penstock.config.model import Config, Duration, Size
from penstock.dialects import CLIENT_DIALECTS, DIALECTS
from penstock.telemetry.bus import ExporterState
from penstock.telemetry.gaps import Gaps
from penstock.telemetry.gen_ai import Names, Sums
from penstock.telemetry.line_protocol import TAGS
from penstock.telemetry.record import PATHOLOGIES, CallRecord
from penstock.testing import FAULTS
from penstock.testing.script import read_script
from tests.gateway.hostile import KINDS
from tests.integration.test_prometheus import everything
from tests.processes import Running, run
from tests.telemetry.script import example

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
OPTIONED = (
    "README.md",
    "docs/quickstart.md",
    "docs/reference/commands.md",
    "docs/reference/keys.md",
    "docs/reference/laboratory.md",
    "docs/reference/metrics.md",
    "docs/reference/providers.md",
    "docs/reference/worker.md",
    "docs/reports/README.md",
)
COMMANDS = (
    "serve",
    "worker",
    "worker test",
    "ask",
    "chat",
    "demo",
    "doctor",
    "embed",
    "providers",
    "keys new",
    "keys list",
    "keys revoke",
    "models",
    "simulate",
    "check",
    "record",
    "replay",
    "logs",
    "top",
)
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def blocks(page: str, language: str) -> list[str]:
    return re.findall(
        rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )


def leaves(struct: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    for field in msgspec.structs.fields(struct):
        value = getattr(struct, field.name)
        if isinstance(value, msgspec.Struct):
            yield from leaves(value, f"{path}{field.name}.")
        elif not isinstance(value, dict):
            yield f"{path}{field.name}", value


def test_the_configuration_page_shows_every_key_with_its_default() -> None:
    given = yaml.safe_load(blocks("docs/reference/configuration.md", "yaml")[0])
    check(given)
    for path, default in leaves(Config()):
        value: Any = given
        for step in path.split("."):
            assert step in value, f"{path} is not on the page"
            value = value[step]
        if isinstance(default, Duration) and isinstance(value, str):
            value = parse_duration(value)
        if isinstance(default, Size) and isinstance(value, str):
            value = parse_size(value)
        assert value == (list(default) if isinstance(default, tuple) else default), path


def test_the_library_page_names_only_what_exists() -> None:
    page = (ROOT / "docs/reference/library.md").read_text(encoding="utf-8")
    for name in set(re.findall(r"penstock\.([a-zA-Z]+)\b(?!\.)", page)) - {"canon"}:
        assert hasattr(penstock, name), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_readmes_recording_is_replayed(tmp_path: Path) -> None:
    """As written, but for where it lies. (The other program is in test_quickstart.)"""
    _, replaying = blocks("README.md", "python")
    said: list[str] = []
    frame = b'data: {"id":"c","model":"m","choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":"stop"}]}\n\n'
    recorded = tmp_path / "recorded.sse"
    recorded.write_bytes(frame + b"data: [DONE]\n\n")
    program = replaying.replace(
        'open("recorded.sse", "rb").read()', f"__import__('pathlib').Path({str(recorded)!r}).read_bytes()"
    )
    assert program != replaying
    exec(
        compile("import penstock\n" + program, "README.md", "exec"),
        {"print": lambda *text: said.append(" ".join(text))},
    )
    assert said[-1] == "Hi complete"


LIBRARY_PROGRAMS = [
    program for program in blocks("docs/reference/library.md", "python") if "penstock.stream(model," not in program
]


@pytest.mark.process
@pytest.mark.parametrize("program", LIBRARY_PROGRAMS, ids=range(len(LIBRARY_PROGRAMS)))
def test_the_library_pages_programs_run(
    program: str, worker: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As written, but for the worker's address; what they say is checked to be something."""
    monkeypatch.chdir(tmp_path)
    said: list[str] = []
    exec(
        compile(program.replace("http://127.0.0.1:8067", worker.url), "library.md", "exec"),
        {"print": lambda *text, **_: said.append(" ".join(map(str, text)))},
    )
    assert said


@pytest.mark.process
def test_every_option_in_the_pages_exists(tmp_path: Path) -> None:
    text = "\n".join((ROOT / page).read_text(encoding="utf-8") for page in OPTIONED)
    for command in COMMANDS:
        shown = run(*command.split(), "--help", cwd=tmp_path).stdout
        for line in re.findall(rf"penstock {command}\b[^\n`]*", text):
            line = re.sub(r"(['\"]).*?\1", "", line).partition("#")[0]  # a command of somebody else's, and remarks
            for option in re.findall(r"--[a-z-]+", line):
                assert option in shown, f"{option} in: {line}"


def test_the_providers_page_lists_the_catalogue() -> None:
    page = (ROOT / "docs/reference/providers.md").read_text(encoding="utf-8")
    checked = subprocess.run([sys.executable, str(ROOT / "scripts/providers_page"), "--check"], check=False)
    assert checked.returncode == 0
    assert len(re.findall(r"^\| `[a-z0-9.-]+` \| .* \| `[a-z-]+` \| ", page, re.MULTILINE)) >= 80


def test_the_providers_pages_example_is_a_file_that_is_read(tmp_path: Path) -> None:
    path = tmp_path / "providers.toml"
    path.write_text(blocks("docs/reference/providers.md", "toml")[0], encoding="utf-8")
    assert catalogue(path)["mine"].cost["*"].output == 1.5


def test_the_page_of_dialects_has_a_row_for_each() -> None:
    page = (ROOT / "docs/dialects/README.md").read_text(encoding="utf-8")
    speaks, becomes = page.split("| to an upstream of |")
    for name in DIALECTS:
        (row,) = re.findall(rf"^\| `{name}` \|([^|]*)\|", speaks, re.MULTILINE)
        assert bool(row.strip()) is (name in CLIENT_DIALECTS), name
        assert f"\n| `{name}` |" in becomes, name


def test_the_page_of_the_laboratory_names_every_fault() -> None:
    page = (ROOT / "docs/reference/laboratory.md").read_text(encoding="utf-8")
    for name, row in FAULTS.items():
        assert f"`{name}{'' if row.default is None else '-N'}`" in page, name
    (script,) = blocks("docs/reference/laboratory.md", "yaml")
    assert len(read_script(script).replies) == 2


def test_the_reports_are_what_the_judge_found() -> None:
    checked = subprocess.run([sys.executable, str(ROOT / "scripts/reports_page"), "--check"], check=False)
    assert checked.returncode == 0
    found = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in ROOT.glob("docs/reports/*.json")}
    ours = [told for name, told in found.items() if name.startswith("penstock-")]
    assert [set(told["promises"].values()) for told in ours] == [{"held"}]
    forged = [name for name, told in found.items() for it in told["findings"] if it["evidence"].startswith("forged")]
    assert any(name.startswith("litellm-") for name in forged)


def test_the_page_of_metrics_has_every_field_of_the_record_and_every_tag() -> None:
    page = (ROOT / "docs/reference/metrics.md").read_text(encoding="utf-8")
    table = page.split("## The record\n")[1].split("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \| [^|]+ \| [^|]+ \|$", table, re.MULTILINE) == list(CallRecord.__struct_fields__)
    (tags,) = re.findall(r"^\| tags \| (.*) \|$", page, re.MULTILINE)
    assert tags == " ".join(f"`{tag}`" for tag in TAGS)
    for field in ExporterState.__struct_fields__[1:]:
        assert f"`{field}`" in page, field
    (example,) = blocks("docs/reference/metrics.md", "yaml")
    assert check(yaml.safe_load(example)).telemetry.influxdb.bucket == "llm"


def test_the_page_of_metrics_has_every_metric_and_its_labels_and_every_pathology() -> None:
    """No more and no less than a page of `/metrics` on which everything has happened."""
    page = (ROOT / "docs/reference/metrics.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(penstock_\w+)` \|([^|]*)\| [^|]+ \|$", page, re.MULTILINE)
    written = {name: set(filter(None, labels.replace(" ", "").split(","))) for name, labels in rows}
    assert len(written) == len(rows)
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(everything().page().decode()):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        assert family.samples, f"{name} has no value to be checked by"
        found[name] = {label for sample in family.samples for label in sample.labels} - {"le"}
    assert written == found
    table = page.split("### Pathologies\n")[1].split("\n### ")[0]
    assert dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|$", table, re.MULTILINE)) == PATHOLOGIES


def test_the_page_of_metrics_has_every_metric_of_the_conventions_by_both_names() -> None:
    page = (ROOT / "docs/reference/metrics.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| *(?:`(gen_ai[\w.]+)`)? *\| *(?:`(gen_ai[\w.]+)`)? *\| (\S+) \|", page, re.MULTILINE)
    gaps = Gaps()
    gaps.add(0.02)
    told: dict[Names, set[tuple[str, str]]] = {"known": set(), "new": set()}
    for names, found in told.items():
        sums = Sums(names)
        sums.add(example(stream=True, ttft_ms=5.0, cached_tokens=1, reasoning_tokens=1), gaps)
        found |= {(metric.name, metric.unit) for metric in sums.metrics()}
    assert told["known"] == {(known, unit) for known, _, unit in rows if known}
    assert told["new"] == {(new, unit) for _, new, unit in rows if new}


def test_the_page_of_reliability_names_every_kind_of_hostile_http() -> None:
    page = (ROOT / "docs/reference/reliability.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([^|]+) \| ", page, re.MULTILINE)
    assert [row for row in rows if row in KINDS] == list(KINDS)
