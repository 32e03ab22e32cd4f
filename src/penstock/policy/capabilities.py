"""What each target can do, as far as it is known, and the layer that asks nobody for what it lacks.

In: the configuration's word, and what ordinary traffic shows: a document in answer to a call that asked for a stream,
or a refusal that names a member in its structured code and param (`dialects.adapt`). No question is ever asked for the
sake of knowing. Out: `call.asks_stream` and `call.lacks`, by which the leaf writes the request; after a refusal that
taught something, the same call once more, as an attempt of its own.

What traffic has taught is believed for a time. Then one call asks for the whole again, and the others go on by what is
known until it has its answer: nobody waits, and one learns. What is remembered is bounded, the least used goes first.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct

from penstock.canon.errors import NotAStream, StatusError, StreamedError, Unsupported
from penstock.dialects import DOCUMENT_DIALECTS
from penstock.dialects.adapt import DOCUMENT, NAMES, STREAM, TOOL_STREAM, adapted, has_tools, lacked

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from penstock.canon.target import Target
    from penstock.policy.upstream import Asks
    from penstock.streams.handler import Call, Handler, Layer
    from penstock.streams.stream import EventStream

MAX_TARGETS = 1024
#: A model's name comes from clients. Nothing is remembered of one that is longer.
MAX_NAME_CHARS = 256
#: Of so many is it kept that nothing is known of them yet, which saves making it anew for each call.
MAX_NEW = 256
#: A server names one thing in each refusal: so many are learnt in one call, and it is asked once more for each.
MAX_LESSONS = 3
#: So many documents in a row outweigh a stream: a cache may answer with one now and then.
MAX_DOCUMENTS = 3

#: the configuration's or the catalogue's word · a reply · a refusal
Source = Literal["configured", "reply", "refusal"]


class Fact(Struct, frozen=True):
    """Whether a target has or takes something, who said so, and when (monotonic seconds)."""

    value: bool
    source: Source
    at: float


class Known:
    """What is known of one upstream's model. `lacks` is what its facts deny; `due` when the first of them grows old."""

    __slots__ = ("documents", "due", "facts", "is_asking", "lacks", "model", "upstream")

    def __init__(self, upstream: str, model: str, facts: dict[str, Fact]) -> None:
        self.upstream = upstream
        self.model = model
        self.facts = facts
        #: how many came in a row where streams were asked for
        self.documents: dict[str, int] = {}
        #: a call is out that asks for what was lacked
        self.is_asking = False
        self.lacks: frozenset[str] = frozenset()
        self.due = float("inf")

    def __repr__(self) -> str:
        return f"<Known {self.upstream}:{self.model} lacks {', '.join(sorted(self.lacks)) or 'nothing'}>"


