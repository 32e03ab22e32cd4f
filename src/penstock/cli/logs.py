"""Look at the records of calls: which ones, how they ended, how long they took.

Example: penstock logs --since 1h --outcome timeout
Example: penstock logs --follow --model 'claude-*'
Example: penstock logs --sql 'SELECT model, count(*), avg(ttft_ms) FROM records GROUP BY model'

A record per call, oldest first, out of the SQLite file that the gateway and the worker write.
"""

from __future__ import annotations

import csv
import io
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.cli.usage import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from penstock.telemetry.record import CallRecord

_LOOK_EVERY_S = 0.25


def logs(
    store: Annotated[
        Path | None, typer.Option(help="This record store. [default: telemetry.store.path]", metavar="FILE")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="The store of this configuration.", metavar="FILE")] = None,
    model: Annotated[str | None, typer.Option(help="Only this model; * and ? are patterns.", metavar="PATTERN")] = None,
    target: Annotated[str | None, typer.Option(help="Only this upstream:model.", metavar="PATTERN")] = None,
    key: Annotated[str | None, typer.Option(help="Only calls with this key's name.", metavar="PATTERN")] = None,
    outcome: Annotated[
        str | None, typer.Option(help="Only those that ended so: complete, truncated, timeout, …", metavar="WORD")
    ] = None,
    request: Annotated[str | None, typer.Option(help="Only the call with this x-request-id.", metavar="ID")] = None,
    since: Annotated[
        str | None, typer.Option(help="Only from then on: 10m, 2h, 3d ago, or 2027-01-31T18:00.", metavar="WHEN")
    ] = None,
    slow: Annotated[
        str | None, typer.Option(help="Only those that took at least so long: 500ms, 10s.", metavar="DURATION")
    ] = None,
    limit: Annotated[int, typer.Option(help="At most the last so many; 0: all.", min=0)] = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")] = False,
    sql: Annotated[
        str | None, typer.Option(help="Ask this instead; the table is called records.", metavar="QUERY")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print an object per line.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values.")] = False,
) -> None:
    from penstock.telemetry.record import OUTCOMES
    from penstock.telemetry.store import Wanted

    if as_json and as_csv:
        raise UsageError("--json and --csv are two forms of one thing.", fix="Leave out one.")
    path = store_path(store, config)
    if sql is not None:
        if follow:
            raise UsageError("--sql asks once.", fix="Leave out --follow.")
        _ask(path, sql, as_json=as_json, as_csv=as_csv)
        return
    if outcome is not None and outcome not in OUTCOMES:
        from penstock.catalogue.provider import nearest

        raise UsageError(f"No call ends as `{outcome}`.", fix=nearest(outcome, sorted(OUTCOMES)))
    wanted = Wanted(
        model=model,
        target=target,
        outcome=outcome,
        key_name=key,
        request_id=request,
        since=None if since is None else _moment(since),
        slow_ms=None if slow is None else duration_s(slow, "--slow") * 1000,
    )
    _show(path, wanted, limit or None, follow=follow, write=_writer(as_json=as_json, as_csv=as_csv))


def _show(path: Path, wanted: Any, limit: int | None, *, follow: bool, write: Callable[[CallRecord], None]) -> None:
    from msgspec.structs import replace

    from penstock.telemetry.store import read_records

    while True:
        found = read_records(path, wanted, limit=limit)
        for row, record in found:
            write(record)
            wanted = replace(wanted, after_row=row)
        sys.stdout.flush()
        if not follow:
            return
        limit = None  # what comes from now on is all wanted
        time.sleep(_LOOK_EVERY_S)


def _writer(*, as_json: bool, as_csv: bool) -> Callable[[CallRecord], None]:
    from msgspec.structs import astuple

    from penstock.telemetry.exporters.log import json_line, pretty_line
    from penstock.telemetry.record import CallRecord

    if as_json:
        return lambda record: print(json_line(record))
    if as_csv:
        print(_csv(CallRecord.__struct_fields__))
        return lambda record: print(_csv(astuple(record)))
    color = sys.stdout.isatty()
    return lambda record: print(pretty_line(record, color=color))


def _ask(path: Path, sql: str, *, as_json: bool, as_csv: bool) -> None:
    import msgspec

    from penstock.cli.table import print_table
    from penstock.telemetry.store import query

    names, rows = query(path, sql)
    if as_json:
        for row in rows:
            print(msgspec.json.encode(dict(zip(names, row, strict=True))).decode())
    elif as_csv:
        for line in (names, *rows):
            print(_csv(line))
    else:
        print_table(names, [["-" if cell is None else str(cell) for cell in row] for row in rows])


def _csv(cells: Sequence[Any]) -> str:
    """One line. A list is JSON; what is unknown is empty."""
    import msgspec

    line = io.StringIO()
    plain = [msgspec.json.encode(cell).decode() if isinstance(cell, tuple) else cell for cell in cells]
    csv.writer(line, lineterminator="\n").writerow(plain)  # quotes a cell that holds a line's end
    return line.getvalue().removesuffix("\n")


# --- what was asked for -----------------------------------------------------------------------------------------------


def store_path(store: Path | None, config: Path | None) -> Path:
    """Named, or as the configuration says, or where a gateway without one writes it."""
    from penstock.config.load import load

    if store is not None:
        return store
    path = load(config).telemetry.store.path
    if path is None:
        raise UsageError("That configuration keeps no records.", fix="Set telemetry.store.path.")
    return Path(path)


def _moment(text: str) -> float:
    """So long ago, or a day with or without a time; local unless it says otherwise."""
    from datetime import datetime

    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        pass
    try:
        return time.time() - duration_s(text, "--since")
    except UsageError:
        raise UsageError(f"`{text}` is no moment.", fix="Write 10m, 2h or 3d, or 2027-01-31T18:00.") from None


def duration_s(text: str, option: str) -> float:
    from penstock.config.load import parse_duration

    try:
        return float(parse_duration(text))
    except ValueError as error:
        raise UsageError(f"{option}: {error}.") from None
