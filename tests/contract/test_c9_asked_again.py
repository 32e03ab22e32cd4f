"""C9: until the first content, retry and fallback are invisible: one reply, one id, one model, whoever gave it.

And C1 beside it: every attempt is policy's, and is on the record with its cause. Whole processes: two wires, each
asked by clients of both.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.gateways import Gateway, a_model, serving, two_upstreams
from tests.upstreams import Answer, Gate, document, sse
from tests.wires import CHAT, MESSAGES, STOPPED, Pair, each_client, each_pair

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.upstreams import Exchange, Upstream
    from tests.wires import Wire

pytestmark = pytest.mark.process

#: name → whom it leads to, by wire
LISTS: dict[str, tuple[Wire, Wire]] = {"chat-anth": (CHAT, MESSAGES), "anth-chat": (MESSAGES, CHAT)}
MODELS = {
    "chat-anth": ["chat:first-1", "anth:second-1"],
    "anth-chat": ["anth:first-1", "chat:second-1"],
    "alias": "chat:real-1",
    "a-*": "anth",
    "*": "chat",
}


@pytest.fixture(scope="module")
def patient(scripted: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Three attempts at each target, at once."""
    with serving(_config(scripted, retry={"backoff": "10ms"}), tmp_path_factory.mktemp("patient")) as running:
        yield running


