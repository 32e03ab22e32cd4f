"""A pytest fixture: record an upstream once, and play it back ever after.

In a `conftest.py`: `from penstock.testing.cassette import cassette`. In a test:

    def test_the_weather(cassette):
        url = cassette("https://api.openai.com/v1")     # records if there is no recording, replays if there is one
        ask(url)

The cassette is the folder `cassettes/<module>/<test>` beside the test. `PENSTOCK_RECORD=1` records anew. A request that
was not recorded fails the test, with its path: nothing is asked in silence.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from penstock.testing.recorder import Recorder, Replayer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

RECORD = "PENSTOCK_RECORD"


@pytest.fixture
def cassette(request: pytest.FixtureRequest) -> Iterator[Callable[[str], str]]:
    """An upstream's base URL in, the URL to ask instead out."""
    name = re.sub(r"[^\w.-]+", "-", request.node.name).strip("-")
    folder = Path(request.path).parent / "cassettes" / Path(request.path).stem / name
    servers: list[Recorder | Replayer] = []

    def play(upstream: str) -> str:
        place = folder / str(len(servers) + 1)
        server: Recorder | Replayer
        if place.is_dir() and not os.environ.get(RECORD):
            server = Replayer(place, speed="max", base=upstream)
        else:
            shutil.rmtree(place, ignore_errors=True)
            server = Recorder(upstream, place, environ=os.environ)
        servers.append(server)
        server.__enter__()
        return server.url

    yield play
    misses = []
    for server in servers:
        server.close()
        if isinstance(server, Replayer):
            misses += [f"{seen.method} {seen.path}" for seen in server.misses]
    if misses:
        pytest.fail(f"Not recorded: {', '.join(misses)}. Record anew with {RECORD}=1.")
