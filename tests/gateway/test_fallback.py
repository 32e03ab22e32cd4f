"""Retry and fallback as clients see them: the official SDKs before upstreams that fail, and one that is killed."""

from __future__ import annotations

import itertools
import signal
import socket
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from penstock.testing import Reply
from penstock.testing import Upstream as Simulator
from tests.contract.simulated import UPSTREAMS
from tests.gateway.sdk_clients import CLIENTS
from tests.gateways import Gateway, serving, until
from tests.processes import Running, command
from tests.wires import CHAT, Pair, each_client

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.wires import Wire

pytestmark = pytest.mark.process

TEXT = "Here I am."

#: what goes wrong at the first target, before its content
FAULTS = ("status-503", "reset", "no-answer", "stall-before-content", "status-429", "html", "cut-after-0", "status-401")
PAIRS = list(itertools.product(CLIENTS, UPSTREAMS))


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    with Simulator(Reply(text=TEXT)) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(simulator: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """`UPSTREAM-FAULT~…`: a target of that dialect and fault, then the next dialect's, which is well."""
    upstreams: dict[str, Any] = {name: {"url": simulator.url_for(name), "dialect": name} for name in UPSTREAMS}
    after = dict(zip(UPSTREAMS, [*UPSTREAMS[1:], UPSTREAMS[0]], strict=True))
    models = {
        f"{name}-{fault}~*": [f"{name}:fault:{fault}", f"{after[name]}:well"] for name in UPSTREAMS for fault in FAULTS
    }
    config = {
        "upstreams": upstreams,
        "models": models,
        "timeouts": {"first_content": "300ms"},
        "retry": {"backoff": "10ms"},
        "breaker": {"failures": None},
        "telemetry": {"store": {"path": None}},
    }
    with serving(config, tmp_path_factory.mktemp("fallback")) as running:
        yield running


@pytest.mark.parametrize(("client", "name"), PAIRS, ids=[f"{client} from {name}" for client, name in PAIRS])
def test_c9_an_sdk_does_not_see_that_its_first_target_fails(client: str, name: str, gateway: Gateway) -> None:
    for fault in FAULTS:
        model = f"{name}-{fault}~{client}"
        heard = CLIENTS[client](gateway.url, model, False)
        assert (fault, heard.failed, heard.text) == (fault, None, TEXT)
        record = gateway.record_of(model)
        assert record["outcome"] == "complete"
        assert record["attempts"] == len(record["attempted"]) >= 2
        assert [attempt["cause"] is None for attempt in record["attempted"]][-2:] == [False, True]


# --- killed and started again ----------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def simulate(folder: Path, port: int, script: str) -> Running:
    (folder / "script.yaml").write_text(script)
    process = subprocess.Popen(
        command("simulate", "--port", str(port), "--script", "script.yaml"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
        start_new_session=True,
    )
    return Running(process)


@each_client
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "document"])
def test_c9_an_upstream_is_killed_and_started_again_while_a_client_waits(
    stream: bool, wire: Wire, tmp_path: Path
) -> None:
    """kill -9, in the middle of its thoughts: the client waits, sees heartbeats, and has its reply."""
    port = free_port()
    entry = {"url": f"http://127.0.0.1:{port}/v1", "dialect": wire.name}
    config = {
        "upstreams": {"only": entry},
        "retry": {"attempts": 20, "backoff": "200ms", "max_backoff": "500ms"},
        "heartbeat": {"interval": "100ms"},
    }
    stalling = simulate(tmp_path, port, "replies: [{faults: [stall-before-content]}]")
    with serving(config, tmp_path) as gateway:
        asked = gateway.ask(Pair(wire, wire), stream=stream)
        if stream:
            beat = b": keep-alive\n\n" if wire is CHAT else b'event: ping\ndata: {"type": "ping"}\n\n'
            assert asked.frame() == beat
        else:
            until(lambda: connections_to(gateway, port), "the request")
        stalling.process.send_signal(signal.SIGKILL)
        assert stalling.process.wait(10) == -signal.SIGKILL
        assert stalling.process.stdout is not None
        stalling.process.stdout.close()
        again = simulate(tmp_path, port, f"replies: [{{text: {TEXT!r}}}]")
        said = asked.said()
        assert (asked.status, said.text, said.errors) == (200, TEXT, [])
        if stream:
            assert said.terminators == 1
            assert said.heartbeats >= 2
        record = gateway.record(asked.request_id)
        assert (record["outcome"], record["attempted"][-1]["cause"]) == ("complete", None)
        causes = {attempt["cause"] for attempt in record["attempted"][:-1]}
        assert causes <= {"truncated", "connect"}
        assert record["attempts"] >= 2
        assert again.stop(signal.SIGTERM) == 0


def connections_to(gateway: Gateway, port: int) -> bool:
    """Whether the gateway holds a connection to that port."""
    from pathlib import Path

    wanted = f"0100007F:{port:04X}"
    lines = Path(f"/proc/{gateway.pid}/net/tcp").read_text().splitlines()[1:]
    return any(line.split()[2] == wanted and line.split()[3] == "01" for line in lines)
