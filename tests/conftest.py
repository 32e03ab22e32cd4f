"""What several rooms' tests share: one worker on the demo model, and gateways before it, per session."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING
from urllib.request import urlopen

import pytest
from hypothesis import settings

from tests.processes import Running, running

if TYPE_CHECKING:
    from collections.abc import Iterator


#: A machine may be busy: an example that takes long is no counterexample.
settings.register_profile("penstock", deadline=None)
settings.load_profile("penstock")


@pytest.fixture(scope="session")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """`penstock worker --demo`, its model loaded."""
    with running("worker", "--demo", "--port", "0", "--log", "json", cwd=tmp_path_factory.mktemp("worker")) as started:
        until = time.monotonic() + 30
        while True:
            with urlopen(f"{started.url}/health", timeout=5) as answer:
                if json.load(answer)["status"] == "ok":
                    break
            assert time.monotonic() < until, "the demo model was not loaded"
        yield started


@pytest.fixture(scope="session")
def gateways(worker: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Running]]:
    """A gateway per upstream dialect, both asking the worker."""
    folder = tmp_path_factory.mktemp("gateways")
    upstream = ("--upstream", f"{worker.url}/v1", "--port", "0", "--log", "json", "--store", "off")
    with (
        running("serve", *upstream, "--profile", "llamacpp", cwd=folder) as chat,
        running("serve", *upstream, "--dialect", "anthropic-messages", cwd=folder) as messages,
    ):
        yield {"openai-chat": chat, "anthropic-messages": messages}
