"""One scripted upstream, and three gateways before it: as configured by default, in a hurry, and with a quick pulse."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.gateways import Asked, Gateway, serving, two_upstreams
from tests.upstreams import Upstream

if TYPE_CHECKING:
    from collections.abc import Iterator

#: `hurried`'s clocks, in seconds
FIRST_CONTENT_S = IDLE_S = 0.3
SILENCE_S = 0.2
TOTAL_S = 0.6


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    Asked.close_all()


@pytest.fixture(scope="session")
def scripted() -> Iterator[Upstream]:
    upstream = Upstream()
    yield upstream
    upstream.close()


@pytest.fixture
def upstream(scripted: Upstream) -> Iterator[Upstream]:
    scripted.forget()
    yield scripted
    assert scripted.errors == []


@pytest.fixture(scope="session")
def gateway(scripted: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with serving(two_upstreams(scripted), tmp_path_factory.mktemp("gateway")) as running:
        yield running


@pytest.fixture(scope="session")
def hurried(scripted: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    clocks = {"first_content": FIRST_CONTENT_S, "idle": IDLE_S, "silence": SILENCE_S, "total": TOTAL_S}
    with serving(two_upstreams(scripted, timeouts=clocks), tmp_path_factory.mktemp("hurried")) as running:
        yield running


@pytest.fixture(scope="session")
def beating(scripted: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A heartbeat each 50 ms, and a body of at most 1 MiB."""
    config = two_upstreams(scripted, heartbeat={"interval": "50ms"}, server={"max_body": "1MiB"})
    with serving(config, tmp_path_factory.mktemp("beating")) as running:
        yield running
