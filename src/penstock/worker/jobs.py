"""The worker's own routes: one prompt in, a stream of its own events out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.worker.execute import execute_route

if TYPE_CHECKING:
    from penstock.serving.asgi import Route
    from penstock.streams.handler import Handler


def job_routes(
    model: str, handler: Handler, *, max_body_bytes: int, heartbeat_s: float | None
) -> dict[tuple[str, str], Route]:
    """Rows for the worker's table of routes."""
    execute = execute_route(model, handler, max_body_bytes=max_body_bytes, heartbeat_s=heartbeat_s)
    return {("POST", "/v1/execute"): execute}
