"""Play back what `penstock record` has kept: the same bytes in the same reads.

Example: penstock replay tape --speed max
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Annotated

import typer

from penstock.cli.simulate import until_stopped
from penstock.cli.usage import UsageError


def replay(
    folder: Annotated[Path, typer.Argument(help="The folder of recordings.", metavar="DIR")],
    speed: Annotated[
        str, typer.Option(help="1: as it came. N: N times as fast. max: at once. step: a read for each Enter.")
    ] = "1",
    port: Annotated[int, typer.Option(help="Listen on this port; 0 takes a free one.")] = 0,
) -> None:
    from penstock.canon.errors import ConfigError
    from penstock.testing import Replayer

    step = threading.Semaphore(0) if speed == "step" else None
    try:
        replayer = Replayer(folder, speed=_speed(speed), port=port, step=step)
    except ConfigError as error:
        raise UsageError(error.message, fix=error.fix) from error
    except OSError as error:
        raise UsageError(f"Cannot listen on port {port}: {error.strerror or error}.", fix="Use another.") from error
    with replayer:
        print(f"Penstock replayer on {replayer.url}, from {folder}. Ctrl-C stops it.", flush=True)
        if step is not None:
            threading.Thread(target=_steps, args=(step,), daemon=True).start()
        until_stopped()
    print(f"{len(replayer.misses)} requests were not recorded.")


def _speed(text: str) -> float | str:
    if text in ("max", "step"):
        return text
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if number <= 0:
        raise UsageError(f"`{text}` is no speed.", fix="Use a number above 0, max or step.")
    return number


def _steps(step: threading.Semaphore) -> None:
    for _ in sys.stdin:
        step.release()
