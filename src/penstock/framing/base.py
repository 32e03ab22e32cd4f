"""What every framing gives: `feed(bytes) -> [Frame]`, `close() -> [Frame]`.

A framing holds at most one incomplete frame, up to `max_frame_bytes`; beyond that it raises `FrameTooLarge`. It never
waits, never decodes JSON, and gives the same frames for every way of cutting the same bytes.
"""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct

#: 16 MiB: providers send frames of more than 1 MiB (base64 images, whole reasoning traces).
MAX_FRAME_BYTES = 16 * 1024 * 1024


class Frame(Struct, frozen=True, gc=False):
    """One frame. `raw` is every byte of it, its delimiter included, so that joined raws are the stream itself.

    `data` is the payload, None where the frame has none (a comment, a lone `event:` line). `event` is the name of an
    SSE event, None where there is none. `unterminated`: the stream ended before the frame's delimiter. `headers` are an
    event stream message's own.
    """

    raw: bytes
    data: bytes | None = None
    event: str | None = None
    id: str | None = None
    unterminated: bool = False
    headers: dict[str, str] | None = None


class Framing(Protocol):
    """`name` is `sse`, `document`, `ndjson`, `json-array` or `eventstream`."""

    name: str

    def feed(self, data: bytes) -> list[Frame]: ...

    def close(self) -> list[Frame]: ...
