"""A client that asks again: the gateway's own layer, for replies and for embeddings."""

from __future__ import annotations

import json

import pytest

import penstock
from penstock.testing import Reply, Turns, Upstream
from tests.scripted_upstream import Exchange, ScriptedUpstream

AGAIN = penstock.Retry(attempts=3, backoff=0.001)


@pytest.mark.parametrize("fault", ["status-503", "reset", "cut-after-0"])
def test_c1_what_failed_before_its_first_content_is_asked_again(fault: str) -> None:
    with Upstream(Turns(Reply(faults=(fault,)), Reply(faults=(fault,)), Reply(text="Hello"))) as upstream:
        client = penstock.Client(upstreams={"here": upstream.url}, retry=AGAIN)
        response = client.generate("here:m", "Hi")
        assert (response.text, response.attempts, len(upstream.seen)) == ("Hello", 3, 3)


def test_c1_without_a_policy_a_call_is_asked_once() -> None:
    with Upstream(Turns(Reply(faults=("status-503",)), Reply())) as upstream:
        with pytest.raises(penstock.StatusError):
            penstock.Client(upstreams={"here": upstream.url}).generate("here:m", "Hi")
        assert len(upstream.seen) == 1


def test_c9_what_had_begun_is_never_asked_again() -> None:
    with Upstream(Turns(Reply(faults=("cut-after-1",)), Reply())) as upstream:
        client = penstock.Client(upstreams={"here": upstream.url}, retry=AGAIN)
        with pytest.raises(penstock.Truncated):
            client.generate("here:m", "Hi")
        assert len(upstream.seen) == 1


def test_c1_what_no_second_time_can_mend_is_asked_once() -> None:
    with Upstream(Reply(faults=("status-401",))) as upstream:
        client = penstock.Client(upstreams={"here": upstream.url}, retry=AGAIN)
        with pytest.raises(penstock.StatusError):
            client.generate("here:m", "Hi")
        assert len(upstream.seen) == 1


def test_embeddings_are_asked_for_again_too() -> None:
    upstream = ScriptedUpstream()

    def script(exchange: Exchange) -> None:
        if len(upstream.executions) == 1:
            exchange.begin("application/json", "503 Service Unavailable")
        else:
            exchange.begin("application/json")
            exchange.chunk(json.dumps({"data": [{"embedding": [0.5], "index": 0}]}).encode())
        exchange.end()

    upstream.script = script
    try:
        client = penstock.Client(upstreams={"here": upstream.url}, retry=AGAIN)
        assert client.embed("here:m", "a").vector == (0.5,)
        assert len(upstream.executions) == 2
    finally:
        upstream.close()
