"""How large a target's context is, learnt in the background and never waited for (C5).

Where a server tells it is `dialects.context`'s to know. What is known is kept by upstream and model, and asked for
again when it is old; while nothing is known, records say nothing. A server that tells nothing is asked less and less
often.
"""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec import Struct

from penstock.canon.errors import PenstockError
from penstock.canon.wire import ConnectionLost, HttpRequest
from penstock.dialects.base import load_json
from penstock.dialects.context import ANY, places

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from penstock.canon.target import Target
    from penstock.transport.base import Transport

T = TypeVar("T")

#: How long what a server of one model, or a whole list, told is taken for true. Lists are long and seldom change.
TTL_S, LIST_TTL_S = 300.0, 3600.0
#: After a failure, the next call may ask again; not before. Doubled up to `TTL_S` while nothing is told.
RETRY_S = 1.0
#: What a target may take to answer; nobody waits for it.
ASK_S = 10.0
MAX_BODY_BYTES = 4 * 1024 * 1024
#: Models of one upstream: clients may make names up, and a list may be long.
MAX_MODELS = 2000


class _Upstream(Struct):
    """What is known of one: tokens by model, and from when it may be asked of that model again, or (`ANY`) of all.

    `wait_s`: how long to wait after the next failure.
    """

    sizes: dict[str, int] = {}
    ask_again_at: dict[str, float] = {}
    is_asked: bool = False
    wait_s: float = RETRY_S


class ContextWindows:
    def __init__(self, transport: Transport, *, now: Callable[[], float] = time.monotonic) -> None:
        self._transport = transport
        self._now = now
        self._upstreams: dict[str, _Upstream] = {}
        self._asking: set[asyncio.Task[None]] = set()

    def get(self, target: Target, model: str = ANY) -> int | None:
        """Tokens, or None while nobody has said. Asks in the background when what is known is missing or old.

        `model` is its name at the target.
        """
        upstream = self._upstreams.get(target.upstream)
        if upstream is None:
            upstream = self._upstreams[target.upstream] = _Upstream()
        if not upstream.is_asked:
            again_at = upstream.ask_again_at
            if self._now() >= again_at.get(ANY, 0.0) and self._now() >= again_at.get(model, 0.0):
                self._ask(target, model, upstream)
        return upstream.sizes.get(model) or upstream.sizes.get(ANY)

    def warm(self, targets: Iterable[Target]) -> None:
        for target in targets:
            self.get(target, target.model or ANY)

    def _ask(self, target: Target, model: str, upstream: _Upstream) -> None:
        # With a client's own key nobody asks but the client.
        if target.forward_auth or not places(target, model):
            upstream.ask_again_at[ANY] = math.inf
            return
        upstream.is_asked = True  # one at a time
        task = asyncio.get_running_loop().create_task(self._learn(target, model, upstream))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def _learn(self, target: Target, model: str, upstream: _Upstream) -> None:
        sizes: dict[str, int] = {}
        try:
            async with asyncio.timeout(ASK_S):
                for place in places(target, model):
                    sizes |= await self._told(place.request, place.read)
                    if model in sizes or ANY in sizes:
                        break
        except TimeoutError:
            pass  # asked again later; a record without a context is still true
        finally:
            upstream.is_asked = False
        again_at = upstream.ask_again_at
        if not sizes:
            again_at[ANY] = self._now() + upstream.wait_s
            upstream.wait_s = min(upstream.wait_s * 2, TTL_S)
            return
        upstream.wait_s = RETRY_S
        upstream.sizes = _bounded(upstream.sizes | sizes)
        if ANY in sizes or target.profile != "llamacpp":
            again_at[ANY] = self._now() + (TTL_S if ANY in sizes else LIST_TTL_S)
        else:  # llama.cpp with several models tells of one that is asked for
            again_at[ANY] = self._now() + RETRY_S
            again_at[model] = self._now() + TTL_S
            upstream.ask_again_at = _bounded(again_at)

    async def _told(self, request: HttpRequest, read: Callable[[Any], dict[str, int]]) -> dict[str, int]:
        try:
            return read(await fetch_json(self._transport, request))
        except (PenstockError, ConnectionLost):
            return {}

    async def aclose(self) -> None:
        for task in list(self._asking):
            task.cancel()
        await asyncio.gather(*self._asking, return_exceptions=True)


def _bounded(known: dict[str, T]) -> dict[str, T]:
    """What came last."""
    return known if len(known) <= MAX_MODELS else dict(list(known.items())[-MAX_MODELS:])


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
