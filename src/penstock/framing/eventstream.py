"""AWS event stream framing (`application/vnd.amazon.eventstream`), binary, both directions.

A message is `u32 total | u32 headers | u32 prelude CRC | headers | payload | u32 message CRC`, big-endian. Both
CRCs are checked. `Frame.event` is the type of the event, exception or error; `Frame.headers` has every header of type
string. Raises `MalformedFrame` on a wrong CRC or impossible lengths, `FrameTooLarge` over the bounds. A message that
the end of the stream cuts is given by `close()` as `unterminated`, without data.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

from penstock.canon.errors import FrameTooLarge, MalformedFrame
from penstock.framing.base import MAX_FRAME_BYTES, Frame

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_HEADERS_BYTES = 128 * 1024

_PRELUDE = struct.Struct(">III")
_U16 = struct.Struct(">H")
_U32 = struct.Struct(">I")
_OVERHEAD = _PRELUDE.size + _U32.size

_STRING = 7
#: bytes of a value, by header type: true, false, byte, short, int, long, timestamp, UUID
_SIZES = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
_WITH_LENGTH = frozenset({6, _STRING})  # bytes, string


class EventStreamFraming:
    name = "eventstream"

    def __init__(self, *, max_frame_bytes: int = MAX_FRAME_BYTES) -> None:
        self._max = max_frame_bytes
        self._held = bytearray()
        self._total = 0  # of the message under way; 0 until its prelude is in hand
        self._error: MalformedFrame | FrameTooLarge | None = None

    def feed(self, data: bytes) -> list[Frame]:
        if self._error is not None:
            raise self._error
        self._held += data
        frames: list[Frame] = []
        try:
            while (frame := self._next()) is not None:
                frames.append(frame)
        except (MalformedFrame, FrameTooLarge) as error:
            self._error = error  # the messages before it are good: they go first
            self._held.clear()
            if not frames:
                raise
        return frames

    def close(self) -> list[Frame]:
        if self._error is not None:
            raise self._error
        held = bytes(self._held)
        self._held.clear()
        return [Frame(held, unterminated=True)] if held else []

    def _next(self) -> Frame | None:
        held = self._held
        if not self._total:
            if len(held) < _PRELUDE.size:
                return None
            self._total = self._checked_total()
        total = self._total
        if len(held) < total:
            return None
        raw = bytes(held[:total])
        del held[:total]
        self._total = 0
        if zlib.crc32(raw[:-4]) != _U32.unpack_from(raw, total - 4)[0]:
            raise MalformedFrame("A message of the event stream has a wrong checksum.")
        end = _PRELUDE.size + _PRELUDE.unpack_from(raw)[1]
        headers = _read_headers(raw[_PRELUDE.size : end])
        event = headers.get(":event-type") or headers.get(":exception-type") or headers.get(":error-code")
        return Frame(raw, raw[end:-4], event, headers=headers)

    def _checked_total(self) -> int:
        total, headers, crc = _PRELUDE.unpack_from(self._held)
        if zlib.crc32(self._held[:8]) != crc:
            raise MalformedFrame("A prelude of the event stream has a wrong checksum.")
        if headers > total - _OVERHEAD:
            raise MalformedFrame(f"A message of {total} bytes cannot hold {headers} bytes of headers.")
        if total > self._max or headers > MAX_HEADERS_BYTES:
            raise FrameTooLarge(
                f"A message of the stream is {total} bytes large; the limit is {self._max}.",
                fix="Raise the frame limit if it is meant to be.",
            )
        return int(total)


def _read_headers(data: bytes) -> dict[str, str]:
    headers: dict[str, str] = {}
    at = 0
    try:
        while at < len(data):
            name_end = at + 1 + data[at]
            name, kind = data[at + 1 : name_end].decode(errors="replace"), data[name_end]
            at = name_end + 1
            if kind in _WITH_LENGTH:
                size = _U16.unpack_from(data, at)[0]
                at += 2
            else:
                size = _SIZES[kind]
            if at + size > len(data):
                raise IndexError
            if kind == _STRING:
                headers[name] = data[at : at + size].decode(errors="replace")
            at += size
    except (IndexError, KeyError, struct.error):
        raise MalformedFrame("The headers of a message of the event stream cannot be read.") from None
    return headers


def write_message(headers: Mapping[str, str], payload: bytes) -> bytes:
    """One message with headers of type string."""
    written = b"".join(_write_header(name.encode(), value.encode()) for name, value in headers.items())
    lengths = struct.pack(">II", len(written) + len(payload) + _OVERHEAD, len(written))
    message = lengths + _U32.pack(zlib.crc32(lengths)) + written + payload
    return message + _U32.pack(zlib.crc32(message))


def _write_header(name: bytes, value: bytes) -> bytes:
    return bytes([len(name)]) + name + bytes([_STRING]) + _U16.pack(len(value)) + value
