"""Every program in the pages passes `mypy --strict` and pyright, as a reader's own would."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("README.md", *(str(page.relative_to(ROOT)) for page in sorted(ROOT.glob("docs/**/*.md"))))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file for each program."""
    made = tmp_path_factory.mktemp("examples")
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        for k, program in enumerate(re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)):
            begins = "" if "import penstock" in program else "import penstock\n\n"
            name = re.sub(r"\W", "_", page.removesuffix(".md"))
            (made / f"{name}_{k}.py").write_text(begins + program)
    assert len(list(made.iterdir())) > 15
    return made


def test_mypy_is_content(folder: Path) -> None:
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", str(ROOT / "pyproject.toml")]
    checked = subprocess.run([*command, str(folder)], check=False, capture_output=True, text=True, cwd=ROOT)
    assert checked.returncode == 0, checked.stdout


def test_pyright_is_content(folder: Path) -> None:
    """Its own rules, as editors have them, not the stricter ones of the distribution that comes without Node."""
    settings = {"typeCheckingMode": "standard", "pythonVersion": "3.11", "extraPaths": [str(ROOT / "src")]}
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "basedpyright", "--project", str(folder), "--pythonpath", sys.executable]
    checked = subprocess.run([*command, "--outputjson"], check=False, capture_output=True, text=True, cwd=folder)
    told = json.loads(checked.stdout)
    assert told["summary"]["filesAnalyzed"] == len(list(folder.glob("*.py")))
    found = [(each["file"], each["range"]["start"]["line"], each["message"]) for each in told["generalDiagnostics"]]
    assert found == []
