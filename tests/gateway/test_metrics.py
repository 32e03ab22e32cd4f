"""`GET /metrics` of a gateway that runs."""

from __future__ import annotations

import json
import re
import signal
from typing import TYPE_CHECKING, Any

import pytest

from penstock.testing import Call, Reply
from penstock.testing import Upstream as SimulatedUpstream
from tests.gateways import Asked, Gateway, serving, started, two_upstreams, until
from tests.processes import Running
from tests.telemetry.exporters.test_prometheus import read
from tests.upstreams import Gate, Upstream, document, sse
from tests.wires import CHAT, MESSAGES, Pair

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.process


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    upstream = Upstream()
    upstream.answers(sse(*CHAT.opening(), CHAT.text("One"), *CHAT.closing()))
    yield upstream
    Asked.close_all()
    upstream.close()


def metrics(gateway: Gateway) -> dict[str, float]:
    asked = gateway.send("GET", "/metrics")
    assert asked.headers["content-type"].startswith("text/plain; version=0.0.4")
    return read(asked.body())


def test_calls_are_counted_and_what_runs_is_seen(upstream: Upstream, tmp_path: Path) -> None:
    with serving(two_upstreams(upstream), tmp_path) as gateway:
        for _ in range(3):
            assert gateway.ask(Pair(MESSAGES, CHAT)).said().errors == []
        name = "penstock_requests_total{model=c-1,outcome=complete,upstream=chat}"
        found = until(lambda: (seen := metrics(gateway)).get(name) == 3 and seen, "three calls")
        assert found["penstock_time_to_first_token_seconds_count{upstream=chat}"] == 3
        assert found["penstock_tokens_total{kind=completion,model=c-1,upstream=chat}"] > 0
        assert found["penstock_requests_in_flight{}"] == 0
        gate = Gate()
        upstream.answers(sse(*CHAT.opening(), CHAT.text("One"), gate, *CHAT.closing()))
        asked = gateway.ask(Pair(CHAT, CHAT))
        assert asked.frame()
        assert metrics(gateway)["penstock_requests_in_flight{}"] == 1
        gate.open()
        assert asked.said().text == "One"
        assert metrics(gateway)["penstock_requests_in_flight{}"] == 0


def test_c6_what_was_refused_before_it_was_a_call_is_counted_and_has_no_record(
    upstream: Upstream, tmp_path: Path
) -> None:
    with serving(two_upstreams(upstream), tmp_path) as gateway:
        chat = "/v1/chat/completions"
        refused = [
            gateway.send("POST", chat, b"{}", {"host": "evil.example"}),
            gateway.send("POST", chat, b"{}", {"origin": "https://evil.example"}),
            gateway.send("POST", chat, b"no request"),
            gateway.send("GET", "/dashboard/none"),
        ]
        assert [asked.status for asked in refused] == [403, 403, 400, 404]
        found = metrics(gateway)
        for word, times in (("forbidden", 2), ("invalid_request", 1), ("unknown_route", 1)):
            assert found[f"penstock_refused_requests_total{{error={word}}}"] == times
        told = json.loads(gateway.send("GET", "/api/telemetry").body())["refused"]
        assert told == {"forbidden": 2, "invalid_request": 1, "unknown_route": 1}
        assert gateway.ask(Pair(CHAT, CHAT)).said().errors == []
        until(gateway.records, "the call's own record")
        assert len(gateway.records()) == 1


