"""How much at the same time, and how much in a minute: for all calls together, for each caller, and for each upstream.

A call holds its places from its admission to the end of its stream. Who finds none waits in line, in the order of
coming; the line is bounded, and so is the time in it. What is over a limit is `Saturated` at once, with the time after
which it is worth coming back. A caller that gives up leaves the line at once. Without limits nothing is counted.

Tokens are those that the streams themselves reported (`spent`): a call is let in while what is known of the last minute
is below the limit, so one large call may go beyond it, and the next ones wait for that.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from typing import TYPE_CHECKING

from msgspec import Struct

from penstock.canon.errors import Saturated, TimedOut
from penstock.canon.events import Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from penstock.canon.key import Key
    from penstock.streams.handler import Call, Handler
    from penstock.streams.stream import EventStream

MINUTE_S = 60.0

#: the time that callers are told to come back after when nothing better is known, and the most that they are told
RETRY_S = 1.0
MAX_RETRY_S = 60.0


class Quota(Struct, frozen=True):
    """What one may do. None: no limit. Tokens are prompts and replies together."""

    concurrency: int | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None


NO_LIMIT = Quota()


class Rules(Struct, frozen=True):
    """`queue`: how many may wait at each limit on concurrency; `queue_wait_s`: how long one call may wait in all.

    `per_key` is for callers (`canon.key.Key`) that say nothing themselves; `upstreams` is concurrency by upstream.
    """

    whole: Quota = NO_LIMIT
    queue: int = 0
    queue_wait_s: float | None = 30.0
    per_key: Quota = NO_LIMIT
    upstreams: Mapping[str, int] = {}
    #: seconds that a whole call may take: it does not wait longer either
    total_s: float | None = None


# --- how much at the same time ---------------------------------------------------------------------------------------


class Gate:
    """Places, and a line of those who wait for one. `places` None: any number. Belongs to one loop."""

    __slots__ = ("_line", "_mean_s", "busy", "name", "places")

    def __init__(self, name: str, places: int | None = None) -> None:
        self.name = name
        self.places = places
        self.busy = 0
        # In order, and quick to leave from anywhere; each with what tells its caller where it stands, if he listens.
        self._line: dict[asyncio.Future[bool], Callable[[int, int], None] | None] = {}
        self._mean_s = 0.0  # how long a place was held of late

    def __repr__(self) -> str:
        return f"<Gate {self.name}: {self.busy} of {self.places}, {len(self._line)} wait>"

    @property
    def waiting(self) -> int:
        return len(self._line)

    def enter(self) -> bool:
        """A place, now. While somebody waits there is none: a place that comes back is handed on at once."""
        if self.places is not None and self.busy >= self.places:
            return False
        self.busy += 1
        return True

    def leave(self, held_s: float) -> None:
        """Give a place back, after so many seconds; it goes to the first in line."""
        self.busy -= 1
        self._mean_s += (held_s - self._mean_s) / 8
        self.let_in()

    def let_in(self) -> None:
        """Hand out what is free: after a place came back, or there are more of them."""
        while self._line and (self.places is None or self.busy < self.places):
            first = next(iter(self._line))
            del self._line[first]
            if not first.done():
                self.busy += 1
                first.set_result(True)
            self._moved()

    def _moved(self) -> None:
        """Whoever listens stands elsewhere now. Each is told in a turn of its own: it is not this caller's business."""
        for place, tell in enumerate(self._line.values(), 1):
            if tell is not None:
                asyncio.get_running_loop().call_soon(tell, place, len(self._line))

    async def wait(self, call: Call, within_s: float | None) -> bool:
        """True with a place, False after `within_s` without one. Whoever is cancelled has left the line."""
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[bool] = loop.create_future()
        began = call.now()

        def expire() -> None:
            if not turn.done():
                turn.set_result(False)

        def stands(place: int, many: int) -> Progress:
            return Progress("queued", place, many, f"{self.name}, {call.now() - began:.0f} s")

        def tell(place: int, many: int) -> None:
            if turn in self._line and call.narrate is not None:
                call.narrate(stands(place, many))

        timer = loop.call_later(max(within_s, 0.0), expire) if within_s is not None else None
        self._line[turn] = None if call.narrate is None else tell
        call.waits_for = lambda: stands(self._position(turn), len(self._line))
        tell(len(self._line), len(self._line))
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.result():
                self.busy -= 1  # the place came in the same moment: it is the next one's
                self.let_in()
            raise
        finally:
            if turn in self._line:  # it gives up
                del self._line[turn]
                self._moved()
            call.waits_for = None
            call.queued_s += call.now() - began
            if timer is not None:
                timer.cancel()

    def _position(self, turn: asyncio.Future[bool]) -> int:
        """1: the next. 0: not in line any more."""
        return next((number for number, other in enumerate(self._line, 1) if other is turn), 0)

    def retry_after_s(self) -> float:
        """About when a place could be free: a guess, from how long places were held of late."""
        if not self.places:
            return RETRY_S
        return min(max(self._mean_s * (len(self._line) + 1) / self.places, RETRY_S), MAX_RETRY_S)


