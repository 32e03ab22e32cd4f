"""Routes by which the worker tells of itself: whether it lives, whether its model is there, how far it is, what runs.

They ask nobody and wait for nothing; `/v1/loading` is a stream of the engine's states, each told when it comes, and of
several that come at once the last.
"""

from __future__ import annotations

import asyncio
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import msgspec

from penstock.framing.sse import write_event
from penstock.serving.asgi import request_id_of, respond, retry_after
from penstock.serving.running import running_of

if TYPE_CHECKING:
    from penstock.serving.asgi import Receive, Route, Scope, Send
    from penstock.worker.loading import Loading

KEEP_ALIVE = b": keep-alive\n\n"
DONE = b"data: [DONE]\n\n"
#: how often who watches a load looks whether the worker is ending
LOOK_S = 0.25

_READY = {"ok": "ready"}


def state(loading: Loading) -> dict[str, Any]:
    """What `/ready` and `/v1/loading` tell. Figures are null where nobody knows them, and absent once it is ready."""
    said: dict[str, Any] = {"status": _READY.get(loading.status, loading.status), "model": loading.engine.model}
    if loading.status in ("loading", "restarting"):
        said |= msgspec.structs.asdict(loading.loaded)
    if loading.error is not None:
        said["message"] = str(loading.error)
    return said


def health_route(loading: Loading) -> Route:
    """The process answers, whatever its engine does."""

    async def health(scope: Scope, receive: Receive, send: Send) -> None:
        status = {"status": loading.status, "model": loading.engine.model, "version": version("penstock")}
        await respond(send, 200, msgspec.json.encode(status))

    return health


def ready_route(loading: Loading) -> Route:
    """200 when a request would be begun at once; 503, with the time to come back after, until then."""

    async def ready(scope: Scope, receive: Receive, send: Send) -> None:
        is_ready = loading.target is not None
        headers = [] if is_ready or loading.status == "failed" else [retry_after(loading.retry_after_s())]
        await respond(send, 200 if is_ready else 503, msgspec.json.encode(state(loading)), headers)

    return ready


def info_route(loading: Loading) -> Route:
    async def info(scope: Scope, receive: Receive, send: Send) -> None:
        said = {"status": loading.status, "version": version("penstock"), "restarts": loading.restarts}
        await respond(send, 200, msgspec.json.encode({**loading.engine.about(), **said}))

    return info


def loading_route(loading: Loading, heartbeat_s: float | None) -> Route:
    """Event stream: a state when it changes, until the model is ready or has failed; then `[DONE]`."""

    async def route(scope: Scope, receive: Receive, send: Send) -> None:
        async def gone() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        headers = [
            (b"content-type", b"text/event-stream"),
            (b"cache-control", b"no-cache, no-transform"),
            (b"x-accel-buffering", b"no"),
            (b"x-request-id", request_id_of(scope).encode()),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        running = running_of(scope)
        leaving = asyncio.ensure_future(gone())
        try:
            while not leaving.done():
                is_last = loading.status in ("ok", "failed")
                data = write_event(msgspec.json.encode(state(loading))) + (DONE if is_last else b"")
                changing = asyncio.ensure_future(loading.changed.wait())
                try:
                    await send({"type": "http.response.body", "body": data, "more_body": not is_last})
                    if is_last:
                        return
                    quiet_s = 0.0
                    while not changing.done() and not leaving.done():
                        await asyncio.wait((changing, leaving), timeout=LOOK_S, return_when=asyncio.FIRST_COMPLETED)
                        if running is not None and running.is_draining:  # nothing more will come of it
                            await send({"type": "http.response.body", "body": b""})
                            return
                        quiet_s += LOOK_S
                        if heartbeat_s is not None and quiet_s >= heartbeat_s and not changing.done():
                            quiet_s = 0.0
                            await send({"type": "http.response.body", "body": KEEP_ALIVE, "more_body": True})
                finally:
                    changing.cancel()
        finally:
            leaving.cancel()

    return route


async def version_route(scope: Scope, receive: Receive, send: Send) -> None:
    """What Ollama's clients ask before anything else."""
    await respond(send, 200, msgspec.json.encode({"version": version("penstock")}))


async def present(scope: Scope, receive: Receive, send: Send) -> None:
    """Claude Code asks `HEAD /` before anything else."""
    body = b"" if scope["method"] == "HEAD" else b"Penstock worker. The API is under /v1.\n"
    await respond(send, 200, body, content_type=b"text/plain")