@pytest.fixture(scope="module")
def slow(scripted: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Three attempts with long pauses, and a quick pulse."""
    config = _config(scripted, retry={"backoff": "400ms"}, heartbeat={"interval": "50ms"})
    with serving(config, tmp_path_factory.mktemp("slow")) as running:
        yield running


@pytest.fixture(scope="module")
def sleepy(scripted: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Pauses of four seconds and more."""
    config = _config(scripted, retry={"backoff": "8s"})
    with serving(config, tmp_path_factory.mktemp("sleepy")) as running:
        yield running


def _config(upstream: Upstream, **more: Any) -> dict[str, Any]:
    return {**two_upstreams(upstream, breaker={"failures": None}, **more), "models": MODELS}


def whole(wire: Wire, word: str = "two") -> Answer:
    return sse(*wire.opening(), wire.text("One "), wire.text(word), *wire.closing())


def in_turn(*answers: Answer) -> Callable[[Exchange], Answer]:
    left = list(answers)
    return lambda exchange: left.pop(0)


def other_id(frame: bytes) -> bytes:
    return frame.replace(b"chatcmpl-7", b"chatcmpl-first").replace(b"msg_7", b"msg_first")


FAILURES: dict[str, Callable[[Wire], Answer]] = {
    "503": lambda wire: document(wire.error_body("overloaded_error", "no"), status=503),
    "408": lambda wire: document(wire.error_body("timeout_error", "no"), status=408),
    "409": lambda wire: document(wire.error_body("conflict", "no"), status=409),
    "429": lambda wire: document(wire.error_body("rate_limit_error", "no"), status=429, retry_after="0"),
    "a reset": lambda wire: Answer(end="reset", has_head=False),
    "closed": lambda wire: Answer(end="cut", has_head=False),
    "nothing": lambda wire: sse(end="cut"),
    "a cut behind the opening": lambda wire: sse(*map(other_id, wire.opening()), 0.02, end="cut"),
    "an error behind the opening": lambda wire: sse(
        *map(other_id, wire.opening()), wire.comment, 0.02, wire.error("overloaded_error", "no")
    ),
    "an empty reply": lambda wire: sse(
        *map(other_id, wire.opening()), 0.02, wire.closing()[0], 0.02, *wire.closing()[1:]
    ),
}


def ids(body: bytes) -> set[bytes]:
    """Whatever an answer calls itself."""
    return set(re.findall(rb'"id": ?"([^"]+)"', body))


@each_pair
@pytest.mark.parametrize("failure", FAILURES)
def test_c9_a_failure_before_content_is_not_seen(
    failure: str, pair: Pair, upstream: Upstream, patient: Gateway
) -> None:
    bad = FAILURES[failure](pair.upstream)
    upstream.answers(in_turn(bad, bad, whole(pair.upstream)))
    model = a_model(pair)
    asked = patient.ask(pair, model=model)
    body = asked.body()
    said = pair.client.read(body)
    assert (asked.status, said.text, said.terminators, said.errors) == (200, "One two", 1, [])
    assert said.stops == [STOPPED[pair.client.name]]
    assert len(ids(body)) == 1
    assert b"first" not in body
    assert len(said.models) == 1
    assert len(upstream.exchanges) == 3
    assert len({exchange.body for exchange in upstream.exchanges}) == 1
    assert asked.headers["x-penstock-attempts"] == "3"
    record = patient.record(asked.request_id)
    assert (record["outcome"], record["attempts"], record["http_status"]) == ("complete", 3, 200)
    causes = [attempt["cause"] for attempt in record["attempted"]]
    assert causes[0] == causes[1] is not None
    assert causes[2] is None
    assert all(attempt["wasted_ms"] >= 0 for attempt in record["attempted"][:2])
    assert record["attempted"][2]["wasted_ms"] is None


@each_client
def test_c9_a_relay_passes_the_second_answer_byte_for_byte(wire: Wire, upstream: Upstream, patient: Gateway) -> None:
    good = whole(wire)
    upstream.answers(in_turn(FAILURES["an error behind the opening"](wire), good))
    assert patient.ask(Pair(wire, wire)).body() == b"".join(piece for piece in good.pieces if isinstance(piece, bytes))


@each_client
@pytest.mark.parametrize("failure", [*FAILURES, "401", "404", "a page"])
@pytest.mark.parametrize("model", LISTS)
def test_c9_the_next_target_answers_in_the_firsts_place(
    model: str, failure: str, wire: Wire, upstream: Upstream, patient: Gateway
) -> None:
    """Whatever its dialect: the client asked for one model, and has one reply of it."""
    first, second = LISTS[model]
    more: dict[str, Callable[[Wire], Answer]] = {
        "401": lambda wire: document(wire.error_body("authentication_error", "no"), status=401),
        "404": lambda wire: document(wire.error_body("not_found_error", "no"), status=404),
        "a page": lambda wire: document(b"<html>", content_type="text/html"),
    }
    bad = (FAILURES | more)[failure](first)
    upstream.answers(lambda exchange: bad if exchange.path == first.upstream_path else whole(second))
    asked = patient.ask(Pair(wire, second), model=model)
    body = asked.body()
    said = wire.read(body)
    assert (said.text, said.terminators, said.errors, said.models) == ("One two", 1, [], {model})
    assert len(ids(body)) == 1
    assert b"first" not in body
    assert asked.headers["x-penstock-target"].endswith(":second-1")
    record = patient.record(asked.request_id)
    attempted = [attempt["target"].partition(":")[2] for attempt in record["attempted"]]
    assert attempted == ["first-1"] * (len(attempted) - 1) + ["second-1"]
    assert len(attempted) == (2 if failure in more else 4)
    assert (record["outcome"], record["target"]) == ("complete", asked.headers["x-penstock-target"])
    assert record["dialect_out"] == second.name


@each_client
@pytest.mark.parametrize("model", LISTS)
def test_c9_documents_fall_back_as_well(model: str, wire: Wire, upstream: Upstream, patient: Gateway) -> None:
    first, second = LISTS[model]
    upstream.answers(
        lambda exchange: (
            document(first.error_body("api_error", "no"), status=500)
            if exchange.path == first.upstream_path
            else document(second.document("Hello"))
        )
    )
    asked = patient.ask(Pair(wire, second), model=model, stream=False)
    said = asked.said()
    assert (asked.status, said.text, said.models) == (200, "Hello", {model})
    assert asked.headers["x-penstock-attempts"] == "4"


@each_client
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "document"])
@pytest.mark.parametrize("model", LISTS)
def test_c9_when_no_target_is_left_the_most_telling_status_is_told(
    model: str, stream: bool, wire: Wire, upstream: Upstream, patient: Gateway
) -> None:
    first, second = LISTS[model]
    upstream.answers(
        lambda exchange: (
            document(first.error_body("rate_limit_error", "Slow down"), status=429, retry_after="77")
            if exchange.path == first.upstream_path
            else document(second.error_body("api_error", "no"), status=500)
        )
    )
    asked = patient.ask(Pair(wire, second), model=model, stream=stream)
    (error,) = asked.said().errors
    assert (asked.status, asked.headers["retry-after"]) == (429, "77")
    assert (asked.headers["x-penstock-attempts"], asked.headers["content-type"]) == ("4", "application/json")
    assert "Slow down" in error["message"]
    assert "first-1 rate_limited (429)" in error["message"]
    assert "second-1 server_fault (500)" in error["message"]
    assert error["type"] == ("no_target_left" if wire is CHAT else "rate_limit_error")
    record = patient.record(asked.request_id)
    assert (record["outcome"], record["error_type"], record["http_status"]) == ("upstream_error", "no_target_left", 429)
    assert [attempt["cause"] for attempt in record["attempted"]] == ["rate_limited", *["server_fault"] * 3]


