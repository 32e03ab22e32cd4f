"""A network of scripted targets under the whole stack of policy, on a clock that costs no time."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from penstock.canon.request import ChatRequest, Message
from penstock.canon.response import fold
from penstock.canon.target import Target
from penstock.policy.breaker import Breaker, Breakers
from penstock.policy.fallback import fallback
from penstock.policy.recovery import recovered
from penstock.policy.retry import Retry, retried
from penstock.policy.routing import Destination, Routes, routed
from penstock.policy.upstream import upstream
from penstock.streams.clocks import Timeouts
from penstock.streams.handler import Call, compose
from penstock.transport.memory import MemoryTransport, Reply
from tests.streams.replies import DONE, END, HEL, LO, ROLE
from tests.virtual_clock import START, now

if TYPE_CHECKING:
    from penstock.canon.wire import HttpRequest
    from penstock.streams.stream import EventStream

REQUEST = ChatRequest("m", (Message.of("user", "Hi"),), stream=True)


def streamed(*chunks: Any) -> Reply:
    return Reply(headers={"content-type": "text/event-stream"}, chunks=chunks)


def refused(status: int, body: bytes = b"", **headers: str) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status=status, headers=named, chunks=(body,) if body else ())


HELLO = streamed(ROLE, HEL, LO, END + DONE)
NOTHING = streamed(ROLE, END + DONE)


class Network:
    """What each target says, call after call; the last one it says for good. `asked`: (seconds, target) in order."""

    def __init__(
        self,
        *,
        retry: Retry | None = None,
        breaker: Breaker | None = None,
        choice: Any = "ordered",
        weights: tuple[float, ...] = (),
        timeouts: Timeouts | None = None,
        seed: int = 0,
        recovery: Any = "off",
        profiles: dict[str, str] | None = None,
        **says: list[Reply] | Reply,
    ) -> None:
        self.says = {name: list(said) if isinstance(said, list) else [said] for name, said in says.items()}
        self.asked: list[tuple[float, str]] = []
        self.transport = MemoryTransport(self._answer)
        self.targets = tuple(
            Target(name, f"http://{name}/v1", "openai-chat", "m", profile=(profiles or {}).get(name)) for name in says
        )
        self.breakers = Breakers(breaker, now=now)
        self.breakers.know(self.targets)
        routes = Routes({"*": Destination(self.targets, choice, weights)})
        timeouts = timeouts or Timeouts()
        self.handler = compose(
            upstream(self.transport, timeouts),
            routed(routes, self.breakers, rng=random.Random(seed)),
            recovered(recovery, total_s=timeouts.total),
            fallback(self.breakers),
            retried(retry or Retry(), total_s=timeouts.total, chance=lambda: 0.0),
        )

    def _answer(self, request: HttpRequest) -> Reply:
        name = request.url.split("/")[2]
        self.asked.append((round(now() - START, 3), name))
        said = self.says[name]
        return said.pop(0) if len(said) > 1 else said[0]

    @property
    def order(self) -> str:
        return "".join(name for _, name in self.asked)

    def call(self, **fields: Any) -> Call:
        return Call(request_id="r", model="m", stream=True, request=REQUEST, now=now, **fields)

    async def ask(self, call: Call | None = None) -> str:
        """The text of the reply; raises what the call raises."""
        async with self.handler(call or self.call()) as stream:
            return await read(stream)

    def states(self) -> dict[str, str]:
        return {state.target.partition(":")[0]: state.breaker for state in self.breakers.states()}

    def in_flight(self) -> int:
        return sum(state.in_flight for state in self.breakers.states())


async def read(stream: EventStream) -> str:
    return fold([event async for batch in stream for event in batch.events]).text


def told(call: Call) -> list[tuple[str, str | None]]:
    return [(attempt.target, attempt.error) for attempt in call.attempts]