# --- how much in a minute --------------------------------------------------------------------------------------------


class Window:
    """What was counted in the last minute, in slots of a second: 61 of them at most, however much was counted.

    A slot counts until a minute after the last thing in it, so a minute never has more than the limit.
    """

    __slots__ = ("_slots", "total")

    def __init__(self) -> None:
        self._slots: deque[list[float]] = deque()  # began, last, amount
        self.total = 0.0

    def add(self, now: float, amount: float) -> None:
        self._forget(now)
        self.total += amount
        if self._slots and now - self._slots[-1][0] < 1.0:
            self._slots[-1][1] = now
            self._slots[-1][2] += amount
        else:
            self._slots.append([now, now, amount])

    def wait_s(self, now: float, limit: int) -> float:
        """Seconds until the minute has room for more; 0 when it has."""
        self._forget(now)
        over = self.total - limit + 1
        if over <= 0:
            return 0.0
        for _, last, amount in self._slots:
            over -= amount
            if over <= 0:
                return last + MINUTE_S - now
        return MINUTE_S

    def _forget(self, now: float) -> None:
        while self._slots and self._slots[0][1] + MINUTE_S <= now:
            self.total -= self._slots.popleft()[2]


# --- the two of them, by who asks ------------------------------------------------------------------------------------


def quota_of(key: Key, otherwise: Quota) -> Quota:
    """A key's own limits, and for those that it does not have the others'."""
    return Quota(
        otherwise.concurrency if key.concurrency is None else key.concurrency,
        otherwise.requests_per_minute if key.requests_per_minute is None else key.requests_per_minute,
        otherwise.tokens_per_minute if key.tokens_per_minute is None else key.tokens_per_minute,
    )


class Account:
    """One that has a quota: a caller, or all of them together. `said` is what its quota was made of."""

    __slots__ = ("gate", "name", "quota", "requests", "said", "tokens")

    def __init__(self, name: str) -> None:
        self.name = name
        self.said: tuple[Key, Quota] | None = None
        self.quota = NO_LIMIT
        self.gate = Gate(name)
        self.requests = Window()
        self.tokens = Window()

    def take(self, quota: Quota) -> None:
        self.quota = quota
        self.gate.places = quota.concurrency
        self.gate.let_in()

    def check(self, now: float, queue: int) -> None:
        """Raises `Saturated` where one call more would be too much."""
        quota = self.quota
        limit = quota.requests_per_minute
        if limit is not None and (wait_s := self.requests.wait_s(now, limit)):
            raise _saturated(f"{self.name} may ask {limit} times a minute, and has.", wait_s)
        limit = quota.tokens_per_minute
        if limit is not None and (wait_s := self.tokens.wait_s(now, limit)):
            raise _saturated(f"{self.name} may use {limit} tokens a minute, and has.", wait_s)
        check_room(self.gate, queue)

    def count(self, now: float) -> None:
        if self.quota.requests_per_minute is not None:
            self.requests.add(now, 1)


def check_room(gate: Gate, queue: int) -> None:
    """Raises `Saturated` where one has neither a place nor room in line."""
    places = gate.places
    if places is None or gate.busy < places or gate.waiting < queue:
        return
    many = "1 call" if places == 1 else f"{places} calls"
    line = f", and {gate.waiting} wait already" if queue else ""
    raise _saturated(f"{gate.name} answers {many} at the same time{line}.", gate.retry_after_s())


def _saturated(message: str, wait_s: float) -> Saturated:
    return Saturated(message, retry_after_s=wait_s, fix=f"Ask again in {math.ceil(wait_s)} s.")


