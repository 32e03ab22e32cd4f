"""`GET /v1/models`: the names that clients may use, in the shape that OpenAI's and Anthropic's SDKs both read.

Names in the configuration come first; behind a pattern stands an upstream, which is asked for its own list. One that
does not answer is left out; when none is left to ask and nothing is known by name, that is the answer's error.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from penstock.canon.errors import ConnectError, PenstockError
from penstock.dialects import client_dialect
from penstock.policy.models import ask_models
from penstock.serving.asgi import header, new_request_id, refuse, respond

if TYPE_CHECKING:
    from penstock.canon.target import Target
    from penstock.policy.routing import Routes
    from penstock.serving.asgi import Receive, Route, Scope, Send
    from penstock.transport.base import Transport

ASK_S = 5.0


def models_route(routes: Routes, transport: Transport) -> Route:
    async def route(scope: Scope, receive: Receive, send: Send) -> None:
        speaks_anthropic = header(scope, b"anthropic-version") is not None
        owners = {name: routes.find(name).upstream for name in routes.names}
        lists = await asyncio.gather(*(_ask(target, transport) for target in routes.open_targets))
        for target, names in zip(routes.open_targets, lists, strict=True):
            for name in names or ():
                owners.setdefault(name, target.upstream)
        if not owners and lists and all(names is None for names in lists):
            asked = ", ".join(target.url for target in routes.open_targets)
            error = ConnectError(f"No upstream told its models: {asked}.", fix="Start it, or correct its url.")
            await refuse(
                send,
                error,
                client_dialect("anthropic-messages" if speaks_anthropic else "openai-chat"),
                new_request_id(),
            )
            return
        await respond(send, 200, _written(owners))

    return route


async def _ask(target: Target, transport: Transport) -> list[str] | None:
    try:
        return [model.id for model in await ask_models(target, transport, timeout_s=ASK_S)]
    except PenstockError:
        return None


def _written(owners: dict[str, str]) -> bytes:
    """Both shapes in one: each SDK reads its own members and skips the other's."""
    data: list[dict[str, Any]] = [
        {
            "id": name,
            "object": "model",
            "created": 0,
            "owned_by": owner,
            "type": "model",
            "display_name": name,
            "created_at": "1970-01-01T00:00:00Z",
        }
        for name, owner in owners.items()
    ]
    ends = {"first_id": data[0]["id"] if data else None, "last_id": data[-1]["id"] if data else None}
    return msgspec.json.encode({"object": "list", "data": data, "has_more": False, **ends})
