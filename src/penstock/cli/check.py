"""Judge an endpoint: which promises of a trustworthy stream does it keep, and what shows it?

Example: penstock check http://127.0.0.1:8080/v1 --model qwen3
Example: penstock check --through --start 'penstock serve --port {port} --upstream {upstream}'

Without --through it asks any server ten times, for at most 64 tokens each. With it, it starts an upstream that
misbehaves, then the gateway by the command (without --start it says what to start, and waits), and tries the whole
contract.
Ends with 0 when every promise was kept, 1 when one was broken, 2 when it could not run or could not see one.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.canon.errors import PenstockError
from penstock.cli.table import plain
from penstock.cli.usage import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from penstock.testing.judge.asking import Client
    from penstock.testing.judge.findings import Judgement
    from penstock.testing.judge.process import Started
    from penstock.testing.upstream import Upstream


def check(
    url: Annotated[
        str | None, typer.Argument(help="What to judge: the base URL that an SDK is given; most end in /v1.")
    ] = None,
    dialect: Annotated[str, typer.Option(help="Ask in this dialect.", metavar="NAME")] = "openai-chat",
    model: Annotated[
        str | None,
        typer.Option(help="Ask for this model; with --through a pattern, as in openai/{model}.", metavar="NAME"),
    ] = None,
    key_env: Annotated[
        str | None, typer.Option(help="The key is in this environment variable.", metavar="VARIABLE")
    ] = None,
    header: Annotated[
        list[str] | None, typer.Option(help="Send this header, as 'name: value'; again for more.", metavar="HEADER")
    ] = None,
    through: Annotated[bool, typer.Option("--through", help="Judge a gateway, before an upstream of ours.")] = False,
    start: Annotated[
        str | None,
        typer.Option(
            help="Start the gateway by this command: {port} is where it listens, {upstream} whom it asks "
            "(ends in /v1; {root} without it).",
            metavar="COMMAND",
        ),
    ] = None,
    upstream_port: Annotated[int, typer.Option(help="The misbehaving upstream listens here; 0 takes a free port.")] = 0,
    patience: Annotated[float, typer.Option(help="Wait so many seconds for what should end.", min=0.5)] = 10.0,
    ready: Annotated[float, typer.Option(help="Wait so many seconds for the gateway to start.", min=1.0)] = 90.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
    html: Annotated[Path | None, typer.Option(help="Write a report into this file.", metavar="FILE")] = None,
    cases: Annotated[bool, typer.Option("--cases", help="Print every case, not only those that say more.")] = False,
) -> None:
    from penstock.testing.judge.report import as_html
    from penstock.testing.judge.report import as_json as told_as_json

    settings = _client_settings(dialect, key_env, header or [], patience)
    if start is not None and not through:
        raise UsageError("--start belongs to --through.", fix="Add --through.")
    if url is None and start is None:
        raise UsageError("There is nothing to judge.", fix="Give a URL, or --through with --start 'COMMAND'.")
    if html is not None:
        _write(html, "")  # that it cannot be written is said now, and not when all is done
    try:
        judgement = (
            _through(url, settings, model, start, upstream_port, ready)
            if through
            else _endpoint(str(url), settings, model)
        )
    except UsageError:
        raise
    except PenstockError as error:
        raise UsageError(error.message, fix=error.fix) from error  # it could not run: 2
    if as_json:
        print(told_as_json(judgement).decode())
    else:
        _print(judgement, every=cases)
    if html is not None:
        _write(html, as_html(judgement))
        if not as_json:
            print(f"The report is in {html}.")
    if judgement.broken:
        raise SystemExit(1)
    if through and judgement.unseen:
        raise SystemExit(2)


def _write(path: Path, page: str) -> None:
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"Cannot write {path}: {error.strerror or error}.", fix="Name another file.") from error


class _Settings:
    """What a client needs besides its URL and model."""

    def __init__(self, dialect: str, key: str | None, headers: tuple[tuple[str, str], ...], patience_s: float) -> None:
        self.dialect = dialect
        self.headers = headers
        self.patience_s = patience_s
        self.key = key

    def client(self, url: str, model: str) -> Client:
        from penstock.canon.target import Secret
        from penstock.dialects import client_dialect
        from penstock.testing.judge.asking import Client

        if not url.startswith(("http://", "https://")):
            raise UsageError(f"`{url}` is no http:// or https:// URL.", fix="Write the endpoint's base URL.")
        key = Secret(self.key) if self.key is not None else None
        return Client(
            url,
            client_dialect(self.dialect),
            model=model,
            key=key,
            headers=self.headers,
            patience_s=self.patience_s,
            environ=os.environ,
        )


def _client_settings(dialect: str, key_env: str | None, headers: list[str], patience_s: float) -> _Settings:
    from penstock.catalogue.provider import nearest
    from penstock.dialects import CLIENT_DIALECTS

    if dialect not in CLIENT_DIALECTS:
        raise UsageError(f"Clients do not speak `{dialect}`.", fix=nearest(dialect, sorted(CLIENT_DIALECTS)))
    key = None
    if key_env is not None:
        key = os.environ.get(key_env)
        if not key:
            raise UsageError(f"The variable {key_env} is not set.", fix=f"Set it: export {key_env}=…")
    named: list[tuple[str, str]] = []
    for given in headers:
        name, colon, value = given.partition(":")
        if not colon or not name.strip():
            raise UsageError("A --header is `name: value`.", fix="Put a colon between them.")
        named.append((name.strip().lower(), value.strip()))
    return _Settings(dialect, key, tuple(named), patience_s)


# --- judging ----------------------------------------------------------------------------------------------------------


def _endpoint(url: str, settings: _Settings, model: str | None) -> Judgement:
    from penstock.policy.models import ask_models
    from penstock.testing.judge.endpoint import judge_endpoint
    from penstock.transport.http1 import Http1Transport

    async def judged() -> Judgement:
        with _Progress() as progress:
            async with settings.client(url, "{model}") as client:
                named = model
                if named is None:
                    progress("its list of models")
                    transport = Http1Transport(environ=os.environ)
                    try:
                        listed = await ask_models(client.target, transport, timeout_s=settings.patience_s)
                    finally:
                        await transport.aclose()
                    if not listed:
                        raise UsageError(f"{url} lists no models.", fix="Name one with --model.")
                    named = listed[0].id
                findings = await judge_endpoint(client, named, progress=progress)
                return _judgement(f"{url} ({named})", client, "endpoint", findings)

    return asyncio.run(judged())


def _through(
    url: str | None, settings: _Settings, model: str | None, start: str | None, upstream_port: int, ready_s: float
) -> Judgement:
    from penstock.testing.judge.gateway import judge_gateway, simulator
    from penstock.testing.judge.process import Started, check_command, free_port

    if start is not None:
        check_command(start)
    try:
        upstream = simulator(upstream_port)
    except OSError as error:
        raise UsageError(
            f"Cannot listen on port {upstream_port}: {error.strerror or error}.", fix="Use another --upstream-port."
        ) from error
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # ends the gateway with it
    with ExitStack() as stack:
        stack.enter_context(upstream)
        port = free_port()
        started: Started | None = None
        if start is not None:
            started = stack.enter_context(Started(start, port=port, upstream=upstream.url, root=upstream.root))
            base = {"gemini": "/v1beta", "ollama": ""}.get(settings.dialect, "/v1")
            url = (url or f"http://127.0.0.1:{{port}}{base}").replace("{port}", str(port))
        else:
            _say_what_to_start(upstream, str(url))
        progress = stack.enter_context(_Progress())

        async def judged() -> Judgement:
            async with settings.client(str(url), model or "{model}") as client:
                findings, court = await judge_gateway(
                    client,
                    upstream,
                    ready_s=ready_s,
                    progress=progress,
                    is_alive=lambda: started is None or started.is_alive,
                )
                return _judgement(
                    str(url), client, "gateway", findings, upstream_dialect=court.upstream_dialect, command=start
                )

        try:
            return asyncio.run(judged())
        except PenstockError as error:
            if started is not None and started.last_lines:
                error.message += f" Its last lines: {started.last_lines.rstrip('.')}."
            raise


def _say_what_to_start(upstream: Upstream, url: str) -> None:
    print(
        f"Start the gateway so that it answers at {url} and asks {upstream.url} "
        f"(Gemini: {upstream.url_for('gemini')}, Ollama: {upstream.root}). Waiting for it.",
        file=sys.stderr,
        flush=True,
    )


def _judgement(endpoint: str, client: Client, mode: str, findings: list, **more: str | None) -> Judgement:  # type: ignore[type-arg]
    from datetime import UTC, datetime
    from importlib.metadata import version

    from penstock.testing.judge.findings import Judgement

    return Judgement(
        endpoint=endpoint,
        dialect=client.dialect.name,
        mode="gateway" if mode == "gateway" else "endpoint",
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        penstock=version("penstock"),
        asked=client.asked,
        findings=tuple(findings),
        **more,
    )


# --- telling ----------------------------------------------------------------------------------------------------------


class _Progress:
    """Which case is under way, on a terminal."""

    def __enter__(self) -> Callable[[str], None]:
        if not sys.stderr.isatty():
            return lambda case: None
        from rich.console import Console

        self._status = Console(stderr=True).status("")
        self._status.start()
        return lambda case: self._status.update(case)

    def __exit__(self, *exc: object) -> None:
        if sys.stderr.isatty():
            self._status.stop()


_COLOURS = {"held": "green", "broken": "red", "unseen": "yellow", "idle": "dim"}


def _print(judgement: Judgement, *, every: bool) -> None:
    """On a terminal a table; elsewhere a line per row, parted by tabs."""
    from penstock.testing.judge.findings import PROMISES
    from penstock.testing.judge.report import summary

    rows: list[tuple[str, str, str, str]] = []
    for promise in judgement.promises:
        findings = judgement.of(promise)
        verdict: str = judgement.verdict(promise)
        telling = [it for it in findings if every or it.verdict == verdict]
        if not every and verdict == "held" and len(telling) > 1:
            rows.append((promise, PROMISES[promise], verdict, f"in {len(telling)} cases; {telling[0].evidence}"))
        else:
            rows += [(promise, PROMISES[promise], it.verdict, f"{it.case}: {it.evidence}") for it in telling]
    if not sys.stdout.isatty():
        for row in rows:
            print("\t".join(plain(cell) for cell in row))
    else:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, header_style="bold")
        for head in ("", "promise", "verdict", "evidence"):
            table.add_column(head, no_wrap=head in ("", "verdict"))
        before = ""
        for promise, name, verdict, evidence in rows:
            said = ("", "") if promise == before else (promise, name)
            table.add_row(*said, Text(verdict, style=_COLOURS[verdict]), Text(plain(evidence), overflow="fold"))
            before = promise
        Console().print(table)
    print(f"{summary(judgement)}.")
