"""Watch what goes through: calls, endings and speeds of the last minutes, by model.

Example: penstock top --window 15m

It reads the SQLite file that the gateway and the worker write, so it shows calls that have ended. Ctrl-C ends it.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.cli.logs import duration_s, store_path
from penstock.cli.table import plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from penstock.telemetry.record import CallRecord
    from penstock.telemetry.summary import Summary

_EVERY_S = 1.0
_LAST_CALLS = 10
_HEADS = ("model", "calls", "failed", "cancelled", "tokens in/out", "tok/s", "ttft p50/p95", "time p50/p95", "cost")


def top(
    store: Annotated[
        Path | None, typer.Option(help="This record store. [default: telemetry.store.path]", metavar="FILE")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="The store of this configuration.", metavar="FILE")] = None,
    window: Annotated[str, typer.Option(help="Of calls that began so long ago, or later.", metavar="DURATION")] = "5m",
    once: Annotated[bool, typer.Option("--once", help="Show it once, and end.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Show it once, as JSON.")] = False,
) -> None:
    import msgspec

    from penstock.telemetry.summary import by_model, summarised

    path, window_s = store_path(store, config), duration_s(window, "--window")
    if as_json or once or not sys.stdout.isatty():
        records = _records(path, window_s)
        summaries = [*by_model(records), summarised(records)]
        if as_json:
            print(msgspec.json.encode(summaries).decode())
        else:
            for summary in summaries:
                print("\t".join(plain(cell) for cell in _cells(summary)))
        return
    _watch(path, window, window_s)


def _watch(path: Path, window: str, window_s: float) -> None:
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    from penstock.telemetry.exporters.log import pretty_line

    with Live(screen=True, auto_refresh=False) as live:
        while True:
            records = _records(path, window_s)
            last = [Text.from_ansi(pretty_line(record, color=True)) for record in records[-_LAST_CALLS:]]
            told = f"{len(records)} calls in {window}, {len(records) / window_s * 60:.1f} a minute   ({path})"
            live.update(Group(Text(told, style="bold"), _table(records), Text(""), *last), refresh=True)
            time.sleep(_EVERY_S)


def _table(records: Sequence[CallRecord]) -> Table:
    from rich.table import Table
    from rich.text import Text

    from penstock.telemetry.summary import by_model, summarised

    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in _HEADS:
        table.add_column(head, justify="left" if head == "model" else "right", no_wrap=head != "model")
    summaries = by_model(records)
    for summary in [*summaries, *([summarised(records)] if len(summaries) > 1 else [])]:
        table.add_row(*(Text(plain(cell)) for cell in _cells(summary)))
    return table


def _records(path: Path, window_s: float) -> list[CallRecord]:
    from penstock.telemetry.store import Wanted, read_records

    return [record for _, record in read_records(path, Wanted(since=time.time() - window_s))]


def _cells(it: Summary) -> tuple[str, ...]:
    from penstock.telemetry.record import count, duration, rate

    return (
        it.name,
        str(it.calls),
        str(it.failed),
        str(it.outcomes.get("cancelled", 0)),
        f"{count(it.prompt_tokens)}/{count(it.completion_tokens)}",
        rate(it.generation_tps_p50),
        f"{duration(it.ttft_p50_ms)}/{duration(it.ttft_p95_ms)}",
        f"{duration(it.duration_p50_ms)}/{duration(it.duration_p95_ms)}",
        "-" if it.cost is None else f"${it.cost:.4f}",
    )
