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
    token, screen = _token(token_env), _Screen()

    async def tried() -> list[Step]:
        from penstock.testing.smoke.asking import Client
        from penstock.testing.smoke.steps import try_worker

        async with Client(url, token=token, patience_s=patience, environ=os.environ) as client:
            return await try_worker(client, show=None if as_json else screen.show, progress=screen.progress)

    steps = asyncio.run(tried())
    screen.clear()
    failed = [step for step in steps if step.verdict != "ok"]
    if as_json:
        print(msgspec.json.encode(steps).decode())
    else:
        print()
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


class _Screen:
    """The first reply on standard output, and on a terminal the step that is under way on standard error."""

    def __init__(self) -> None:
        self._is_in_line = False

    def show(self, text: str) -> None:
        """Each token as it comes. What a model says may not steer a terminal; in a pipe it is as it came."""
        if not text:
            return
        if sys.stdout.isatty():
            text = "".join(char if char == "\n" else plain(char) for char in text)
        print(text, end="", flush=True)
        self._is_in_line = not text.endswith("\n")

    def progress(self, name: str) -> None:
        self.end_line()
        if sys.stderr.isatty():
            # The reply begins in the line that this one stood in.
            print(
                "\r\x1b[K" if name == "a job" else f"\r\x1b[K\x1b[2m… {name}\x1b[0m",
                end="",
                file=sys.stderr,
                flush=True,
            )

    def end_line(self) -> None:
        if self._is_in_line:
            self._is_in_line = False
            print(flush=True)

    def clear(self) -> None:
        self.end_line()
        if sys.stderr.isatty():
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
