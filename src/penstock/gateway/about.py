"""Routes by which the gateway tells of itself: whether it lives, its version, its numbers. They ask no upstream."""

from __future__ import annotations

import asyncio
from importlib.metadata import version
from typing import TYPE_CHECKING

import msgspec

from penstock.serving.asgi import header, respond
from penstock.telemetry.counts import Places, TargetNow
from penstock.telemetry.metrics_page import CONTENT_TYPE, OPENMETRICS, wants_openmetrics

if TYPE_CHECKING:
    from penstock.policy.breaker import Breakers
    from penstock.policy.capabilities import Capabilities
    from penstock.policy.limits import Limits
    from penstock.serving.asgi import Receive, Route, Scope, Send
    from penstock.serving.running import Running
    from penstock.telemetry.bus import Bus
    from penstock.telemetry.exporters.prometheus import PrometheusExporter
    from penstock.telemetry.recorder import InFlight


def health_route(running: Running) -> Route:
    """The process answers; that is all it says."""

    async def health(scope: Scope, receive: Receive, send: Send) -> None:
        status = "draining" if running.is_draining else "ok"
        await respond(send, 200, msgspec.json.encode({"status": status, "version": version("penstock")}))

    return health


def ready_route(running: Running, breakers: Breakers) -> Route:
    """Whether to send requests here: 503 while it drains. How upstreams are is told as calls have found them.

    `up`: no call has found otherwise; `down`: its last calls failed (an open breaker); `trying`: one may look again.
    That all are down is told and is no reason to send requests elsewhere, where the same upstreams would be.
    """

    async def ready(scope: Scope, receive: Receive, send: Send) -> None:
        targets = {
            state.target: {"state": _WORDS[state.breaker], "failures": state.failures, "in_flight": state.in_flight}
            for state in breakers.states()
        }
        status = "draining" if running.is_draining else "ready"
        body = msgspec.json.encode({"status": status, "targets": targets})
        await respond(send, 503 if running.is_draining else 200, body, [(b"retry-after", b"1")] * running.is_draining)

    return ready


_WORDS = {"closed": "up", "open": "down", "half_open": "trying"}


def places(limits: Limits) -> list[Places]:
    """For metrics: what is limited, and how full it is."""
    return [
        Places(of, name, gate.places, gate.busy, gate.waiting)
        for of, name, gate in limits.gates
        if gate.places is not None
    ]


def targets_now(breakers: Breakers) -> list[TargetNow]:
    """For metrics: which targets work, and what they do."""
    return [TargetNow(it.target, int(it.breaker != "closed"), it.in_flight) for it in breakers.states()]


def metrics_route(
    exporter: PrometheusExporter, in_flight: InFlight, bus: Bus, limits: Limits, breakers: Breakers, running: Running
) -> Route:
    async def metrics(scope: Scope, receive: Receive, send: Send) -> None:
        exporter.see(in_flight.count, bus.states(), places(limits), targets_now(breakers), running.refusals)
        openmetrics = wants_openmetrics(header(scope, b"accept") or "")
        page = await asyncio.to_thread(exporter.page, openmetrics=openmetrics)
        await respond(send, 200, page, content_type=OPENMETRICS if openmetrics else CONTENT_TYPE)

    return metrics


def capabilities_route(known: Capabilities) -> Route:
    async def route(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, 200, msgspec.json.encode({"targets": known.report()}))

    return route


def telemetry_route(bus: Bus, running: Running) -> Route:
    """How the exporters of this process do, and how many requests it refused that have no record, by why."""

    async def route(scope: Scope, receive: Receive, send: Send) -> None:
        states = await asyncio.to_thread(bus.states)  # what is kept on disk is counted there
        await respond(send, 200, msgspec.json.encode({"exporters": states, "refused": running.refusals}))

    return route


async def own_version(scope: Scope, receive: Receive, send: Send) -> None:
    """What Ollama's clients ask before anything else."""
    await respond(send, 200, msgspec.json.encode({"version": version("penstock")}))


async def present(scope: Scope, receive: Receive, send: Send) -> None:
    """Claude Code asks `HEAD /` before anything else."""
    body = b"" if scope["method"] == "HEAD" else b"Penstock gateway. The API is under /v1.\n"
    await respond(send, 200, body, content_type=b"text/plain")
