"""C11: work in progress has limits. What is over one is told so at once, in the caller's dialect, or waits in line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml

from penstock.canon.key import digest
from tests.gateways import Asked, Gateway, serving, two_upstreams, until
from tests.upstreams import Gate, sse
from tests.wires import CHAT, MESSAGES, PAIRS, Pair, each_client, each_pair

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.upstreams import Upstream
    from tests.wires import Wire

pytestmark = pytest.mark.process

#: keys of the gateway `keyed`, by name
KEYS = {name: f"pnsk_{name}-0123456789abcdef" for name in ("alone", "often", "much", "free", "default")}


@pytest.fixture(scope="module")
def narrow(scripted: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One call at a time, two more in line; a heartbeat each 50 ms."""
    limits = {"concurrency": 1, "queue": 2, "queue_wait": "20s"}
    config = two_upstreams(scripted, limits=limits, heartbeat={"interval": "50ms"})
    with serving(config, tmp_path_factory.mktemp("narrow")) as running:
        yield running


@pytest.fixture(scope="module")
def brisk(scripted: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One call at a time at the upstream `chat`, and nobody waits for longer than 200 ms."""
    config = two_upstreams(scripted, limits={"queue": 2, "queue_wait": "200ms"}, heartbeat={"interval": "50ms"})
    config["upstreams"]["chat"]["concurrency"] = 1
    config["models"]["either"] = ["chat:real-1", "anth:real-1"]
    with serving(config, tmp_path_factory.mktemp("brisk")) as running:
        yield running


@pytest.fixture(scope="module")
def keyed(scripted: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    own: dict[str, dict[str, Any]] = {
        "alone": {"concurrency": 1},
        "often": {"requests_per_minute": 2},
        "much": {"tokens_per_minute": 10},
        "free": {"concurrency": 9},
        "default": {},
    }
    keys = [{"name": name, "sha256": digest(key), **own[name]} for name, key in KEYS.items()]
    config = two_upstreams(scripted, server={"keys": keys}, limits={"per_key": {"concurrency": 2}})
    with serving(config, tmp_path_factory.mktemp("keyed")) as running:
        yield running


class Held:
    """An answer under way: its first word has come, the rest waits for `end`."""

    def __init__(self, gateway: Gateway, upstream: Upstream, pair: Pair, **asked: Any) -> None:
        self.gate = Gate()
        wire = pair.upstream
        upstream.answers(sse(*wire.opening(), wire.text("One"), self.gate, *wire.closing()))
        self.asked = gateway.ask(pair, **asked)
        while b"One" not in self.asked.frame():
            pass

    def end(self) -> None:
        self.gate.open()
        assert self.asked.said().terminators == 1


def answering(upstream: Upstream, wire: Wire, text: str = "Two") -> None:
    upstream.answers(sse(*wire.opening(), wire.text(text), *wire.closing()))


def bearer(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer {KEYS[name]}"}


def check_saturated(asked: Asked, said: str) -> None:
    (error,) = asked.said().errors
    assert asked.status == 429
    assert said in error["message"]
    assert error["type"] == "rate_limit_error"
    assert int(asked.headers["retry-after"]) >= 1


# --- no room ---------------------------------------------------------------------------------------------------------


@each_pair
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "document"])
def test_c11_one_call_too_many_is_429_at_once(stream: bool, pair: Pair, upstream: Upstream, keyed: Gateway) -> None:
    """The place is held until the body ends: the first answer has its head and its first word long since."""
    held = Held(keyed, upstream, Pair(CHAT, pair.upstream), headers=bearer("alone"))
    over = keyed.ask(pair, stream=stream, headers=bearer("alone"))
    check_saturated(over, "The key `alone` answers 1 call at the same time")
    record = keyed.record(over.request_id)
    assert (record["error_type"], record["http_status"], record["attempts"]) == ("saturated", 429, 0)
    assert record["key_name"] == "alone"
    assert len(upstream.exchanges) == 1
    held.end()
    answering(upstream, pair.upstream)
    assert keyed.ask(pair, headers=bearer("alone")).said().text == "Two"


def test_c11_a_key_has_its_own_limit_and_takes_nothing_from_others(upstream: Upstream, keyed: Gateway) -> None:
    pair = Pair(CHAT, CHAT)
    held = [Held(keyed, upstream, pair, headers=bearer("default")) for _ in range(2)]
    answering(upstream, CHAT)
    check_saturated(keyed.ask(pair, headers=bearer("default")), "The key `default` answers 2 calls")
    assert keyed.ask(pair, headers=bearer("free")).said().text == "Two"
    for each in held:
        each.end()


@each_client
def test_c11_calls_in_a_minute(wire: Wire, upstream: Upstream, tmp_path: Any, scripted: Upstream) -> None:
    keys = [{"name": "often", "sha256": digest(KEYS["often"]), "requests_per_minute": 2}]
    answering(upstream, CHAT)
    with serving(two_upstreams(scripted, server={"keys": keys}), tmp_path) as gateway:
        pair = Pair(wire, CHAT)
        for _ in range(2):
            assert gateway.ask(pair, headers=bearer("often")).said().text == "Two"
        over = gateway.ask(pair, headers=bearer("often"))
        check_saturated(over, "The key `often` may ask 2 times a minute, and has.")
        assert 50 <= int(over.headers["retry-after"]) <= 61
        assert len(upstream.exchanges) == 2


def test_c11_tokens_in_a_minute_are_those_that_streams_report(upstream: Upstream, keyed: Gateway) -> None:
    """9 and 2 of them: whichever dialect the client speaks, and whether or not it asked to be told."""
    answering(upstream, MESSAGES)
    pair = Pair(CHAT, MESSAGES)
    assert keyed.ask(pair, headers=bearer("much"), stream_options=None).said().text == "Two"
    over = keyed.ask(pair, headers=bearer("much"))
    check_saturated(over, "The key `much` may use 10 tokens a minute, and has.")
    assert len(upstream.exchanges) == 1


# --- in line ---------------------------------------------------------------------------------------------------------


@each_pair
def test_c11_who_waits_in_line_is_told_where_it_stands(pair: Pair, upstream: Upstream, narrow: Gateway) -> None:
    held = Held(narrow, upstream, pair)
    second = narrow.ask(pair)
    seen = b""
    while b": queued, 1 of 1 (The gateway, " not in seen:
        seen = second.frame()
    third = narrow.ask(pair)
    seen = b""
    while b": queued, 2 of 2 (The gateway, " not in seen:
        seen = third.frame()
    over = narrow.ask(pair)
    check_saturated(over, "The gateway answers 1 call at the same time, and 2 wait already.")
    assert len(upstream.exchanges) == 1
    answering(upstream, pair.upstream)
    held.end()
    for asked in (second, third):
        said = asked.said()
        assert (said.text, said.terminators, said.errors) == ("Two", 1, [])
        assert said.heartbeats >= 2  # where it stands, and what its dialect beats with
        record = narrow.record(asked.request_id)
        assert (record["outcome"], record["attempts"]) == ("complete", 1)
        assert record["heartbeats"] >= 1
    assert len(upstream.exchanges) == 3


@each_client
def test_c11_who_has_waited_is_told_how_long(wire: Wire, upstream: Upstream, narrow: Gateway) -> None:
    """Where nothing was sent meanwhile: a document's client."""
    held = Held(narrow, upstream, Pair(CHAT, CHAT))
    waiting = narrow.ask(Pair(wire, CHAT), stream=False)
    beside = narrow.ask(Pair(CHAT, CHAT))
    while b"queued, 2 of 2" not in beside.frame():
        pass
    answering(upstream, CHAT)
    held.end()
    assert waiting.said().text == "Two"
    assert int(waiting.headers["x-penstock-queued-ms"]) >= 1
    assert narrow.record(waiting.request_id)["queued_ms"] >= 1
    beside.said()
    answering(upstream, CHAT)
    at_once = narrow.ask(Pair(wire, CHAT))
    assert "x-penstock-queued-ms" not in at_once.headers
    assert narrow.record(at_once.request_id)["queued_ms"] is None


def test_c11_metrics_tell_who_holds_a_place_and_who_waits(upstream: Upstream, narrow: Gateway) -> None:
    held = Held(narrow, upstream, Pair(CHAT, CHAT))
    waiting = narrow.ask(Pair(CHAT, CHAT))
    while b"queued, 1 of 1" not in waiting.frame():
        pass
    page = narrow.send("GET", "/metrics").body().decode()
    for word in ("places", "busy", "waiting"):
        assert f'penstock_limit_{word}{{limit="whole",name=""}} 1.0' in page
    answering(upstream, CHAT)
    held.end()
    waiting.said()


@each_client
def test_c11_who_has_waited_too_long_is_told_so(wire: Wire, upstream: Upstream, brisk: Gateway) -> None:
    """In the stream, in the dialect, once a heartbeat has gone out; by a status where nothing has."""
    held = Held(brisk, upstream, Pair(CHAT, CHAT))
    streaming, gathered = brisk.ask(Pair(wire, CHAT)), brisk.ask(Pair(wire, CHAT), stream=False)
    said = streaming.said()
    (error,) = said.errors
    assert (streaming.status, said.terminators, said.stops) == (200, 0, [])
    assert "The upstream chat had no place free within 0.2 s." in error["message"]
    check_saturated(gathered, "had no place free within 0.2 s.")
    assert brisk.record(streaming.request_id)["error_type"] == "saturated"
    assert len(upstream.exchanges) == 1
    held.end()


@each_client
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "document"])
def test_c11_who_leaves_the_line_is_never_asked_for(
    stream: bool, wire: Wire, upstream: Upstream, narrow: Gateway
) -> None:
    """C7: its place in line is the next one's at once."""
    pair = Pair(wire, CHAT)
    held = Held(narrow, upstream, Pair(CHAT, CHAT))
    model = f"c-leaves-{wire.name}-{stream}"
    leaving = narrow.ask(pair, stream=stream, model=model)
    staying = narrow.ask(Pair(CHAT, CHAT))
    while b"queued, 2 of 2" not in staying.frame():
        pass
    leaving.leave()
    while b"queued, 1 of 1" not in staying.frame():
        pass
    record = narrow.record_of(model)
    assert (record["outcome"], record["attempts"]) == ("cancelled", 0)
    answering(upstream, CHAT)
    held.end()
    assert staying.said().text == "Two"
    assert len(upstream.exchanges) == 2


