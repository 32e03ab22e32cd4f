"""What a translated request loses is named in a header, or refused where the configuration is strict."""

from __future__ import annotations

import http.client
import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.gateways import Gateway, serving, two_upstreams
from tests.upstreams import Upstream, document, sse
from tests.wires import CHAT, MESSAGES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.process

KNOBS = {"seed": 7, "logit_bias": {"1": 2}, "presence_penalty": 0.5}


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    upstream = Upstream()
    yield upstream
    upstream.close()


def ask(gateway: Gateway, model: str, **fields: Any) -> tuple[int, str | None, Any]:
    """Status, what was left out, and the body."""
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=10)
    connection.request("POST", CHAT.route, json.dumps(CHAT.request(model, **fields)))
    answer = connection.getresponse()
    found = answer.status, answer.headers["x-penstock-dropped"], answer.read()
    connection.close()
    return found


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "document"])
def test_what_the_upstream_has_no_word_for_is_left_out_and_named(
    upstream: Upstream, tmp_path: Path, stream: bool
) -> None:
    replies = sse(*MESSAGES.opening(), MESSAGES.text("Hi"), *MESSAGES.closing())
    upstream.answers(replies if stream else document(MESSAGES.document("Hi")))
    with serving(two_upstreams(upstream, telemetry={"store": {"path": None}}), tmp_path) as gateway:
        status, dropped, _ = ask(gateway, "a-1", stream=stream, **KNOBS)
        assert status == 200
        assert sorted((dropped or "").split(", ")) == sorted(KNOBS)
        seen = json.loads(upstream.wait_for().body)
        assert not KNOBS.keys() & seen.keys()
        assert ask(gateway, "a-1", stream=stream)[:2] == (200, None)
        upstream.answers(sse(*CHAT.opening(), CHAT.text("Hi"), *CHAT.closing()))
        assert ask(gateway, "c-1", **KNOBS)[:2] == (200, None), "the same dialect loses nothing"
        assert json.loads(upstream.wait_for(3).body)["logit_bias"] == {"1": 2}


def test_strict_refuses_it_and_asks_nobody(upstream: Upstream, tmp_path: Path) -> None:
    with serving(two_upstreams(upstream, strict=True, telemetry={"store": {"path": None}}), tmp_path) as gateway:
        status, _, body = ask(gateway, "a-1", **KNOBS)
        error = json.loads(body)["error"]
        assert (status, error["type"], error["param"]) == (400, "invalid_request_error", "seed")
        assert "logit_bias" in error["message"]
        assert "strict: false" in error["message"]
        assert upstream.exchanges == []
