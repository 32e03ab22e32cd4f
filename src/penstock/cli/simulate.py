"""Run an upstream that says what a script says, and misbehaves on purpose.

Example: penstock simulate --port 8090
Then ask http://127.0.0.1:8090/v1 for the model `fault:cut-after-3`, through whatever gateway is to be tested.
"""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from penstock.cli.usage import UsageError


def simulate(
    port: Annotated[int, typer.Option(help="Listen on this port; 0 takes a free one.")] = 0,
    script: Annotated[
        Path | None, typer.Option(help="Say what this YAML file says, instead of a greeting.", metavar="FILE")
    ] = None,
    seed: Annotated[int, typer.Option(help="The same chances each time, for paces that have some.")] = 0,
    list_faults: Annotated[bool, typer.Option("--faults", help="List the faults, and end.")] = False,
) -> None:
    from penstock.canon.errors import ConfigError
    from penstock.testing import FAULTS, Upstream, load_script

    if list_faults:
        width = max(len(name) for name in FAULTS) + 2
        for name, row in FAULTS.items():
            number = "" if row.default is None else f"-N (N: {row.default})"
            print(f"{name + number.partition(' ')[0]:{width}}  {row.summary}{number.partition('-N')[2]}")
        return
    try:
        said = load_script(script) if script is not None else None
        upstream = Upstream(said, port=port, seed=seed)
    except ConfigError as error:
        raise UsageError(error.message, fix=error.fix) from error
    except OSError as error:
        raise UsageError(f"Cannot listen on port {port}: {error.strerror or error}.", fix="Use another.") from error
    with upstream:
        print(
            f"Penstock simulator on {upstream.url}, for Gemini {upstream.url_for('gemini')}, "
            f"for Ollama {upstream.root}. A model `fault:NAME`, or the header x-penstock-fault, makes it misbehave. "
            "Ctrl-C stops it.",
            flush=True,
        )
        until_stopped()
    closed = sum(seen.closed_at is not None for seen in upstream.seen)
    wasted = sum(seen.written_after_close_bytes for seen in upstream.seen)
    print(f"{len(upstream.seen)} requests, {closed} left before their end, {wasted} bytes written for nobody.")


def until_stopped() -> None:
    """Return with Ctrl-C or SIGTERM."""
    stopped = threading.Event()
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, lambda *_: stopped.set())
    stopped.wait()
