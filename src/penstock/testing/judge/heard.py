"""What a client hears of one answer, in its dialect, read by read: content, ends, errors, and what comes after them.

In: a response under way. Out: `Heard`, with moments in monotonic seconds. It goes on listening where a client would
have stopped, after an error and after an end, because that is where forged words stand. It never raises for what it
hears.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from penstock.canon.errors import PenstockError, StreamedError, Truncated
from penstock.canon.events import BlockEnd, BlockStart, Delta, Finish, KeepAlive, Start, ToolCall, UsageUpdate
from penstock.canon.wire import ConnectionLost
from penstock.dialects.base import Mark
from penstock.framing.choose import choose_framing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from penstock.canon.events import Event
    from penstock.canon.usage import Usage
    from penstock.canon.wire import HttpResponse
    from penstock.dialects.base import Decoder, Dialect
    from penstock.framing.base import Frame, Framing

#: clean: as HTTP says · cut: the connection broke · left: we left · open: it was open when patience ran out
Ended = Literal["clean", "cut", "left", "open"]


@dataclass
class Heard:
    """`error` is what was said in the dialect, as a status or in the stream; `malformed` what no client could read."""

    asked_at: float
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)
    frames: list[bytes] = field(default_factory=list)
    events: list[tuple[float, Event]] = field(default_factory=list)
    reads: list[float] = field(default_factory=list)
    error: PenstockError | None = None
    malformed: PenstockError | None = None
    #: the provider's own end was said
    is_proved: bool = False
    terminators: int = 0
    #: an end that was said after an error
    end_after_error: str | None = None
    heartbeats_before_content: int = 0
    is_document: bool = False
    ended: Ended = "open"
    ended_at: float = 0.0

    @property
    def text(self) -> str:
        """What was said as text; of a document, what its parts hold."""
        return "".join(event.text for _, event in self.events if type(event) is Delta and event.i in self._text_blocks)

    @property
    def _text_blocks(self) -> set[int]:
        return {event.i for _, event in self.events if type(event) is BlockStart and event.kind == "text"}

    @property
    def calls(self) -> list[tuple[str, str]]:
        return [
            (event.part.name, event.part.raw)
            for _, event in self.events
            if type(event) is BlockEnd and isinstance(event.part, ToolCall)
        ]

    @property
    def usage(self) -> Usage | None:
        found = [event.usage for _, event in self.events if type(event) in (UsageUpdate, Finish)]  # type: ignore[union-attr]
        return next((usage for usage in reversed(found) if usage is not None), None)

    @property
    def finish(self) -> Finish | None:
        return next((event for _, event in self.events if type(event) is Finish), None)

    @property
    def model(self) -> str | None:
        return next((event.model for _, event in self.events if type(event) is Start), None)

    @property
    def starts(self) -> int:
        return sum(type(event) is Start for _, event in self.events)

    @property
    def first_content_at(self) -> float | None:
        return next((at for at, event in self.events if type(event) is Delta and event.text), None)

    def text_at(self) -> list[tuple[float, int]]:
        """When how many letters of text had come."""
        blocks, said, found = self._text_blocks, 0, []
        for at, event in self.events:
            if type(event) is Delta and event.i in blocks:
                said += len(event.text)
                found.append((at, said))
        return found

    @property
    def looks_whole(self) -> bool:
        """Whether a client takes this for a whole reply: an end was said, and no error."""
        said_end = self.is_proved or self.terminators > 0
        return 200 <= self.status < 300 and self.error is None and self.malformed is None and said_end


async def listen(
    response: HttpResponse, dialect: Dialect, *, asked_at: float, patience_s: float, leave_after: int | None = None
) -> Heard:
    """All of it, for as long as `patience_s`; or up to so many pieces of text, after which we leave at once."""
    heard = Heard(asked_at, response.status, response.headers)
    ear = _Ear(heard, dialect)
    try:
        async with asyncio.timeout_at(asyncio.get_running_loop().time() + patience_s):
            while data := await response.read():
                ear.hear(data)
                if leave_after is not None and sum(type(event) is Delta for _, event in heard.events) >= leave_after:
                    heard.ended = "left"
                    break
        if heard.ended != "left":
            heard.ended = "clean"
    except ConnectionLost:
        heard.ended = "cut"
    except TimeoutError:
        heard.ended = "open"
    finally:
        heard.ended_at = time.monotonic()
        if heard.ended == "clean":
            response.release()
        else:
            response.abort()
    ear.close()
    return heard


class _Ear:
    """Bytes → what they mean to a client; goes on after an error."""

    def __init__(self, heard: Heard, dialect: Dialect) -> None:
        self._heard = heard
        self._dialect = dialect
        self._first = b""
        self._framing: Framing | None = None
        self._decoder: Decoder | None = None
        #: who reads on after an error
        self._after: Decoder | None = None
        self._terminator: bytes | None = None

    def hear(self, data: bytes) -> None:
        heard = self._heard
        heard.body += data
        heard.reads.append(time.monotonic())
        if not 200 <= heard.status < 300:
            return
        self._first += data
        if self._framing is None and not self._choose(is_all=False):
            return
        assert self._framing is not None
        try:
            frames = self._framing.feed(self._first)
        except PenstockError as error:
            heard.malformed = heard.malformed or error
            frames = []
        self._first = b""
        self._read(frames)

    def _choose(self, *, is_all: bool) -> bool:
        heard, dialect = self._heard, self._dialect
        try:
            self._framing = choose_framing(
                heard.headers.get("content-type"), self._first, is_all=is_all, streams_as=dialect.streams_as
            )
        except PenstockError as error:
            heard.malformed = heard.malformed or error
            self._first = b""
            return False
        if self._framing is None:
            return False
        heard.is_document = self._framing.name == "document"
        self._decoder = dialect.decoder(document=heard.is_document)
        return True

    def _read(self, frames: list[Frame]) -> None:
        heard, at = self._heard, time.monotonic()
        for frame in frames:
            heard.frames.append(frame.raw)
            events: list[Event] = []
            mark: Mark | None = None
            try:
                if self._after is not None:
                    mark = self._after.decode(frame, events)
                elif self._decoder is not None:
                    mark = self._decoder.decode(frame, events)
            except StreamedError as error:
                self._failed(error)
            except PenstockError as error:
                if self._after is None:
                    heard.malformed = heard.malformed or error
            if mark is Mark.TERMINATOR:
                self._terminator = frame.data
            if mark is Mark.TERMINATOR or (self._terminator is not None and frame.data == self._terminator):
                heard.terminators += 1
            if self._after is not None:
                if mark is Mark.TERMINATOR or self._after.proved:
                    heard.end_after_error = heard.end_after_error or _one_line(frame.raw)
                continue
            has_content = any(type(event) is Delta and event.text for event in events)
            is_ping = frame.data is None or frame.event == "ping"  # before the start it makes no event
            is_alive = is_ping or any(type(event) is KeepAlive for event in events)
            if is_alive and not has_content and heard.first_content_at is None:
                heard.heartbeats_before_content += 1
            heard.events += [(at, event) for event in events]

    def _failed(self, error: StreamedError) -> None:
        if self._after is None:
            self._heard.error = error
            self._heard.is_proved = self._decoder is not None and self._decoder.proved
            self._after = self._dialect.decoder(document=False)

    def close(self) -> None:
        """The bytes have ended."""
        heard = self._heard
        if not 200 <= heard.status < 300:
            if heard.status:
                error = self._dialect.read_error(heard.status, heard.headers, bytes(heard.body), "the endpoint")
                heard.error = error
            return
        if self._framing is None and self._first and not self._choose(is_all=True):
            return
        if self._framing is None or self._decoder is None:
            return
        try:
            if self._first:
                self._read(self._framing.feed(self._first))
            self._read(self._framing.close())
        except PenstockError as error:
            heard.malformed = heard.malformed or error
        if heard.error is None:
            heard.is_proved = self._decoder.proved
            events: list[Event] = []
            try:
                self._decoder.close(events)
            except Truncated:
                pass  # who judges sees that nothing proved an end
            except StreamedError as error:
                heard.error = error
            except PenstockError as error:
                heard.malformed = heard.malformed or error
            heard.events += [(heard.ended_at, event) for event in events]


def _one_line(raw: bytes) -> str:
    return " ".join(raw.decode(errors="replace").split())[:80]
