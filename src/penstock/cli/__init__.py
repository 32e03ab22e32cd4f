"""L7: the commands, one file each. `main` turns every typed error into one sentence and an exit code.

0: it went well. 1: it failed. 2: it was called wrongly.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from penstock.canon.errors import PenstockError
from penstock.cli import (
    ask,
    chat,
    check,
    config,
    demo,
    doctor,
    embed,
    keys,
    logs,
    models,
    providers,
    record,
    replay,
    serve,
    simulate,
    top,
    worker,
    worker_test,
)
from penstock.cli.usage import UsageError

app = typer.Typer(
    name="penstock",
    help="Streams from language models that you can trust: gateway, worker, client.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"penstock {version('penstock')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and end.", callback=print_version, is_eager=True)
    ] = False,
) -> None:
    del version  # its callback has done all there is to do


app.command("ask", help=ask.__doc__)(ask.ask)
app.command("chat", help=chat.__doc__)(chat.chat)
app.command("check", help=check.__doc__)(check.check)
app.add_typer(config.app, name="config")
app.command("demo", help=demo.__doc__)(demo.demo)
app.command("doctor", help=doctor.__doc__)(doctor.doctor)
app.command("embed", help=embed.__doc__)(embed.embed)
app.add_typer(keys.app, name="keys")
app.command("logs", help=logs.__doc__)(logs.logs)
app.command("models", help=models.__doc__)(models.models)
app.command("providers", help=providers.__doc__)(providers.providers)
app.command("record", help=record.__doc__)(record.record)
app.command("replay", help=replay.__doc__)(replay.replay)
app.command("serve", help=serve.__doc__)(serve.serve)
app.command("simulate", help=simulate.__doc__)(simulate.simulate)
app.command("top", help=top.__doc__)(top.top)
workers = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
workers.callback(help=worker.__doc__, invoke_without_command=True)(worker.worker)
workers.command("test", help=worker_test.__doc__)(worker_test.worker_test)
app.add_typer(workers, name="worker")


def main() -> None:
    try:
        app()
    except UsageError as error:
        print(f"penstock: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except PenstockError as error:
        print(f"penstock: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