@each_pair
def test_c9_a_refusal_of_the_only_target_keeps_its_words(pair: Pair, upstream: Upstream, patient: Gateway) -> None:
    upstream.answers(document(pair.upstream.error_body("overloaded_error", "Not today"), status=529))
    asked = patient.ask(pair)
    (error,) = asked.said().errors
    assert (asked.status, error["type"], error["message"]) == (529, "overloaded_error", "Not today")
    assert asked.headers["x-penstock-attempts"] == "3"


@each_pair
@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_c1_what_cannot_be_mended_is_executed_once(
    status: int, pair: Pair, upstream: Upstream, patient: Gateway
) -> None:
    upstream.answers(document(pair.upstream.error_body("some_error", "Never"), status=status))
    asked = patient.ask(pair)
    assert asked.said().errors[0]["message"] == "Never"
    assert asked.status == status
    assert len(upstream.exchanges) == 1


@each_pair
@pytest.mark.parametrize("end", ["cut", "reset"])
def test_c9_after_content_nothing_is_asked_again(end: Any, pair: Pair, upstream: Upstream, patient: Gateway) -> None:
    upstream.answers(sse(*pair.upstream.opening(), pair.upstream.text("One "), end=end))
    said = patient.ask(pair).said()
    assert (said.text, said.terminators, len(said.errors)) == ("One ", 0, 1)
    assert len(upstream.exchanges) == 1


# --- heartbeats ------------------------------------------------------------------------------------------------------


def beats(asked: Any, wire: Wire, number: int) -> None:
    beat = b": keep-alive\n\n" if wire is CHAT else b'event: ping\ndata: {"type": "ping"}\n\n'
    for _ in range(number):
        assert asked.frame() == beat


@each_pair
def test_c9_heartbeats_go_on_between_attempts(pair: Pair, upstream: Upstream, slow: Gateway) -> None:
    """The client's clock begins when its request is accepted, and knows nothing of attempts."""
    bad = FAILURES["an error behind the opening"](pair.upstream)
    upstream.answers(in_turn(bad, bad, whole(pair.upstream)))
    asked = slow.ask(pair)
    beats(asked, pair.client, 3)
    said = asked.said()
    assert (asked.status, said.text, said.terminators, said.errors) == (200, "One two", 1, [])
    assert said.heartbeats >= 3
    record = slow.record(asked.request_id)
    assert (record["outcome"], record["attempts"], record["heartbeats"]) == ("complete", 3, said.heartbeats)


@each_client
@pytest.mark.parametrize("model", LISTS)
def test_c9_once_a_heartbeat_has_left_no_target_left_is_told_in_the_stream(
    model: str, wire: Wire, upstream: Upstream, slow: Gateway
) -> None:
    upstream.answers(
        lambda exchange: document(
            next(each for each in LISTS[model] if each.upstream_path == exchange.path).error_body("api_error", "no"),
            status=500,
        )
    )
    asked = slow.ask(Pair(wire, CHAT), model=model)
    beats(asked, wire, 3)
    said = asked.said()
    assert (asked.status, said.text, said.stops, said.terminators) == (200, "", [], 0)
    (error,) = said.errors
    assert "No target is left" in error["message"]
    record = slow.record(asked.request_id)
    assert (record["outcome"], record["http_status"], record["attempts"]) == ("upstream_error", 200, 6)


@each_pair
def test_c9_heartbeats_while_a_whole_reply_is_awaited(pair: Pair, upstream: Upstream, slow: Gateway) -> None:
    """The upstream does not stream: it thinks, fails, thinks again, and answers with one document."""
    gate = Gate()
    upstream.answers(
        in_turn(
            document(pair.upstream.error_body("api_error", "no"), status=500),
            Answer((pair.upstream.document("Hello"),), content_type="application/json", before=gate),
        )
    )
    asked = slow.ask(pair)
    beats(asked, pair.client, 2)
    upstream.wait_for(2)
    beats(asked, pair.client, 2)
    gate.open()
    said = asked.said()
    assert (said.text, said.terminators, said.errors) == ("Hello", 1, [])


# --- leaving ---------------------------------------------------------------------------------------------------------


@each_pair
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "document"])
def test_c7_a_client_that_leaves_in_a_pause_is_asked_for_no_more(
    stream: bool, pair: Pair, upstream: Upstream, sleepy: Gateway
) -> None:
    upstream.answers(document(pair.upstream.error_body("api_error", "no"), status=500))
    model = a_model(pair)
    asked = sleepy.ask(pair, model=model, stream=stream)
    upstream.wait_for(1).wait_over()
    asked.leave()
    record = sleepy.record_of(model)
    assert (record["outcome"], record["attempts"]) == ("cancelled", 1)
    assert record["duration_ms"] < 4000, "the pause goes on for no one"
    assert len(upstream.exchanges) == 1
