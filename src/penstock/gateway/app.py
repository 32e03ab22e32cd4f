"""The gateway, on one screen: every layer in order, every route.

`recorded → allowed → admitted → routed → recovered → fallback → at_upstream → retried → capable → upstream`: the first
sees a call first. Before them all stands the door.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import astuple

from penstock.config.load import continues, destinations, gateway_keys, price, stated_capabilities
from penstock.dialects import client_dialect
from penstock.dialects.anthropic_messages import count
from penstock.gateway.about import (
    capabilities_route,
    health_route,
    metrics_route,
    own_version,
    present,
    ready_route,
    telemetry_route,
)
from penstock.gateway.keyring import Keyring, allowed
from penstock.gateway.models import models_route
from penstock.gateway.passthrough import Passthrough
from penstock.policy.breaker import Breaker, Breakers
from penstock.policy.capabilities import Capabilities, capable
from penstock.policy.embed import embeddings
from penstock.policy.fallback import fallback
from penstock.policy.limits import Limits, Quota, Rules
from penstock.policy.recovery import recovered
from penstock.policy.retry import Retry, retried
from penstock.policy.routing import Routes, routed
from penstock.policy.trace import traced
from penstock.policy.upstream import in_dialect, upstream
from penstock.serving.asgi import App
from penstock.serving.context import ContextWindows
from penstock.serving.door import Door
from penstock.serving.embed_route import embed_route
from penstock.serving.paths import dialect_of_path, model_routes
from penstock.serving.route import chat_route
from penstock.serving.running import Running
from penstock.streams.clocks import Timeouts
from penstock.streams.handler import compose
from penstock.telemetry.bus import Bus
from penstock.telemetry.content import ContentTally
from penstock.telemetry.exporters.prometheus import PrometheusExporter
from penstock.telemetry.recorder import InFlight, recorded
from penstock.telemetry.tally import Tally
from penstock.transport.base import Transport

if TYPE_CHECKING:
    from penstock.canon.embedding import EmbedRequest
    from penstock.config.model import Config
    from penstock.dialects.base import Dialect
    from penstock.serving.asgi import Route
    from penstock.streams.handler import Handler
    from penstock.telemetry.record import CallRecord


class Shared(Struct, frozen=True):
    """What one configuration's application uses and leaves to the next: whoever makes it starts and closes it."""

    transport: Transport
    bus: Bus
    running: Running
    limits: Limits
    breakers: Breakers
    in_flight: InFlight
    metrics: PrometheusExporter | None


