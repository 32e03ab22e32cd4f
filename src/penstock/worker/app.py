"""The worker, on one screen: the gateway's stack with the engine as its upstream.

`recorded → admitted → acquired → loading → upstream`: a call waits for one of the engine's slots, then for the model,
then goes to the engine over loopback. The line before the slots is bounded.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from penstock.canon.errors import ConnectError
from penstock.canon.wire import HttpRequest
from penstock.dialects import client_dialect
from penstock.dialects.anthropic_messages import count
from penstock.policy.limits import Limits, Quota, Rules
from penstock.policy.upstream import in_dialect, upstream
from penstock.serving.asgi import App, refuse, request_id_of, respond
from penstock.serving.context import ContextWindows, fetch_json
from penstock.serving.paths import dialect_of_path
from penstock.serving.route import chat_route
from penstock.streams.clocks import Timeouts
from penstock.streams.handler import compose
from penstock.telemetry.recorder import recorded
from penstock.worker.about import health_route, info_route, loading_route, ready_route
from penstock.worker.crash import EngineTransport
from penstock.worker.job_routes import job_routes
from penstock.worker.jobs import Jobs
from penstock.worker.loading import Loading
from penstock.worker.narration import acquired

if TYPE_CHECKING:
    from collections.abc import Callable

    from penstock.canon.errors import PenstockError
    from penstock.dialects.base import Dialect
    from penstock.serving.asgi import Receive, Route, Scope, Send
    from penstock.serving.door import Door
    from penstock.streams.handler import Handler
    from penstock.telemetry.bus import Bus
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
) -> App:
    """The ASGI application. It owns `transport` and `bus` from its startup to its shutdown.

    `refuses`: calls that come while the model loads are told to come back, and do not wait. `watch` is told each time
    that the engine's state has changed.
    """
    loading = Loading(engine, lambda error: app.fail(error), refuses=refuses, watch=watch)
    transport = EngineTransport(transport, lambda: loading.life)
    windows = ContextWindows(transport)
    slots = Limits(Rules(Quota(concurrency=engine.slots), queue, queue_wait_s=None), whole="The engine")
    recorder = recorded(bus.publish, context_window=windows.get)
    handler = compose(upstream(transport, TIMEOUTS), recorder, slots.admitted, acquired, loading.layer)
    jobs = Jobs(handler)
    # Counting takes no slot of the engine's.
    counting = compose(upstream(transport, TIMEOUTS, in_dialect(count.counter)), recorder, loading.layer)

    def chat(dialect: str | Dialect, asked: Handler = handler) -> Route:
        spoken = client_dialect(dialect) if isinstance(dialect, str) else dialect
        return chat_route(spoken, asked, max_body_bytes=MAX_BODY_BYTES, heartbeat_s=heartbeat_s)

    async def models(scope: Scope, receive: Receive, send: Send) -> None:
        entry = {"id": engine.model, "object": "model", "created": 0, "owned_by": "penstock"}
        await respond(send, 200, msgspec.json.encode({"object": "list", "data": [entry]}))

    async def props(scope: Scope, receive: Receive, send: Send) -> None:
        """The engine's own, as it tells them: gateways read the context size here."""
        error: PenstockError
        if loading.target is None:
            await refuse(send, loading.refusal(), client_dialect("openai-chat"), request_id_of(scope))
            return
        base, key = loading.target.url.removesuffix("/v1"), loading.target.key
        assert key is not None
        request = HttpRequest("GET", f"{base}/props", (("authorization", f"Bearer {key.reveal()}"),))
        found = await fetch_json(transport, request)
        if found is None:
            error = ConnectError("The engine does not tell its properties.")
            await refuse(send, error, client_dialect("openai-chat"), request_id_of(scope))
            return
        await respond(send, 200, msgspec.json.encode(found))

    async def present(scope: Scope, receive: Receive, send: Send) -> None:
        body = b"" if scope["method"] == "HEAD" else b"Penstock worker. The API is under /v1.\n"
        await respond(send, 200, body, content_type=b"text/plain")

    async def startup() -> None:
        bus.start()
        loading.start()

    async def shutdown() -> None:
        await jobs.stop()
        await windows.aclose()
        await loading.stop()
        await transport.aclose()
        await asyncio.to_thread(bus.close)

    app = App(
        {
            ("POST", "/v1/chat/completions"): chat("openai-chat"),
            ("POST", "/v1/messages"): chat("anthropic-messages"),
            ("POST", "/v1/messages/count_tokens"): chat(count.DIALECT, counting),
            **job_routes(engine.model, jobs, max_body_bytes=MAX_BODY_BYTES, heartbeat_s=heartbeat_s),
            ("GET", "/v1/models"): models,
            ("GET", "/props"): props,
            ("GET", "/health"): health_route(loading),
            ("GET", "/ready"): ready_route(loading),
            ("GET", "/v1/loading"): loading_route(loading, heartbeat_s),
            ("GET", "/v1/info"): info_route(loading),
            ("HEAD", "/"): present,
            ("GET", "/"): present,
        },
        dialect_of=dialect_of_path,
        door=door,
        startup=startup,
        shutdown=shutdown,
    )
    return app
