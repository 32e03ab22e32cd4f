"""What of a reply has been told, and how the events of another attempt join it. Sans-IO.

In: the events of one attempt, then those of the next. Out: events that keep every promise of `canon.events` as if one
attempt had said them all: one `Start`, block numbers that go on, one `Finish`. `Restarted` says the reply again from
its beginning, in blocks of its own; `Continued` goes on inside the block that was cut.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from penstock.canon.events import Annotation, BlockEnd, BlockStart, Delta, Finish, Reasoning, Refusal, Start, Text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from penstock.canon.events import BlockKind, Event, Part

#: what can be said twice. A call that was cut may not be: who executes it must never see half of one and a whole one.
_REPEATABLE = frozenset({"text", "reasoning", "refusal"})


class Told:
    """What the caller has of a reply so far. Costs a list append per delta."""

    def __init__(self) -> None:
        self._open: dict[int, tuple[BlockKind, list[str]]] = {}
        self._kinds: set[BlockKind] = set()
        #: blocks that were begun: the next one's number
        self.blocks = 0
        self.is_finished = False

    def note(self, events: Iterable[Event]) -> None:
        for event in events:
            if type(event) is Delta:
                self._open[event.i][1].append(event.text)
            elif isinstance(event, BlockStart):
                self._open[event.i] = (event.kind, [])
                self._kinds.add(event.kind)
                self.blocks = event.i + 1
            elif isinstance(event, BlockEnd):
                self._open.pop(event.i, None)
            elif isinstance(event, Finish):
                self.is_finished = True

    @property
    def may_be_restarted(self) -> bool:
        return not self.is_finished and self._kinds <= _REPEATABLE

    @property
    def text(self) -> str | None:
        """The text that is being said, where nothing else was: what another attempt could continue. None: none."""
        if self.is_finished or self.blocks != 1 or len(self._open) != 1 or self._kinds != {"text"}:
            return None
        ((_, pieces),) = self._open.values()
        return "".join(pieces)

    def cut(self) -> list[Event]:
        """The ends of the blocks that are open, as far as they came."""
        return [BlockEnd(i, _part(kind, "".join(pieces))) for i, (kind, pieces) in self._open.items()]


def _part(kind: BlockKind, text: str) -> Part:
    return Reasoning(text) if kind == "reasoning" else Refusal(text) if kind == "refusal" else Text(text)


class Restarted:
    """The events of an attempt that begins anew, behind what was told."""

    def __init__(self, told: Told) -> None:
        self._before: list[Event] = told.cut()
        self._offset = told.blocks

    def join(self, events: Iterable[Event]) -> list[Event]:
        found, self._before = self._before, []
        for event in events:
            if isinstance(event, BlockStart | Delta | BlockEnd | Annotation):
                found.append(replace(event, i=event.i + self._offset))
            elif not isinstance(event, Start):
                found.append(event)
        return found


class Continued:
    """The events of an attempt that was given the text told so far as the beginning of its own.

    Its first block of text goes on where the other was cut. What it thinks before that is left out: it is about words
    that were said already. `prefill` is what to give it: no server takes white space at the end, and most say it again.
    """

    def __init__(self, told: Told) -> None:
        text = told.text
        assert text is not None, "only a text that is being said can be continued"
        self.prefill = text.rstrip()
        self._space = text[len(self.prefill) :]
        self._said = [text]
        self._text: int | None = None  # the number that it gives to the text
        self._has_ended = False
        self._numbers: dict[int, int | None] = {}  # its number → ours, None: left out
        self._next = 1

    def join(self, events: Iterable[Event]) -> list[Event]:
        found: list[Event] = []
        for event in events:
            if isinstance(event, Start):
                continue
            if isinstance(event, Finish) and not self._has_ended:
                found.append(self._end(()))  # nothing was missing but the end
            if not isinstance(event, BlockStart | Delta | BlockEnd | Annotation):
                found.append(event)
            elif isinstance(event, BlockStart) and event.kind == "text" and self._text is None and not self._has_ended:
                self._text = event.i
            elif event.i == self._text:
                self._go_on(event, found)
            else:
                self._beside(event, found)
        return found

    def _go_on(self, event: BlockStart | Delta | BlockEnd | Annotation, found: list[Event]) -> None:
        if isinstance(event, Delta):
            text = event.text
            while self._space and text[:1] == self._space[:1]:
                text, self._space = text[1:], self._space[1:]
            if text:
                self._space = ""
                self._said.append(text)
                found.append(Delta(0, text))
        elif isinstance(event, BlockEnd):
            found.append(self._end(event.part.annotations if isinstance(event.part, Text) else ()))
        else:
            found.append(replace(event, i=0))

    def _beside(self, event: BlockStart | Delta | BlockEnd | Annotation, found: list[Event]) -> None:
        if isinstance(event, BlockStart):
            is_thought = event.kind == "reasoning" and not self._has_ended
            if not is_thought and not self._has_ended and self._text is None:
                found.append(self._end(()))
            self._numbers[event.i] = None if is_thought else self._next
            self._next += not is_thought
        number = self._numbers.get(event.i)
        if number is not None:
            found.append(replace(event, i=number))

    def _end(self, annotations: tuple[object, ...]) -> BlockEnd:
        self._has_ended = True
        return BlockEnd(0, Text("".join(self._said), annotations))
