"""Paths that are the engine's own, passed to it and back as they are: `/props`, `/slots`, `/tokenize` and its like.

Also the worker's metrics with the engine's behind them, and its one model in the lists of each dialect. Bodies are
bounded; nothing here takes a slot or is recorded.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from urllib.parse import unquote

import msgspec

from penstock.canon.errors import ConnectError, PenstockError, ReplyTooLarge, UnknownModel, Unsupported
from penstock.canon.wire import ConnectionLost, HttpRequest
from penstock.dialects import client_dialect
from penstock.serving.asgi import ClientGone, header, pass_over, read_body, request_id_of, respond, turn_away
from penstock.serving.model_lists import LISTED, WRITERS, written
from penstock.serving.paths import dialect_of_path
from penstock.serving.running import running_of
from penstock.telemetry.metrics_page import CONTENT_TYPE

if TYPE_CHECKING:
    from penstock.dialects.base import Dialect
    from penstock.serving.asgi import Receive, Route, Scope, Send
    from penstock.telemetry.bus import Bus
    from penstock.telemetry.exporters.prometheus import PrometheusExporter
    from penstock.telemetry.recorder import InFlight
    from penstock.transport.base import Transport
    from penstock.worker.loading import Loading

MAX_ANSWER_BYTES = 64 * 1024 * 1024
OWNER = "penstock"


async def ask(loading: Loading, transport: Transport, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
    """The engine's answer. Raises what `Loading.ready` and a transport do."""
    target = await loading.ready()
    assert target.key is not None
    headers = (("authorization", f"Bearer {target.key.reveal()}"), ("content-type", "application/json"))
    url = target.url.removesuffix("/v1") + path
    response = await transport.open(HttpRequest(method, url, headers, body), connect_s=5.0)
    pieces: list[bytes] = []
    size = 0
    try:
        while data := await response.read():
            pieces.append(data)
            size += len(data)
            if size > MAX_ANSWER_BYTES:
                raise ReplyTooLarge(f"The engine's answer is longer than {MAX_ANSWER_BYTES} bytes.")
        response.release()
    except ConnectionLost as lost:
        raise lost.reason or ConnectError("The engine broke its answer off.") from lost
    finally:
        response.abort()
    return response.status, b"".join(pieces)


def engine_route(loading: Loading, transport: Transport, *, max_body_bytes: int) -> Route:
    """The same path of the engine's. Who asks how it is (`GET`) does not wait for the model; who wants work done does,
    as `loading` has it."""

    async def route(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            body = await read_body(scope, receive, max_body_bytes)
            if scope["method"] == "GET" and loading.target is None:
                raise loading.refusal()
            status, answer = await ask(loading, transport, scope["method"], scope["path"], body)
        except ClientGone:
            return
        except PenstockError as error:
            await turn_away(scope, send, error, client_dialect("openai-chat"))
            return
        await respond(send, status, answer, [(b"x-request-id", request_id_of(scope).encode())])

    return route


def metrics_route(
    exporter: PrometheusExporter, in_flight: InFlight, bus: Bus, loading: Loading, transport: Transport
) -> Route:
    """Ours, and llama.cpp's own (`llamacpp:…`) behind them while it lives."""

    async def metrics(scope: Scope, receive: Receive, send: Send) -> None:
        running = running_of(scope)
        exporter.see(in_flight.count, bus.states(), refusals=running.refusals if running is not None else {})
        page = await asyncio.to_thread(exporter.page)
        if loading.target is not None:
            try:
                status, more = await ask(loading, transport, "GET", "/metrics")
            except PenstockError:
                status, more = 503, b""  # ours are true without it
            page += more if status == 200 else b""
        await respond(send, 200, page, content_type=CONTENT_TYPE)

    return metrics


def models_route(model: str, dialect: str = "openai-chat") -> Route:
    """The one model, in the shape of the dialect; below the path, the one that the rest of the path names."""
    write = WRITERS.get(dialect, written)

    async def route(scope: Scope, receive: Receive, send: Send) -> None:
        listed = write({model: OWNER})
        asked = unquote(scope["path"]).partition("/models/")[2]
        if asked and asked != model:
            speaks = "anthropic-messages" if header(scope, b"anthropic-version") is not None else dialect
            error = UnknownModel(f"There is no model `{asked}` here.", param="model", fix=f"Known: {model}.")
            await turn_away(scope, send, error, client_dialect(speaks))
            return
        await respond(send, 200, msgspec.json.encode(listed[LISTED.get(dialect, "data")][0] if asked else listed))

    return route


async def no_embeddings(scope: Scope, receive: Receive, send: Send) -> None:
    """The route of embeddings where none are made."""
    error = Unsupported(
        "This worker makes no embeddings.", param="model", fix="Start it with --embedding: penstock worker --embedding."
    )
    dialect: Dialect = dialect_of_path(scope["path"])
    await pass_over(receive)
    await turn_away(scope, send, error, dialect)
