"""NDJSON framing: one JSON value per line (Ollama).

Lines end in LF or CRLF, in bytes only. A blank line is a frame without data. A last line without its end is given by
`close()` as `unterminated`. A line over `max_frame_bytes` raises `FrameTooLarge` before more of it is held.
"""

from __future__ import annotations

from penstock.canon.errors import FrameTooLarge
from penstock.framing.base import MAX_FRAME_BYTES, Frame

_BOM = b"\xef\xbb\xbf"


class NDJSONFraming:
    name = "ndjson"

    def __init__(self, *, max_frame_bytes: int = MAX_FRAME_BYTES) -> None:
        self._max = max_frame_bytes
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._is_first = True
        self._too_large = False

    def feed(self, data: bytes) -> list[Frame]:
        if self._too_large:
            raise self._refused()
        *ends, rest = data.split(b"\n")
        frames: list[Frame] = []
        for line in ends:
            raw = b"%b%b\n" % (b"".join(self._held), line) if self._held else line + b"\n"
            self._hold(b"")
            if len(raw) > self._max:
                return self._bounded(frames)
            frames.append(self._frame(raw))
        if rest:
            self._held.append(rest)
            self._held_bytes += len(rest)
            if self._held_bytes > self._max:
                return self._bounded(frames)
        return frames

    def close(self) -> list[Frame]:
        if self._too_large:
            raise self._refused()
        held = b"".join(self._held)
        self._hold(b"")
        if not held:
            return []
        frame = self._frame(held)
        return [Frame(frame.raw, frame.data, unterminated=True)]

    def _frame(self, raw: bytes) -> Frame:
        payload = raw
        if self._is_first:
            self._is_first = False
            payload = payload.removeprefix(_BOM)
        return Frame(raw, payload.strip(b" \t\r\n") or None)

    def _hold(self, rest: bytes) -> None:
        self._held = [rest] if rest else []
        self._held_bytes = len(rest)

    def _bounded(self, frames: list[Frame]) -> list[Frame]:
        """The lines before one that is too large are good: they go first."""
        self._too_large = True
        self._hold(b"")
        if not frames:
            raise self._refused()
        return frames

    def _refused(self) -> FrameTooLarge:
        self._too_large = True
        self._hold(b"")
        return FrameTooLarge(
            f"A line of the stream is larger than {self._max} bytes.",
            fix="Raise the frame limit if it is meant to be.",
        )
