"""Run a model on this machine.

Example: penstock worker --model qwen3-4b-q4.gguf, or, to try it out: penstock worker --demo
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.cli.usage import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from penstock.worker.llamacpp import LlamaCpp
    from penstock.worker.loading import Loading


def worker(
    context: typer.Context,
    model: Annotated[
        Path | None, typer.Option(help="The model: a GGUF file, or a folder that holds one.", metavar="PATH")
    ] = None,
    demo: Annotated[bool, typer.Option("--demo", help="Run the tiny model that ships with Penstock.")] = False,
    ctx: Annotated[
        int | None,
        typer.Option(
            help="Tokens of context for each slot. [default: what the model and the memory allow, at most 32768]",
            metavar="N",
            min=1,
        ),
    ] = None,
    slots: Annotated[
        int | None,
        typer.Option(
            help="Calls at the same time. [default: what the memory allows, at most 4]", metavar="N", min=1, max=256
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(help="Threads that compute. [default: the cores but one]", metavar="N", min=1, max=1024),
    ] = None,
    alias: Annotated[
        str | None, typer.Option(help="What clients call the model. [default: the file's name]", metavar="NAME")
    ] = None,
    embedding: Annotated[bool, typer.Option("--embedding", help="Make embeddings, too.")] = False,
    queue: Annotated[int, typer.Option(help="Calls that may wait for a slot.", metavar="N", min=0)] = 64,
    while_loading: Annotated[
        str, typer.Option(help="Calls that come before the model is there: wait, or refuse them with 503.")
    ] = "wait",
    token_env: Annotated[
        str | None,
        typer.Option(help="The environment variable that holds the token to ask callers for.", metavar="VAR"),
    ] = None,
    host: Annotated[str, typer.Option(help="Listen here; any but 127.0.0.1 needs a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Listen on this port; 0 takes a free one.")] = 8067,
    log: Annotated[str, typer.Option(help="A line per request: pretty, compact, json or off.")] = "pretty",
    debug: Annotated[
        bool, typer.Option("--debug", help="With each line, why each of its figures has its value.")
    ] = False,
) -> None:
    if context.invoked_subcommand is not None:
        _refuse_options(context)
        return
    from penstock.canon.errors import ConfigError
    from penstock.config.load import is_loopback
    from penstock.serving.door import Door
    from penstock.serving.logs import log_to
    from penstock.serving.server import address_of, bind, run
    from penstock.telemetry.bus import Bus
    from penstock.telemetry.exporters.log import LogExporter
    from penstock.telemetry.exporters.prometheus import PrometheusExporter
    from penstock.transport.http1 import Http1Transport
    from penstock.worker.app import worker as application
    from penstock.worker.gguf import find_model
    from penstock.worker.llamacpp import LlamaCpp, demo_model
    from penstock.worker.token import token_of

    if demo == (model is not None):
        raise UsageError(
            "There is no model to run." if not demo else "--model and --demo are two models.",
            fix="Give --model FILE.gguf, or --demo.",
        )
    if log not in ("pretty", "compact", "json", "off"):
        raise UsageError(f"--log does not know `{log}`.", fix="Use pretty, compact, json or off.")
    if while_loading not in ("wait", "refuse"):
        raise UsageError(f"--while-loading does not know `{while_loading}`.", fix="Use wait or refuse.")
    token = token_of(token_env, os.environ)
    if token is None and not is_loopback(host):
        raise ConfigError(
            f"At {host} others can reach the worker, and there is no token.",
            fix="Put one into an environment variable and name it with --token-env, or listen on 127.0.0.1.",
        )
    log_to(as_json=log == "json")
    engine = LlamaCpp(
        demo_model() if model is None else find_model(model),
        model=alias or ("tiny" if model is None else None),
        context_tokens=ctx,
        slots=slots,
        threads=threads,
        embedding=embedding,
    )
    metrics = PrometheusExporter()
    lines = LogExporter(sys.stdout, format=log, color=sys.stdout.isatty(), debug=debug)  # type: ignore[arg-type]
    bus = Bus([*([lines] if log != "off" else []), metrics])
    bound = bind(host, port)
    app = application(
        engine,
        Http1Transport(),
        bus,
        door=Door(token, is_configured=False),
        queue=queue,
        refuses=while_loading == "refuse",
        metrics=metrics,
        watch=_progress_bar() if sys.stderr.isatty() else None,
    )
    run(
        app,
        bound,
        drain_s=lambda: 10.0,
        ready=lambda: print(
            f"Penstock worker on {address_of(bound)}, {_running(engine)}. Ctrl-C stops it.", flush=True
        ),
    )


def _refuse_options(context: typer.Context) -> None:
    """`penstock worker test` starts no worker: an option of the worker's before it would do nothing."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    given = [name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"]
    if given:
        raise UsageError(
            f"--{given[0].replace('_', '-')} is the worker's, and `{context.invoked_subcommand}` starts none.",
            fix="Leave it out.",
        )


def _running(engine: LlamaCpp) -> str:
    """What it runs and with how much, which it may have chosen by itself."""
    file, sizes = engine.file, engine.sizes
    made = " ".join(word for word in (file.architecture, file.quantisation) if word)
    slots = "1 slot" if sizes.slots == 1 else f"{sizes.slots} slots"
    threads = "1 thread" if sizes.threads == 1 else f"{sizes.threads} threads"
    return f"running {engine.model} ({made}; {slots} of {sizes.context_tokens:,} tokens, {threads})"


def _progress_bar() -> Callable[[Loading], None]:
    """On standard error, from the first word of a load to its end."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    shown: list[Progress] = []

    def watch(loading: Loading) -> None:
        loaded = loading.loaded
        if loading.status in ("ok", "failed"):
            while shown:
                shown.pop().stop()
        elif loaded.stage == "reading":
            if not shown:
                bar = Progress(*columns, console=Console(stderr=True), transient=True, auto_refresh=False)
                bar.add_task(f"Loading {loading.engine.model}", total=loaded.bytes_total)
                bar.start()
                shown.append(bar)
            shown[0].update(shown[0].task_ids[0], completed=loaded.bytes_loaded or 0, refresh=True)

    return watch
