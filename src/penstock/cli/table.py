"""Rows for people, and for other programs: a table on a terminal, else a line per row, parted by tabs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def print_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """The table has the terminal's width; a cell that is too long goes on in the next line."""
    if not sys.stdout.isatty():
        for row in rows:
            print("\t".join(plain(cell) for cell in row))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in heads:
        table.add_column(head, no_wrap=head in ("id", "dialect", "context", "output"))
    for row in rows:
        table.add_row(*(Text(plain(cell), overflow="fold") for cell in row))
    Console().print(table)


def plain(cell: str) -> str:
    """Names come from servers: nothing of them may steer a terminal."""
    return "".join(char if char.isprintable() else " " for char in cell)
