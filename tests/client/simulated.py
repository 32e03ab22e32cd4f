"""The simulator and a client of it: what the tests of streams have in common."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import penstock
from penstock.testing import Reply, Upstream

if TYPE_CHECKING:
    from penstock.testing import Seen

MODEL = "sim:m"
TEXT = "one two three four five six"
#: Content that goes on until somebody stops it.
ENDLESS = Reply(text=TEXT, faults=("endless",))


def client_of(upstream: Upstream, **options: object) -> penstock.Client:
    return penstock.Client(upstreams={"sim": upstream.url}, **options)  # type: ignore[arg-type]


def check_closed(seen: Seen, *, since: float | None = None) -> None:
    """The upstream saw its connection go, before it had said everything."""
    seen.wait_over()
    assert seen.closed_at is not None
    assert since is None or seen.closed_at - since < 30.0  # left to itself it would be open for minutes


def now() -> float:
    return time.monotonic()
