"""Run the gateway.

Example: penstock serve --upstream http://127.0.0.1:8080/v1
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.cli.usage import UsageError
from penstock.dialects import DIALECTS

if TYPE_CHECKING:
    from penstock.config.model import Config


def serve(
    upstream: Annotated[
        str | None, typer.Option(help="Ask this one server; its URL usually ends in /v1. Needs no file.", metavar="URL")
    ] = None,
    provider: Annotated[
        str | None,
        typer.Option(help="Ask this provider, as `penstock providers` names it. Needs no file.", metavar="NAME"),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="Read this YAML file.", metavar="FILE")] = None,
    host: Annotated[str | None, typer.Option(help="Listen here. [default: 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="Listen on this port; 0 takes a free one. [default: 8066]")] = None,
    workers: Annotated[int | None, typer.Option(help="Serve with so many processes. [default: 1]")] = None,
    dialect: Annotated[
        str | None,
        typer.Option(help=f"What --upstream speaks: {', '.join(sorted(DIALECTS))}. [default: openai-chat]"),
    ] = None,
    profile: Annotated[
        str | None, typer.Option(help="What kind of server --upstream is: llamacpp, vllm, openai …", metavar="NAME")
    ] = None,
    key_env: Annotated[
        str | None, typer.Option(help="The environment variable that holds --upstream's key.", metavar="VAR")
    ] = None,
    keys_file: Annotated[
        Path | None,
        typer.Option(help="Let in who has a key of this file, as `penstock keys` writes it.", metavar="FILE"),
    ] = None,
    log: Annotated[
        str | None, typer.Option(help="A line per request: pretty, compact, json or off. [default: pretty]")
    ] = None,
    debug: Annotated[
        bool, typer.Option("--debug", help="With each line, why each of its figures has its value.")
    ] = False,
    store: Annotated[
        str | None, typer.Option(help="The SQLite file of records; `off` keeps none. [default: penstock.db]")
    ] = None,
) -> None:
    from penstock.catalogue.catalogue import users_file
    from penstock.config.load import check, read
    from penstock.gateway.serve import serve as serve_gateway
    from penstock.serving.logs import log_to

    if upstream is None and provider is None and config is None:
        raise UsageError("There is nobody to ask.", fix="Give --upstream URL, --provider NAME or --config FILE.")
    if upstream is None and (dialect or profile or key_env):
        raise UsageError("--dialect, --profile and --key-env belong to --upstream.", fix="Give --upstream URL as well.")
    entry = {"url": upstream, "provider": provider, "dialect": dialect, "profile": profile, "key_env": key_env}
    options = {
        "server": {
            "host": host,
            "port": port,
            "workers": workers,
            "keys_file": str(keys_file) if keys_file is not None else None,
        },
        "telemetry": {"log": {"format": log, "debug": debug or None}, "store": {"path": store}},
    }

    def load() -> Config:
        given = read(config)
        if upstream is not None or provider is not None:
            given["upstreams"] = {"upstream": _said(entry)}
            given["models"] = {"*": "upstream"}
        _lay_over(given, options)
        if store == "off":  # `null`, which no option can say
            given["telemetry"] = {**(given.get("telemetry") or {}), "store": {"path": None}}
        return check(given, "the options" if config is None else str(config))

    def files(settings: Config) -> list[Path]:
        providers = Path(settings.providers) if settings.providers is not None else users_file(os.environ)
        return [path for path in (config, providers) if path is not None]

    settings = load()
    log_to(as_json=settings.telemetry.log.format == "json")
    code = serve_gateway(settings, load=load, files=files, announce=lambda said: print(said, flush=True))
    if code:
        raise typer.Exit(code)


def _said(options: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if value is not None}


def _lay_over(given: dict[str, Any], options: dict[str, Any]) -> None:
    """Put the options that were given on top of what the file and the environment say."""
    for key, value in options.items():
        if isinstance(value, dict):
            section = given.setdefault(key, {})
            if isinstance(section, dict):  # else it is wrong, which `check` says better
                _lay_over(section, value)
        elif value is not None:
            given[key] = value
