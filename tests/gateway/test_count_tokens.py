"""`POST /v1/messages/count_tokens` through a running gateway, before an upstream of each dialect."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import anthropic
import pytest

from penstock.dialects import DIALECTS
from tests.gateways import Gateway, serving
from tests.upstreams import Upstream, document

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.process

TOOL: Any = {"name": "look", "description": "Looks.", "input_schema": {"type": "object", "properties": {}}}
ASKED: dict[str, Any] = {
    "system": "Be brief.",
    "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}}]}],
    "tools": [TOOL],
}

#: model → (path that is asked, what it answers)
ABLE = {
    "from-anthropic-messages": ("/base/messages/count_tokens", {"input_tokens": 2095, "new": 1}),
    "from-llamacpp": ("/base/messages/count_tokens", {"input_tokens": 2095}),
    "from-gemini": ("/base/models/real-1:countTokens", {"totalTokens": 2095, "promptTokensDetails": []}),
    "from-openai-responses": (
        "/base/responses/input_tokens",
        {"object": "response.input_tokens", "input_tokens": 2095},
    ),
}
UNABLE = sorted(set(DIALECTS) - {model.removeprefix("from-") for model in ABLE})


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    scripted = Upstream()
    yield scripted
    scripted.close()


@pytest.fixture(scope="module")
def gateway(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    upstreams = {name: {"url": upstream.url("/base"), "dialect": name} for name in DIALECTS}
    upstreams["llamacpp"] = {"url": upstream.url("/base"), "dialect": "openai-chat", "profile": "llamacpp"}
    models = {f"from-{name}": f"{name}:real-1" for name in upstreams}
    config = {"upstreams": upstreams, "models": models, "telemetry": {"store": {"path": None}}}
    with serving(config, tmp_path_factory.mktemp("count")) as running:
        yield running


@pytest.fixture
def client(gateway: Gateway, upstream: Upstream) -> Iterator[anthropic.Anthropic]:
    # llama.cpp is asked for its properties in the background
    upstream.answers(document(b"{}"))
    upstream.forget()
    with anthropic.Anthropic(base_url=gateway.url, api_key="any", max_retries=0, timeout=10) as sdk:
        yield sdk


def asked(upstream: Upstream) -> Any:
    (exchange,) = [exchange for exchange in upstream.exchanges if exchange.method == "POST"]
    return exchange


@pytest.mark.parametrize("model", ABLE)
def test_who_reads_it_counts_it(model: str, gateway: Gateway, upstream: Upstream, client: anthropic.Anthropic):
    path, told = ABLE[model]
    upstream.answers(document(json.dumps(told).encode()))
    reply = client.messages.with_raw_response.count_tokens(model=model, **ASKED)
    assert reply.parse().input_tokens == 2095
    exchange = asked(upstream)
    assert exchange.path == path
    body = exchange.body.decode()
    for word in ("real-1", "Be brief.", "Hi", "Looks."):
        assert word in body
    for word in ("max_tokens", "maxOutputTokens", "max_output_tokens", '"stream"', '"store"'):
        assert word not in body or model == "from-llamacpp", "llama.cpp takes a whole request"
    record = gateway.record(reply.headers["x-request-id"])
    assert (record["outcome"], record["http_status"], record["route"]) == ("complete", 200, "/v1/messages/count_tokens")
    assert record["prompt_tokens"] is record["cost"] is None, "what was counted was not used"


def test_anthropics_own_answer_and_request_pass_as_they_are(gateway: Gateway, upstream: Upstream):
    upstream.forget()
    told = b'{"input_tokens": 2095, "new": {"a": 1}}'
    upstream.answers(document(told))
    body = json.dumps({"model": "from-anthropic-messages", **ASKED}).encode()
    answered = gateway.send(
        "POST", "/v1/messages/count_tokens?beta=true", body, {"anthropic-beta": "token-counting-2024-11-01"}
    )
    assert (answered.status, answered.body()) == (200, told)
    exchange = asked(upstream)
    assert json.loads(exchange.body) == {"model": "real-1", **ASKED}
    assert exchange.headers["anthropic-beta"] == "token-counting-2024-11-01"


@pytest.mark.parametrize("name", UNABLE)
def test_who_cannot_count_is_not_asked(name: str, gateway: Gateway, upstream: Upstream, client: anthropic.Anthropic):
    with pytest.raises(anthropic.BadRequestError) as caught:
        client.messages.count_tokens(model=f"from-{name}", **ASKED)
    body: Any = caught.value.body
    assert body["error"]["type"] == "invalid_request_error"
    assert f"cannot count tokens: its dialect ({name})" in body["error"]["message"]
    assert [exchange for exchange in upstream.exchanges if exchange.method == "POST"] == []


@pytest.mark.parametrize("model", ABLE)
@pytest.mark.parametrize("told", [b'{"input_tok', b"{}", b'{"input_tokens": "many", "totalTokens": -1}', b"[1]"])
def test_what_is_no_count_is_none(told: bytes, model: str, upstream: Upstream, client: anthropic.Anthropic):
    upstream.answers(document(told))
    with pytest.raises(anthropic.APIStatusError) as caught:
        client.messages.count_tokens(model=model, **ASKED)
    assert caught.value.status_code == 502


def test_an_upstreams_refusal_keeps_its_status(upstream: Upstream, client: anthropic.Anthropic):
    upstream.answers(document(b'{"error":{"code":404,"message":"No model.","status":"NOT_FOUND"}}', status=404))
    with pytest.raises(anthropic.NotFoundError, match="No model"):
        client.messages.count_tokens(model="from-gemini", **ASKED)


def test_a_mistake_is_said_with_its_path(client: anthropic.Anthropic, upstream: Upstream):
    with pytest.raises(anthropic.BadRequestError, match="messages"):
        client.messages.count_tokens(model="from-gemini", messages=[])
    assert [exchange for exchange in upstream.exchanges if exchange.method == "POST"] == []
