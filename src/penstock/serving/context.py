"""How large a target's context is, learnt in the background and never waited for (C5).

llama.cpp tells it at `/props`. What is known is kept for `TTL_S`; while nothing is known, records say nothing.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from penstock.canon.errors import PenstockError
from penstock.canon.wire import ConnectionLost, HttpRequest
from penstock.dialects.base import load_json

if TYPE_CHECKING:
    from collections.abc import Iterable

    from penstock.canon.target import Target
    from penstock.transport.base import Transport

TTL_S = 300.0
#: After a failure, the next call may ask again; not before.
RETRY_S = 1.0
#: What a target may take to answer; nobody waits for it.
ASK_S = 10.0
MAX_BODY_BYTES = 4 * 1024 * 1024


class ContextWindows:
    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._known: dict[str, int] = {}
        self._ask_again_at: dict[str, float] = {}
        self._asking: set[asyncio.Task[None]] = set()

    def get(self, target: Target) -> int | None:
        """Tokens, or None while nobody has said. Asks in the background when what is known is missing or old."""
        if target.profile != "llamacpp":
            return None
        if time.monotonic() >= self._ask_again_at.get(target.upstream, 0.0):
            self._ask(target)
        return self._known.get(target.upstream)

    def warm(self, targets: Iterable[Target]) -> None:
        for target in targets:
            self.get(target)

    def _ask(self, target: Target) -> None:
        self._ask_again_at[target.upstream] = time.monotonic() + RETRY_S  # one at a time
        task = asyncio.get_running_loop().create_task(self._learn(target))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def _learn(self, target: Target) -> None:
        base = target.url.rstrip("/").removesuffix("/v1")
        headers = [("accept", "application/json"), *target.headers]
        if target.key is not None:
            headers.append(("authorization", f"Bearer {target.key.reveal()}"))
        try:
            async with asyncio.timeout(ASK_S):
                props = await fetch_json(self._transport, HttpRequest("GET", f"{base}/props", tuple(headers)))
            size = props["default_generation_settings"]["n_ctx"]
        except (PenstockError, ConnectionLost, TimeoutError, KeyError, TypeError):
            return  # asked again later; a record without a context is still true
        if isinstance(size, int) and size > 0:
            self._known[target.upstream] = size
            self._ask_again_at[target.upstream] = time.monotonic() + TTL_S

    async def aclose(self) -> None:
        for task in list(self._asking):
            task.cancel()
        await asyncio.gather(*self._asking, return_exceptions=True)


async def fetch_json(transport: Transport, request: HttpRequest) -> Any:
    """The JSON body of a 2xx answer, or None. Bounded by `MAX_BODY_BYTES`."""
    response = await transport.open(request, connect_s=5.0)
    try:
        pieces: list[bytes] = []
        size = 0
        while data := await response.read():
            pieces.append(data)
            size += len(data)
            if size > MAX_BODY_BYTES:
                return None
        response.release()
    finally:
        response.abort()
    return load_json(b"".join(pieces)) if 200 <= response.status < 300 else None
