"""A client's `anthropic-version`, through a running gateway."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.gateways import Gateway, serving, two_upstreams
from tests.upstreams import Upstream, document
from tests.wires import CHAT, MESSAGES

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.process

NEWER = {"anthropic-version": "2026-10-21"}


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    scripted = Upstream()
    yield scripted
    scripted.close()


@pytest.fixture(scope="module")
def gateway(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    config = two_upstreams(upstream, telemetry={"store": {"path": None}})
    with serving(config, tmp_path_factory.mktemp("versions")) as running:
        yield running


def ask(gateway: Gateway, model: str, headers: dict[str, str], **fields: Any) -> Any:
    return gateway.post(MESSAGES, MESSAGES.request(model, stream=False, temperature=1, **fields), headers)


def test_a_translated_call_of_the_newer_version_is_refused_as_anthropic_does(gateway: Gateway, upstream: Upstream):
    upstream.forget()
    asked = ask(gateway, CHAT.model, NEWER)
    error = json.loads(asked.body())["error"]
    assert (asked.status, error["type"]) == (400, "invalid_request_error")
    assert error["message"].startswith("temperature: Extra inputs are not permitted")
    assert upstream.exchanges == []


def test_of_the_older_version_it_is_translated(gateway: Gateway, upstream: Upstream):
    upstream.forget()
    upstream.answers(document(CHAT.document()))
    assert ask(gateway, CHAT.model, {"anthropic-version": "2023-06-01"}).said().text == "Hello"
    assert json.loads(upstream.wait_for().body)["temperature"] == 1.0


def test_a_relayed_call_is_the_upstreams_to_judge(gateway: Gateway, upstream: Upstream):
    upstream.forget()
    upstream.answers(document(MESSAGES.error_body("invalid_request_error", "no temperature here"), status=400))
    asked = ask(gateway, MESSAGES.model, NEWER)
    assert (asked.status, json.loads(asked.body())["error"]["message"]) == (400, "no temperature here")
    assert upstream.wait_for().headers["anthropic-version"] == "2026-10-21"
