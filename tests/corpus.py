"""Recorded streams of real providers, where they are at hand: `<project root>/../shared/corpus`.

A user's checkout does not have them; `recordings` then gives nothing and `needs_corpus` says why tests are skipped.
"""

from __future__ import annotations

import json
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct

CORPUS = Path(__file__).resolve().parents[1].parent / "shared" / "corpus"

needs_corpus = pytest.mark.skipif(not CORPUS.is_dir(), reason=f"no recorded streams at {CORPUS}")


class Recording(Struct, frozen=True):
    """One reply as it was sent (`data`) and what it means (`expected`). `meta` is the whole description of it."""

    name: str
    dialect: str
    provider: str
    framing: str
    data: bytes
    expected: dict[str, Any]
    chunk_boundaries: tuple[int, ...]
    meta: dict[str, Any]

    def cuts(self) -> dict[str, list[bytes]]:
        """The same bytes, cut in each way that a network might."""
        ways = {f"{size} bytes": _cut(self.data, range(size, len(self.data), size)) for size in (1, 2, 7, 64)}
        ways["whole"] = [self.data]
        if self.chunk_boundaries:
            ways["as recorded"] = _cut(self.data, self.chunk_boundaries)
        return ways


def _cut(data: bytes, ends: Any) -> list[bytes]:
    edges = [0, *ends, len(data)]
    return [data[begin:end] for begin, end in pairwise(edges) if end > begin]


@cache
def recordings(dialect: str) -> tuple[Recording, ...]:
    """Every recording of this dialect, in order of name; none where the corpus is absent."""
    found = []
    for path in sorted(CORPUS.glob("*/*.json")) if CORPUS.is_dir() else []:
        meta = json.loads(path.read_bytes())
        if meta.get("dialect") != dialect or "expected" not in meta:
            continue
        found.append(
            Recording(
                name=f"{path.parent.name}/{path.stem}",
                dialect=dialect,
                provider=meta.get("provider") or "",
                framing=meta["framing"],
                data=path.with_suffix(".sse").read_bytes(),
                expected=meta["expected"],
                chunk_boundaries=tuple(meta.get("chunk_boundaries") or ()),
                meta=meta,
            )
        )
    return tuple(found)


def each(dialect: str) -> pytest.MarkDecorator:
    """Parametrize a test by `recording`, one per recorded stream, each with its name."""
    found = recordings(dialect)
    params = [pytest.param(recording, id=recording.name) for recording in found]
    absent = pytest.param(None, marks=pytest.mark.skip(reason=f"no recorded streams at {CORPUS}"), id="no corpus")
    return pytest.mark.parametrize("recording", params or [absent])


# --- SSE framing cases ------------------------------------------------------------------------------------------------


class SSECase(Struct, frozen=True):
    """Bytes, the cuts that the case is about, and what a browser would dispatch."""

    name: str
    data: bytes
    chunk_boundaries: tuple[int, ...]
    expected_events: list[dict[str, Any]]
    final_retry: int | None


def _sse_cases() -> list[SSECase]:
    found = []
    for path in sorted((CORPUS / "sse-edge").glob("*.json")):
        meta = json.loads(path.read_bytes())
        found.append(
            SSECase(
                name=path.stem,
                data=path.with_suffix(".sse").read_bytes(),
                chunk_boundaries=tuple(meta.get("chunk_boundaries") or ()),
                expected_events=meta["expected_events"],
                final_retry=meta.get("final_retry"),
            )
        )
    return found


SSE_CASES = _sse_cases()

each_sse_case = pytest.mark.parametrize(
    "case",
    [pytest.param(case, id=case.name) for case in SSE_CASES]
    or [pytest.param(None, marks=pytest.mark.skip(reason=f"no recorded streams at {CORPUS}"), id="no corpus")],
)


# --- requests of real clients -----------------------------------------------------------------------------------------

CAPTURES = CORPUS.parent / "captures"

_PATHS = {
    "openai-chat": "/v1/chat/completions",
    "anthropic-messages": "/v1/messages",
    "openai-responses": "/v1/responses",
    "gemini": "/v1/models/tiny:streamGenerateContent",
    "ollama": "/api/chat",
}


class Capture(Struct, frozen=True):
    client: str
    body: bytes
    path: str = ""


@cache
def captures(dialect: str) -> tuple[Capture, ...]:
    """Requests that were kept whole; those whose long texts were cut out say another length than they have."""
    found = []
    for path in sorted(CAPTURES.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            seen = json.loads(line)
            body = json.dumps(seen["body"], separators=(",", ":"), ensure_ascii=False).encode()
            spaced = json.dumps(seen["body"]).encode()
            if seen["path"].partition("?")[0] == _PATHS[dialect] and seen["body_bytes"] in (len(body), len(spaced)):
                client = dict(seen["headers"]).get("user-agent", path.stem)
                found.append(Capture(client, body, seen["path"]))
    return tuple(found)
