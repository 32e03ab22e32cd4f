"""The unit of work: what one network read brought.

A same-dialect relay writes `raw`; a translating relay encodes `events`; the recorder folds `events`. Nothing in between
runs per token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from penstock.canon.events import Event
    from penstock.dialects.base import Mark
    from penstock.framing.base import Frame


class Batch(Struct, gc=False):
    """`at` is the moment of the read, in monotonic seconds; `marks` are (frame number, mark), mostly none."""

    at: float
    frames: list[Frame]
    events: list[Event]
    marks: list[tuple[int, Mark]]
    #: whether anything in it commits the stream (`canon.events.is_content`)
    has_content: bool = False
    #: nothing comes after it, and all is well
    is_last: bool = False
    #: another attempt goes on from here, and in which way (`policy.recovery`)
    seam: str | None = None

    @property
    def raw(self) -> bytes:
        frames = self.frames
        if len(frames) == 1:
            return frames[0].raw
        return b"".join([frame.raw for frame in frames])
