"""SSE framing: bytes → frames (WHATWG HTML, "server-sent events"), and fields → bytes.

Sans-IO. Lines end in LF, CRLF or CR, in bytes only, so that U+2028 inside JSON is data. One leading BOM is dropped. A
CR ends its line at once; an LF that comes with the next read belongs to it. An event that the end of the stream cuts
is given by `close()` as `unterminated`, so that a cut is not taken for an end. A frame over `max_frame_bytes` raises
`FrameTooLarge`. Never raises on content: unknown fields are skipped, invalid UTF-8 in names becomes U+FFFD.

A frame is a block of lines with its empty line. A block without `data` has `data=None`: a comment, a stray empty line,
or an event that a browser would not dispatch. Frames that carry data are the same for every way of cutting the bytes,
but for a last LF that may come as a frame of its own; joined raws always are the stream.
"""

from __future__ import annotations

from penstock.canon.errors import FrameTooLarge
from penstock.framing.base import MAX_FRAME_BYTES, Frame

_BOM = b"\xef\xbb\xbf"


class SSEFraming:
    """Incremental: what is held between reads is one incomplete frame and never more.

    `last_event_id` and `retry_ms` are what the stream has set, as a browser keeps them.
    """

    name = "sse"

    def __init__(self, *, max_frame_bytes: int = MAX_FRAME_BYTES) -> None:
        self._max = max_frame_bytes
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._begun = False
        self._skip_lf = False
        self._too_large = False
        self.last_event_id = ""
        self.retry_ms: int | None = None

    def feed(self, data: bytes) -> list[Frame]:
        if self._too_large:
            raise self._refused()
        if not data:
            return []
        if self._held:
            if self._begun and not _has_empty_line(self._held[-1], data):
                # The middle of a giant frame: looked at once and kept in pieces, so that growth is never quadratic.
                self._held.append(data)
                self._held_bytes += len(data)
                if self._held_bytes > self._max:
                    raise self._refused()
                return []
            self._held.append(data)
            data = b"".join(self._held)
            self._held.clear()
        if not self._begun:
            if len(data) < 3 and _BOM.startswith(data):
                self._hold(data)
                return []
            self._begun = True
            data = data.removeprefix(_BOM)
        if data.startswith(b"data: ") and self._is_one_line(data):
            # One read, one event: what a provider that flushes every token sends.
            return [Frame(data, data[6:-2])]
        if (
            data.startswith(b"event: ")
            and data.startswith(b"data: ", (line := data.find(b"\n")) + 1)
            and self._is_one_line(data, line)
        ):
            return [Frame(data, data[line + 7 : -2], data[7:line].decode(errors="replace") or None)]
        frames: list[Frame] = []
        if self._skip_lf and data:
            self._skip_lf = False
            if data[0] == 0x0A:
                frames.append(Frame(b"\n"))
                data = data[1:]
        rest = self._split(data, frames) if b"\r" in data else self._split_lf(data, frames)
        self._hold(rest)
        return frames if len(data) <= self._max else self._bounded(frames)

    def close(self) -> list[Frame]:
        """What was never dispatched: at most one frame, marked `unterminated`. Its id is not committed."""
        if self._too_large:
            raise self._refused()
        held = b"".join(self._held)
        self._hold(b"")
        if not held:
            return []
        committed, retry = self.last_event_id, self.retry_ms
        frame = self._frame(held, held)
        self.last_event_id, self.retry_ms = committed, retry
        return [Frame(frame.raw, frame.data, frame.event, frame.id, unterminated=True)]

    def _hold(self, rest: bytes) -> None:
        self._held = [rest] if rest else []
        self._held_bytes = len(rest)

    def _bounded(self, frames: list[Frame]) -> list[Frame]:
        """The frames before one that is too large are good: they go first."""
        good = next((k for k, frame in enumerate(frames) if len(frame.raw) > self._max), len(frames))
        self._too_large = good < len(frames) or self._held_bytes > self._max
        if self._too_large and not good:
            raise self._refused()
        return frames[:good]

    def _refused(self) -> FrameTooLarge:
        self._too_large = True
        self._hold(b"")
        return FrameTooLarge(
            f"A frame of the stream is larger than {self._max} bytes.",
            fix="Raise the frame limit if it is meant to be.",
        )

    def _is_one_line(self, data: bytes, line: int = -1) -> bool:
        """Whether there is one event in `data`, and nothing but one line of it after `line`."""
        return (
            data.find(b"\n", line + 1) == len(data) - 2
            and data.endswith(b"\n\n")
            and b"\r" not in data
            and not self._skip_lf
            and not self.last_event_id
            and len(data) <= self._max
        )

    def _split_lf(self, data: bytes, frames: list[Frame]) -> bytes:
        """The common case, no CR in sight: a block ends in two LFs. Returns what is not yet a frame."""
        begin = 0
        while (end := data.find(b"\n\n", begin)) >= 0:
            if data[begin] == 0x0A:  # an empty line with nothing before it
                frames.append(Frame(b"\n"))
                begin += 1
                continue
            stop = end + 2
            # One `data: {…}` line, alone or after its `event: x`, is nearly every frame that providers send.
            line = data.find(b"\n", begin, end)
            if self.last_event_id:
                frames.append(self._frame(data[begin:stop], data[begin:end]))
            elif line < 0 and data.startswith(b"data: ", begin):
                frames.append(Frame(data[begin:stop], data[begin + 6 : end]))
            elif (
                data.startswith(b"\ndata: ", line)
                and data.startswith(b"event: ", begin)
                and data.find(b"\n", line + 1, end) < 0
            ):
                event = data[begin + 7 : line].decode(errors="replace") or None
                frames.append(Frame(data[begin:stop], data[line + 7 : end], event))
            else:
                frames.append(self._frame(data[begin:stop], data[begin:end]))
            begin = stop
        if data[begin : begin + 1] == b"\n":
            frames.append(Frame(b"\n"))
            begin += 1
        return data[begin:] if begin else data

    def _split(self, data: bytes, frames: list[Frame]) -> bytes:
        """Any line ends. Returns what is not yet a frame."""
        begin = line = 0
        lf, cr = data.find(b"\n"), data.find(b"\r")
        while lf >= 0 or cr >= 0:
            if cr >= 0 and (lf < 0 or cr < lf):
                end, following = cr, cr + (2 if lf == cr + 1 else 1)
            else:
                end, following = lf, lf + 1
            if end == line:  # an empty line: the block is whole
                raw = data[begin:following]
                frames.append(self._frame(raw, data[begin:line]) if line > begin else Frame(raw))
                begin = following
                self._skip_lf = following == len(data) and data[end] == 0x0D and following == end + 1
            line = following
            if 0 <= lf < line:
                lf = data.find(b"\n", line)
            if 0 <= cr < line:
                cr = data.find(b"\r", line)
        return data[begin:]

    def _frame(self, raw: bytes, block: bytes) -> Frame:
        """Parse the fields of one block. `block` is `raw` without its empty line."""
        if b"\r" in block:
            block = block.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        event: str | None = None
        data: list[bytes] = []
        for line in block.split(b"\n"):
            name, _, value = line.partition(b":")
            if value.startswith(b" "):
                value = value[1:]
            if name == b"data" and line:
                data.append(value)
            elif name == b"event":
                event = value.decode(errors="replace") or None
            elif name == b"id":
                if b"\0" not in value:
                    self.last_event_id = value.decode(errors="replace")
            elif name == b"retry":
                if value.isdigit() and len(value) < 16:  # longer ones are no time, and int() refuses the longest
                    self.retry_ms = int(value)
            elif name == b"error" and not data:
                # Old llama.cpp put its errors in a field of their own.
                event = "error"
                data.append(value)
        return Frame(raw, b"\n".join(data) if data else None, event, self.last_event_id or None)


def _has_empty_line(before: bytes, data: bytes) -> bool:
    """Whether a block ends in `data`: one end of a line follows another, the last byte before it counted in."""
    if b"\n\n" in data or b"\n\r" in data or b"\r\r" in data:
        return True
    return before[-1:] + data[:1] in (b"\n\n", b"\n\r", b"\r\r")


def write_event(data: bytes, event: str | None = None) -> bytes:
    """One event on the wire. `data` holds no line end, which is true of all JSON that msgspec writes."""
    if event is None:
        return b"data: " + data + b"\n\n"
    return b"event: " + event.encode() + b"\ndata: " + data + b"\n\n"


def write_comment(text: str) -> bytes:
    """A comment: the only keep-alive that every conforming parser ignores."""
    return b": " + text.replace("\n", " ").encode() + b"\n\n"
