"""C9 after content: recovery is for those who ask for it, its seam is marked, and the client has one reply."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from penstock.testing import Reply, Script, When
from penstock.testing import Upstream as Simulator
from tests.contract.clients import CLIENTS, Client
from tests.gateways import Asked, Gateway, serving, two_upstreams
from tests.upstreams import Gate, sse
from tests.wires import CHAT, MESSAGES, Pair, each_client, each_pair

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.upstreams import Answer, Exchange, Upstream
    from tests.wires import Wire

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def restarting(scripted: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with serving(_config(scripted, "restart"), tmp_path_factory.mktemp("restarting")) as running:
        yield running


@pytest.fixture(scope="module")
def continuing(scripted: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with serving(_config(scripted, "continue"), tmp_path_factory.mktemp("continuing")) as running:
        yield running


def _config(upstream: Upstream, mode: str) -> dict[str, Any]:
    """`alias` leads to the chat wire, then the other; `a-alias` the other way round. Both wires go on with a reply."""
    found = two_upstreams(upstream, recovery={"mode": mode}, heartbeat={"interval": "50ms"})
    found["upstreams"]["chat"]["capabilities"] = {"prefill": True}
    found["models"] |= {"alias": ["chat:real-1", "anth:real-2"], "a-alias": ["anth:real-1", "chat:real-2"]}
    return found


def cut(wire: Wire, *texts: str) -> Answer:
    return sse(*wire.opening(), *map(wire.text, texts), end="cut")


def whole(wire: Wire, *texts: str) -> Answer:
    frames = [*wire.opening(), *map(wire.text, texts), *wire.closing()]
    return sse(*(frame.replace(b"chatcmpl-7", b"chatcmpl-8").replace(b"msg_7", b"msg_8") for frame in frames))


def in_turn(upstream: Upstream, *answers: Answer) -> None:
    left = list(answers)
    upstream.answers(lambda exchange: left.pop(0))


def check_one_reply(asked: Asked, wire: Wire, text: str, seam: bytes) -> dict[str, Any]:
    body = asked.body()
    said = wire.read(body)
    assert (said.text, said.terminators, said.errors, len(said.stops), len(said.models)) == (text, 1, [], 1, 1)
    ids = set(re.findall(rb'"id": ?"([^"]+)"', body))
    assert len(ids) == 1
    assert re.findall(rb"(?m)^: penstock: .*$", body) == [seam]
    assert b"\n\n" + seam + b"\n\n" in body
    names = [name for name, _ in said.frames]
    assert names.count("message_start") <= 1
    return said.__dict__


@each_pair
def test_c9_restart_is_one_reply_with_a_mark(pair: Pair, upstream: Upstream, restarting: Gateway) -> None:
    in_turn(upstream, cut(pair.upstream, "One ", "tw"), whole(pair.upstream, "One ", "two"))
    asked = restarting.ask(pair)
    target = "chat" if pair.upstream.name == "openai-chat" else "anth"
    seam = f": penstock: restart at {target} after truncated".encode()
    check_one_reply(asked, pair.client, "One twOne two", seam)
    record = restarting.record(asked.request_id)
    assert (record["outcome"], record["recovered"], record["attempts"]) == ("complete", "restart", 2)
    assert [attempt["cause"] for attempt in record["attempted"]] == ["truncated", None]
    assert record["finish_reason"] == "stop"


@each_pair
def test_c9_continue_is_one_reply_with_a_mark(pair: Pair, upstream: Upstream, continuing: Gateway) -> None:
    in_turn(upstream, cut(pair.upstream, "One ", "tw"), whole(pair.upstream, "o", " three"))
    asked = continuing.ask(pair)
    target = "chat" if pair.upstream.name == "openai-chat" else "anth"
    seam = f": penstock: continue at {target} after truncated".encode()
    check_one_reply(asked, pair.client, "One two three", seam)
    record = continuing.record(asked.request_id)
    assert (record["outcome"], record["recovered"], record["attempts"]) == ("complete", "continue", 2)
    first, second = (json.loads(exchange.body) for exchange in upstream.exchanges)
    last = second["messages"][-1]
    text = last["content"] if isinstance(last["content"], str) else last["content"][0]["text"]
    assert (last["role"], text) == ("assistant", "One tw")
    assert len(second["messages"]) == len(first["messages"]) + 1
    assert second["max_tokens"] == first["max_tokens"] == 100


@each_client
@pytest.mark.parametrize("model", ["alias", "a-alias"])
def test_c9_the_next_target_goes_on_in_its_own_dialect(
    model: str, wire: Wire, upstream: Upstream, continuing: Gateway
) -> None:
    first: Wire
    second: Wire
    first, second = (CHAT, MESSAGES) if model == "alias" else (MESSAGES, CHAT)

    def choose(exchange: Exchange) -> Answer:
        if exchange.path == second.upstream_path:
            return whole(second, "two")
        if len(upstream.exchanges) == 1:
            return cut(first, "One ")
        return sse(first.error("overloaded_error", "no"))

    upstream.answers(choose)
    asked = continuing.ask(Pair(wire, first), model=model)
    seam = f": penstock: continue at {'anth' if model == 'alias' else 'chat'}:real-2 after truncated".encode()
    said = check_one_reply(asked, wire, "One two", seam)
    assert said["models"] == {model}


@each_pair
def test_c9_heartbeats_go_on_at_the_seam(pair: Pair, upstream: Upstream, restarting: Gateway) -> None:
    gate = Gate()
    in_turn(upstream, cut(pair.upstream, "One "), sse(gate, *whole(pair.upstream, "One ", "two").pieces))
    asked = restarting.ask(pair)
    gate.wait_reached()
    beat = b": keep-alive\n\n" if pair.client is CHAT else b'event: ping\ndata: {"type": "ping"}\n\n'
    for _ in range(3):
        while asked.frame() != beat:
            pass
    gate.open()
    said = asked.said()
    assert (said.text, said.terminators, said.errors) == ("One One two", 1, [])


@each_pair
def test_c4_what_nobody_takes_up_ends_in_one_error(pair: Pair, upstream: Upstream, restarting: Gateway) -> None:
    in_turn(upstream, cut(pair.upstream, "One "), sse(pair.upstream.error("invalid_request_error", "Never")))
    asked = restarting.ask(pair)
    said = asked.said()
    assert (said.text, said.terminators, said.stops, len(said.errors)) == ("One ", 0, [], 1)
    assert "Never" not in said.errors[0]["message"]
    record = restarting.record(asked.request_id)
    assert (record["outcome"], record["recovered"], record["attempts"]) == ("truncated", None, 2)


@each_pair
def test_c9_a_call_that_has_begun_is_not_taken_up(pair: Pair, upstream: Upstream, restarting: Gateway) -> None:
    wire = pair.upstream
    upstream.answers(sse(*wire.opening(), wire.text("One"), *wire.call("look", ['{"at"', ": 1"])[:-1], end="cut"))
    said = restarting.ask(pair).said()
    assert (said.terminators, len(said.errors), len(upstream.exchanges)) == (0, 1, 1)


# --- every form of client ---------------------------------------------------------------------------------------------

FROM = ("openai-chat", "anthropic-messages", "gemini", "ollama", "openai-responses")


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """`NAME-FORM`: an upstream of that dialect which cuts its first reply, and is passed by from then on."""
    words = ("One ", "two ", "three")
    replies = Script((Reply(words, when=When("first*"), faults=("cut-after-2",)), Reply(words)))
    models = {
        f"{name}-{number}": [f"{name}:first-{number}", f"{name}:second"]
        for name in FROM
        for number in range(len(CLIENTS))
    }
    with Simulator(replies) as simulator:
        config = {
            "upstreams": {name: {"url": simulator.url_for(name), "dialect": name} for name in FROM},
            "models": models,
            "retry": {"attempts": 1},
            "breaker": {"failures": 1, "cooldown": "1h"},
            "recovery": {"mode": "restart"},
        }
        with serving(config, tmp_path_factory.mktemp("simulated")) as running:
            yield running


@pytest.mark.parametrize("name", FROM)
@pytest.mark.parametrize("client", CLIENTS, ids=str)
def test_c9_in_every_form_it_is_one_reply(client: Client, name: str, simulated: Gateway) -> None:
    """Where the form has comments, with a mark; where it has none, without."""
    model = f"{name}-{CLIENTS.index(client)}"
    body = json.dumps(client.body(model, True, "Tell me")).encode()
    asked = simulated.send("POST", client.path(model, True), body)
    answer = asked.body()
    said = client.read(answer)
    assert (said.text, said.errors, len(said.stops)) == ("One two One two three", [], 1)
    mark = f": penstock: restart at {name}:second after truncated\n\n".encode()
    assert answer.count(mark) == (1 if client.stream_type == "text/event-stream" else 0)
    assert b"penstock:" not in answer.replace(mark, b"")
    record = simulated.record_of(model)
    assert (record["outcome"], record["recovered"], record["target"]) == ("complete", "restart", f"{name}:second")
