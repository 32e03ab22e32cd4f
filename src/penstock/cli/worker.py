"""Run a model on this machine.

Example: penstock worker --model qwen3-4b-q4.gguf, or, to try it out: penstock worker --demo
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from penstock.cli.usage import UsageError


def worker(
    model: Annotated[Path | None, typer.Option(help="The model: a GGUF file.", metavar="FILE")] = None,
    demo: Annotated[bool, typer.Option("--demo", help="Run the tiny model that ships with Penstock.")] = False,
    host: Annotated[str, typer.Option(help="Listen here.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Listen on this port; 0 takes a free one.")] = 8067,
    log: Annotated[str, typer.Option(help="A line per request: pretty, compact, json or off.")] = "pretty",
) -> None:
    from penstock.config.load import is_loopback
    from penstock.serving.door import Door
    from penstock.serving.server import address_of, bind, run
    from penstock.telemetry.bus import Bus
    from penstock.telemetry.exporters.log import LogExporter
    from penstock.transport.http1 import Http1Transport
    from penstock.worker.app import worker as application
    from penstock.worker.llamacpp import LlamaCpp, demo_model

    if demo == (model is not None):
        raise UsageError(
            "There is no model to run." if not demo else "--model and --demo are two models.",
            fix="Give --model FILE.gguf, or --demo.",
        )
    if log not in ("pretty", "compact", "json", "off"):
        raise UsageError(f"--log does not know `{log}`.", fix="Use pretty, compact, json or off.")
    engine = LlamaCpp(demo_model(), model="tiny") if model is None else LlamaCpp(model)
    bus = Bus([LogExporter(sys.stdout, format=log, color=sys.stdout.isatty())] if log != "off" else [])  # type: ignore[arg-type]
    bound = bind(host, port)
    run(
        application(engine, Http1Transport(), bus, door=Door(None, is_configured=False) if is_loopback(host) else None),
        bound,
        drain_s=lambda: 10.0,
        ready=lambda: print(
            f"Penstock worker on {address_of(bound)}, running {engine.model}. Ctrl-C stops it.", flush=True
        ),
    )
