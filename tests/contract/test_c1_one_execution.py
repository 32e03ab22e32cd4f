"""C1: a request reaches the upstream once per attempt, whatever becomes of it, and the record says how often."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from tests.contract.simulated import ERROR_FAULTS, at_once, each_form
from tests.gateways import a_model, serving, two_upstreams
from tests.upstreams import Answer, Gate, Upstream, document, sse
from tests.wires import PAIRS, each_pair

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.contract.clients import Client
    from tests.contract.simulated import Bench
    from tests.contract.simulated import Pair as AnyPair
    from tests.gateways import Gateway
    from tests.wires import Pair, Wire

pytestmark = pytest.mark.process


def whole(wire: Wire) -> list[bytes]:
    return [*wire.opening(), wire.text("One "), wire.text("two"), *wire.closing()]


ENDINGS: dict[str, Callable[[Wire], Answer]] = {
    "complete": lambda wire: sse(*whole(wire)),
    "a document": lambda wire: document(wire.document()),
    "a fault": lambda wire: document(wire.error_body("api_error", "no"), status=500),
    "a rate limit": lambda wire: document(wire.error_body("rate_limit_error", "no"), status=429, retry_after="0"),
    "unavailable": lambda wire: document(wire.error_body("api_error", "no"), status=503, retry_after="0"),
    "an error in the stream": lambda wire: sse(*whole(wire)[:-1], wire.error("api_error", "no")),
    "an error first": lambda wire: sse(wire.error("api_error", "no")),
    "a cut": lambda wire: sse(*whole(wire)[:3], end="cut"),
    "a page": lambda wire: document(b"<html>", content_type="text/html"),
}


@each_pair
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "document"])
def test_c1_one_request_is_one_execution(stream: bool, pair: Pair, upstream: Upstream, gateway: Gateway) -> None:
    ids = {}
    for number, (ending, answer) in enumerate(ENDINGS.items(), 1):
        upstream.answers(answer(pair.upstream))
        asked = gateway.ask(pair, stream=stream)
        asked.body()
        ids[asked.request_id] = ending
        assert len(upstream.exchanges) == number, ending
    assert {exchange.path for exchange in upstream.exchanges} == {pair.upstream.upstream_path}
    for request_id, ending in ids.items():
        assert gateway.record(request_id)["attempts"] == 1, ending


@pytest.fixture(scope="module")
def mortal() -> Iterator[Upstream]:
    upstream = Upstream()
    yield upstream
    upstream.close()


@pytest.fixture(scope="module")
def before_the_mortal(mortal: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Its upstream ends every connection, so none is ever kept."""
    with serving(two_upstreams(mortal), tmp_path_factory.mktemp("mortal")) as gateway:
        yield gateway


@each_pair
@pytest.mark.parametrize("end", ["cut", "reset"])
def test_c1_an_upstream_that_dies_without_an_answer_is_not_asked_again(
    end: Any, pair: Pair, mortal: Upstream, before_the_mortal: Gateway
) -> None:
    """It may have executed the request, so nobody may send it again in silence."""
    mortal.forget()
    mortal.answers(Answer(end=end, has_head=False))
    asked = before_the_mortal.ask(pair)
    asked.body()
    assert asked.status == 502
    assert (len(mortal.exchanges), before_the_mortal.record(asked.request_id)["attempts"]) == (1, 1)


@each_pair
@pytest.mark.parametrize("end", ["cut", "reset"])
def test_c1_nor_when_it_dies_on_a_connection_that_was_kept(
    end: Any, pair: Pair, upstream: Upstream, gateway: Gateway
) -> None:
    """It had read the request. That the connection was an old one excuses nothing."""
    upstream.answers(document(pair.upstream.document()))
    gateway.ask(pair, stream=False).body()
    upstream.forget()
    upstream.answers(Answer(end=end, has_head=False, before=0.02))
    asked = gateway.ask(pair)
    asked.body()
    assert asked.status == 502
    assert (len(upstream.exchanges), gateway.record(asked.request_id)["attempts"]) == (1, 1)


@each_pair
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "document"])
def test_c1_a_client_that_leaves_and_asks_again_is_two_requests(
    stream: bool, pair: Pair, upstream: Upstream, gateway: Gateway
) -> None:
    gate = Gate()
    upstream.answers(Answer((pair.upstream.document(),), before=gate, content_type="application/json"))
    for number in (1, 2):
        model = a_model(pair)
        asked = gateway.ask(pair, stream=stream, model=model)
        upstream.wait_for(number)
        asked.leave()
        assert gateway.record_of(model)["attempts"] == 1
    assert len(upstream.exchanges) == 2


def test_c1_many_at_once_are_as_many_executions(upstream: Upstream, gateway: Gateway) -> None:
    def choose(exchange: object) -> Answer:
        wire = next(pair.upstream for pair in PAIRS if pair.upstream.upstream_path == getattr(exchange, "path", None))
        return sse(*whole(wire))

    upstream.answers(choose)
    with ThreadPoolExecutor(8) as pool:
        said = list(pool.map(lambda k: gateway.ask(PAIRS[k % 4]).said(), range(100)))
    assert {one.text for one in said} == {"One two"}
    assert len(upstream.exchanges) == 100


def test_c1_a_request_that_is_refused_is_not_executed(upstream: Upstream, gateway: Gateway) -> None:
    for pair in PAIRS:
        assert b"not valid JSON" in gateway.post(pair.client, b'{"model": ').body()
    assert upstream.exchanges == []


# --- every form of client before every upstream -----------------------------------------------------------------------


@each_form
def test_c1_every_pair_executes_as_often_as_its_record_says(client: Client, bench: Bench) -> None:
    """Once, where the reply had begun."""

    def check(pair: AnyPair) -> None:
        faults = ("", "cut-after-2", f"{ERROR_FAULTS[pair.upstream]}-2", "status-429", "no-answer")
        asked = [
            (fault, stream, bench.tell(pair, fault, stream=stream)) for fault in faults for stream in (True, False)
        ]
        for fault, stream, told in asked:
            executions = len(bench.seen(told.model))
            assert executions == bench.record(told.model)["attempts"], fault
            if stream and told.status == 200:
                assert executions == 1, fault

    at_once(check, client)
