"""Pass everything on to an upstream, and keep what was asked and answered, read by read.

Example: penstock record --upstream https://api.openai.com/v1 -o tape
Keys are taken out of what is kept; bodies are kept as they are.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from penstock.cli.simulate import until_stopped
from penstock.cli.usage import UsageError


def record(
    upstream: Annotated[str, typer.Option(help="Ask this server; its URL usually ends in /v1.", metavar="URL")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Keep the recordings in this folder.", metavar="DIR")],
    port: Annotated[int, typer.Option(help="Listen on this port; 0 takes a free one.")] = 0,
) -> None:
    from penstock.testing import Recorder

    if not upstream.startswith(("http://", "https://")):
        raise UsageError(f"`{upstream}` is no http:// or https:// URL.", fix="Write the upstream's base URL.")
    try:
        output.mkdir(parents=True, exist_ok=True)
        recorder = Recorder(upstream, output, port=port, environ=os.environ)
    except OSError as error:
        raise UsageError(f"Cannot record: {error.strerror or error}.", fix="Check --output and --port.") from error
    with recorder:
        print(f"Penstock recorder on {recorder.url}, asking {upstream}, into {output}. Ctrl-C stops it.", flush=True)
        until_stopped()
    print(f"{len(list(output.glob('[0-9]*.json')))} recordings in {output}.")
