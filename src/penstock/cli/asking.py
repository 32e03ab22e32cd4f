"""What `ask`, `chat` and `embed` share: the options that say whom to ask, and how one reply is read, shown and told of.

A Ctrl-C cancels the reply that is being read: what has come is kept, and the upstream's connection is closed at once.
A second one ends the command. What a model says may not steer a terminal; in a pipe it is as it came.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer
from msgspec import Struct

from penstock.canon.errors import PenstockError
from penstock.canon.response import Response
from penstock.dialects import DIALECTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from penstock.canon.events import Event
    from penstock.client.stream import AsyncStream

ModelOption = Annotated[str, typer.Option("--model", "-m", help="provider:model.", metavar="SPEC")]
BaseUrlOption = Annotated[
    str | None, typer.Option("--base-url", help="Ask this server; its URL usually ends in /v1.", metavar="URL")
]
DialectOption = Annotated[
    str | None, typer.Option("--dialect", help=f"What that server speaks: {', '.join(sorted(DIALECTS))}.")
]
SystemOption = Annotated[str | None, typer.Option("--system", help="The system prompt.")]
MaxTokensOption = Annotated[int | None, typer.Option("--max-tokens", help="The longest reply, in tokens.")]
TemperatureOption = Annotated[
    float | None, typer.Option("--temperature", help="How much chance there is in it.", metavar="NUMBER")
]

INTERRUPTED = 130


class Told(Struct, frozen=True):
    """One reply, whatever became of it: what has come, and the error that ended it."""

    response: Response
    error: PenstockError | None = None

    @property
    def was_interrupted(self) -> bool:
        return self.error is None and self.response.outcome == "cancelled"


async def told(stream: AsyncStream, show: Callable[[Event], None]) -> Told:
    """Read a reply to its end, every event through `show`."""
    try:
        with _on_interrupt(stream.cancel):
            async with stream:
                async for event in stream:
                    show(event)
        return Told(stream.response)
    except PenstockError as error:
        return Told(error.partial or Response(), error)


@contextmanager
def _on_interrupt(cancel: Callable[[], None]) -> Iterator[None]:
    loop = asyncio.get_running_loop()

    def interrupted() -> None:
        loop.remove_signal_handler(signal.SIGINT)
        cancel()

    loop.add_signal_handler(signal.SIGINT, interrupted)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)


class Words:
    """The words of a reply as they come: text, and the refusal of a model that refuses. `end` begins a new line."""

    def __init__(self) -> None:
        self._wanted: set[int] = set()
        self._steers = sys.stdout.isatty()

    def show(self, event: Event) -> None:
        from penstock.canon.events import BlockStart, Delta

        if isinstance(event, Delta):
            if event.i in self._wanted:
                print(harmless(event.text) if self._steers else event.text, end="", flush=True)
        elif isinstance(event, BlockStart) and event.kind in ("text", "refusal"):
            self._wanted.add(event.i)

    def end(self) -> None:
        if self._wanted:
            print(flush=True)


_CONTROLS = {code: "\ufffd" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\t\n"}


def harmless(text: str) -> str:
    """Nothing in it steers a terminal."""
    return text.translate(_CONTROLS)


def footer(response: Response) -> str:
    """Model, tokens in and out, cost, times and ending, in one line; `-` is what nobody reported."""
    from penstock.telemetry.record import count, duration, rate

    usage, timing = response.usage, response.timing
    parts = [harmless(response.model or "-")]
    parts.append(f"{count(usage.input if usage else None)}/{count(usage.output if usage else None)} tokens")
    if usage is not None and usage.cost is not None:
        parts.append(dollars(usage.cost))
    if timing is not None:
        parts.append(f"first after {duration(timing.ttft_ms)}, {duration(timing.duration_ms)} in all")
        if timing.generation_tps is not None:
            parts.append(f"{rate(timing.generation_tps)} tokens/s")
    is_whole = response.outcome == "complete" and response.finish is not None
    parts.append(response.finish.reason if is_whole and response.finish is not None else response.outcome or "-")
    return " · ".join(parts)


def dollars(cost: float) -> str:
    """Two digits that say something: $1.23, $0.012, $0.000034."""
    return f"${cost:.2f}" if cost >= 1 or cost == 0 else f"${float(f'{cost:.2g}'):.10f}".rstrip("0")


def warn(warnings: tuple[str, ...]) -> None:
    """What was asked for and not sent."""
    for said in warnings:
        print(f"penstock: {said}", file=sys.stderr)


def error_fields(error: PenstockError) -> dict[str, Any]:
    return {"type": error.error_type, "message": str(error)}
