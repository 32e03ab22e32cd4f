"""A gateway process before two scripted upstreams, one per dialect: all four pairs of client and upstream dialect."""

from __future__ import annotations

import http.client
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
import yaml

from tests.processes import Running, running
from tests.scripted_upstream import ScriptedUpstream

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY = "sk-upstream-secret-0123456789"
PATHS = {"openai-chat": "/v1/chat/completions", "anthropic-messages": "/v1/messages"}


class Answer:
    def __init__(self, answer: http.client.HTTPResponse) -> None:
        self.status = answer.status
        self.headers = answer.headers
        self.body = answer.read()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Bench:
    """The gateway, its upstream, and a client. Models `chat` and `messages` lead to the dialect of that name."""

    def __init__(self, gateway: Running, upstream: ScriptedUpstream) -> None:
        self.gateway = gateway
        self.upstream = upstream

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(urlsplit(self.gateway.url).netloc, timeout=20)

    def ask(
        self, client: str, upstream: str, *, stream: bool = True, model: str | None = None, **fields: Any
    ) -> Answer:
        connection = self.connect()
        connection.request("POST", PATHS[client], request_body(client, model or model_for(upstream), stream, **fields))
        answer = Answer(connection.getresponse())
        connection.close()
        return answer

    def record(self, answer: Answer | http.client.HTTPResponse) -> Any:
        return json.loads(self.gateway.wait_for_line(f'"{answer.headers["x-request-id"]}"'))


def model_for(upstream: str) -> str:
    return "chat" if upstream == "openai-chat" else "messages"


def request_body(client: str, model: str, stream: bool, **fields: Any) -> bytes:
    body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": "the-prompt"}], "stream": stream}
    if client == "anthropic-messages":
        body["max_tokens"] = 100
    return json.dumps({**body, **fields}).encode()


def configuration(upstream: ScriptedUpstream, **changes: Any) -> dict[str, Any]:
    return {
        "server": {"port": 0, "max_body": "1MiB"},
        "upstreams": {
            "chat": {"url": upstream.url, "key_env": "TEST_UPSTREAM_KEY"},
            "messages": {"url": upstream.url, "dialect": "anthropic-messages", "key_env": "TEST_UPSTREAM_KEY"},
            "gone": {"url": "http://127.0.0.1:9/v1"},
        },
        "models": {"chat": "chat", "messages": "messages", "alias": "chat:real-model", "gone": "gone"},
        "telemetry": {"log": {"format": "json"}},
        "retry": {"attempts": 1},
        **changes,
    }


@pytest.fixture(scope="session")
def _bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    yield from _started(tmp_path_factory.mktemp("gateway"))


@pytest.fixture(scope="session")
def _impatient_bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    short = {"first_content": "300ms", "idle": "250ms", "silence": "200ms", "total": "1500ms"}
    yield from _started(tmp_path_factory.mktemp("impatient"), timeouts=short, heartbeat={"interval": "50ms"})


def _started(folder: Any, **changes: Any) -> Iterator[Bench]:
    upstream = ScriptedUpstream()
    (folder / "penstock.yaml").write_text(yaml.safe_dump(configuration(upstream, **changes)))
    with running("serve", "--config", "penstock.yaml", cwd=folder, env={"TEST_UPSTREAM_KEY": KEY}) as gateway:
        yield Bench(gateway, upstream)
    upstream.close()


@pytest.fixture
def bench(_bench: Bench) -> Bench:
    _bench.upstream.executions.clear()
    _bench.upstream.heads.clear()
    return _bench


@pytest.fixture
def impatient(_impatient_bench: Bench) -> Bench:
    """Short clocks, and a heartbeat each 50 ms."""
    _impatient_bench.upstream.executions.clear()
    return _impatient_bench
