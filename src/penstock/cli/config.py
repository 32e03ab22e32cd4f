"""Look at a configuration: is it right, what does it come to, what may stand in it.

Example: penstock config check --config penstock.yaml --probe
"""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.canon.errors import ConfigError, PenstockError
from penstock.cli.table import print_table

if TYPE_CHECKING:
    from collections.abc import Callable

    from penstock.config.effective import Setting
    from penstock.config.model import Config
    from penstock.policy.probe import Probed

ConfigOption = Annotated[Path | None, typer.Option("--config", help="Read this YAML file.", metavar="FILE")]

app = typer.Typer(
    help=__doc__,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def check(
    config: ConfigOption = None,
    probe: Annotated[
        bool, typer.Option("--probe", help="Ask each upstream once for its list of models, which costs nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was found as JSON.")] = False,
) -> None:
    """Say whether a configuration is right: its keys, its references, and whether upstreams' keys are set.

    Example: penstock config check --config penstock.yaml --probe
    """
    from penstock.config.load import load

    where = str(config) if config is not None else "the environment"
    settings: Config | None = None
    try:
        settings = load(config)
        problems = _problems(settings, where)
    except ConfigError as error:
        problems = [str(error)]
    found = _probed(settings) if probe and settings is not None and not problems else []
    has_failed = bool(problems) or any(one.state == "failed" or one.missing for one in found)
    if as_json:
        import msgspec

        told: dict[str, Any] = {"ok": not has_failed, "problems": problems}
        if probe:
            told["upstreams"] = found
        print(msgspec.json.encode(told).decode())
    else:
        for problem in problems:
            print(f"penstock: {problem}", file=sys.stderr)
        if settings is not None and not problems:
            upstreams, models = len(settings.upstreams), len(settings.models)
            print(f"{where} is right: {_several(upstreams, 'upstream')}, {_several(models, 'model')}.")
        if found:
            print_table(
                ("upstream", "state", "answer", "url"), [(it.upstream, it.state, _said(it), it.url) for it in found]
            )
    if has_failed:
        raise typer.Exit(1)


def show(
    config: ConfigOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a list of key, value and source as JSON.")] = False,
) -> None:
    """Print every key with its value, and where the value is from. Secrets are ***.

    Example: penstock config show --config penstock.yaml
    """
    import msgspec

    from penstock.config.effective import effective

    found = effective(config, os.environ)
    if as_json:
        rows = [{"key": setting.path, "value": setting.value, "source": setting.source} for setting in found]
        print(msgspec.json.encode(rows).decode())
    else:
        print("\n".join(_yaml_lines(found)))


def schema() -> None:
    """Print a JSON Schema of the configuration, for editors that complete and check YAML.

    Example: penstock config schema > penstock.schema.json
    """
    import msgspec

    from penstock.config.schema import schema as made

    print(msgspec.json.format(msgspec.json.encode(made()), indent=2).decode())


app.command("check", help=check.__doc__)(check)
app.command("show", help=show.__doc__)(show)
app.command("schema", help=schema.__doc__)(schema)


# --- check ------------------------------------------------------------------------------------------------------------


def _problems(settings: Config, where: str) -> list[str]:
    """What a file that reads well still lacks: all of it, not the first."""
    from penstock.config.keys import read_keys
    from penstock.config.load import destinations, gateway_keys, upstream_target

    if not settings.upstreams:
        return [f"In {where}, there is no upstream: nobody could be asked. Name one under `upstreams`."]
    each = [_error_of(partial(upstream_target, settings, name)) for name in settings.upstreams]
    found = [said for said in each if said is not None]
    if not found and (said := _error_of(partial(destinations, settings))):
        found.append(said)
    if said := _error_of(partial(gateway_keys, settings)):
        found.append(said)
    if settings.server.keys_file is not None and (said := _error_of(partial(read_keys, settings.server.keys_file))):
        found.append(said)
    return found


def _error_of(attempt: Callable[[], object]) -> str | None:
    try:
        attempt()
    except PenstockError as error:
        return str(error)
    return None


def models_named(settings: Config) -> dict[str, set[str]]:
    """upstream → the models that the configuration names there."""
    from penstock.config.models import weighted_targets

    named: dict[str, set[str]] = {name: set() for name in settings.upstreams}
    for given in settings.models.values():
        for target in weighted_targets(given):
            upstream, _, model = target.to.partition(":")
            if model:
                named[upstream].add(model)
    return named


def _probed(settings: Config) -> list[Probed]:
    import asyncio

    from penstock.config.load import upstream_target
    from penstock.policy.probe import probe
    from penstock.transport.http1 import Http1Transport

    named = models_named(settings)

    async def asked() -> list[Probed]:
        transport = Http1Transport(environ=os.environ)
        try:
            return await asyncio.gather(
                *(
                    probe(upstream_target(settings, name), transport, path=entry.models_path, wanted=named[name])
                    for name, entry in settings.upstreams.items()
                )
            )
        finally:
            await transport.aclose()

    return asyncio.run(asked())


def _said(found: Probed) -> str:
    if found.error is not None:
        return found.error
    assert found.models is not None
    said = f"{_several(found.models, 'model')} in {found.ms:.0f} ms"
    return f"{said}; does not list {', '.join(found.missing)}" if found.missing else said


def _several(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


# --- show -------------------------------------------------------------------------------------------------------------


def _yaml_lines(settings: list[Setting]) -> list[str]:
    """YAML, with the source of each value as a comment behind it."""
    import yaml

    rows: list[tuple[str, str]] = []
    above: tuple[str, ...] = ()
    for setting in settings:
        *sections, last = setting.key
        for depth, section in enumerate(sections):
            if above[: depth + 1] != setting.key[: depth + 1]:
                rows.append((f"{'  ' * depth}{_scalar(yaml, section)}:", ""))
        above = tuple(sections)
        start = "# " if last == "(key)" else ""
        name = "key" if last == "(key)" else _scalar(yaml, last)
        rows.append((f"{'  ' * len(sections)}{start}{name}: {_scalar(yaml, setting.value)}", setting.source))
    width = min(max(len(text) for text, _ in rows), 60)
    return [f"{text:<{width}}  # {source}" if source else text for text, source in rows]


def _scalar(yaml: Any, value: Any) -> str:
    written: str = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True, sort_keys=False)
    return written.removesuffix("...\n").strip()