class Limits:
    """Two layers that share their counts: `admitted` goes first in a stack, `at_upstream` where a target is chosen.

    `rules` may be replaced while calls run: who holds a place keeps it. `whole` is what all calls together are called.
    """

    def __init__(self, rules: Rules, *, whole: str = "This client", now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._whole = Account(whole)
        self._keys: dict[str, Account] = {}
        self._upstreams: dict[str, Gate] = {}
        self.rules = rules

    @property
    def rules(self) -> Rules:
        return self._rules

    @rules.setter
    def rules(self, rules: Rules) -> None:
        self._rules = rules
        self._whole.take(rules.whole)
        self._limits_all = rules.whole != NO_LIMIT
        for name, gate in self._upstreams.items():
            gate.places = rules.upstreams.get(name)
            gate.let_in()

    @property
    def gates(self) -> list[tuple[str, str, Gate]]:
        """Every limit on concurrency that has been met, for whoever shows the state: of what, of which, and it."""
        found = [("whole", "", self._whole.gate)]
        found += [("key", name, account.gate) for name, account in self._keys.items()]
        found += [("upstream", name, gate) for name, gate in self._upstreams.items()]
        return [each for each in found if each[2].places is not None]

    def admitted(self, inner: Handler) -> Handler:
        """The layer that lets a call in: its caller's quota first, then the quota of all together."""

        def handle(call: Call) -> AbstractAsyncContextManager[EventStream]:
            if call.key is None and not self._limits_all:
                return inner(call)
            accounts = self._accounts(call)
            if not accounts:
                return inner(call)
            now = self._now()
            for account in accounts:
                account.check(now, self._rules.queue)
            for account in accounts:
                account.count(now)
            gates = [account.gate for account in accounts if account.gate.places is not None]
            return _Holding(call, inner, gates, self._rules) if gates else inner(call)

        return handle

    def at_upstream(self, inner: Handler) -> Handler:
        """The layer that holds a place at the call's target. While somebody else can be asked, nobody waits here."""

        def handle(call: Call) -> AbstractAsyncContextManager[EventStream]:
            rules, target = self._rules, call.target
            if not rules.upstreams or target is None or target.upstream not in rules.upstreams:
                return inner(call)
            gate = self._upstreams.get(target.upstream)
            if gate is None:
                gate = Gate(f"The upstream {target.upstream}", rules.upstreams[target.upstream])
                self._upstreams[target.upstream] = gate
            check_room(gate, 0 if call.may_be_asked_again else rules.queue)
            return _Holding(call, inner, [gate], rules)

        return handle

    def spent(self, key: str | None, *tokens: int | None) -> None:
        """What a call of that caller's used, as its stream reported it; None: nobody said."""
        if key is None and self._whole.quota.tokens_per_minute is None:
            return
        used = sum(filter(None, tokens))
        if used <= 0:
            return
        for account in (self._whole, self._keys.get(key) if key is not None else None):
            if account is not None and account.quota.tokens_per_minute is not None:
                account.tokens.add(self._now(), used)

    def _accounts(self, call: Call) -> list[Account]:
        found = []
        if call.key is not None and (account := self._account_of(call.key)) is not None:
            found.append(account)
        if self._limits_all:
            found.append(self._whole)
        return found

    def _account_of(self, key: Key) -> Account | None:
        """None: it has no limit. Keys come and go, and change, while calls run."""
        account = self._keys.get(key.name)
        if account is not None and account.said == (key, self._rules.per_key):
            return account if account.quota != NO_LIMIT else None
        quota = quota_of(key, self._rules.per_key)
        if account is None:
            account = self._keys[key.name] = Account(f"The key `{key.name}`")
        account.said = key, self._rules.per_key
        account.take(quota)
        return account if quota != NO_LIMIT else None


class _Holding:
    """One call's places, from its turn in each line to the end of its stream."""

    __slots__ = ("_call", "_entered", "_gates", "_inner", "_opened", "_rules")

    def __init__(self, call: Call, inner: Handler, gates: list[Gate], rules: Rules) -> None:
        self._call = call
        self._inner = inner
        self._gates = gates
        self._rules = rules
        self._entered: list[tuple[Gate, float]] = []

    async def __aenter__(self) -> EventStream:
        call = self._call
        try:
            for gate in self._gates:
                if not gate.enter():
                    check_room(gate, self._rules.queue)
                    await self._wait(gate)
                self._entered.append((gate, call.now()))
            self._opened = self._inner(call)
            return await self._opened.__aenter__()
        except BaseException:
            self._leave()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        try:
            return await self._opened.__aexit__(kind, error, trace)
        finally:
            self._leave()

    def _leave(self) -> None:
        now = self._call.now()
        while self._entered:
            gate, since = self._entered.pop()
            gate.leave(now - since)

    async def _wait(self, gate: Gate) -> None:
        call, rules = self._call, self._rules
        patience_s = None if rules.queue_wait_s is None else rules.queue_wait_s - call.queued_s
        left_s = None if rules.total_s is None else call.began + rules.total_s - call.now()
        waits = [wait_s for wait_s in (patience_s, left_s) if wait_s is not None]
        if await gate.wait(call, min(waits, default=None)):
            return
        if rules.total_s is not None and call.now() >= call.began + rules.total_s:
            raise TimedOut("total", rules.total_s)
        raise _saturated(f"{gate.name} had no place free within {rules.queue_wait_s:g} s.", gate.retry_after_s())
