"""The worker, on one screen: the gateway's stack with the engine as its upstream.

`recorded → admitted → acquired → loading → upstream`: a call waits for one of the engine's slots, then for the model,
then goes to the engine over loopback. The line before the slots is bounded.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from penstock.dialects import client_dialect
from penstock.dialects.anthropic_messages import count
from penstock.policy.embed import embeddings
from penstock.policy.limits import Limits, Quota, Rules
from penstock.policy.upstream import in_dialect, upstream
from penstock.serving.asgi import App
from penstock.serving.context import ContextWindows
from penstock.serving.embed_route import embed_route
from penstock.serving.paths import dialect_of_path, model_routes
from penstock.serving.route import chat_route
from penstock.streams.clocks import Timeouts
from penstock.streams.handler import compose
from penstock.telemetry.recorder import InFlight, recorded
from penstock.worker.about import health_route, info_route, loading_route, present, ready_route, version_route
from penstock.worker.crash import EngineTransport
from penstock.worker.embedded import fitting
from penstock.worker.engine_routes import engine_route, metrics_route, models_route, no_embeddings
from penstock.worker.job_routes import job_routes
from penstock.worker.jobs import Jobs
from penstock.worker.loading import Loading
from penstock.worker.narration import acquired
from penstock.worker.requests import asks, completing

if TYPE_CHECKING:
    from collections.abc import Callable

    from penstock.canon.embedding import EmbedRequest
    from penstock.dialects.base import Dialect
    from penstock.serving.asgi import Route
    from penstock.serving.door import Door
    from penstock.streams.handler import Handler
    from penstock.telemetry.bus import Bus
    from penstock.telemetry.exporters.prometheus import PrometheusExporter
    from penstock.transport.base import Transport
    from penstock.worker.engine import Engine

MAX_BODY_BYTES = 100 * 1024 * 1024
#: calls that may wait for a slot; one more is told to come back later
QUEUE = 64
#: A slow prompt on a small machine is not a fault: the engine's own narration shows that it lives.
TIMEOUTS = Timeouts(connect=5.0, first_content=None, idle=None, silence=None, total=None, document=None)


def worker(
    engine: Engine,
    transport: Transport,
    bus: Bus,
    *,
    heartbeat_s: float | None = 15.0,
    door: Door | None = None,
    queue: int = QUEUE,
    refuses: bool = False,
    watch: Callable[[Loading], None] | None = None,
    metrics: PrometheusExporter | None = None,
) -> App:
    """The ASGI application. It owns `transport` and `bus` from its startup to its shutdown.

    `refuses`: calls that come while the model loads are told to come back, and do not wait. `watch` is told each time
    that the engine's state has changed. `metrics` is one of the bus's exporters, whose numbers `/metrics` shows.
    """
    loading = Loading(engine, lambda error: app.fail(error), refuses=refuses, watch=watch)
    transport = EngineTransport(transport, lambda: loading.life)
    windows = ContextWindows(transport)
    slots = Limits(Rules(Quota(concurrency=engine.slots), queue, queue_wait_s=None), whole="The engine")
    in_flight = InFlight()
    recorder = recorded(bus.publish, context_window=windows.get, in_flight=in_flight)
    before = (recorder, slots.admitted, acquired)
    leaf = upstream(transport, TIMEOUTS, asks)
    handler = compose(leaf, *before, loading.layer)
    completions = compose(leaf, *before, loading.layer, completing)
    # Counting takes no slot of the engine's.
    counting = compose(upstream(transport, TIMEOUTS, in_dialect(count.counter)), recorder, loading.layer)
    jobs = Jobs(handler)

    def chat(dialect: str | Dialect, asked: Handler = handler) -> Route:
        spoken = client_dialect(dialect) if isinstance(dialect, str) else dialect
        return chat_route(spoken, asked, max_body_bytes=MAX_BODY_BYTES, heartbeat_s=heartbeat_s)

    def embed(name: str, *, older: bool = False) -> Route:
        if engine.embeds is None:
            return no_embeddings
        return embed_route(name, embedding, max_body_bytes=MAX_BODY_BYTES, older=older)

    def embedding(request: EmbedRequest, client: str, older: bool) -> Handler:
        asked = embeddings(transport, TIMEOUTS, request, client, older=older)
        return compose(asked, *before, loading.layer, fitting(request, engine.embeds, loading, transport))

    async def startup() -> None:
        bus.start()
        loading.start()

    async def shutdown() -> None:
        await jobs.stop()
        await windows.aclose()
        await loading.stop()
        await transport.aclose()
        await asyncio.to_thread(bus.close)

    own = engine_route(loading, transport, max_body_bytes=MAX_BODY_BYTES)
    routes: dict[tuple[str, str], Route] = {
        **model_routes(chat, embed, chat("openai-completions", completions), chat(count.DIALECT, counting)),
        **job_routes(engine.model, jobs, max_body_bytes=MAX_BODY_BYTES, heartbeat_s=heartbeat_s),
        ("GET", "/v1/models"): models_route(engine.model),
        ("GET", "/v1/models/"): models_route(engine.model),
        ("GET", "/v1beta/models"): models_route(engine.model, "gemini"),
        ("GET", "/v1beta/models/"): models_route(engine.model, "gemini"),
        ("GET", "/api/tags"): models_route(engine.model, "ollama"),
        ("GET", "/api/version"): version_route,
        ("GET", "/props"): own,
        ("GET", "/slots"): own,
        ("POST", "/tokenize"): own,
        ("POST", "/detokenize"): own,
        ("POST", "/apply-template"): own,
        ("GET", "/health"): health_route(loading),
        ("GET", "/ready"): ready_route(loading),
        ("GET", "/v1/loading"): loading_route(loading, heartbeat_s),
        ("GET", "/v1/info"): info_route(loading),
        ("HEAD", "/"): present,
        ("GET", "/"): present,
    }
    if metrics is not None:
        routes["GET", "/metrics"] = metrics_route(metrics, in_flight, bus, loading, transport)
    app = App(
        routes,
        dialect_of=dialect_of_path,
        door=door,
        startup=startup,
        shutdown=shutdown,
    )
    return app
