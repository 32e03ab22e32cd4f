"""An upstream on a real socket, and a catalogue of one's own that leads to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.upstreams import Upstream

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEY = "sk-mine-0a1b2c3d"


@pytest.fixture(scope="session")
def _upstream() -> Iterator[Upstream]:
    upstream = Upstream()
    yield upstream
    upstream.close()


@pytest.fixture
def upstream(_upstream: Upstream) -> Iterator[Upstream]:
    _upstream.forget()
    yield _upstream
    assert _upstream.errors == []


@pytest.fixture
def mine(upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of one provider, `mine`, that PENSTOCK_PROVIDERS names."""
    path = tmp_path / "providers.toml"
    path.write_text(
        f"""
[mine]
name = "Mine"
url = "http://{{host}}:{upstream.port}/v1"
placeholders = {{ host = "MY_HOST" }}
key_env = ["MY_OTHER_KEY", "MY_KEY"]
auth = "x-my-key"
headers = {{ x-mine = "yes" }}

[mine.cost]
"small*" = {{ input = 2.0, output = 8.0, cached = 0.5 }}
""",
        encoding="utf-8",
    )
    monkeypatch.setenv("PENSTOCK_PROVIDERS", str(path))
    monkeypatch.setenv("MY_HOST", "127.0.0.1")
    monkeypatch.setenv("MY_KEY", KEY)
    return path