class Capabilities:
    """What is known of every target. `configured` is what the owner says: upstream → name → whether.

    `ttl_s` is how long it is believed what traffic has shown.
    """

    def __init__(
        self,
        configured: Mapping[str, Mapping[str, bool]] | None = None,
        *,
        ttl_s: float = 300.0,
        max_targets: int = MAX_TARGETS,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._configured = configured or {}
        self._ttl_s = ttl_s
        self._max_targets = max_targets
        self._now = now
        self._known: OrderedDict[tuple[str, str], Known] = OrderedDict()
        #: of these there is nothing to know yet: names that anybody can make up push out nothing that was learnt
        self._new: dict[tuple[str, str], Known] = {}

    def find(self, target: Target, model: str) -> Known:
        """What is known of it."""
        key = (target.upstream, model)
        known = self._known.get(key)
        if known is not None:
            self._known.move_to_end(key)
        elif (known := self._new.get(key)) is None:
            said = self._configured.get(target.upstream, {})
            facts = {name: Fact(value, "configured", 0.0) for name, value in said.items()}
            if target.dialect in DOCUMENT_DIALECTS:
                facts.setdefault(STREAM, Fact(False, "configured", 0.0))
            known = Known(target.upstream, model, facts)
            self._settle(known)
            if len(model) <= MAX_NAME_CHARS:
                if len(self._new) >= MAX_NEW:
                    self._new.clear()
                self._new[key] = known
        return known

    def learn(self, known: Known, name: str, value: bool, source: Source) -> None:
        """Remember this. What another call has learnt of the same target meanwhile stays."""
        if len(known.model) > MAX_NAME_CHARS:
            return
        key = (known.upstream, known.model)
        known = self._known.setdefault(key, known)
        self._new.pop(key, None)
        known.facts[name] = Fact(value, source, self._now())
        other = {STREAM: DOCUMENT, DOCUMENT: STREAM}.get(name)
        if other in known.lacks and not value:  # whoever had neither would have nothing
            known.facts[other] = Fact(True, source, self._now())
        self._settle(known)
        if len(self._known) > self._max_targets:
            self._known.popitem(last=False)

    def doubt(self, known: Known, name: str, *, is_sure: bool) -> None:
        """A document came where a stream was asked for. One that has streamed before is believed for a while."""
        fact = known.facts.get(STREAM)
        in_a_row = known.documents[name] = known.documents.get(name, 0) + 1
        if is_sure or fact is None or not fact.value or in_a_row >= MAX_DOCUMENTS:
            known.documents.pop(name)
            self.learn(known, name, False, "reply")

    def _settle(self, known: Known) -> None:
        lacked = {name: fact for name, fact in known.facts.items() if not fact.value and name in NAMES}
        known.lacks = frozenset(lacked)
        learnt = [fact.at for fact in lacked.values() if fact.source != "configured"]
        known.due = min(learnt) + self._ttl_s if learnt else float("inf")

    def stale(self, known: Known) -> frozenset[str]:
        """What traffic said it lacks, and so long ago that it may be otherwise by now."""
        now = self._now()
        if now < known.due:
            return frozenset()
        return frozenset(
            name
            for name in known.lacks
            if (fact := known.facts[name]).source != "configured" and now >= fact.at + self._ttl_s
        )

    def report(self) -> list[dict[str, Any]]:
        """All that is known, the most lately used first; then what the configuration says of all models of an upstream,
        whose `model` is None. Ages are seconds, None where the configuration says it."""
        now = self._now()
        listed: list[tuple[str, str | None, Mapping[str, Fact]]] = [
            (known.upstream, known.model, known.facts) for known in reversed(self._known.values())
        ]
        for upstream, said in self._configured.items():
            if said:
                listed.append((upstream, None, {name: Fact(value, "configured", 0.0) for name, value in said.items()}))
        return [
            {
                "upstream": upstream,
                "model": model,
                "capabilities": {
                    name: {
                        "value": fact.value,
                        "source": fact.source,
                        "age_s": None if fact.source == "configured" else round(now - fact.at, 1),
                    }
                    for name, fact in sorted(facts.items())
                },
            }
            for upstream, model, facts in listed
        ]


def capable(
    capabilities: Capabilities, asks: Asks, *, force_non_streaming: bool = False, fallback: bool = True
) -> Layer:
    """Ask each target for what it can do. `asks` is the leaf's own.

    `force_non_streaming`: no target is asked for a stream. `fallback` False: no stream is made of a document; who asks
    for a stream that cannot be had gets an error.
    """
    policy = _Policy(capabilities, asks, force_non_streaming, fallback)

    def layer(inner: Handler) -> Handler:
        def handle(call: Call) -> AbstractAsyncContextManager[EventStream]:
            return _Asking(call, inner, policy)

        return handle

    return layer


class _Policy(Struct, frozen=True):
    capabilities: Capabilities
    asks: Asks
    force_non_streaming: bool
    fallback: bool


class _Asking:
    """One call at one target, asked once more for each thing that its refusals teach."""

    __slots__ = ("_call", "_inner", "_opened", "_policy", "_tries")

    def __init__(self, call: Call, inner: Handler, policy: _Policy) -> None:
        self._call = call
        self._inner = inner
        self._policy = policy
        #: what was lacked and is asked for again
        self._tries: frozenset[str] = frozenset()

    async def __aenter__(self) -> EventStream:
        call, policy = self._call, self._policy
        target = call.target
        assert target is not None, "routing comes before the leaf"
        known = policy.capabilities.find(target, target.model or call.model)
        try:
            self._prepare(known, target)
            for lessons in range(MAX_LESSONS + 1):
                self._opened = self._inner(call)
                try:
                    stream = await self._opened.__aenter__()
                except (StatusError, StreamedError) as error:
                    if not self._has_learnt(error, known, target) or lessons == MAX_LESSONS:
                        raise
                else:
                    break
            self._note(stream, known)
        finally:
            if self._tries:
                known.is_asking = False
        if call.stream and stream.is_document and not policy.fallback:
            await self._opened.__aexit__(None, None, None)
            call.attempts[-1].error = NotAStream.kind
            raise NotAStream(
                "The upstream answered with a document, and a stream was asked for.",
                fix="Allow streaming.fallback, which makes a stream of it.",
                target=str(target),
            )
        return stream

    def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Coroutine[Any, Any, bool | None]:
        return self._opened.__aexit__(kind, error, trace)

    # --- before ---

    def _prepare(self, known: Known, target: Target) -> None:
        call, policy = self._call, self._policy
        if lacks := known.lacks:
            if not known.is_asking and (stale := policy.capabilities.stale(known)):
                self._tries = self._of_use(stale, target)
                known.is_asking = bool(self._tries)
                lacks -= self._tries
            self._adapt(lacks)
        else:
            call.lacks, call.asks_stream = lacks, call.stream and not policy.force_non_streaming
        if call.stream and not call.asks_stream and not policy.fallback:
            raise Unsupported(
                "This model cannot stream.",
                param="stream",
                fix="Ask without a stream, or allow streaming.fallback, which makes one of the whole reply.",
            )

    def _adapt(self, lacks: frozenset[str]) -> None:
        call = self._call
        call.lacks = lacks
        wants = call.stream and not self._policy.force_non_streaming
        if lacks and wants:
            wants = not (STREAM in lacks or (TOOL_STREAM in lacks and _has_tools(call)))
        elif lacks:
            wants = DOCUMENT in lacks
        call.asks_stream = wants

    def _of_use(self, stale: frozenset[str], target: Target) -> frozenset[str]:
        """Of these, what this call will show: a request without a limit tells nothing of limits."""
        call = self._call
        if not call.stream or self._policy.force_non_streaming:
            tested = stale & {DOCUMENT}
        else:
            tested = stale & ({STREAM, TOOL_STREAM} if _has_tools(call) else {STREAM})
        self._adapt(frozenset())
        dialect, request = self._policy.asks(call, target)
        for name in stale - {STREAM, TOOL_STREAM, DOCUMENT}:
            try:
                if adapted(dialect.name, request, frozenset((name,))) is not request:
                    tested |= {name}
            except Unsupported:
                tested |= {name}
        return tested

    # --- after ---

    def _has_learnt(self, error: StatusError | StreamedError, known: Known, target: Target) -> bool:
        """Whether it was refused for something that can be said otherwise: then that is how the call goes on."""
        call, policy = self._call, self._policy
        if error.param is None:
            return False
        dialect, request = policy.asks(call, target)
        name = lacked(dialect.name, request, error, asked_stream=call.asks_stream)
        if name is None or name in call.lacks:
            return False
        policy.capabilities.learn(known, name, False, "refusal")
        call.attempts[-1].learnt = name
        if name == STREAM and not policy.fallback:
            return False
        asked_stream = call.asks_stream
        self._adapt(call.lacks | {name})
        if call.asks_stream is not asked_stream:
            return True
        try:
            return adapted(dialect.name, request, call.lacks, strict=call.strict) is not request
        except Unsupported:
            return False

    def _note(self, stream: EventStream, known: Known) -> None:
        """What this reply shows, where it is new."""
        call, capabilities = self._call, self._policy.capabilities
        tries = self._tries - call.lacks  # without what was refused again
        if not stream.is_document:
            fact = known.facts.get(STREAM)
            if fact is None or not fact.value:
                capabilities.learn(known, STREAM, True, "reply")
            if known.documents and (TOOL_STREAM not in known.documents or _has_tools(call)):
                known.documents.clear()
        elif call.asks_stream:
            # With tools it is the tools that it may not stream with.
            name = TOOL_STREAM if STREAM not in tries and _has_tools(call) else STREAM
            capabilities.doubt(known, name, is_sure=name in tries)
        for name in tries - {STREAM}:
            if name != TOOL_STREAM or not stream.is_document:
                capabilities.learn(known, name, True, "reply")


def _has_tools(call: Call) -> bool:
    return has_tools(call.head) if call.head is not None else bool(call.request.tools)
