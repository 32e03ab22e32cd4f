"""What an upstream will write, as values: status, headers, pieces with pauses, and how the connection ends.

A reply of canonical events becomes a `Plan` in any client dialect; faults turn one plan into another. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from penstock.canon.events import Delta, Finish
from penstock.canon.response import fold
from penstock.dialects.base import Mark
from penstock.framing.choose import choose_framing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from penstock.canon.events import Event
    from penstock.dialects.base import Dialect, RequestHead

#: start: before content · content · finish: proves the end · usage: nothing but usage · terminator: the last word
Kind = Literal["start", "content", "finish", "usage", "terminator"]
#: clean: the body ends as HTTP says · cut: closed · reset: RST · hang: nothing, until the other side closes
End = Literal["clean", "cut", "reset", "hang"]


class Piece(Struct, frozen=True):
    """One write. `after_s` passes before it."""

    data: bytes
    kind: Kind
    after_s: float = 0.0


class Plan(Struct, frozen=True):
    """`before_s` passes before the head. `has_head` False: the connection ends, by `end`, without an answer.

    `repeats`: the content is said again and again, for as long as anybody reads. `refuses_s`: for so long nobody
    listens any more.
    """

    pieces: tuple[Piece, ...]
    content_type: str
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    before_s: float = 0.0
    has_head: bool = True
    end: End = "clean"
    repeats: bool = False
    refuses_s: float = 0.0

    @property
    def body(self) -> bytes:
        return b"".join(piece.data for piece in self.pieces)


def stream_plan(dialect: Dialect, head: RequestHead, events: Sequence[Event], *, request_id: str) -> Plan:
    """The events as a stream of the dialect, one piece per frame."""
    encoder = dialect.encoder(
        model=head.model, include_usage=head.include_usage, request_id=request_id, created=1_700_000_000
    )
    written = b"".join(encoder.encode([event]) for event in events)
    return Plan(_pieces(dialect, written), dialect.stream_type)


def _pieces(dialect: Dialect, written: bytes) -> tuple[Piece, ...]:
    """Frames, each with what it is."""
    framing = choose_framing(dialect.stream_type, written, is_all=True, streams_as=dialect.streams_as)
    assert framing is not None
    decoder = dialect.decoder(document=False)
    pieces: list[Piece] = []
    spoken = False
    for frame in [*framing.feed(written), *framing.close()]:
        events: list[Event] = []
        was_proved = decoder.proved
        mark = decoder.decode(frame, events)
        spoken = spoken or any(type(event) is Delta for event in events)
        kind: Kind
        if mark is Mark.USAGE:
            kind = "usage"
        elif was_proved or mark is Mark.TERMINATOR:  # Anthropic's last word is its proof as well
            kind = "terminator"
        elif decoder.proved:
            kind = "finish"
        else:
            kind = "content" if spoken else "start"
        pieces.append(Piece(frame.raw, kind))
    return tuple(pieces)


def document_plan(dialect: Dialect, head: RequestHead, events: Sequence[Event], *, request_id: str) -> Plan:
    """The events as one document of the dialect."""
    assert isinstance(events[-1], Finish)
    body = dialect.write_document(fold(events), model=head.model, request_id=request_id, created=1_700_000_000)
    return Plan((Piece(body, "finish"),), "application/json")
