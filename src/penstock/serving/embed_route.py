"""Embeddings: parse, ask, answer in the client's dialect, with as many vectors as texts and in their order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.canon.errors import PenstockError, ProtocolError
from penstock.dialects import client_dialect, dialect
from penstock.dialects.embedding import client_embedding, embedding
from penstock.dialects.ollama.embed import write_older
from penstock.policy.document import fetch_document
from penstock.serving.asgi import ClientGone, new_request_id, read_body, refuse, respond

if TYPE_CHECKING:
    from penstock.canon.embedding import EmbedRequest
    from penstock.policy.routing import Routes
    from penstock.serving.asgi import Header, Receive, Route, Scope, Send
    from penstock.streams.clocks import Timeouts
    from penstock.transport.base import Transport


def embed_route(
    name: str, routes: Routes, transport: Transport, timeouts: Timeouts, *, max_body_bytes: int, older: bool = False
) -> Route:
    """The ASGI callable for clients of dialect `name`. `older`: Ollama's path of before, with one vector."""
    client = client_dialect(name)
    own = client_embedding(name)

    async def answered(body: bytes, request: EmbedRequest) -> tuple[bytes, list[Header]]:
        target = routes.find(request.model)
        there = embedding(target.dialect)
        is_same = there is own and not older
        asked = own.forward_request(body, request, target) if is_same else there.build_request(request, target)
        answer = await fetch_document(transport, asked, target, dialect(target.dialect), timeouts)
        headers: list[Header] = [(b"x-penstock-target", str(target).encode())]
        if asked.dropped:
            headers.append((b"x-penstock-dropped", ", ".join(asked.dropped).encode()))
        if is_same and target.model in (None, request.model):
            return answer, headers
        found = there.read_response(answer)
        if len(found.vectors) != len(request.inputs):
            raise ProtocolError(
                f"The upstream gave {len(found.vectors)} embeddings for {len(request.inputs)} texts.",
                target=str(target),
            )
        alias = request.model if target.model not in (None, request.model) else None
        return (write_older(found) if older else own.write_response(found, request, model=alias)), headers

    async def route(scope: Scope, receive: Receive, send: Send) -> None:
        request_id = new_request_id()
        try:
            body = await read_body(scope, receive, max_body_bytes)
            answer, headers = await answered(body, own.parse_request(body))
        except ClientGone:
            return
        except PenstockError as error:
            await refuse(send, error, client, request_id)
            return
        await respond(send, 200, answer, [(b"x-request-id", request_id.encode()), *headers])

    return route
