"""Ask a provider, or an upstream of a configuration, what models it has.

Example: penstock models openrouter qwen
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.canon.errors import PenstockError
from penstock.cli.table import print_table
from penstock.cli.usage import UsageError

if TYPE_CHECKING:
    from penstock.canon.model import Model


def models(
    provider: Annotated[str, typer.Argument(help="Whom: a provider's id, or an upstream of --config.")],
    filter: Annotated[str | None, typer.Argument(help="Only models with this in their id or name.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="Read this YAML file, and ask an upstream of it.", metavar="FILE")
    ] = None,
    base_url: Annotated[
        str | None, typer.Option(help="Ask this server; its URL usually ends in /v1.", metavar="URL")
    ] = None,
    dialect: Annotated[
        str | None, typer.Option(help="What that server speaks. [default: openai-chat]", metavar="NAME")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print every entry as JSON, as the provider gave it.")
    ] = False,
) -> None:
    import msgspec

    if config is not None and (base_url or dialect):
        raise UsageError("--base-url and --dialect are for a server of no file.", fix="Leave out --config, or them.")
    if dialect is not None and base_url is None:
        raise UsageError("--dialect belongs to --base-url.", fix="Give --base-url URL as well.")
    found = _of_config(config, provider) if config is not None else _of_provider(provider, base_url, dialect)
    wanted = (filter or "").lower()
    found = [model for model in found if wanted in model.id.lower() or wanted in (model.name or "").lower()]
    if as_json:
        print(msgspec.json.encode(found).decode())
    elif not found:
        if filter:
            raise PenstockError(
                f"{provider} has no model like `{filter}`.", fix=f"`penstock models {provider}` lists all."
            )
        raise PenstockError(f"{provider} lists no models.")
    else:
        heads = ("id", "name", "context", "output")
        print_table(heads, [(it.id, it.name or "-", _count(it.context), _count(it.output)) for it in found])


def _of_provider(name: str, base_url: str | None, dialect: str | None) -> list[Model]:
    from penstock.client.client import models as ask

    return ask(name, base_url=base_url, dialect=dialect)


def _of_config(path: Path, name: str) -> list[Model]:
    import asyncio
    import os

    from penstock.config.load import load, upstream_target
    from penstock.policy.models import ask_models
    from penstock.transport.http1 import Http1Transport

    settings = load(path)
    target = upstream_target(settings, name)

    async def asked() -> list[Model]:
        transport = Http1Transport(environ=os.environ)
        try:
            return await ask_models(target, transport, path=settings.upstreams[name].models_path)
        finally:
            await transport.aclose()

    return asyncio.run(asked())


def _count(tokens: int | None) -> str:
    return "-" if tokens is None else str(tokens)
