"""Embeddings: parse, ask, answer in the client's dialect, or pass on what already is in it.

A call like any other: it is routed and recorded, a failure is a status in the client's dialect, a client that leaves
cancels it (C7).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from penstock.canon.errors import Cancelled, PenstockError, RequestError
from penstock.canon.events import BlockEnd, Custom
from penstock.dialects import client_dialect
from penstock.dialects.embedding import client_embedding
from penstock.dialects.ollama.embed import write_older
from penstock.policy.embed import is_verbatim
from penstock.serving.asgi import KEY, ClientGone, ClientHeaders, read_body, request_id_of, turn_away
from penstock.serving.connection import connection_of
from penstock.serving.route import alias_of, answer_headers, refuse_call, send_document, unless_gone
from penstock.serving.running import reason_of
from penstock.serving.writers import rename_model
from penstock.streams.handler import Call

if TYPE_CHECKING:
    from penstock.canon.embedding import Embeddings, EmbedRequest
    from penstock.serving.asgi import Receive, Route, Scope, Send
    from penstock.streams.handler import Handler
    from penstock.streams.stream import EventStream

#: request, the client's dialect, whether it came by the older path → who answers it
Embeds = Callable[["EmbedRequest", str, bool], "Handler"]


def embed_route(name: str, handler: Embeds, *, max_body_bytes: int, strict: bool = False, older: bool = False) -> Route:
    """The ASGI callable for clients of dialect `name`. `older`: Ollama's path of before, with one vector."""
    client = client_dialect(name)
    own = client_embedding(name)

    def written(found: Embeddings, request: EmbedRequest, alias: str | None) -> bytes:
        return write_older(found) if older else own.write_response(found, request, model=alias)

    async def answer(call: Call, request: EmbedRequest, scope: Scope, send: Send) -> None:
        try:
            async with handler(request, name, older)(call) as stream:
                raw, found = await _whole(stream)
                alias = alias_of(call, stream)
                if found is not None:
                    body = written(found, request, alias)
                else:
                    assert is_verbatim(name, stream.target, older=older)
                    body = raw if alias is None else rename_model(raw, alias)
                headers = [(b"x-request-id", call.request_id.encode()), *answer_headers(call, stream)]
                call.http_status = 200
                call.sent.bytes_out += len(body)
                call.sent.is_whole = True
                await send_document(send, body, headers, connection_of(scope))
        except (PenstockError, asyncio.CancelledError) as raised:
            await refuse_call(call, client, send, reason_of(call, raised))

    async def route(scope: Scope, receive: Receive, send: Send) -> None:
        request_id = request_id_of(scope)
        try:
            body = await read_body(scope, receive, max_body_bytes)
            request = own.parse_request(body)
        except ClientGone:
            return
        except RequestError as error:
            await turn_away(scope, send, error, client, request_id)
            return
        call = Call(
            request_id=request_id,
            model=request.model,
            stream=False,
            dialect=client,
            body=body,
            headers=ClientHeaders(scope["headers"]),
            route=scope["path"],
            strict=strict,
            key=scope.get(KEY),
        )
        await unless_gone(call, answer(call, request, scope, send), scope, receive)

    return route


async def _whole(stream: EventStream) -> tuple[bytes, Embeddings | None]:
    """The answer's bytes, and its vectors where somebody read them."""
    pieces: list[bytes] = []
    found: Embeddings | None = None
    async for batch in stream:
        pieces.append(batch.raw)
        for event in batch.events:
            if isinstance(event, BlockEnd) and isinstance(event.part, Custom):
                found = event.part.raw
    if not stream.is_complete:
        raise Cancelled("The request was cancelled.")
    return b"".join(pieces), found
