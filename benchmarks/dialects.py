"""What a dialect costs: processor time per frame to decode, and to encode, for each dialect. Runs anywhere, alone.

    .venv/bin/python benchmarks/dialects.py [--check]

The stream is a reply of 1,000 pieces of text, written by the dialect's own encoder; dialects that no client speaks are
measured on the longest recording at hand. Each figure is the best of several runs, which is the one that other work on
the machine disturbed least. `--check` exits with 1 when a figure is over its budget.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from penstock.canon.events import BlockEnd, BlockStart, Delta, Event, Finish, Start, Text, UsageUpdate
from penstock.canon.usage import Usage
from penstock.dialects import CLIENT_DIALECTS, DIALECTS, client_dialect
from penstock.testing.replay import Recording, open_reply

if TYPE_CHECKING:
    from collections.abc import Callable

DECODE_BUDGET_US = 10.0
ENCODE_BUDGET_US = 6.0
RUNS = 7
PIECES = [f" piece{number}" for number in range(1000)]

#: the corpus's names of dialects that no client speaks
RECORDED = {"cohere": "cohere-v2", "bedrock": "bedrock-converse"}


def reply() -> list[Event]:
    usage = Usage(input=100, output=1000)
    return [
        Start("a-model", "somebody", "reply-1"),
        BlockStart(0, "text"),
        *(Delta(0, piece) for piece in PIECES),
        BlockEnd(0, Text("".join(PIECES))),
        UsageUpdate(usage),
        Finish("stop", None, usage),
    ]


def best_us(run: Callable[[], int]) -> tuple[int, float]:
    """How many frames a run has, and the processor time of one, in microseconds."""
    frames, best = 0, float("inf")
    for _ in range(RUNS):
        began = time.process_time()
        frames = run()
        best = min(best, time.process_time() - began)
    return frames, best / max(frames, 1) * 1e6


def decoding(name: str, recording: Recording) -> tuple[int, float]:
    """The decoder alone; what framing costs is another question."""
    framing, _ = open_reply(name, recording)
    frames = [*framing.feed(recording.data), *framing.close()]

    def run() -> int:
        _, decoder = open_reply(name, recording)
        events: list[Event] = []
        decode = decoder.decode
        for frame in frames:
            decode(frame, events)
        decoder.close(events)
        return len(frames)

    return best_us(run)


def encoding(name: str, events: list[Event]) -> tuple[bytes, float]:
    """One batch per piece, as a live stream brings them."""
    written = b""

    def run() -> int:
        nonlocal written
        encoder = client_dialect(name).encoder(model=None, include_usage=True, request_id="req_1", created=1)
        encode = encoder.encode
        written = b"".join([encode((event,)) for event in events])
        return len(events)

    _, cost_us = best_us(run)
    return written, cost_us


def longest_recording(name: str) -> Recording | None:
    sys.path.insert(0, ".")
    try:
        from tests.corpus import recordings
    except ImportError:
        return None
    found = [held for held in recordings(RECORDED.get(name, name)) if held.meta.get("framing") != "json"]
    if not found:
        return None
    longest = max(found, key=lambda held: len(held.data))
    return Recording(longest.name, longest.data, longest.meta.get("content_type"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit with 1 when a figure is over its budget")
    arguments = parser.parse_args()
    table = Table("dialect", "stream", "frames", "decode µs", "encode µs")
    is_over = False
    for name in sorted(DIALECTS):
        encode_us: float | None = None
        if name in CLIENT_DIALECTS:
            data, encode_us = encoding(name, reply())
            recording: Recording | None = Recording("1,000 pieces", data, client_dialect(name).stream_type)
        else:
            recording = longest_recording(name)
        if recording is None:
            table.add_row(name, "no recording at hand", "-", "-", "-")
            continue
        frames, decode_us = decoding(name, recording)
        is_over |= decode_us > DECODE_BUDGET_US or (encode_us or 0) > ENCODE_BUDGET_US
        encoded = "-" if encode_us is None else f"{encode_us:.2f}"
        table.add_row(name, recording.name, f"{frames}", f"{decode_us:.2f}", encoded)
    Console(width=120).print(table)
    print(f"budget: {DECODE_BUDGET_US:g} µs to decode a frame, {ENCODE_BUDGET_US:g} µs to encode one")
    return 1 if arguments.check and is_over else 0


if __name__ == "__main__":
    sys.exit(main())
