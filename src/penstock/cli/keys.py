"""The gateway's own keys: make one, list them, take one back. Their file holds names and hashes, never a key.

Example: penstock keys new laptop --models "qwen*,fast" --expires 2027-01-31
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.canon.errors import ConfigError
from penstock.cli.table import print_table
from penstock.cli.usage import UsageError

if TYPE_CHECKING:
    from penstock.canon.key import Key

DEFAULT_FILE = "penstock-keys.json"

app = typer.Typer(
    help=__doc__,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

FileOption = Annotated[
    Path | None, typer.Option("--file", help=f"The file of keys. [default: {DEFAULT_FILE}]", metavar="FILE")
]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="Read this YAML file, and use its server.keys_file.", metavar="FILE")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("new")
def new(
    name: Annotated[str, typer.Argument(help="What records call it.")],
    models: Annotated[
        str, typer.Option(help="What it may ask for: models and patterns, as clients write them, parted by commas.")
    ] = "*",
    expires: Annotated[
        str | None, typer.Option(help="The moment from which it opens nothing: a day, or a day and a time.")
    ] = None,
    concurrency: Annotated[int | None, typer.Option(help="Calls at the same time.", min=1)] = None,
    requests_per_minute: Annotated[int | None, typer.Option(help="Calls in a minute.", min=1)] = None,
    tokens_per_minute: Annotated[
        int | None, typer.Option(help="Tokens in a minute, prompts and replies together.", min=1)
    ] = None,
    file: FileOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key. It is printed once, and kept nowhere: its file has its hash.

    Example: penstock keys new laptop --expires 2027-01-31
    """
    import msgspec

    from penstock.canon.key import Key, Moment, digest
    from penstock.config.keys import add_key, new_key, parse_moment

    try:
        until = parse_moment(expires) if expires is not None else None
    except ValueError as error:
        raise UsageError(f"--expires: {error}.") from None
    if until is not None and until <= time.time():
        raise UsageError(f"--expires: {expires} is over.")
    may_name = tuple(filter(None, (word.strip() for word in models.split(","))))
    if not may_name:
        raise UsageError("--models names none.", fix="Leave it out, and the key may ask for all.")
    path = _file(file, config)
    given = new_key()
    key = Key(
        name=name,
        sha256=digest(given),
        models=may_name,
        concurrency=concurrency,
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        expires=until,
        created=Moment(int(time.time())),
    )
    add_key(path, key)
    if as_json:
        print(msgspec.json.encode({"key": given, **_told(key, str(path))}).decode())
        return
    print(given)
    print(f"`{name}` is in {path}, as a hash: the key itself is shown this once.", file=sys.stderr)
    if config is None:
        print(f"The gateway asks for keys with server.keys_file: {path}, or --keys-file {path}.", file=sys.stderr)


@app.command("list")
def list_(file: FileOption = None, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List the keys by name: what each may ask for, and until when.

    Example: penstock keys list --json
    """
    import msgspec

    from penstock.config.keys import read_keys

    found: list[tuple[Key, str]] = []
    if config is not None:
        from penstock.config.load import load

        settings = load(config)
        found += [(key, str(config)) for key in settings.server.keys]
        if settings.server.keys_file is not None:
            found += [(key, settings.server.keys_file) for key in read_keys(settings.server.keys_file)]
    else:
        path = _file(file, None)
        found += [(key, str(path)) for key in read_keys(path)]
    told = [_told(key, where) for key, where in found]
    if as_json:
        print(msgspec.json.encode(told).decode())
        return
    heads = ("name", "models", "expires", "made", "in")
    rows = [
        (
            entry["name"],
            ", ".join(entry["models"]),
            (entry["expires"] or "never") + (" (over)" if entry["has_expired"] else ""),
            entry["created"] or "-",
            entry["file"],
        )
        for entry in told
    ]
    print_table(heads, rows)


@app.command("revoke")
def revoke(
    name: Annotated[str, typer.Argument(help="The key's name.")],
    file: FileOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take a key back. A running gateway knows it no more after a second.

    Example: penstock keys revoke laptop
    """
    import msgspec

    from penstock.config.keys import remove_key

    path = _file(file, config)
    remove_key(path, name)
    if as_json:
        print(msgspec.json.encode({"revoked": name, "file": str(path)}).decode())
    else:
        print(f"Revoked `{name}` in {path}.")


def _file(file: Path | None, config: Path | None) -> Path:
    if file is not None and config is not None:
        raise UsageError("--file and --config both say where the keys are.", fix="Leave one of them out.")
    if config is None:
        return file or Path(DEFAULT_FILE)
    from penstock.config.load import load

    named = load(config).server.keys_file
    if named is None:
        raise ConfigError(f"{config} names no file of keys.", fix=f"Write server.keys_file: {DEFAULT_FILE} into it.")
    return Path(named)


def _told(key: Key, file: str) -> dict[str, Any]:
    """What may be shown of it."""
    from penstock.config.keys import written_moment

    return {
        "name": key.name,
        "models": key.models,
        "concurrency": key.concurrency,
        "requests_per_minute": key.requests_per_minute,
        "tokens_per_minute": key.tokens_per_minute,
        "expires": written_moment(key.expires) if key.expires is not None else None,
        "has_expired": key.expires is not None and key.expires <= time.time(),
        "created": written_moment(key.created) if key.created is not None else None,
        "env": key.env,
        "file": file,
    }
