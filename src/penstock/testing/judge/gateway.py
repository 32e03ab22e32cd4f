"""The whole contract, C1 to C12, through a gateway whose upstream is the simulator.

Give it a client that asks the gateway, and the simulator that the gateway asks. It asks some eighty times.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from penstock.canon.errors import ConnectError
from penstock.testing.judge import endings, flow
from penstock.testing.judge.court import SCRIPT, TEXT, Court
from penstock.testing.judge.findings import told
from penstock.testing.upstream import Upstream

if TYPE_CHECKING:
    from collections.abc import Callable

    from penstock.testing.judge.asking import Client
    from penstock.testing.judge.findings import Finding

PROMISES = (
    flow.one_execution,
    flow.at_once,
    flow.whole_and_in_order,
    endings.one_true_ending,
    flow.nothing_beside,
    flow.metrics_from_the_end,
    flow.gone_is_cancelled,
    endings.four_clocks,
    endings.two_commit_points,
    flow.verbatim,
    flow.bounded,
    endings.always_a_stream,
)


class Unreachable(ConnectError):
    """Nothing could be judged: a plain question got no reply through the gateway."""

    kind = "unreachable"


def simulator(port: int = 0) -> Upstream:
    """The upstream that the court needs."""
    return Upstream(SCRIPT, port=port)


async def judge_gateway(
    client: Client,
    upstream: Upstream,
    *,
    ready_s: float = 60.0,
    progress: Callable[[str], None] = lambda case: None,
    is_alive: Callable[[], bool] = lambda: True,
) -> tuple[list[Finding], Court]:
    """The findings, in the order of the promises. Raises `Unreachable` when no plain reply comes within `ready_s`."""
    court = Court(client, upstream, progress)
    await _until_ready(court, ready_s, is_alive)
    found: list[Finding] = []
    for promise in PROMISES:
        found += await promise(court)
    return found, court


async def _until_ready(court: Court, ready_s: float, is_alive: Callable[[], bool]) -> None:
    """A plain reply through the gateway, which also tells what it asks in."""
    court.progress("waiting for the gateway")
    end = time.monotonic() + ready_s
    while True:
        asked = await court.ask(patience_s=5.0)
        if asked.seen and asked.heard.text == TEXT:
            court.upstream_dialect = asked.seen[-1].dialect
            return
        if not is_alive() or time.monotonic() > end:
            break
        await asyncio.sleep(0.2)
    reached = "The simulator was asked" if asked.seen else "The simulator was never asked"
    raise Unreachable(
        f"No plain reply came from {court.client.target.url}: {told(asked.heard).rstrip('.')}. {reached}.",
        fix=f"Its upstream must be {court.upstream.url}, and it must pass models named `check-…` on; "
        "see --model, --dialect and --header.",
    )
