"""The leaf of an embedding call: one question, with as many vectors for an answer as it has texts, in their order.

It is the leaf of replies, asking otherwise. Where upstream and client speak one dialect, bytes pass as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.dialects.embedding import EmbeddingReader, client_embedding, embedding
from penstock.policy.upstream import upstream
from penstock.streams.stream import MAX_REPLY_BYTES

if TYPE_CHECKING:
    from penstock.canon.embedding import EmbedRequest
    from penstock.canon.target import Target
    from penstock.canon.wire import HttpRequest
    from penstock.dialects.base import Reader
    from penstock.streams.clocks import Timeouts
    from penstock.streams.handler import Call, Handler
    from penstock.transport.base import Transport


def is_verbatim(client: str, target: Target, *, older: bool) -> bool:
    """Whether client and upstream say embeddings alike. `older` is Ollama's path of before, whose shape is its own."""
    return not older and embedding(target.dialect) is client_embedding(client)


def embeddings(
    transport: Transport,
    timeouts: Timeouts,
    request: EmbedRequest,
    client: str | None,
    *,
    older: bool = False,
    max_reply_bytes: int = MAX_REPLY_BYTES,
) -> Handler:
    """The handler that asks `call.target` for what `request` wants.

    `client` is the dialect of `call.body`, None where there is none.
    """

    def asks(call: Call, target: Target) -> tuple[Reader, HttpRequest]:
        there = embedding(target.dialect)
        passes = client is not None and is_verbatim(client, target, older=older)
        if client is not None and passes:
            sent = client_embedding(client).forward_request(call.body, request, target)
        else:
            sent = there.build_request(request, target)
        return EmbeddingReader(target.dialect, len(request.inputs), whole=not passes), sent

    return upstream(transport, timeouts, asks, max_frame_bytes=max_reply_bytes, max_reply_bytes=max_reply_bytes)
