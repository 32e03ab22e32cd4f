"""A gateway between the judge and the simulator: one question through it, with a fault, seen from both ends."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from msgspec import Struct

from penstock.testing.script import Call, Counts, Pace, Reply, Script, When

if TYPE_CHECKING:
    from collections.abc import Callable

    from penstock.canon.wire import HttpResponse
    from penstock.testing.judge.asking import Client, Question
    from penstock.testing.judge.heard import Heard
    from penstock.testing.server import Seen
    from penstock.testing.upstream import Upstream

#: letters of one to four bytes, a terminator inside the text, ends of lines that only bytes may know
PIECES = ("One, ", "„zwei“, ", "data: [DONE]\n\n", "三, ", "vier\u2028", 'five\\", ', "🙂 ", "seven.")
TEXT = "".join(PIECES)
WORDS = ("one ", "two ", "three ", "four ", "five ", "six")
PACE_S = 0.15
CALLS = (("look", '{"at":"sea"}'), ("look", '{"at":"Gipfel ⛰"}'))
USAGE = Counts(input=11, output=7)

#: by the word in the model's name
SCRIPT = Script(
    (
        Reply(text=WORDS, usage=USAGE, pace=Pace(fixed=PACE_S), when=When(model="*paced*")),
        Reply(text=("again ",) * 8, usage=USAGE, pace=Pace(fixed=0.02), when=When(model="*steady*")),
        Reply(text=("flood " * 700,) * 16, usage=USAGE, when=When(model="*flood*")),
        Reply(text=(), calls=tuple(Call(*call) for call in CALLS), usage=USAGE, when=When(model="*calls*")),
        Reply(text=PIECES, usage=USAGE),
    )
)

#: the simulator is on this machine; what has not come by then does not come
_ARRIVAL_S = 2.0


class Asked(Struct):
    """One question: what the client heard, and what the simulator saw of it."""

    heard: Heard
    seen: list[Seen]

    @property
    def last(self) -> Seen | None:
        return self.seen[-1] if self.seen else None


class Court:
    """`progress` is told each case as it begins."""

    def __init__(self, client: Client, upstream: Upstream, progress: Callable[[str], None] = lambda case: None) -> None:
        self.client = client
        self.upstream = upstream
        self.progress = progress
        #: what the gateway asks in; told by its first question
        self.upstream_dialect: str | None = None

    @property
    def is_same_dialect(self) -> bool:
        return self.upstream_dialect == self.client.dialect.name

    @property
    def has_calls(self) -> bool:
        return self.client.dialect.name != "openai-completions" and self.upstream_dialect != "openai-completions"

    def question(self, fault: str = "", *, kind: str = "text", stream: bool = True) -> Question:
        model = f"check-{kind}-fault:{fault}" if fault else f"check-{kind}"
        return self.client.question(model, stream=stream, tools=kind == "calls")

    async def ask(
        self,
        fault: str = "",
        *,
        kind: str = "text",
        stream: bool = True,
        leave_after: int | None = None,
        patience_s: float | None = None,
    ) -> Asked:
        question = self.question(fault, kind=kind, stream=stream)
        heard = await self.client.hear(question, leave_after=leave_after, patience_s=patience_s)
        return Asked(heard, self.seen(question))

    def seen(self, question: Question) -> list[Seen]:
        """Each time that the simulator was asked this."""
        marker = question.marker.encode()
        return [seen for seen in tuple(self.upstream.seen) if marker in seen.body]

    async def arrival(self, question: Question) -> Seen | None:
        """The simulator's side of a question that is under way; None when it does not come there."""
        end = time.monotonic() + _ARRIVAL_S
        while time.monotonic() < end:
            if found := self.seen(question):
                return found[0]
            await asyncio.sleep(0.002)
        return None

    async def open(self, question: Question) -> HttpResponse:
        async with asyncio.timeout(self.client.patience_s):
            return await self.client.open(question)
