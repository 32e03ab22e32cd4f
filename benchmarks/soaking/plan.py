"""What is asked: one `Asking` per stream, all of it told by a seed and a number.

Every reply holds its stream's own marker in each piece of its text, in its thoughts, in the arguments of its calls and
in its count of tokens, so that a byte in the wrong stream is seen for what it is.
"""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from penstock.testing import Call, Counts, Pace, Reply
from soaking.owed import CANCELLED, COMPLETE, LOOKS, Ending, choose_fault

if TYPE_CHECKING:
    from collections.abc import Sequence

#: reads: to the end · slow: to the end, with pauses · leaves: after some content · stuck: after a word reads no more,
#: and leaves · early: leaves once the upstream has its request · blind: leaves at once, wherever its request is ·
#: half: sends half of it, and leaves
Reader = Literal["reads", "slow", "leaves", "stuck", "early", "blind", "half"]

READERS: dict[Reader, float] = {
    "reads": 80,
    "slow": 3,
    "leaves": 8,
    "stuck": 1,
    "early": 5,
    "blind": 2,
    "half": 1,
}

UPSTREAMS = ("openai-chat", "anthropic-messages", "openai-responses", "gemini", "ollama")

#: wires that carry text alone
_NO_CALLS = frozenset({"openai-completions", "ollama-generate"})
_LEAVERS_PACE = Pace(fixed=0.03, jitter=0.01)

_MARKER = re.compile(rb"m(\d{6})p\d")
_NUMBER = re.compile(r"soak(\d{6})")


class Asking(Struct, frozen=True):
    """`ending` None: no record is owed, because the request never was whole. `may_be_unasked`: upstream, or at all."""

    number: int
    form: str
    upstream: str
    stream: bool
    reader: Reader
    leave_after: int
    faults: tuple[str, ...]
    reply: Reply
    ending: Ending | None
    may_be_unasked: bool = False

    @property
    def model(self) -> str:
        fault = f"-fault:{'+'.join(self.faults)}" if self.faults else ""
        return f"{self.upstream}-soak{self.number:06d}{fault}"

    @property
    def text(self) -> str:
        return "".join(self.reply.text)

    @property
    def tells_usage(self) -> bool:
        """A stream that nobody asked for has no usage where that has to be asked for as well."""
        return "usage-never" not in self.faults and not ("sse" in self.faults and self.upstream == "openai-chat")

    def __str__(self) -> str:
        faults = "+".join(self.faults) or "no fault"
        kind = "stream" if self.stream else "document"
        return f"#{self.number} {self.form} → {self.upstream}, {kind}, {self.reader}, {faults}"


def number_of(model: str) -> int | None:
    found = _NUMBER.search(model)
    return int(found[1]) if found else None


def markers(body: bytes) -> set[int]:
    """Whose text is in there."""
    return {int(found) for found in _MARKER.findall(body)}


def asking(seed: int, number: int, forms: Sequence[str], upstreams: Sequence[str] = UPSTREAMS) -> Asking:
    chance = random.Random(f"{seed}/{number}")
    form, upstream = chance.choice(forms), chance.choice(upstreams)
    reader = chance.choices(list(READERS), list(READERS.values()))[0]
    stream = reader in ("slow", "leaves", "stuck") or chance.random() < 0.85
    if reader in ("reads", "half"):
        faults, ending = _faults(chance, upstream, stream)
    elif reader == "slow":
        cut = chance.random() < 0.2
        faults, ending = (("cut-after-9",), Ending("truncated", "truncated")) if cut else ((), COMPLETE)
    elif reader == "leaves":
        faults, ending = chance.choice([(), ("endless",), ("stall-after-9",), ("crlf",)]), CANCELLED
    elif reader in ("early", "blind"):
        faults, ending = (chance.choice(["silent", "slow-head-3000"]),), CANCELLED
    else:
        faults, ending = (), CANCELLED
    return Asking(
        number=number,
        form=form,
        upstream=upstream,
        stream=stream,
        reader=reader,
        leave_after=chance.randint(1, 6),
        faults=faults,
        reply=_reply(chance, number, form, reader, faults),
        ending=None if reader == "half" else ending,
        may_be_unasked=reader in ("blind", "half"),
    )


def _faults(chance: random.Random, upstream: str, stream: bool) -> tuple[tuple[str, ...], Ending]:
    if chance.random() < 0.3:
        return (), COMPLETE
    fault, ending = choose_fault(chance, upstream, stream=stream)
    if (
        stream
        and chance.random() < 0.2
        and not fault.startswith(("json", "gzip", "one-write", "cr", "bytewise", "giant"))
    ):
        look = chance.choice([look for look in LOOKS if look != fault])
        if look != "unknown-fields" or ending.outcome == "complete":
            return (fault, look), ending
    return (fault,), ending


def _reply(chance: random.Random, number: int, form: str, reader: Reader, faults: tuple[str, ...]) -> Reply:
    def pieces(count: int, more: str = "") -> tuple[str, ...]:
        return tuple(f"m{number:06d}p{k} {chance.choice(_WORDS)} {more}" for k in range(count))

    output = chance.randint(5, 500)
    cached, thought = number // 2 if number % 3 == 0 else None, output // 2 if number % 4 == 0 else None
    usage = Counts(input=number + 1, output=output, cached=cached, reasoning=thought)
    if reader == "slow":
        return Reply(text=pieces(30, "slow " * 10_000), usage=usage)
    if reader == "stuck":
        return Reply(text=pieces(80, "stuck " * 20_000), usage=usage)
    if reader == "leaves" or "endless" in faults:
        return Reply(text=pieces(400), usage=usage, pace=_LEAVERS_PACE)
    if "bytewise" in faults:  # a thousand reads, even so
        return Reply(text=pieces(1), usage=usage)
    calls: tuple[Call, ...] = ()
    if form not in _NO_CALLS and (chance.random() < 0.2 or "bad-arguments" in faults):
        calls = (Call("look", {"at": f"m{number:06d}p0 sea", "far": chance.random() < 0.5}),)
    reasoning = pieces(chance.randint(1, 4)) if form != "openai-completions" and chance.random() < 0.2 else ()
    pace = Pace(fixed=chance.choice([0.0, 0.0, 0.002, 0.02]))
    return Reply(text=pieces(chance.randint(6, 24)), reasoning=reasoning, calls=calls, usage=usage, pace=pace)


#: letters of one to four bytes, an end of line, what JSON escapes
_WORDS = ("one", "„zwei“", "三", "vier\u2028", 'five\\"', "🙂", "data: [DONE]\n\n", "Ende.\r\n")
