"""The worker's smoke test finds what is planted in a worker, and nothing in one that is well."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from tests.testing.lying_worker import FAULTS, WORDS, LyingWorker

from penstock.testing.smoke.asking import Client
from penstock.testing.smoke.steps import STEPS, try_worker

if TYPE_CHECKING:
    from penstock.testing.smoke.steps import Step


def tried(fault: str | None, *, patience_s: float = 20.0) -> tuple[list[Step], str]:
    shown: list[str] = []

    async def trying(url: str) -> list[Step]:
        async with Client(url, patience_s=patience_s) as client:
            return await try_worker(client, show=shown.append)

    with LyingWorker(fault) as worker:
        return asyncio.run(trying(worker.root)), "".join(shown)


def test_a_worker_that_is_well_passes_and_its_first_reply_is_shown() -> None:
    rows, shown = tried(None)
    assert [(row.name, row.seen) for row in rows if row.verdict != "ok"] == []
    assert [row.name for row in rows] == [name for name, _, _ in STEPS]
    assert shown == "".join(WORDS)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found_by_its_own_step(fault: str) -> None:
    waits = fault in ("never-ready", "hangs", "leaks-slots", "cancel-does-nothing")
    rows, _ = tried(fault, patience_s=0.7 if waits else 20.0)
    failed = [row for row in rows if row.verdict == "failed"]
    assert any(row.name.startswith(FAULTS[fault]) for row in failed), rows
    assert all(row.seen for row in failed)
    if FAULTS[fault] in ("health", "ready", "a job"):
        assert len(failed) == 1
        assert rows[-1].verdict == "not tried"


def test_who_does_not_answer_is_one_row_and_the_rest_is_not_tried() -> None:
    async def trying() -> list[Step]:
        async with Client("http://127.0.0.1:9", patience_s=5) as client:
            return await try_worker(client)

    rows = asyncio.run(trying())
    assert [row.verdict for row in rows] == ["failed", *["not tried"] * (len(STEPS) - 1)]
    assert "127.0.0.1:9" in rows[0].seen
