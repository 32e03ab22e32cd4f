"""What a client gets of each batch: the upstream's own bytes, or a translation.

`Verbatim` is for a stream that already is in the client's dialect: frames pass byte for byte but for C10's four edits
(the model's name where it is mapped, the usage frame that the client did not ask for, the terminator exactly once and
only on a proved ending, the name of an event that has lost it). `Translated` encodes events. Both are told of the end
by `end()`, of a failure by `failed()`.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

import msgspec

from penstock.canon.errors import StreamedError
from penstock.dialects.base import Mark, Resumable, load_json

if TYPE_CHECKING:
    from penstock.canon.errors import PenstockError
    from penstock.dialects.base import Dialect, Encoder
    from penstock.framing.base import Frame
    from penstock.streams.batch import Batch
    from penstock.streams.stream import EventStream


class _Key:
    """How to find a key, outside any string: inside one its quotes would be escaped, and so not match."""

    def __init__(self, key: str) -> None:
        pattern = rb'"' + key.encode() + rb'"(\s*:\s*)"[^"\\]*(?:\\.[^"\\]*)*"'
        self.written = b'"' + key.encode() + b'"'
        self.value = re.compile(pattern)
        self.value_or_token = re.compile(pattern + rb'|"[^"\\]*(?:\\.[^"\\]*)*"|[{}]')


_key = cache(_Key)

#: `model`, or `message.model` as Anthropic's first frame has it; a deeper one is a tool's argument
_MODEL_DEPTH = 2


def rename_model(raw: bytes, name: str, key: str = "model") -> bytes:
    """The frame, or document, with the model that it names under `key` called `name`."""
    sought = _key(key)
    found = sought.value.search(raw)
    if found is not None and raw.count(b"{", 0, found.start()) > _MODEL_DEPTH:  # it may be too deep: look closely
        found = _shallow(raw, sought)
    if found is None:
        return raw
    written = (raw[: found.start()], sought.written, found[1], msgspec.json.encode(name), raw[found.end() :])
    return b"".join(written)


def _shallow(raw: bytes, sought: _Key) -> re.Match[bytes] | None:
    depth = 0
    for found in sought.value_or_token.finditer(raw):
        if found[1] is None:
            depth += (found[0] == b"{") - (found[0] == b"}")
        elif depth <= _MODEL_DEPTH:
            return found
    return None


def _named(raw: bytes, frame: Frame) -> bytes:
    """The event with the name that its data tell, and that a client goes by."""
    found = load_json(frame.data or b"")
    name = found.get("type") if isinstance(found, dict) else None
    if not isinstance(name, str) or not name.isidentifier():
        return raw
    return b"event: %b\n%b" % (name.encode(), raw.removeprefix(b"\xef\xbb\xbf").lstrip(b"\r\n"))


class Verbatim:
    """`alias` is the name that the client knows the model by, None where it is the upstream's own."""

    def __init__(self, stream: EventStream, dialect: Dialect, *, keep_usage: bool, alias: str | None) -> None:
        self._stream = stream
        self._dialect = dialect
        self._keep_usage = keep_usage
        self._alias = alias
        self._terminated = False
        self._said_error = False
        self._lacks_names = False
        self._last: list[Frame] = []
        self._said: bytes | None = None  # the payload of the last frame that had one

    def write(self, batch: Batch) -> bytes:
        frames = self._last = batch.frames
        for frame in reversed(frames):  # one, but for what stands behind the last that says something
            if frame.data is not None:
                self._said = frame.data
                break
        if not batch.marks and self._alias is None:
            return frames[0].raw if len(frames) == 1 else batch.raw
        marks = dict(batch.marks)
        return b"".join([self._frame(frame, marks.get(number)) for number, frame in enumerate(frames)])

    def _frame(self, frame: Frame, mark: Mark | None) -> bytes:
        if mark is Mark.AFTER or (mark is Mark.USAGE and not self._keep_usage):
            return b""
        if mark is Mark.TERMINATOR:
            if self._terminated or not self._stream.is_complete:
                return b""
            self._terminated = True
        elif mark is Mark.ERROR:
            self._said_error = True
        elif mark is Mark.NAMELESS:
            self._lacks_names = True
        if frame.data is None:
            return frame.raw
        raw = frame.raw if self._alias is None else rename_model(frame.raw, self._alias, self._dialect.model_key)
        return _named(raw, frame) if self._lacks_names and frame.event is None else raw

    def end(self) -> bytes:
        if self._terminated:
            # A last CRLF that a read cut in two: nobody reads on for its LF, and some clients look for all of it.
            is_cut = self._last and self._last[-1].raw.endswith(b"\r\n\r")
            return b"\n" if is_cut else self._closed_line()
        return self._closed_line() + self._dialect.terminator

    def failed(self, error: PenstockError, encoder: Encoder) -> bytes:
        if self._said_error and isinstance(error, StreamedError):
            return self._closed_line()  # the provider's own words have passed
        if self._said is not None and isinstance(encoder, Resumable):
            encoder.resume(self._said)
        return self._closed_line() + encoder.error(error)

    def _closed_line(self) -> bytes:
        """What the last frame lacks, when the upstream's bytes ended inside it."""
        if not self._last or not self._last[-1].unterminated:
            return b""
        return b"\n" if self._last[-1].raw.endswith(b"\n") else b"\n\n"


class Translated:
    """`has_comments`: the client's framing has a place for words that are no event, where a seam is marked."""

    def __init__(self, encoder: Encoder, *, has_comments: bool = False) -> None:
        self._encoder = encoder
        self._has_comments = has_comments

    def write(self, batch: Batch) -> bytes:
        written = self._encoder.encode(batch.events)
        if batch.seam is not None and self._has_comments:
            return b": %b\n\n%b" % (batch.seam.encode("ascii", "replace"), written)
        return written

    def end(self) -> bytes:
        return b""  # `Finish` has said it

    def failed(self, error: PenstockError, encoder: Encoder) -> bytes:
        return self._encoder.error(error)