def test_openmetrics_for_who_asks_for_it(upstream: Upstream, tmp_path: Path) -> None:
    with serving(two_upstreams(upstream), tmp_path) as gateway:
        said = gateway.ask(Pair(MESSAGES, CHAT))
        assert said.said().errors == []

        def page() -> str:
            asked = gateway.send(
                "GET", "/metrics", headers={"accept": "application/openmetrics-text, text/plain;q=0.5"}
            )
            assert asked.headers["content-type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
            return asked.body().decode()

        assert until(lambda: f'# {{request_id="{said.request_id}"}}' in page(), "an exemplar")
        assert page().endswith("# EOF\n")


@pytest.mark.parametrize(
    ("dialect", "fault", "pathologies"),
    [
        ("openai-chat", "no-done", ["no_terminator"]),
        ("openai-chat", "garbage+one-write", ["after_end"]),
        ("openai-chat", "bad-arguments", ["bad_arguments"]),
        ("openai-chat", "double-done+one-write", ["after_end"]),
        ("openai-chat", "late-done-50", []),
        ("openai-chat", "json", []),
        ("openai-chat", "cut-after-1", []),
        ("openai-completions", "crlf", []),
        ("anthropic-messages", "crlf", []),
        ("openai-responses", "crlf", []),
        ("gemini", "crlf", []),
        ("ollama", "unknown-fields", []),
    ],
)
def test_the_record_names_what_an_upstream_did_wrong(
    dialect: str, fault: str, pathologies: list[str], tmp_path: Path
) -> None:
    calls = (Call("look", {"at": "sea"}),) if fault == "bad-arguments" else ()
    with SimulatedUpstream(Reply(text=("one ", "two"), calls=calls)) as simulated:
        config = {"upstreams": {"up": {"url": simulated.url_for(dialect), "dialect": dialect}}}
        with serving(config, tmp_path) as gateway:
            model = f"fault:{fault}"
            gateway.post(CHAT, CHAT.request(model)).body()
            assert gateway.record_of(re.escape(model))["pathologies"] == pathologies


def test_no_page_where_none_is_wanted(upstream: Upstream, tmp_path: Path) -> None:
    config = two_upstreams(upstream, telemetry={"prometheus": {"enabled": False}})
    with started(config, tmp_path) as process:
        gateway = Gateway(Running(process), tmp_path)
        assert gateway.send("GET", "/metrics").status == 404
        assert gateway.running.stop(signal.SIGTERM) == 0


def test_ready_tells_what_calls_have_found_and_asks_nobody(upstream: Upstream, tmp_path: Path) -> None:
    config = two_upstreams(upstream, breaker={"failures": 2}, retry={"attempts": 1})
    config["upstreams"]["gone"] = {"url": "http://127.0.0.1:9/v1"}
    config["models"] = {"c-1": "chat", "g": "gone:x"}
    with serving(config, tmp_path) as gateway:

        def ready() -> dict[str, Any]:
            asked = gateway.send("GET", "/ready")
            assert asked.status == 200
            told = json.loads(asked.body())
            assert told["status"] == "ready"
            return {name: target["state"] for name, target in told["targets"].items()}

        assert ready() == {"chat": "up", "gone:x": "up"}
        assert upstream.exchanges == []
        for _ in range(2):
            assert gateway.post(CHAT, CHAT.request("g")).status == 502
        assert ready() == {"chat": "up", "gone:x": "down"}
        assert upstream.exchanges == []


def test_a_target_that_is_passed_by_can_be_seen(upstream: Upstream, tmp_path: Path) -> None:
    config = two_upstreams(upstream, breaker={"failures": 2, "cooldown": "50ms"})
    config["models"] = {"c-1": ["chat:broken", "chat:well"]}
    down = document(CHAT.error_body("api_error", "no"), status=500)
    well = sse(*CHAT.opening(), CHAT.text("One"), *CHAT.closing())
    upstream.answers(lambda exchange: down if b'"broken"' in exchange.body else well)
    with serving(config, tmp_path) as gateway:
        for _ in range(2):
            assert metrics(gateway)["penstock_target_down{target=chat:broken}"] == 0
            assert gateway.ask(Pair(CHAT, CHAT)).said().text == "One"
        found = metrics(gateway)
        assert found["penstock_target_down{target=chat:broken}"] == 1
        assert found["penstock_target_down{target=chat:well}"] == 0
        assert found["penstock_target_in_flight{target=chat:well}"] == 0
        upstream.answers(well)
        until(lambda: gateway.ask(Pair(CHAT, CHAT)).headers["x-penstock-target"] == "chat:broken", "a probe")
        until(lambda: metrics(gateway)["penstock_target_down{target=chat:broken}"] == 0, "its recovery")
