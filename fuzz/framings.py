"""Fuzz every framing: the same frames however the bytes are cut, every byte in one of them, and nothing over the bound.

    .venv/bin/python -m fuzz.framings [--framing NAME] [--minutes 10]

A finding is kept in `fuzz-findings/`; the exit status is then 1.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from typing import TYPE_CHECKING, Any

from fuzz.harness import Seed, reads_of, run
from penstock.canon.errors import PenstockError
from penstock.framing.choose import choose_framing
from penstock.framing.document import DocumentFraming
from penstock.framing.eventstream import EventStreamFraming, write_message
from penstock.framing.json_array import JSONArrayFraming
from penstock.framing.ndjson import NDJSONFraming
from penstock.framing.sse import SSEFraming

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from penstock.framing.base import Frame

BOUND_BYTES = 4096

FRAMINGS: dict[str, Callable[..., Any]] = {
    "document": DocumentFraming,
    "eventstream": EventStreamFraming,
    "json-array": JSONArrayFraming,
    "ndjson": NDJSONFraming,
    "sse": SSEFraming,
}

_LINES = [b'{"a": "b\\"]}"}', b'{"choices": [{"delta": {"content": "x"}}]}', b"[1, [2]]", b'"text"', b"null", b"{}"]
SEEDS: dict[str, list[bytes]] = {
    "sse": [
        b"".join(b"data: %b\n\n" % line for line in _LINES),
        b": hi\r\n\r\nevent: x\r\nid: 7\r\nretry: 3\r\ndata: a\r\ndata: b\r\n\r\n",
        b"\xef\xbb\xbfdata:x\r\rdata\n\nevent:y\n\n",
    ],
    "ndjson": [b"\n".join(_LINES), b"\r\n".join(_LINES) + b"\r\n"],
    "json-array": [b"[" + b",\r\n".join(_LINES) + b"]\n", json.dumps([{"a": [1, {"b": "]"}]}] * 3, indent=2).encode()],
    "eventstream": [
        b"".join(write_message({":message-type": "event", ":event-type": "x"}, line) for line in _LINES),
    ],
    "document": [b"\n\n" + line for line in _LINES],
}
TYPES = [None, "text/event-stream", "application/json", "application/x-ndjson", "application/vnd.amazon.eventstream"]


def framed(name: str, reads: list[bytes]) -> tuple[list[Frame], type[Exception] | None]:
    framing = FRAMINGS[name](max_frame_bytes=BOUND_BYTES)
    frames: list[Frame] = []
    try:
        for data in reads:
            frames += framing.feed(data)
        frames += framing.close()
    except PenstockError as error:
        return frames, type(error)
    return frames, None


def target(name: str) -> Callable[[Seed, bytes, random.Random], None]:
    def check(seed: Seed, data: bytes, rng: random.Random) -> None:
        whole, error = framed(name, [data])
        again, other = framed(name, reads_of(data, rng))
        told = [(frame.data, frame.event, frame.unterminated) for frame in whole if frame.data is not None]
        said = [(frame.data, frame.event, frame.unterminated) for frame in again if frame.data is not None]
        assert (said, other) == (told, error), "other frames when it is cut"
        if error is None:
            assert b"".join(frame.raw for frame in whole) == _meant(name, data), "bytes are lost or made"
        assert all(len(frame.raw) <= BOUND_BYTES for frame in whole), "a frame over the bound"
        for streams_as in FRAMINGS:
            with contextlib.suppress(PenstockError):
                choose_framing(rng.choice(TYPES), data[: rng.randrange(1 + len(data))], streams_as=streams_as)

    return check


def _meant(name: str, data: bytes) -> bytes:
    """SSE drops one byte order mark, and a document of white space is none."""
    if name == "sse":
        return data.removeprefix(b"\xef\xbb\xbf")
    return b"" if name == "document" and not data.strip() else data


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--framing", choices=sorted(FRAMINGS), help="this one only")
    parser.add_argument("--minutes", type=float, default=10.0, help="for each framing [default: 10]")
    arguments = parser.parse_args()
    names = [arguments.framing] if arguments.framing else sorted(FRAMINGS)
    seeds = {name: [Seed(f"{name} {k}", data) for k, data in enumerate(SEEDS[name])] for name in names}
    return 1 if sum(run(name, target(name), seeds[name], arguments.minutes) for name in names) else 0


if __name__ == "__main__":
    sys.exit(main())
