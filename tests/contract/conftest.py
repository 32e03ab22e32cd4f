"""Three gateways before a scripted upstream (as configured by default, in a hurry, with a quick pulse); the same three
before the simulator, with an upstream of every client dialect."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from penstock.testing import Upstream as Simulator
from tests.contract.simulated import SCRIPT, Bench, simulators_config
from tests.gateways import Asked, Gateway, serving, two_upstreams
from tests.upstreams import Upstream

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: `hurried`'s clocks, in seconds
FIRST_CONTENT_S = IDLE_S = 0.3
SILENCE_S = 0.2
TOTAL_S = 0.6
DOCUMENT_S = 0.4

#: and those of `hurried_bench`, before which crowds wait: a ping each 50 ms comes late there
CROWDS = {"first_content": 0.7, "idle": 0.7, "silence": 0.5, "total": 1.0}


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
    clocks = {
        "first_content": FIRST_CONTENT_S,
        "idle": IDLE_S,
        "silence": SILENCE_S,
        "total": TOTAL_S,
        "document": DOCUMENT_S,
    }
    with serving(two_upstreams(scripted, timeouts=clocks), tmp_path_factory.mktemp("hurried")) as running:
        yield running


@pytest.fixture(scope="session")
def beating(scripted: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A heartbeat each 50 ms, and a body of at most 1 MiB."""
    config = two_upstreams(scripted, heartbeat={"interval": "50ms"}, server={"max_body": "1MiB"})
    with serving(config, tmp_path_factory.mktemp("beating")) as running:
        yield running


# --- before the simulator ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def simulator() -> Iterator[Simulator]:
    with Simulator(SCRIPT) as simulator:
        yield simulator


@contextmanager
def _bench(simulator: Simulator, folder: Path, **more: object) -> Iterator[Bench]:
    with serving(simulators_config(simulator, **more), folder, "--store", "off") as running:
        yield Bench(simulator, running)


@pytest.fixture(scope="session")
def bench(simulator: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with _bench(simulator, tmp_path_factory.mktemp("bench")) as bench:
        yield bench


@pytest.fixture(scope="session")
def hurried_bench(simulator: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with _bench(simulator, tmp_path_factory.mktemp("hurried-bench"), timeouts=CROWDS) as bench:
        yield bench


@pytest.fixture(scope="session")
def beating_bench(simulator: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A heartbeat each 50 ms, and a body of at most 1 MiB."""
    more = {"heartbeat": {"interval": "50ms"}, "server": {"max_body": "1MiB"}}
    with _bench(simulator, tmp_path_factory.mktemp("beating-bench"), **more) as bench:
        yield bench
