"""A reply that does not stream: the whole body is one frame, which `close()` gives.

So a document is a stream like any other, and nothing later knows the difference. `feed` gives nothing. A byte order
mark, and blank lines round the document, are no part of what it says.
"""

from __future__ import annotations

from penstock.canon.errors import FrameTooLarge
from penstock.framing.base import MAX_FRAME_BYTES, Frame

_BOM = b"\xef\xbb\xbf"


class DocumentFraming:
    name = "document"

    def __init__(self, *, max_frame_bytes: int = MAX_FRAME_BYTES) -> None:
        self._max = max_frame_bytes
        self._held: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> list[Frame]:
        self._size += len(data)
        if self._size > self._max:
            raise FrameTooLarge(f"The reply is larger than {self._max} bytes.")
        self._held.append(data)
        return []

    def close(self) -> list[Frame]:
        body = b"".join(self._held)
        self._held.clear()
        # DeepSeek sends blank lines before a document to keep the connection alive.
        payload = body.strip().removeprefix(_BOM).strip()
        return [Frame(body, payload)] if payload else []
