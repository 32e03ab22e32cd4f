"""What models there are, as each SDK asks for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anthropic
import ollama
import openai
import pytest
from google import genai
from google.genai import types as gemini

from tests.gateway.sdk_clients import close_google
from tests.gateways import Gateway, serving
from tests.upstreams import Answer, Exchange, Upstream

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.process

LISTS = {
    "/chat/models": b'{"object": "list", "data": [{"id": "vendor/real"}]}',
    "/ollama/api/tags": b'{"models": [{"name": "tiny:latest", "model": "tiny:latest"}]}',
}
NAMES = ["alias", "vendor/real", "tiny:latest"]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    upstream = Upstream()

    def answer(exchange: Exchange) -> Answer:
        found = LISTS.get(exchange.path)
        return Answer([found or b"{}"], status=200 if found else 404, content_type="application/json")

    upstream.answers(answer)
    config = {
        "upstreams": {
            "chat": {"url": upstream.url("/chat")},
            "ollama": {"url": upstream.url("/ollama"), "dialect": "ollama"},
        },
        "models": {"alias": "chat:real", "tiny*": "ollama", "*": "chat"},
        "telemetry": {"store": {"path": None}},
    }
    with serving(config, tmp_path_factory.mktemp("models")) as running:
        yield running
    upstream.close()


def test_openais(gateway: Gateway) -> None:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="any", max_retries=0) as client:
        assert sorted(model.id for model in client.models.list()) == sorted(NAMES)
        assert client.models.retrieve("alias").owned_by == "chat"
        assert client.models.retrieve("vendor/real").id == "vendor/real"
        with pytest.raises(openai.NotFoundError, match="no model `nothing`"):
            client.models.retrieve("nothing")


def test_anthropics(gateway: Gateway) -> None:
    with anthropic.Anthropic(base_url=gateway.url, api_key="any", max_retries=0) as client:
        assert sorted(model.id for model in client.models.list()) == sorted(NAMES)


def test_ollamas(gateway: Gateway) -> None:
    client = ollama.Client(host=gateway.url)
    assert sorted(model.model or "" for model in client.list().models) == sorted(NAMES)
    client._client.close()  # it has no way of its own


def test_geminis(gateway: Gateway) -> None:
    client = genai.Client(api_key="any", http_options=gemini.HttpOptions(base_url=gateway.url, timeout=10_000))
    assert sorted(model.name or "" for model in client.models.list()) == sorted(f"models/{name}" for name in NAMES)
    assert client.models.get(model="alias").display_name == "alias"
    close_google(client)
