"""Every client dialect before every upstream dialect, through a running gateway: 25 pairs, judged by the SDKs.

Of each pair: a text, a thought, a tool call, a failure half way, and a refusal before the stream. What upstreams send
is written by hand; what clients hear is what their official SDK makes of it.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from tests.gateway.sdk_clients import CLIENTS, STOPS
from tests.gateway.upstream_wires import ARGUMENTS, PIECES, UPSTREAM_WIRES, USAGE, UpstreamWire
from tests.gateways import Gateway, serving
from tests.upstreams import Upstream

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.process

PAIRS = list(itertools.product(CLIENTS, UPSTREAM_WIRES))
each_pair = pytest.mark.parametrize(("client", "name"), PAIRS, ids=[f"{c} from {u}" for c, u in PAIRS])


@pytest.fixture(scope="module")
def scripted() -> Iterator[Upstream]:
    upstream = Upstream()
    yield upstream
    upstream.close()


@pytest.fixture(scope="module")
def gateway(scripted: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    upstreams = {name: {"url": scripted.url(wire.mount), "dialect": name} for name, wire in UPSTREAM_WIRES.items()}
    config = {
        "server": {"port": 0},
        "upstreams": upstreams,
        "models": {f"from-{name}": f"{name}:real-1" for name in upstreams},
        "retry": {"attempts": 1},
        "telemetry": {"log": {"format": "json"}, "store": {"path": None}},
    }
    with serving(config, tmp_path_factory.mktemp("pairs")) as running:
        yield running


@pytest.fixture
def upstream(scripted: Upstream) -> Iterator[Upstream]:
    scripted.forget()
    yield scripted
    assert scripted.errors == []


def asked(upstream: Upstream, wire: UpstreamWire) -> bytes:
    """The one request that came, at the upstream's own path."""
    (exchange,) = upstream.exchanges
    assert exchange.path.partition("?")[0] == wire.path
    return exchange.body


@each_pair
def test_a_text(client: str, name: str, gateway: Gateway, upstream: Upstream) -> None:
    wire = UPSTREAM_WIRES[name]
    upstream.answers(wire.text)
    heard = CLIENTS[client](gateway.url, f"from-{name}", False)
    assert heard.failed is None
    assert (heard.text, heard.stop, heard.usage) == ("".join(PIECES), STOPS[client][0], USAGE)
    asked(upstream, wire)


@each_pair
def test_a_thought(client: str, name: str, gateway: Gateway, upstream: Upstream) -> None:
    upstream.answers(UPSTREAM_WIRES[name].thought)
    heard = CLIENTS[client](gateway.url, f"from-{name}", False)
    assert heard.failed is None
    assert (heard.reasoning, heard.text) == ("Let me see.", "".join(PIECES))


@each_pair
def test_a_tool_call(client: str, name: str, gateway: Gateway, upstream: Upstream) -> None:
    wire = UPSTREAM_WIRES[name]
    upstream.answers(wire.tool)
    heard = CLIENTS[client](gateway.url, f"from-{name}", True)
    assert heard.failed is None
    assert (heard.text, heard.calls, heard.stop) == ("Let me see", [("look", ARGUMENTS)], STOPS[client][1])
    assert wire.tools_of(asked(upstream, wire)) == ["look"]


@each_pair
def test_c4_a_failure_half_way(client: str, name: str, gateway: Gateway, upstream: Upstream) -> None:
    upstream.answers(UPSTREAM_WIRES[name].failure)
    heard = CLIENTS[client](gateway.url, f"from-{name}", False)
    assert heard.failed is not None
    assert heard.text == "".join(PIECES)[: len(heard.text)]
    assert heard.stop not in STOPS[client]
    assert "It broke." in str(heard.failed) or heard.failed == "response.failed"


@each_pair
def test_a_refusal_before_the_stream(client: str, name: str, gateway: Gateway, upstream: Upstream) -> None:
    upstream.answers(UPSTREAM_WIRES[name].refusal)
    heard = CLIENTS[client](gateway.url, f"from-{name}", False)
    assert isinstance(heard.failed, Exception)
    told = getattr(heard.failed, "status_code", getattr(heard.failed, "code", None))
    assert (told, heard.text) == (429, "")
