"""What is known of each target while calls come and go: how many it is answering, and whether it works.

A breaker opens when so many calls in a row have failed at its target. For `cooldown` seconds whoever has another target
passes it by; then one call at a time may probe it, and the first that is answered closes it. Nobody is refused for a
breaker's sake: it says whom to prefer (docs/decisions/0015). Bounded by the number of configured targets.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from penstock.canon.errors import (
    EmptyReply,
    MalformedFrame,
    NotAStream,
    PenstockError,
    RateLimited,
    StatusError,
    StreamedError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from penstock.canon.target import Target

BreakerState = Literal["closed", "open", "half_open"]


class Breaker(Struct, frozen=True):
    """`failures`: calls in a row that a target may fail, None: any number; `cooldown`: seconds without a new call."""

    failures: int | None = 5
    cooldown: float = 30.0


class TargetState(Struct, frozen=True):
    """For who shows it: `failures` in a row; `probe_in_s` until an open one may be probed."""

    target: str
    breaker: BreakerState
    in_flight: int
    failures: int
    probe_in_s: float | None = None


class TargetHealth:
    """One target's."""

    __slots__ = ("_breakers", "_has_our_key", "_opened_at", "_probe", "failures", "in_flight", "name")

    def __init__(self, target: Target, breakers: Breakers) -> None:
        self.name = str(target)
        self.in_flight = 0
        self.failures = 0
        self._breakers = breakers
        self._has_our_key = not target.forward_auth
        self._opened_at: float | None = None
        self._probe: object = None

    @property
    def breaker(self) -> BreakerState:
        if self._opened_at is None:
            return "closed"
        return "half_open" if self._probe is not None or self._cooling_s() <= 0 else "open"

    @property
    def is_welcome(self) -> bool:
        """Whether a call that could go elsewhere should come here."""
        return self._opened_at is None or (self._probe is None and self._cooling_s() <= 0)

    @property
    def state(self) -> TargetState:
        cooling = self._cooling_s() if self.breaker == "open" else None
        return TargetState(self.name, self.breaker, self.in_flight, self.failures, cooling)

    def _cooling_s(self) -> float:
        assert self._opened_at is not None
        return self._opened_at + self._breakers.policy.cooldown - self._breakers.now()

    # --- one call there, known by any object: `begin` and `end` once each, and what it shows between them ---

    def begin(self, call: object) -> None:
        self.in_flight += 1
        if self._opened_at is not None and self.is_welcome:
            self._probe = call

    def answered(self) -> None:
        """It works. That it also finishes what it begins only `completed` says."""
        self._opened_at = self._probe = None

    def completed(self) -> None:
        self.failures = 0

    def failed(self, call: object, error: BaseException) -> None:
        if isinstance(error, RateLimited) and not self._has_our_key:
            return  # one client's limit is not another's
        if is_to_blame(error):
            self.failures += 1
            limit = self._breakers.policy.failures
            if self._probe is call or (limit is not None and self.failures >= limit and self._opened_at is None):
                self._opened_at = self._breakers.now()
        elif isinstance(error, StatusError | StreamedError):  # it answered, and the fault is the request's
            self.answered()
            self.completed()

    def end(self, call: object) -> None:
        self.in_flight -= 1
        if self._probe is call:
            self._probe = None


class Breakers:
    """Every target's. `states()` is for `/ready` and for metrics. `policy` may be replaced while calls run."""

    def __init__(self, policy: Breaker | None = None, *, now: Callable[[], float] = time.monotonic) -> None:
        self.policy = policy or Breaker()
        self.now = now
        self._found: dict[tuple[str, str | None], TargetHealth] = {}

    def of(self, target: Target) -> TargetHealth:
        key = target.upstream, target.model
        found = self._found.get(key)
        if found is None:
            found = self._found[key] = TargetHealth(target, self)
        return found

    def know(self, targets: Iterable[Target]) -> None:
        """These are all there are from now on: named before anybody has asked them, and the others forgotten."""
        known, self._found = self._found, {}
        for target in targets:
            key = target.upstream, target.model
            self._found[key] = known.get(key) or self.of(target)

    def states(self) -> list[TargetState]:
        return [health.state for health in self._found.values()]


def is_to_blame(error: BaseException) -> bool:
    """Whether it is the target that does not work. A key or a request that it refuses says that it does."""
    if not isinstance(error, PenstockError) or isinstance(error, EmptyReply) or error.status == 409:
        return False
    return error.retryable or isinstance(error, MalformedFrame | NotAStream)
