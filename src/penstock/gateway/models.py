"""The names that clients may use: `GET /v1/models` as the SDKs of OpenAI, Anthropic and Gemini read it, `/api/tags` as
Ollama's does.

Names in the configuration come first; behind a pattern stands an upstream, which is asked for its own list. One that
does not answer is left out; when none is left to ask and nothing is known by name, that is the answer's error. A key
sees what it may ask for.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from urllib.parse import unquote

import msgspec

from penstock.canon.errors import ConnectError, PenstockError, UnknownModel
from penstock.dialects import client_dialect
from penstock.policy.client_key import with_clients_key
from penstock.policy.models import ask_models
from penstock.serving.asgi import KEY, ClientHeaders, header, respond, turn_away
from penstock.serving.model_lists import LISTED, WRITERS, written

if TYPE_CHECKING:
    from collections.abc import Sequence

    from penstock.canon.target import Target
    from penstock.config.model import Config
    from penstock.policy.routing import Routes
    from penstock.serving.asgi import Receive, Route, Scope, Send
    from penstock.transport.base import Transport

ASK_S = 5.0


def models_route(routes: Routes, transport: Transport, config: Config, dialect: str = "openai-chat") -> Route:
    """All names, in the shape of the dialect. Below the path, the one that the rest of the path names."""
    write = WRITERS.get(dialect, written)

    async def route(scope: Scope, receive: Receive, send: Send) -> None:
        speaks = "anthropic-messages" if header(scope, b"anthropic-version") is not None else dialect
        try:
            key, headers = scope.get(KEY), ClientHeaders(scope["headers"])
            asked_of = [
                with_clients_key(target, headers, speaks, key) if target.forward_auth else target
                for target in routes.open_targets
            ]
            owners = await _owners(routes, asked_of, transport, config)
            if key is not None:
                owners = {name: owner for name, owner in owners.items() if key.may_ask_for(name)}
            asked = unquote(scope["path"]).partition("/models/")[2]
            if asked and asked not in owners:
                known = ", ".join(sorted(owners)) or "none"
                raise UnknownModel(f"There is no model `{asked}` here.", param="model", fix=f"Known: {known}.")
        except PenstockError as error:
            await turn_away(scope, send, error, client_dialect(speaks))
            return
        if asked:
            found = write({asked: owners[asked]})
            await respond(send, 200, msgspec.json.encode(next(iter(found[LISTED.get(dialect, "data")]))))
        else:
            await respond(send, 200, msgspec.json.encode(write(owners)))

    return route


async def _owners(routes: Routes, targets: Sequence[Target], transport: Transport, config: Config) -> dict[str, str]:
    """Name → the upstream that has it. `targets` are asked for their lists."""
    owners = {name: routes.find(name).first.upstream for name in routes.names}
    lists = await asyncio.gather(*(_ask(target, transport, config) for target in targets))
    for target, names in zip(targets, lists, strict=True):
        for name in names or ():
            owners.setdefault(name, target.upstream)
    if not owners and lists and all(names is None for names in lists):
        asked = ", ".join(target.url for target in targets)
        raise ConnectError(f"No upstream told its models: {asked}.", fix="Start it, or correct its url.")
    return owners


async def _ask(target: Target, transport: Transport, config: Config) -> list[str] | None:
    path = config.upstreams[target.upstream].models_path
    try:
        return [model.id for model in await ask_models(target, transport, path=path, timeout_s=ASK_S)]
    except PenstockError:
        return None
