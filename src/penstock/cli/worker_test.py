"""Try a running worker: whether it answers, streams its tokens as they come, ends once, cancels, and leaks nothing.

Example: penstock worker test http://127.0.0.1:8067

It asks for some twenty short replies. The first is shown as it comes; a table tells what held and what was seen.
Ends with 0 when all of it held, 1 when something failed.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.cli.table import plain, print_table
from penstock.cli.usage import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from penstock.canon.target import Secret
    from penstock.testing.smoke.steps import Step


def worker_test(
    url: Annotated[str, typer.Argument(help="The worker, as in http://127.0.0.1:8067.")],
    token_env: Annotated[
        str | None, typer.Option(help="The worker's token is in this environment variable.", metavar="VAR")
    ] = None,
    patience: Annotated[float, typer.Option(help="Wait so many seconds for what should come.", min=0.5)] = 60.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the rows as JSON, and no tokens.")] = False,
) -> None:
    import msgspec

    if not url.startswith(("http://", "https://")):
        raise UsageError(f"`{url}` is no http:// or https:// URL.", fix="Write the worker's address.")
    token = _token(token_env)

    async def tried() -> list[Step]:
        from penstock.testing.smoke.asking import Client
        from penstock.testing.smoke.steps import try_worker

        async with Client(url, token=token, patience_s=patience, environ=os.environ) as client:
            return await try_worker(client, show=None if as_json else _show, progress=_progress())

    steps = asyncio.run(tried())
    failed = [step for step in steps if step.verdict != "ok"]
    if as_json:
        print(msgspec.json.encode(steps).decode())
    else:
        print("\n")
        print_table(
            ("", "", "seen", "took"), [(step.name, step.verdict, step.seen, f"{step.took_s:.2f} s") for step in steps]
        )
        print(f"{len(steps) - len(failed)} of {len(steps)} held.")
    if failed:
        raise SystemExit(1)


def _token(variable: str | None) -> Secret | None:
    from penstock.canon.target import Secret

    if variable is None:
        return None
    held = os.environ.get(variable)
    if not held:
        raise UsageError(f"The variable {variable} is not set.", fix=f"Set it: export {variable}=…")
    return Secret(held)


def _show(text: str) -> None:
    """Each token as it comes. What a model says may not steer a terminal; in a pipe it is as it came."""
    if sys.stdout.isatty():
        text = "".join(plain(char) if char != "\n" else char for char in text)
    print(text, end="", flush=True)


def _progress() -> Callable[[str], None]:
    """On a terminal, which step is under way."""
    if not sys.stderr.isatty():
        return lambda name: None
    return lambda name: print(f"\r\x1b[2m… {name}\x1b[0m\x1b[K", end="\r" if name != "a job" else "\n", file=sys.stderr)
