"""Which framing a reply has: told by its content type *and* its first bytes, because either alone lies.

Servers send JSON with an event stream's type, streams as text/plain, and login pages with 200.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.canon.errors import NotAStream
from penstock.framing.base import MAX_FRAME_BYTES
from penstock.framing.document import DocumentFraming
from penstock.framing.sse import SSEFraming

if TYPE_CHECKING:
    from penstock.framing.base import Framing

_BOM = b"\xef\xbb\xbf"
_SSE_STARTS = (b"data", b"event", b"id", b"retry", b":", b"error")


def choose_framing(
    content_type: str | None, first: bytes, *, is_all: bool = False, max_frame_bytes: int = MAX_FRAME_BYTES
) -> Framing | None:
    """`first` is what has come of the body, `is_all` says that no more will. None: more of it is needed to tell."""
    if len(first) < len(_BOM) and _BOM.startswith(first) and not is_all:
        return None
    said = first.removeprefix(_BOM).lstrip()
    if not said and not is_all:
        return None
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
    if not is_all and any(start.startswith(said) for start in _SSE_STARTS):
        return None
    return DocumentFraming(max_frame_bytes=max_frame_bytes)
