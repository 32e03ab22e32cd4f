"""Texts that are too long to be embedded are refused with both numbers; llama.cpp calls them its own fault, with a 500.

Only a text that might be too long is counted: one has never more tokens than bytes, but for what stands round it.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec

from penstock.canon.errors import ContextTooLong
from penstock.dialects.base import load_json
from penstock.worker.engine_routes import ask

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from penstock.canon.embedding import EmbedRequest
    from penstock.streams.handler import Call, Handler, Layer
    from penstock.streams.stream import EventStream
    from penstock.transport.base import Transport
    from penstock.worker.loading import Loading

#: tokens that a model puts before and behind a text
ROUND_IT = 2


def fitting(request: EmbedRequest, limit: int | None, loading: Loading, transport: Transport) -> Layer:
    """`limit`: the tokens that a text may have; None: any."""

    def layer(inner: Handler) -> Handler:
        @asynccontextmanager
        async def handle(call: Call) -> AsyncIterator[EventStream]:
            for index, text in enumerate(request.inputs):
                if limit is not None and len(text.encode("utf-8", "replace")) + ROUND_IT > limit:
                    count = await _count(text, loading, transport)
                    if count > limit:
                        raise ContextTooLong(
                            f"input[{index}] has {count:,} tokens, and the model takes {limit:,}.",
                            status=400,
                            code="context_length_exceeded",
                            param="input",
                            target="engine",
                        )
            async with inner(call) as stream:
                yield stream

        return handle

    return layer


async def _count(text: str, loading: Loading, transport: Transport) -> int:
    body = msgspec.json.encode({"content": text, "add_special": True})
    _, answer = await ask(loading, transport, "POST", "/tokenize", body)
    return len(load_json(answer)["tokens"])
