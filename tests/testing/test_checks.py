"""`penstock.testing.checks` on every dialect there is: made-up streams, recordings, every pair of client dialects."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest
from tests.corpus import CORPUS, recordings

from penstock.dialects import CLIENT_DIALECTS, DIALECTS
from penstock.testing.checks import check_dialect, check_pair, check_recording
from penstock.testing.replay import Recording

#: what the corpus calls the dialects whose names are not ours
NAMES = {"cohere": ("cohere-v2",), "bedrock": ("bedrock-converse",)}


def _held(name: str) -> list[Any]:
    return [
        found for called in NAMES.get(name, (name,)) for found in recordings(called) if found.framing != "json"
    ]  # a body that is an error's is not a stream


def of_the_corpus(name: str) -> list[Recording]:
    return [
        Recording(found.name, found.data, _content_type(found), found.chunk_boundaries, found.provider)
        for found in _held(name)
    ]


def _content_type(found: Any) -> str | None:
    """What the server said; lines that were put down by hand have no server."""
    said: str | None = found.meta.get("content_type")
    return said or ("application/x-ndjson" if found.framing == "ndjson" else None)


def recorded(name: str) -> list[dict[str, Any]]:
    """What each recording is expected to mean."""
    return [found.expected for found in _held(name)]


@pytest.mark.parametrize("name", sorted(DIALECTS))
def test_every_dialect_keeps_its_promises(name: str):
    check_dialect(name)


_recorded = [pytest.param(name, found, id=found.name) for name in sorted(DIALECTS) for found in of_the_corpus(name)]
_absent = pytest.param("", None, marks=pytest.mark.skip(reason=f"no recorded streams at {CORPUS}"), id="no corpus")


@pytest.mark.parametrize(("name", "recording"), _recorded or [_absent])
def test_every_recording_keeps_them(name: str, recording: Recording):
    check_recording(name, recording)


@pytest.mark.parametrize(("source", "target"), [*permutations(sorted(CLIENT_DIALECTS), 2)])
def test_what_one_dialect_says_every_other_can_say(source: str, target: str):
    check_pair(source, target)
