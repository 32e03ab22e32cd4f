"""Which framing a reply has: told by its content type *and* its first bytes, because either alone lies.

Servers send JSON with an event stream's type, streams as text/plain, and login pages with 200 (PROTOCOLS 10, rows
17–19).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.canon.errors import NotAStream
from penstock.framing.base import MAX_FRAME_BYTES
from penstock.framing.document import DocumentFraming
from penstock.framing.sse import SSEFraming

if TYPE_CHECKING:
    from penstock.framing.base import Framing

_SSE_STARTS = (b"data", b"event", b"id", b"retry", b":", b"error")


def choose_framing(content_type: str | None, first: bytes, *, max_frame_bytes: int = MAX_FRAME_BYTES) -> Framing:
    """`first` is the first read of the body; empty when the body is."""
    said = first.removeprefix(b"\xef\xbb\xbf").lstrip()
    media_type = (content_type or "").partition(";")[0].strip().lower()
    if said.startswith((b"{", b"[")):
        return DocumentFraming(max_frame_bytes=max_frame_bytes)
    if said.startswith(b"<"):
        raise NotAStream(
            f"The upstream answered with a page ({media_type or 'no content type'}), not with a model's reply.",
            fix="Check the upstream's url: most end in /v1.",
        )
    if media_type == "text/event-stream" or said.startswith(_SSE_STARTS):
        return SSEFraming(max_frame_bytes=max_frame_bytes)
    return DocumentFraming(max_frame_bytes=max_frame_bytes)
