"""List who can be asked: ids, urls, key variables and whether they are set.

Example: penstock providers mistral
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.canon.errors import PenstockError
from penstock.cli.table import print_table
from penstock.cli.usage import UsageError

if TYPE_CHECKING:
    from penstock.catalogue.provider import Provider


def providers(
    filter: Annotated[str | None, typer.Argument(help="Only those with this in their id, name or url.")] = None,
    dialect: Annotated[str | None, typer.Option(help="Only those that speak this.", metavar="NAME")] = None,
    local: Annotated[bool, typer.Option("--local", help="Only servers on this machine.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything that is known, as JSON.")] = False,
) -> None:
    import msgspec

    from penstock.catalogue.catalogue import catalogue, users_file
    from penstock.catalogue.provider import DIALECT_NAMES, nearest

    if dialect is not None and dialect not in DIALECT_NAMES:
        raise UsageError(f"There is no dialect `{dialect}`.", fix=nearest(dialect, DIALECT_NAMES))
    wanted = (filter or "").lower()
    found = [
        entry
        for entry in catalogue(users_file(os.environ)).values()
        if (dialect is None or entry.dialect == dialect)
        and (not local or entry.is_local)
        and any(wanted in word.lower() for word in (entry.id, entry.name, entry.url))
    ]
    if as_json:
        print(msgspec.json.encode([_fields(entry) for entry in found]).decode())
    elif not found:
        raise PenstockError("No provider is like that.", fix="`penstock providers` lists all of them.")
    else:
        heads = ("id", "provider", "dialect", "url", "key", "documentation")
        rows = [(it.id, it.name, it.dialect, it.url, _key(it), it.docs or "-") for it in found]
        print_table(heads, rows)


def _fields(entry: Provider) -> dict[str, Any]:
    import msgspec

    told: dict[str, Any] = msgspec.to_builtins(entry)
    told["headers"] = list(entry.headers)  # their values may be keys
    return told | {"local": entry.is_local, "key_is_set": _is_set(entry)}


def _is_set(entry: Provider) -> bool:
    from penstock.catalogue.provider import find_key

    return find_key(entry.key_env, entry.auth, os.environ)[0] is not None


def _key(entry: Provider) -> str:
    """The variable that holds it, or those that could; never what is in it."""
    from penstock.catalogue.provider import key_fix

    if not entry.key_env:
        return "none"
    held = next((name for name in entry.key_env if os.environ.get(name)), None)
    if held is not None:
        return f"{held} (set)"
    if _is_set(entry):
        return "AWS_ACCESS_KEY_ID (set)"
    return f"{key_fix(entry.key_env, entry.auth)} ({'optional' if entry.is_local else 'not set'})"
