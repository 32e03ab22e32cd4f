"""Which targets a call goes to, and in which order: the model's name, looked up in a table of names and patterns.

A name that stands in the table wins; then the longest pattern that fits (`claude-*`); then `*`. A name leads to one
target or to several: in their order, by weight, or the least busy first. Where they are chosen from, a session
(`x-session-id`) stays with whoever answered it last; the last `MAX_SESSIONS` are remembered.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from penstock.canon.errors import UnknownModel

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from penstock.canon.target import Target
    from penstock.policy.breaker import Breakers
    from penstock.streams.handler import Call, Handler, Layer
    from penstock.streams.stream import EventStream

Choice = Literal["ordered", "weighted", "least_busy"]

SESSION_HEADER = "x-session-id"

#: sessions that are remembered, and how much of a session's id
MAX_SESSIONS = 10_000
MAX_SESSION_CHARS = 256


class Destination(Struct, frozen=True):
    """Where a name leads. `choice` says which target is asked first; the others are left to fall back on.

    `weights` go with the targets; none: all alike. `least_busy` counts calls in flight, by weight.
    """

    targets: tuple[Target, ...]
    choice: Choice = "ordered"
    weights: tuple[float, ...] = ()

    @property
    def first(self) -> Target:
        return self.targets[0]

    def in_order(self, breakers: Breakers, rng: random.Random) -> tuple[Target, ...]:
        if self.choice == "ordered" or len(self.targets) == 1:
            return self.targets
        weighted = list(zip(self.targets, self.weights or (1.0,) * len(self.targets), strict=True))
        if self.choice == "weighted":
            # The first to come of independent arrivals, each at its own rate, is drawn by weight; so is the next.
            return tuple(target for target, _ in sorted(weighted, key=lambda each: rng.expovariate(each[1])))
        rng.shuffle(weighted)  # the sort keeps this order among equals
        return tuple(
            target for target, _ in sorted(weighted, key=lambda each: breakers.of(each[0]).in_flight / each[1])
        )


class Routes:
    """Model name or pattern → where it leads. `find` is the decision, and nothing else."""

    def __init__(self, table: Mapping[str, Destination]) -> None:
        self._exact = {name: found for name, found in table.items() if not is_pattern(name)}
        patterns = [name for name in table if is_pattern(name)]
        self._patterns = [(name, table[name]) for name in sorted(patterns, key=len, reverse=True)]

    @property
    def names(self) -> list[str]:
        """The names that stand in the table, patterns left out."""
        return list(self._exact)

    @property
    def targets(self) -> list[Target]:
        """Every target, once."""
        found = [*self._exact.values(), *(destination for _, destination in self._patterns)]
        return list({str(target): target for destination in found for target in destination.targets}.values())

    @property
    def open_targets(self) -> list[Target]:
        """The targets that patterns lead to: what models they have, only they know."""
        found = [target for _, destination in self._patterns for target in destination.targets]
        return list({target.upstream: target for target in found}.values())

    def find(self, model: str) -> Destination:
        found = self._exact.get(model)
        if found is not None:
            return found
        for pattern, candidate in self._patterns:
            if fnmatchcase(model, pattern):
                return candidate
        known = ", ".join(sorted(self._exact)) or "none by name"
        raise UnknownModel(f"There is no model `{model}` here.", param="model", fix=f"Known: {known}.")


def is_pattern(name: str) -> bool:
    return any(sign in name for sign in "*?[")


def routed(routes: Routes, breakers: Breakers, *, rng: random.Random | None = None) -> Layer:
    """Sets `call.targets`, and the first of them as `call.target`."""
    chosen = rng or random.Random()
    sessions = _Sessions()

    def layer(inner: Handler) -> Handler:
        def handle(call: Call) -> AbstractAsyncContextManager[EventStream]:
            found = routes.find(call.model)
            if found.choice != "ordered" and (said := call.headers.get(SESSION_HEADER)):
                session = (call.model, said[:MAX_SESSION_CHARS])
                targets = sessions.in_order(session, found, breakers)
                call.targets, call.target = targets, targets[0]
                return _Remembering(inner(call), sessions, session)
            call.targets = found.in_order(breakers, chosen)
            call.target = call.targets[0]
            return inner(call)

        return handle

    return layer


Session = tuple[str, str]


class _Sessions:
    """Who answered each session last; the least lately asked is forgotten first."""

    def __init__(self) -> None:
        self._last: OrderedDict[Session, Target] = OrderedDict()

    def in_order(self, session: Session, found: Destination, breakers: Breakers) -> tuple[Target, ...]:
        # Every process that serves a new session draws alike.
        order = found.in_order(breakers, random.Random("\0".join(session)))
        last = self._last.get(session)
        if last not in order:
            return order
        return (last, *(target for target in order if target != last))

    def answered(self, session: Session, target: Target) -> None:
        self._last[session] = target
        self._last.move_to_end(session)
        if len(self._last) > MAX_SESSIONS:
            self._last.popitem(last=False)


class _Remembering:
    __slots__ = ("_opened", "_session", "_sessions")

    def __init__(self, opened: AbstractAsyncContextManager[EventStream], sessions: _Sessions, session: Session) -> None:
        self._opened = opened
        self._sessions = sessions
        self._session = session

    async def __aenter__(self) -> EventStream:
        stream = await self._opened.__aenter__()
        self._sessions.answered(self._session, stream.target)
        return stream

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self._opened.__aexit__(kind, error, trace)