@each_pair
def test_c11_a_place_comes_back_however_the_answer_ends(pair: Pair, upstream: Upstream, narrow: Gateway) -> None:
    wire = pair.upstream
    endings = [
        sse(*wire.opening(), wire.text("One"), end="reset"),
        sse(*wire.opening(), wire.text("One"), wire.error("overloaded_error", "Too bad")),
        sse(end="cut"),
    ]
    for ending in endings:
        upstream.answers(ending)
        narrow.ask(pair).body()
    gate = Gate()
    upstream.answers(sse(*wire.opening(), wire.text("One"), gate))
    leaving = narrow.ask(pair)
    while b"One" not in leaving.frame():
        pass
    leaving.leave()
    answering(upstream, wire)
    assert narrow.ask(pair).said().text == "Two"
    gate.open()


def test_c11_upstreams_do_not_wait_on_each_other(upstream: Upstream, brisk: Gateway) -> None:
    held = Held(brisk, upstream, Pair(CHAT, CHAT))
    answering(upstream, MESSAGES)
    for _ in range(3):
        assert brisk.ask(Pair(CHAT, MESSAGES)).said().text == "Two"
    held.end()


@each_client
def test_c11_while_another_upstream_can_be_asked_nobody_waits(wire: Wire, upstream: Upstream, brisk: Gateway) -> None:
    held = Held(brisk, upstream, Pair(CHAT, CHAT))
    answering(upstream, MESSAGES)
    asked = brisk.ask(Pair(wire, CHAT), model="either")
    assert asked.said().text == "Two"
    assert asked.headers["x-penstock-target"] == "anth:real-1"
    assert brisk.record(asked.request_id)["attempts"] == 1  # nothing was executed at the other
    held.end()


