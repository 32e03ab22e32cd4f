"""See it work: a worker on a tiny model, a gateway before it, a question in two dialects.

Example: penstock demo --once
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from typing import IO, TYPE_CHECKING, Annotated

import typer

from penstock.canon.errors import PenstockError

if TYPE_CHECKING:
    from collections.abc import Iterator

START_S = 60.0
QUESTIONS = (
    ("OpenAI dialect, POST /v1/chat/completions", "openai-chat", "Tell me a story"),
    ("Anthropic dialect, POST /v1/messages", "anthropic-messages", "Hello"),
)


def demo(
    once: Annotated[bool, typer.Option("--once", help="End after the two answers, as without a terminal.")] = False,
) -> None:
    with running("worker", "--demo", "--port", "0", "--log", "off") as (worker, _):
        _await_model(worker)
        upstream = ("--upstream", f"{worker}/v1", "--profile", "llamacpp")
        with running("serve", *upstream, "--port", "0", "--log", "compact", "--store", "off") as (gateway, lines):
            print(f"A worker runs the model `tiny` on {worker}, and a gateway stands before it on {gateway}.\n")
            for title, dialect, question in QUESTIONS:
                _ask(gateway, title, dialect, question)
                print(f"\n  {lines.readline().strip()}\n", flush=True)
            if once or not sys.stdout.isatty():
                return
            print(_hints(gateway))
            with contextlib.suppress(KeyboardInterrupt):
                for line in lines:  # what your own requests come to
                    print(f"  {line.strip()}", flush=True)
            print("\nStopped.")


def _ask(gateway: str, title: str, dialect: str, question: str) -> None:
    from penstock.client.client import stream

    print(f"{title}\n> {question}")
    with stream("gateway:tiny", question, base_url=f"{gateway}/v1", dialect=dialect) as reply:
        for text in reply.text:
            print(text, end="", flush=True)
    print()


@contextlib.contextmanager
def running(*command: str) -> Iterator[tuple[str, IO[str]]]:
    """A command of ours in a process of its own: its address, and what else it prints. Ended by its pid."""
    process = subprocess.Popen(
        [sys.executable, "-m", "penstock", *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a Ctrl-C is ours to pass on, in order
    )
    assert process.stdout is not None
    try:
        first = process.stdout.readline()
        if not first:
            raise PenstockError(f"The demo's {command[0]} did not start: exit code {process.wait()}.")
        yield first.split(" on ", 1)[1].split(",", 1)[0], process.stdout
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def _await_model(worker: str) -> None:
    """The worker answers before its model is loaded; the demo wants to show the model's own times."""
    import json
    from urllib.request import urlopen

    until = time.monotonic() + START_S
    while time.monotonic() < until:
        with urlopen(f"{worker}/health", timeout=5) as answer:
            if json.load(answer)["status"] == "ok":
                return
        time.sleep(0.02)
    raise PenstockError(f"The worker's model was not loaded within {START_S:g} s.")


def _hints(gateway: str) -> str:
    return f"""Point your own programs at it (any key will do):

  curl         curl -N {gateway}/v1/chat/completions \\
                 -d '{{"model":"tiny","stream":true,"messages":[{{"role":"user","content":"Hello"}}]}}'
  OpenAI SDK   openai.OpenAI(base_url="{gateway}/v1", api_key="any")
  Claude Code  ANTHROPIC_BASE_URL={gateway} ANTHROPIC_API_KEY=any claude --model tiny
  opencode     in opencode.json: "provider": {{"penstock": {{"npm": "@ai-sdk/openai-compatible",
                 "options": {{"baseURL": "{gateway}/v1", "apiKey": "any"}}, "models": {{"tiny": {{}}}}}}}}
  penstock     penstock ask "Hello" -m local:tiny --base-url {gateway}/v1

It stays up until Ctrl-C; a line per request follows."""
