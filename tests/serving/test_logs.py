"""What the process says, for people and for programs."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from typing import TYPE_CHECKING, Any

import pytest

from penstock.serving.asgi import request_id_of
from penstock.serving.logs import log_to

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("penstock")
    handlers, levels = root.handlers[:], (root.level, ours.level)
    yield
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    ours.setLevel(levels[1])


def said(as_json: bool, *says: Any) -> list[str]:
    stream = io.StringIO()
    log_to(io.StringIO(), as_json=not as_json)
    log_to(stream, as_json=as_json)  # the last counts, alone
    for say in says:
        say()
    return stream.getvalue().splitlines()


def fails() -> None:
    try:
        raise ValueError("why")
    except ValueError:
        logging.getLogger("penstock.x").exception("It failed.")


def test_for_people():
    (line,) = said(False, lambda: logging.getLogger("penstock.x").info("It is %s.", "so"))
    assert line == "penstock: It is so."


def test_for_programs():
    line, failed = said(True, lambda: logging.getLogger("penstock.x").warning("It is %s.", "so\nand so"), fails)
    told = json.loads(line)
    assert (told["level"], told["logger"], told["message"]) == ("warning", "penstock.x", "It is so\nand so.")
    assert "request_id" not in told
    assert json.loads(failed)["exception"].startswith("Traceback")


def test_others_are_heard_from_warnings_on():
    other = logging.getLogger("other")
    assert said(False, lambda: other.info("no"), lambda: other.warning("yes")) == ["penstock: yes"]


async def test_a_line_says_in_which_request_it_was_said():
    async def answer(given: str) -> None:
        request_id_of({"headers": [(b"x-request-id", given.encode())]})
        await asyncio.sleep(0)
        logging.getLogger("penstock.x").warning(given)

    stream = io.StringIO()
    log_to(stream, as_json=True)
    await asyncio.gather(*(asyncio.create_task(answer(name)) for name in ("r-1", "r-2")))
    told = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert {(line["message"], line["request_id"]) for line in told} == {("r-1", "r-1"), ("r-2", "r-2")}
