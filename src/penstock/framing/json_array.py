"""JSON array framing: the elements of one array that comes in pieces (Gemini without `alt=sse`).

An element is out as soon as its last byte is in. Works on bytes and never decodes; each byte is looked at once, however
the stream is cut. A frame's `raw` begins with what separates it from the one before, so that joined raws are the
stream; what is no element (the closing bracket, whatever follows it) has `data=None`. A leading BOM is dropped, as in
SSE: behind a heartbeat it would begin nothing. An array that never closes leaves its rest to `close()`, as
`unterminated`. An element over `max_frame_bytes` raises `FrameTooLarge`.
"""

from __future__ import annotations

import re

from penstock.canon.errors import FrameTooLarge, MalformedFrame
from penstock.framing.base import MAX_FRAME_BYTES, Frame

_BOM = b"\xef\xbb\xbf"
_SIGN = re.compile(rb'["{}\[\],]')
_STRING_SIGN = re.compile(rb'["\\]')
_SPACE = b" \t\r\n"
_BEFORE = _SPACE + b","


class JSONArrayFraming:
    name = "json-array"

    def __init__(self, *, max_frame_bytes: int = MAX_FRAME_BYTES) -> None:
        self._max = max_frame_bytes
        self._held = bytearray()
        self._at = 0  # the first byte of `_held` that was not looked at
        self._depth = 0  # 1: between elements
        self._in_string = False
        self._is_element_out = False  # since the last comma
        self._ended = False
        self._too_large = False

    def feed(self, data: bytes) -> list[Frame]:
        if self._too_large:
            raise self._refused()
        self._held += data
        frames: list[Frame] = []
        if self._depth == 0 and not self._ended and not self._open():
            return frames
        while not self._ended and self._step(frames):
            if len(frames) and len(frames[-1].raw) > self._max:
                frames.pop()
                return self._bounded(frames)
        if self._ended:
            if self._held:
                frames.append(self._cut(len(self._held), None))
        elif len(self._held) > self._max:
            return self._bounded(frames)
        return frames

    def close(self) -> list[Frame]:
        if self._too_large:
            raise self._refused()
        if not self._held:
            return []
        rest = bytes(self._held).lstrip(_BEFORE + b"[" if self._depth == 1 else _BEFORE)
        frame = self._cut(len(self._held), len(self._held) - len(rest) if rest else None)
        return [Frame(frame.raw, frame.data, unterminated=True)]

    def _open(self) -> bool:
        """Whether the array has begun."""
        start = len(_BOM) if self._held.startswith(_BOM) else 0
        rest = bytes(self._held[start:]).lstrip(_SPACE)
        if not rest:
            if len(self._held) > self._max:
                raise self._refused()
            return False
        if not rest.startswith(b"["):
            if _BOM.startswith(rest):
                return False
            raise MalformedFrame("The stream is not a JSON array.")
        del self._held[:start]
        self._depth = 1
        self._at = len(self._held) - len(rest) + 1
        return True

    def _step(self, frames: list[Frame]) -> bool:
        """Go on to the next sign that matters; False when there is none yet."""
        held = self._held
        if self._in_string:
            found = _STRING_SIGN.search(held, self._at)
            if found is None:
                self._at = len(held)
                return False
            if found[0] == b"\\":
                if found.end() == len(held):  # what it escapes has not come
                    self._at = found.start()
                    return False
                self._at = found.end() + 1
                return True
            self._at = found.end()
            self._in_string = False
            return True
        found = _SIGN.search(held, self._at)
        if found is None:
            self._at = len(held)
            return False
        self._at = found.end()
        sign = found[0]
        if sign == b'"':
            self._in_string = True
        elif sign in (b"{", b"["):
            self._depth += 1
        elif sign == b",":
            if self._depth == 1:
                self._scalar(found.start(), frames)
                self._is_element_out = False
        else:
            self._depth -= 1
            if self._depth == 1:
                frames.append(self._element(found.end()))
            elif self._depth == 0:
                self._scalar(found.start(), frames)
                frames.append(self._cut(self._at, None))
                self._ended = True
        return True

    def _element(self, end: int) -> Frame:
        self._is_element_out = True
        return self._cut(end, self._start(end))

    def _scalar(self, end: int, frames: list[Frame]) -> None:
        """An element without brackets ends where the comma or the closing bracket stands."""
        if not self._is_element_out and self._start(end) < end:
            frames.append(self._cut(len(bytes(self._held[:end]).rstrip(_SPACE)), self._start(end)))

    def _start(self, end: int) -> int:
        rest = bytes(self._held[:end]).lstrip(_BEFORE)
        if rest.startswith(b"[") and not self._has_begun:
            rest = rest[1:].lstrip(_SPACE)
        return end - len(rest)

    _has_begun = False

    def _cut(self, end: int, start: int | None) -> Frame:
        raw = bytes(self._held[:end])
        del self._held[:end]
        self._at = max(self._at - end, 0)
        self._has_begun = True
        return Frame(raw, None if start is None else raw[start:])

    def _bounded(self, frames: list[Frame]) -> list[Frame]:
        """The elements before one that is too large are good: they go first."""
        self._too_large = True
        self._held.clear()
        if not frames:
            raise self._refused()
        return frames

    def _refused(self) -> FrameTooLarge:
        self._too_large = True
        self._held.clear()
        return FrameTooLarge(
            f"An element of the stream is larger than {self._max} bytes.",
            fix="Raise the frame limit if it is meant to be.",
        )
