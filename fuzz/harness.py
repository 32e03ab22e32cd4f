"""What the fuzz targets share: seeds, mutations, a clock, and what to do with a finding.

A target is a function of bytes that raises when a promise is broken. A seed is a reply that is well formed; mutations
damage its bytes, or, where it holds JSON, single values in it, which gets deeper than damage to bytes ever does.
"""

from __future__ import annotations

import json
import random
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: processor time that one input may take
INPUT_LIMIT_S = 2.0

FINDINGS = Path("fuzz-findings")

_TOKENS = [
    b"\n", b"\r", b"\r\n", b"\n\n", b"data:", b"data: ", b"event: error\n", b": ", b"[DONE]", b"{", b"}", b"[", b"]",
    b'"', b"\\", b"\\u", b"\xef\xbb\xbf", b"\xe2\x80\xa8", b"\xff", b"\0", b"null", b"{}", b"[]",
    b'{"error":{"message":"x"}}', b"\xf0\x9f", b"\\ud83d", b"1e999", b"-0",
]  # fmt: skip
_VALUES: list[Any] = [
    None, True, False, 0, -1, 2**70, 1.5, float("1e308"), "", "x", "null", "error", [], {}, [None], [[]], {"": None},
    {"type": "text"}, [{"type": "text", "text": "x"}], [1, "x"], "é" * 40, "\u2028",
]  # fmt: skip


class Seed(Struct, frozen=True):
    name: str
    data: bytes
    content_type: str | None = None


def mutated(seed: bytes, rng: random.Random) -> bytes:
    """The seed with one to four things wrong with it."""
    data = seed
    for _ in range(rng.choice((1, 1, 2, 4))):
        data = rng.choice((_value, _value, _splice, _cut, _flip, _repeat))(data, rng)
    return data


def _value(data: bytes, rng: random.Random) -> bytes:
    """Replace one value in one line's JSON."""
    lines = data.split(b"\n")
    k = rng.randrange(len(lines))
    head, brace, rest = lines[k].partition(b"{")
    try:
        found = json.loads(brace + rest)
    except ValueError:
        return _splice(data, rng)
    _replace(found, rng)
    lines[k] = head + json.dumps(found, ensure_ascii=rng.random() < 0.5).encode(errors="replace")
    return b"\n".join(lines)


def _replace(found: Any, rng: random.Random) -> None:
    """Walk down at random and put something else in."""
    while isinstance(found, dict | list) and found:
        key: Any = rng.choice(list(found)) if isinstance(found, dict) else rng.randrange(len(found))
        inner = found[key]
        if not isinstance(inner, dict | list) or not inner or rng.random() < 0.3:
            if isinstance(found, dict) and rng.random() < 0.2:
                del found[key]
            else:
                found[key] = rng.choice(_VALUES)
            return
        found = inner


def _splice(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.choice(_TOKENS) + data[at + rng.choice((0, 0, 1, 5)) :]


def _cut(data: bytes, rng: random.Random) -> bytes:
    begin = rng.randrange(len(data) + 1)
    return data[:begin] + data[begin + rng.randrange(1 + min(200, len(data))) :]


def _flip(data: bytes, rng: random.Random) -> bytes:
    if not data:
        return data
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]


def _repeat(data: bytes, rng: random.Random) -> bytes:
    begin = rng.randrange(len(data) + 1)
    piece = data[begin : begin + rng.randrange(1, 300)]
    return data[:begin] + piece * rng.choice((2, 3)) + data[begin + len(piece) :]


def reads_of(data: bytes, rng: random.Random) -> list[bytes]:
    """The bytes, cut at random places."""
    size = rng.choice((1, 3, 17, 400, len(data) or 1))
    return [data[at : at + size] for at in range(0, len(data), size)]


def run(name: str, target: Callable[[Seed, bytes, random.Random], None], seeds: Sequence[Seed], minutes: float) -> int:
    """Feed the target for so long, say how it goes, keep what broke it. Gives the number of findings."""
    rng = random.Random()
    end = time.monotonic() + minutes * 60
    said = time.monotonic()
    tried = 0
    found: dict[str, bytes] = {}
    while time.monotonic() < end:
        seed = rng.choice(seeds)
        data = mutated(seed.data, rng)
        began = time.process_time()
        try:
            target(seed, data, rng)
            spent_s = time.process_time() - began
            if spent_s > INPUT_LIMIT_S:
                raise AssertionError(f"one input of {len(data)} bytes took {spent_s:.1f} s")
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            kind = f"{type(error).__name__} at {where.filename.rpartition('/')[2]}:{where.lineno}"
            if kind not in found or len(data) < len(found[kind]):
                found[kind] = data
                FINDINGS.mkdir(exist_ok=True)
                path = FINDINGS / f"{name}-{kind.split()[0]}-{where.lineno}.bin"
                path.write_bytes(data)
                print(f"{name}: {kind}: {str(error)[:200]} (from {seed.name}; {path})", flush=True)
        tried += 1
        if time.monotonic() - said > 15:
            said = time.monotonic()
            left_s = max(0.0, end - said)
            print(f"{name}: {tried:,} inputs, {len(found)} findings, {left_s:.0f} s left", file=sys.stderr, flush=True)
    print(f"{name}: {tried:,} inputs, {len(found)} findings", flush=True)
    return len(found)