def gateway(config: Config, shared: Shared) -> App:
    """The ASGI application of one configuration."""
    transport, bus, running = shared.transport, shared.bus, shared.running
    # What may refuse the configuration comes before anything that is shared takes it.
    routes = Routes(destinations(config))
    door = Door(keyring(config), origins=config.server.cors_origins, hosts=config.server.hosts)
    windows = ContextWindows(transport)
    breakers = shared.breakers
    breakers.policy = Breaker(*astuple(config.breaker))
    breakers.know(routes.targets)
    clocks = config.timeouts
    timeouts = Timeouts(
        clocks.connect, clocks.first_content, clocks.idle, clocks.silence, clocks.total, clocks.document
    )
    limits, max_reply = shared.limits, config.limits.max_reply
    limits.rules = rules(config)

    def publish(record: CallRecord) -> None:
        limits.spent(record.key_name, record.prompt_tokens, record.completion_tokens)
        bus.publish(record)

    layers = (
        *([traced] if config.telemetry.opentelemetry.endpoint is not None else []),
        recorded(
            publish,
            context_window=windows.get,
            price=partial(price, config),
            in_flight=shared.in_flight,
            tally=ContentTally if config.telemetry.opentelemetry.content else Tally,
            ended=bus.ended,
        ),
        allowed,
        limits.admitted,
        routed(routes, breakers),
        recovered(config.recovery.mode, total_s=clocks.total, continues=partial(continues, config)),
        fallback(breakers),
        limits.at_upstream,
    )
    again = Retry(*astuple(config.retry))
    retries = retried(again, total_s=clocks.total)
    streaming, asks = config.streaming, in_dialect()
    known = Capabilities(stated_capabilities(config), ttl_s=streaming.capability_ttl)
    capably = capable(known, asks, force_non_streaming=streaming.force_non_streaming, fallback=streaming.fallback)
    handler = compose(upstream(transport, timeouts, asks, max_reply_bytes=max_reply), *layers, retries, capably)
    counts = retried(again, total_s=clocks.total, empties=False)  # a count has no words
    counter = upstream(transport, timeouts, in_dialect(count.counter), max_reply_bytes=max_reply)
    counting = compose(counter, *layers, counts)

    def chat(dialect: str | Dialect, asked: Handler = handler) -> Route:
        return chat_route(
            client_dialect(dialect) if isinstance(dialect, str) else dialect,
            asked,
            max_body_bytes=config.server.max_body,
            heartbeat_s=config.heartbeat.interval,
            strict=config.strict,
        )

    def embedding(request: EmbedRequest, client: str, older: bool) -> Handler:
        asked = embeddings(transport, timeouts, request, client, older=older, max_reply_bytes=max_reply)
        return compose(asked, *layers, retries)

    def embed(name: str, *, older: bool = False) -> Route:
        return embed_route(name, embedding, max_body_bytes=config.server.max_body, strict=config.strict, older=older)

    passing = Passthrough(
        config,
        transport,
        publish=publish,
        in_flight=shared.in_flight,
        layers=(limits.admitted, limits.at_upstream),
    )

    async def startup() -> None:
        windows.warm(routes.targets)

    async def shutdown() -> None:
        await windows.aclose()

    routing: dict[tuple[str, str], Route] = {}
    if shared.metrics is not None:
        routing["GET", "/metrics"] = metrics_route(shared.metrics, shared.in_flight, bus, limits, breakers, running)
    return App(
        routing
        | {
            **model_routes(chat, embed, chat("openai-completions"), chat(count.DIALECT, counting)),
            ("GET", "/v1/models"): models_route(routes, transport, config),
            ("GET", "/v1/models/"): models_route(routes, transport, config),
            ("GET", "/v1beta/models"): models_route(routes, transport, config, "gemini"),
            ("GET", "/v1beta/models/"): models_route(routes, transport, config, "gemini"),
            ("GET", "/api/tags"): models_route(routes, transport, config, "ollama"),
            ("GET", "/api/version"): own_version,
            ("GET", "/health"): health_route(running),
            ("GET", "/ready"): ready_route(running, breakers),
            ("GET", "/api/capabilities"): capabilities_route(known),
            ("GET", "/api/telemetry"): telemetry_route(bus, running),
            ("HEAD", "/"): present,
            ("GET", "/"): present,
        },
        dialect_of=dialect_of_path,
        door=door,
        write_s=clocks.write,
        startup=startup,
        shutdown=shutdown,
        running=running,
        other=passing.route,
        takes_other=passing.takes,
    )


def rules(config: Config) -> Rules:
    given, each = config.limits, config.limits.per_key
    return Rules(
        whole=Quota(given.concurrency),
        queue=given.queue,
        queue_wait_s=given.queue_wait,
        per_key=Quota(each.concurrency, each.requests_per_minute, each.tokens_per_minute),
        upstreams={name: it.concurrency for name, it in config.upstreams.items() if it.concurrency is not None},
        total_s=config.timeouts.total,
    )


def check_whole(config: Config) -> None:
    """Raises the `ConfigError` that `gateway` would: what keys and files of the system say of the configuration."""
    destinations(config)
    keyring(config)


def keyring(config: Config) -> Keyring | None:
    """None: there are no keys. A file of none opens to nobody."""
    server = config.server
    if not server.keys and server.keys_file is None:
        return None
    return Keyring(gateway_keys(config), server.keys_file)
