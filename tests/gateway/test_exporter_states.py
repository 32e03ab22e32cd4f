"""What goes wrong where records go is a state to read at `GET /api/telemetry`, and never seen by a request."""

from __future__ import annotations

import json
import resource
import sys
from typing import TYPE_CHECKING, Any

import pytest

from penstock.testing import Reply, Upstream
from tests.gateways import Gateway, serving, until
from tests.telemetry.exporters.test_influxdb import Receiver
from tests.wires import CHAT

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the files of another process"),
]

HOSTILE = ['m",outcome=x', "a b,c=d", "l\nllm_request forged=1", "🙂", "end\\", "\x1b[31mred", "x" * 5000]


def states(gateway: Gateway) -> dict[str, dict[str, Any]]:
    told = json.loads(gateway.send("GET", "/api/telemetry").body())["exporters"]
    return {state["name"]: state for state in told}


def ask_all(gateway: Gateway) -> None:
    """As every one of these models; each must be answered, whole."""
    for model in HOSTILE:
        asked = gateway.post(CHAT, CHAT.request(model, stream=True))
        assert asked.said().text == "Hello", model


def test_c5_a_full_disk_a_wrong_token_and_hostile_names_are_states_to_read(tmp_path: Path) -> None:
    receiver = Receiver()
    receiver.answers = [(401, {}, b'{"error":"authorization failed"}')] * 100
    influxdb = {"url": f"http://127.0.0.1:{receiver.port}", "version": 1, "database": "llm", "spool": "kept"}
    with Upstream(Reply(text="Hello")) as upstream:
        config = {
            "upstreams": {"chat": {"url": upstream.url}},
            "telemetry": {"influxdb": influxdb},
        }
        with serving(config, tmp_path) as gateway:
            ask_all(gateway)
            calls = len(HOSTILE)
            until(lambda: states(gateway)["sqlite"]["sent"] == calls, "that the store has them")
            full = resource.prlimit(gateway.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(gateway.pid, resource.RLIMIT_FSIZE, ((tmp_path / "penstock.db").stat().st_size, full[1]))
            ask_all(gateway)
            found = until(lambda: (now := states(gateway))["sqlite"]["failed"] == calls and now, "a full disk")
            assert "took no records" in found["sqlite"]["last_error"]
            resource.prlimit(gateway.pid, resource.RLIMIT_FSIZE, full)
            ask_all(gateway)
            sent = {"sqlite": 2 * calls, "log": 3 * calls, "prometheus": 3 * calls}
            until(lambda: {name: states(gateway)[name]["sent"] for name in sent} == sent, "a store again, and all else")
            told = until(lambda: (now := states(gateway))["influxdb"]["last_error"] and now, "a refused token")
            assert "answered 401: authorization failed" in told["influxdb"]["last_error"]
            influx = until(lambda: (now := states(gateway)["influxdb"])["lag"] == 0 and now, "that all was handed over")
            assert (influx["spooled"], influx["failed"], influx["dropped"]) == (3 * calls, 0, 0), "kept, and not lost"
    points = [line for _, _, body in receiver.asked for line in body.decode().splitlines()]
    assert points
    assert all(line.startswith("llm_request,finish_reason=stop,model=") for line in points), "no name forges a point"
    receiver.close()
