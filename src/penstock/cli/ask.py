"""Ask a model, and print its reply as it comes.

Example: penstock ask "Tell me a story" -m local:tiny --base-url http://127.0.0.1:8066/v1
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from penstock.cli.usage import UsageError
from penstock.dialects import DIALECTS


def ask(
    prompt: Annotated[str, typer.Argument(help="What to ask; `-` reads it from standard input.")],
    model: Annotated[str, typer.Option("--model", "-m", help="provider:model.", metavar="SPEC")],
    base_url: Annotated[
        str | None, typer.Option(help="Ask this server; its URL usually ends in /v1.", metavar="URL")
    ] = None,
    dialect: Annotated[
        str | None, typer.Option(help=f"What that server speaks: {', '.join(sorted(DIALECTS))}.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="The system prompt.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="The longest reply, in tokens.")] = None,
    temperature: Annotated[float | None, typer.Option(help="How much chance there is in it.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole response as JSON, at the end.")] = False,
) -> None:
    import msgspec

    from penstock.client.client import stream

    asked = sys.stdin.read() if prompt == "-" else prompt
    if not asked.strip():
        raise UsageError("There is nothing to ask.", fix="Give a prompt, or pipe one in with `-`.")
    with stream(
        model,
        asked,
        base_url=base_url,
        dialect=dialect,
        system=system,
        max_tokens=max_tokens,
        temperature=temperature,
    ) as reply:
        if as_json:
            response = reply.response
            print(
                msgspec.json.encode(
                    {"text": response.text, "reasoning": response.reasoning, **_fields(response)}
                ).decode()
            )
            return
        try:
            for text in reply.text:
                print(text, end="", flush=True)
        finally:
            print()  # what went wrong stands on a line of its own
        if sys.stderr.isatty():
            print(_footer(reply.response), file=sys.stderr)


def _fields(response: object) -> dict[str, object]:
    import msgspec

    found: dict[str, object] = msgspec.to_builtins(response)
    return found


def _footer(response: object) -> str:
    from penstock.canon.response import Response
    from penstock.telemetry.record import count, duration

    assert isinstance(response, Response)
    usage, timing = response.usage, response.timing
    tokens = f"{count(usage.input if usage else None)}/{count(usage.output if usage else None)} tokens"
    times = f"first after {duration(timing.ttft_ms)}, {duration(timing.duration_ms)} in all" if timing else ""
    return f"{response.model} · {tokens} · {times} · {response.finish.reason if response.finish else '-'}"
