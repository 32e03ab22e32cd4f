"""Print a vector for each text: as a line of JSON, or as CSV.

Example: penstock embed -m openai:text-embedding-3-small < lines.txt > vectors.jsonl

Each line of standard input is a text; empty lines are left out.
"""

from __future__ import annotations

import csv
import sys
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.cli.asking import BaseUrlOption, DialectOption, ModelOption, dollars, warn
from penstock.cli.usage import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from penstock.canon.usage import Usage

#: texts whose vectors are in memory at once: the largest batch that a provider takes, a few times
_AT_ONCE = 8192


def embed(
    model: ModelOption,
    texts: Annotated[list[str] | None, typer.Argument(help="The texts; none, or `-`, reads lines.")] = None,
    base_url: BaseUrlOption = None,
    dialect: DialectOption = None,
    dimensions: Annotated[int | None, typer.Option(help="How many numbers a vector has, where one may say.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Texts in one request. [default: the provider's most]")] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV: the text, then a column for each number.")] = False,
    stats: Annotated[
        bool, typer.Option("--stats", help="Say on standard error what it took; a terminal is told anyway.")
    ] = False,
) -> None:
    import msgspec

    from penstock.canon.usage import added
    from penstock.client.client import Client

    if not texts and sys.stdin.isatty():
        raise UsageError("There is nothing to embed.", fix="Give texts, or pipe lines in.")
    given = _lines() if not texts or texts == ["-"] else iter(texts)
    writer = csv.writer(sys.stdout, lineterminator="\n")
    usages: list[Usage | None] = []
    done = 0
    with Client() as client:
        while some := list(islice(given, _AT_ONCE)):
            found = client.embed(
                model, some, base_url=base_url, dialect=dialect, dimensions=dimensions, batch_size=batch_size
            )
            warn(found.warnings if not done else ())
            for text, vector in zip(some, found.vectors, strict=True):
                if as_csv:
                    if not done:
                        writer.writerow(["text", *range(len(vector))])
                    writer.writerow([text, *vector])
                else:
                    print(msgspec.json.encode({"index": done, "text": text, "vector": vector}).decode())
                done += 1
            sys.stdout.flush()
            usages.append(found.usage)
    if not done:
        raise UsageError("There is nothing to embed.", fix="Give texts, or pipe lines in.")
    if stats or sys.stderr.isatty():
        print(_footer(done, added(usages)), file=sys.stderr)


def _lines() -> Iterator[str]:
    try:
        for line in sys.stdin:
            if text := line.rstrip("\r\n"):
                yield text
    except UnicodeDecodeError:
        raise UsageError("Standard input is no UTF-8 text.", fix="Convert it first.") from None


def _footer(number: int, usage: Usage | None) -> str:
    from penstock.telemetry.record import count

    parts = [f"{number} vector{'' if number == 1 else 's'}", f"{count(usage.input if usage else None)} tokens"]
    if usage is not None and usage.cost is not None:
        parts.append(dollars(usage.cost))
    return " · ".join(parts)
