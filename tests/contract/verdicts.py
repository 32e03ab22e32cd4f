"""A pytest plugin that writes down how each test ended: for a process that asks why a test failed, not only whether.

`MUTANT_VERDICTS` names the file; a line of JSON per phase that failed, and one per test that passed. It also refuses
to run on another `penstock` than the one below `MUTANT_SOURCE`, so that nobody proves a thing about the wrong code.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import penstock

if TYPE_CHECKING:
    from collections.abc import Generator


def pytest_configure(config: pytest.Config) -> None:
    source, found = os.environ["MUTANT_SOURCE"], penstock.__file__
    if not Path(found).is_relative_to(source):
        raise pytest.UsageError(f"penstock is imported from {found}, and not from {source}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    report = yield
    raised = call.excinfo
    if report.failed or (report.when == "call" and report.passed):
        said = {
            "test": item.nodeid,
            "phase": report.when,
            "passed": report.passed,
            "raised": [cls.__name__ for cls in raised.type.__mro__] if raised is not None else [],
            "message": _first_line(str(raised.value)) if raised is not None else "",
            "text": str(report.longrepr or "")[-20_000:],
        }
        with Path(os.environ["MUTANT_VERDICTS"]).open("a", encoding="utf-8") as file:
            file.write(json.dumps(said) + "\n")
    return report


def _first_line(text: str) -> str:
    return next(iter(text.strip().splitlines()), "")[:200]
