"""The contract's page: every promise has tests that are named after it, and the page lists them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def run(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(root / "scripts" / "contract_page"), *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_page_lists_the_tests_of_every_promise() -> None:
    checked = run(ROOT, "--check")
    assert checked.returncode == 0, checked.stderr


def test_the_page_has_a_place_for_the_tests_of_every_promise() -> None:
    page = (ROOT / "docs" / "contract.md").read_text(encoding="utf-8")
    promises = re.findall(r"^## C(\d+) ", page, re.MULTILINE)
    assert promises == [str(number) for number in range(1, 14)]
    assert re.findall(r"<!-- tests: c(\d+) -->", page) == promises


def small_project(folder: Path) -> Path:
    for name in ("scripts", "docs", "tests"):
        (folder / name).mkdir()
    script = (ROOT / "scripts" / "contract_page").read_text(encoding="utf-8")
    (folder / "scripts" / "contract_page").write_text(script, encoding="utf-8")
    (folder / "tests" / "test_one.py").write_text("def test_c1_a(): ...\n\n\nasync def test_c1_b(): ...\n")
    (folder / "docs" / "contract.md").write_text("## C1 One\n\nTests: <!-- tests: c1 -->\n")
    return folder


def test_a_page_that_is_out_of_date_is_noticed_and_filled(tmp_path: Path) -> None:
    root = small_project(tmp_path)
    assert run(root, "--check").returncode == 1
    assert run(root).returncode == 0
    assert "[`tests/test_one.py`](../tests/test_one.py) (2)" in (root / "docs" / "contract.md").read_text()
    assert run(root, "--check").returncode == 0


def test_a_promise_without_a_test_is_named(tmp_path: Path) -> None:
    root = small_project(tmp_path)
    (root / "docs" / "contract.md").write_text("Tests: <!-- tests: c1 -->\n\nTests: <!-- tests: c2 -->\n")
    checked = run(root, "--check")
    assert (checked.returncode, "c2" in checked.stderr, "c1" in checked.stderr) == (1, True, False)
