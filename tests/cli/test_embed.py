"""`penstock embed` as a process: lines in, vectors out, in their order."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING

import pytest

from penstock.testing import Upstream
from tests.processes import run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.process


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as started:
        yield started


def test_lines_become_lines_in_their_order(upstream: Upstream, tmp_path: Path) -> None:
    texts = [f"text {k}, näher" for k in range(7)]
    stdin = "\n".join([*texts[:3], "", *texts[3:]])
    ended = run(
        "embed", "-m", "local:e", "--base-url", upstream.url, "--batch-size", "2", "--stats", cwd=tmp_path, stdin=stdin
    )
    assert ended.returncode == 0, ended.stderr
    told = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [(each["index"], each["text"]) for each in told] == list(enumerate(texts))
    assert len({tuple(each["vector"]) for each in told}) == 7
    assert sorted(len(json.loads(seen.body)["input"]) for seen in upstream.seen) == [1, 2, 2, 2]
    assert ended.stderr == "7 vectors · 21 tokens\n"
    again = run("embed", "-m", "local:e", "--base-url", upstream.url, texts[5], cwd=tmp_path)
    assert json.loads(again.stdout)["vector"] == told[5]["vector"]
    assert again.stderr == ""


def test_csv_has_a_column_for_each_number(upstream: Upstream, tmp_path: Path) -> None:
    text = 'commas, "quotes"'
    ended = run("embed", "-m", "local:e", "--base-url", upstream.url, "--csv", text, "b", cwd=tmp_path)
    head, first, second = csv.reader(io.StringIO(ended.stdout))
    assert head == ["text", "0", "1", "2", "3"]
    assert (first[0], second[0]) == (text, "b")
    assert all(0 <= float(number) < 1 for number in first[1:])


def test_dimensions_are_sent(upstream: Upstream, tmp_path: Path) -> None:
    run("embed", "-m", "local:e", "--base-url", upstream.url, "--dimensions", "4", "a", cwd=tmp_path)
    assert json.loads(upstream.seen[0].body)["dimensions"] == 4


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((), 2, "There is nothing to embed."),
        (("",), 1, "An empty text has no embedding."),
        (("a", "-m", "nobody:e"), 1, "There is no provider `nobody`."),
    ],
)
def test_a_mistake_is_one_sentence(
    arguments: tuple[str, ...], code: int, said: str, upstream: Upstream, tmp_path: Path
) -> None:
    whom = () if "-m" in arguments else ("-m", "local:e", "--base-url", upstream.url)
    ended = run("embed", *whom, *arguments, cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (code, "")
    assert ended.stderr.startswith(f"penstock: {said}")
    assert ended.stderr.count("\n") == 1
    assert upstream.seen == []