def answered(asked: Asked) -> int:
    """Its status, once all of it is here."""
    asked.body()
    return asked.status


def test_c11_a_new_configuration_keeps_the_places_that_are_held(
    scripted: Upstream, upstream: Upstream, tmp_path: Any
) -> None:
    config = two_upstreams(scripted, limits={"concurrency": 1})
    with serving(config, tmp_path) as gateway:
        held = Held(gateway, upstream, Pair(CHAT, CHAT))
        check_saturated(gateway.ask(Pair(CHAT, CHAT)), "answers 1 call")
        answering(upstream, CHAT)
        new = yaml.safe_dump({**config, "limits": {"concurrency": 2}, "telemetry": {"log": {"format": "json"}}})
        (tmp_path / "penstock.yaml.new").write_text(new)
        (tmp_path / "penstock.yaml.new").replace(tmp_path / "penstock.yaml")
        until(lambda: answered(gateway.ask(Pair(CHAT, CHAT))) == 200, "the second place")
        gateway.pass_through()  # which that answer has given back
        second = Held(gateway, upstream, Pair(CHAT, CHAT))
        check_saturated(gateway.ask(Pair(CHAT, CHAT)), "answers 2 calls")
        held.end()
        second.end()
        (tmp_path / "stderr").write_text("")  # what it says of the change is another test's


def test_c11_calls_do_not_wait_on_each_other(upstream: Upstream, gateway: Gateway) -> None:
    """Without a limit: a hundred at once, each held by its own upstream, and another passes them all."""
    held = [Held(gateway, upstream, pair) for pair in PAIRS * 25]
    for pair in PAIRS:
        answering(upstream, pair.upstream)
        assert gateway.ask(pair).said().text == "Two"
    for each in reversed(held):
        each.end()
