"""What a client's calls go through: the gateway's own layers, without its doors.

    recovered → fallback → retried → capable → upstream

A call of several targets is asked at the next one where that may help; a call of one goes without that layer, and one
that is not to be taken up when it breaks in the middle without the first. What is learnt of those who are asked (what
they lack, whether they work) is kept for each loop that the client is used on.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from penstock.policy.breaker import Breakers
from penstock.policy.capabilities import Capabilities, capable
from penstock.policy.embed import embeddings
from penstock.policy.fallback import fallback
from penstock.policy.recovery import recovered
from penstock.policy.retry import Retry, retried
from penstock.policy.upstream import in_dialect, upstream
from penstock.streams.handler import compose

if TYPE_CHECKING:
    from collections.abc import Callable

    from penstock.canon.embedding import EmbedRequest
    from penstock.canon.target import Target
    from penstock.policy.recovery import Mode
    from penstock.streams.clocks import Timeouts
    from penstock.streams.handler import Handler, Layer
    from penstock.transport.base import Transport

_ASKS = in_dialect()
_ONCE = Retry(attempts=1)


class _Learnt:
    """On one loop."""

    def __init__(self) -> None:
        self.capabilities = Capabilities()
        self.breakers = Breakers()


class Stack:
    """`retry` None: nobody is asked twice, but where one fails, the next. `continues` says who goes on with a reply."""

    def __init__(
        self, timeouts: Timeouts, retry: Retry | None, recovery: Mode, continues: Callable[[Target], bool]
    ) -> None:
        self.timeouts = timeouts
        self._retry = retry
        self._recovery: Mode = recovery
        self._continues = continues
        self._learnt: WeakKeyDictionary[asyncio.AbstractEventLoop, _Learnt] = WeakKeyDictionary()

    def chat(self, transport: Transport, *, targets: int) -> Handler:
        """For a call on the running loop, which so many targets may answer."""
        loop = asyncio.get_running_loop()
        learnt = self._learnt.get(loop)
        if learnt is None:
            learnt = self._learnt[loop] = _Learnt()
        layers: list[Layer] = []
        retry = self._retry
        if self._recovery != "off":
            layers.append(recovered(self._recovery, total_s=self.timeouts.total, continues=self._continues))
        if targets > 1:
            layers.append(fallback(learnt.breakers))
            retry = retry or _ONCE  # which also passes over a reply that says nothing
        if retry is not None:
            layers.append(retried(retry, total_s=self.timeouts.total))
        layers.append(capable(learnt.capabilities, _ASKS))
        return compose(upstream(transport, self.timeouts, _ASKS), *layers)

    def embed(self, transport: Transport, request: EmbedRequest) -> Handler:
        layers = [retried(self._retry, total_s=self.timeouts.total)] if self._retry is not None else []
        return compose(embeddings(transport, self.timeouts, request, None), *layers)
