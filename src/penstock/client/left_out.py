"""What a request asked for and its upstream was not told, said to the program: in `Start`, and on the response."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from penstock.canon.events import Start

if TYPE_CHECKING:
    from collections.abc import Iterable

    from penstock.canon.events import Event
    from penstock.streams.handler import Call

#: what is more than a knob
_WORDS = {
    "reasoning": "Thoughts were left out: {dialect} takes back its own alone, with the signatures that prove them.",
}


def warnings_of(call: Call) -> tuple[str, ...]:
    """A sentence for each name in `call.dropped`."""
    dialect = call.target.dialect if call.target is not None else "the upstream"
    usual = "`{name}` was left out: {dialect} has no word for it."
    return tuple(_WORDS.get(name, usual).format(name=name, dialect=dialect) for name in call.dropped)


def warned(call: Call, events: Iterable[Event]) -> list[Event]:
    """The same events, with the warnings where a reply starts."""
    return [
        replace(event, warnings=(*event.warnings, *warnings_of(call))) if isinstance(event, Start) else event
        for event in events
    ]
