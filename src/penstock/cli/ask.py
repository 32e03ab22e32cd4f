"""Ask a model, and print its reply as it comes.

Example: git diff | penstock ask "Write a commit message" -m local:tiny --base-url http://127.0.0.1:8066/v1
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.canon.errors import SchemaMismatch
from penstock.cli.asking import (
    INTERRUPTED,
    BaseUrlOption,
    DialectOption,
    MaxTokensOption,
    ModelOption,
    SystemOption,
    TemperatureOption,
    Told,
    Words,
    error_fields,
    footer,
    told,
    warn,
)
from penstock.cli.usage import UsageError

if TYPE_CHECKING:
    from penstock.canon.events import Event
    from penstock.canon.request import Message


def ask(
    model: ModelOption,
    prompt: Annotated[
        str | None,
        typer.Argument(
            help="What to ask; `-`, or none at all, reads it from standard input. What is piped in beside "
            "a prompt goes with it."
        ),
    ] = None,
    base_url: BaseUrlOption = None,
    dialect: DialectOption = None,
    system: SystemOption = None,
    file: Annotated[
        list[str] | None,
        typer.Option(help="Attach text, an image, a PDF, WAV or MP3; again for more, `-` for standard input."),
    ] = None,
    image: Annotated[list[str] | None, typer.Option(help="Attach an image: a file or a URL; again for more.")] = None,
    schema: Annotated[
        Path | None,
        typer.Option(help="A JSON Schema that the reply must fit; it is printed as JSON, checked.", metavar="FILE"),
    ] = None,
    max_tokens: MaxTokensOption = None,
    temperature: TemperatureOption = None,
    as_events: Annotated[
        bool, typer.Option("--events", help="Print every event as a line of JSON, the ending last.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole response as JSON, at the end.")] = False,
    stats: Annotated[
        bool, typer.Option("--stats", help="Say on standard error what it took; a terminal is told anyway.")
    ] = False,
) -> None:
    from penstock.client.client import Client
    from penstock.client.options import Options

    if as_events and as_json:
        raise UsageError("--events and --json are two forms of the same.", fix="Choose one.")
    asked = _message(prompt, file or [], image or [])
    options: Options = {
        "base_url": base_url,
        "dialect": dialect,
        "system": system,
        "max_tokens": max_tokens,
        "temperature": temperature,
    }
    if schema is not None:
        options["schema"] = _schema(schema)
    shown: Words | _Lines | None = _Lines() if as_events else None if as_json or schema is not None else Words()

    async def reply() -> Told:
        stream = Client().astream(model, [asked], **options)
        return await told(stream, shown.show if shown is not None else _unseen)

    found = asyncio.run(reply())
    if isinstance(shown, Words):
        shown.end()  # what went wrong stands on a line of its own
    elif as_events:
        _print_line({"type": "end", **_ending(found)})
    elif as_json:
        response = found.response
        _print_line({"text": response.text, "reasoning": response.reasoning, **_fields(response), **_error(found)})
    elif found.error is None and not found.was_interrupted:
        _print_line(found.response.parsed)
    warn(found.response.warnings)
    if stats or (sys.stderr.isatty() and not as_events and not as_json):
        print(footer(found.response), file=sys.stderr)
    if isinstance(found.error, SchemaMismatch):
        raise SchemaMismatch(found.error.message, text=found.error.text, fix="`--json` prints it all the same.")
    if found.error is not None:
        raise found.error
    if found.was_interrupted:
        raise typer.Exit(INTERRUPTED)


class _Lines:
    """Every event as a line."""

    def show(self, event: Event) -> None:
        _print_line(event)


def _unseen(event: Event) -> None:
    """Whoever wants the whole reads none of its pieces."""


def _message(prompt: str | None, files: list[str], images: list[str]) -> Message:
    """What is asked, behind what it is asked about."""
    from penstock.canon.request import Message
    from penstock.cli.attachments import STDIN, attachments, named, piped, stdin_text

    reads_stdin = STDIN in (*files, *images)
    if prompt == STDIN and reads_stdin:
        raise UsageError("Standard input is read once.", fix="Write the prompt, or attach something else.")
    if prompt is None and not reads_stdin and sys.stdin.isatty():
        raise UsageError("There is nothing to ask.", fix="Give a prompt, or pipe one in.")
    parts = attachments(files, images)
    if prompt == STDIN or (prompt is None and not reads_stdin):
        prompt = stdin_text()
    elif prompt is not None and prompt.strip() and not reads_stdin and (text := piped()):
        parts.append(named("standard input", text))
    if prompt is None or not prompt.strip():
        raise UsageError("There is nothing to ask.", fix="Give a prompt, or pipe one in.")
    return Message.of("user", *parts, prompt)


def _schema(path: Path) -> Any:
    import msgspec

    try:
        found = msgspec.json.decode(path.read_bytes())
    except OSError as error:
        raise UsageError(f"Cannot read {path}: {error.strerror or error}.", fix="Check --schema.") from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise UsageError(f"{path} is no JSON: {error}.", fix="Check --schema.") from error
    if not isinstance(found, dict):
        raise UsageError(f"{path} holds no JSON Schema.", fix='Write an object, as in {"type": "object"}.')
    return found


def _print_line(value: object) -> None:
    import msgspec

    print(msgspec.json.encode(value).decode(), flush=True)


def _fields(response: object) -> dict[str, Any]:
    import msgspec

    found: dict[str, Any] = msgspec.to_builtins(response)
    return found


def _error(found: Told) -> dict[str, Any]:
    return {"error": error_fields(found.error)} if found.error is not None else {}


def _ending(found: Told) -> dict[str, Any]:
    """The one true ending, for a program that reads nothing but the lines."""
    names = ("outcome", "model", "usage", "timing", "attempts", "request_id", "warnings", "parsed")
    fields = _fields(found.response)
    return {name: fields[name] for name in names} | _error(found)
