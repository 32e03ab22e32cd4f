"""Which framing a reply has: told by its content type *and* its first bytes, because either alone lies.

Servers send JSON with an event stream's type, streams as text/plain, and login pages with 200.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.canon.errors import NotAStream
from penstock.framing.base import MAX_FRAME_BYTES
from penstock.framing.document import DocumentFraming
from penstock.framing.eventstream import EventStreamFraming
from penstock.framing.json_array import JSONArrayFraming
from penstock.framing.ndjson import NDJSONFraming
from penstock.framing.sse import SSEFraming

if TYPE_CHECKING:
    from penstock.framing.base import Framing

_BOM = b"\xef\xbb\xbf"
_SSE_STARTS = (b"data", b"event", b"id", b"retry", b":", b"error")
_NDJSON_TYPES = frozenset(
    {"application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines"}
)
_EVENTSTREAM_TYPE = "application/vnd.amazon.eventstream"
#: a message's length comes first, and no message is as long as 32 MiB
_FIRST_BYTES = (b"\0", b"\1")


def choose_framing(
    content_type: str | None,
    first: bytes,
    *,
    is_all: bool = False,
    streams_as: str = "sse",
    max_frame_bytes: int = MAX_FRAME_BYTES,
) -> Framing | None:
    """`first` is what has come of the body, `is_all` says that no more will. None: more of it is needed to tell.

    `streams_as` is the framing that the dialect streams in, which decides between JSON of several kinds.
    """
    media_type = (content_type or "").partition(";")[0].strip().lower()
    if media_type == _EVENTSTREAM_TYPE or (streams_as == "eventstream" and first.startswith(_FIRST_BYTES)):
        return EventStreamFraming(max_frame_bytes=max_frame_bytes)
    if len(first) < len(_BOM) and _BOM.startswith(first) and not is_all:
        return None
    said = first.removeprefix(_BOM).lstrip()
    if not said and not is_all:
        return None
    if said.startswith(b"[") and streams_as == "json-array":
        return JSONArrayFraming(max_frame_bytes=max_frame_bytes)
    if said.startswith(b"{"):
        return _of_objects(media_type, said, is_all, streams_as, max_frame_bytes)
    if said.startswith(b"["):
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


def _of_objects(media_type: str, said: bytes, is_all: bool, streams_as: str, max_frame_bytes: int) -> Framing | None:
    """One object, or one on each line. Ollama's streams come as `application/json` from some servers before it."""
    if media_type in _NDJSON_TYPES:
        return NDJSONFraming(max_frame_bytes=max_frame_bytes)
    if streams_as != "ndjson":
        return DocumentFraming(max_frame_bytes=max_frame_bytes)
    line, end, _ = said.partition(b"\n")
    if end and _is_whole(line):
        return NDJSONFraming(max_frame_bytes=max_frame_bytes)
    if not end and not is_all and len(said) <= max_frame_bytes:
        return None
    return DocumentFraming(max_frame_bytes=max_frame_bytes)


def _is_whole(line: bytes) -> bool:
    """A line of a document that is spread over several ends otherwise than it begins."""
    return line.rstrip().endswith(b"}")
