"""Several processes that are one gateway: whoever is asked, whoever is killed."""

from __future__ import annotations

import json
import os
import signal
import socket
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.gateways import Asked, Gateway, started, two_upstreams, until
from tests.processes import Running
from tests.telemetry.exporters.test_prometheus import read
from tests.upstreams import Answer, Exchange, Gate, Upstream, sse
from tests.wires import CHAT, Pair

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.process

ALIKE = Pair(CHAT, CHAT)
COMPLETE = "penstock_requests_total{model=c-1,outcome=complete,upstream=chat}"


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    upstream = Upstream()
    upstream.answers(sse(*CHAT.opening(), CHAT.text("One"), *CHAT.closing()))
    yield upstream
    Asked.close_all()
    upstream.close()


@contextmanager
def serving(upstream: Upstream, folder: Path, **server: Any) -> Iterator[Gateway]:
    """Two workers; every process of the gateway has ended afterwards."""
    config = two_upstreams(upstream, server={"workers": 2, **server}, models={"c-1": "chat", "alias": "chat:real-1"})
    with started(config, folder) as process:
        gateway = Gateway(Running(process), folder)
        pids = {process.pid, *workers(gateway)}
        try:
            yield gateway
        finally:
            pids |= workers(gateway)
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                assert process.wait(20) == 0
            until(lambda: not any(is_alive(pid) for pid in pids), "that all have ended")


def workers(gateway: Gateway) -> set[int]:
    try:
        return {int(pid) for pid in Path(f"/proc/{gateway.pid}/task/{gateway.pid}/children").read_text().split()}
    except FileNotFoundError:
        return set()


def is_alive(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def metrics(gateway: Gateway) -> dict[str, float]:
    return read(gateway.send("GET", "/metrics").body())


def said(gateway: Gateway) -> list[str]:
    return [json.loads(line)["message"] for line in gateway.stderr.splitlines()]


def test_both_answer_as_one(upstream: Upstream, tmp_path: Path) -> None:
    with serving(upstream, tmp_path) as gateway:
        assert len(workers(gateway)) == 2
        ids = []
        for number in range(24):
            asked = gateway.ask(ALIKE)
            assert asked.said().text == "One"
            ids.append(asked.request_id)
            assert metrics(gateway).get(COMPLETE, 0) <= number + 1
        assert len(set(ids)) == 24
        assert len({one[:20] for one in ids}) == 2, "one worker had all of them"
        found = until(lambda: (seen := metrics(gateway)).get(COMPLETE) == 24 and seen, "24 calls")
        assert found["penstock_processes{}"] == 2
        until(lambda: len(gateway.stored()) == 24)
        assert {row["request_id"] for row in gateway.stored()} == set(ids)
        for one in ids:
            assert gateway.record(one)["outcome"] == "complete"
        assert gateway.stderr == ""


def test_a_killed_worker_is_replaced_and_nothing_is_counted_back(upstream: Upstream, tmp_path: Path) -> None:
    with serving(upstream, tmp_path) as gateway:
        for _ in range(10):
            assert gateway.ask(ALIKE).said().text == "One"
        until(lambda: metrics(gateway).get(COMPLETE) == 10)
        before = workers(gateway)
        victim = min(before)
        os.kill(victim, signal.SIGKILL)
        until(lambda: len(workers(gateway) - before) == 1, "a new worker")
        (line,) = until(lambda: said(gateway))
        assert line == f"The worker {victim} was killed by SIGKILL; another takes its place at once."
        assert metrics(gateway)[COMPLETE] == 10
        for _ in range(10):
            assert gateway.ask(ALIKE).said().text == "One"
        until(lambda: metrics(gateway).get(COMPLETE) == 20, "20 calls")
        until(lambda: metrics(gateway)["penstock_processes{}"] == 2, "that the new one is seen")


def streams(gateway: Gateway, number: int = 6) -> list[Asked]:
    """Enough of them that both workers have some."""
    asked = [gateway.ask(ALIKE) for _ in range(number)]
    for one in asked:
        assert one.frame()
    return asked


@pytest.mark.parametrize("how", ["the parent", "the group", "Ctrl-C"])
def test_a_drain_is_obeyed_once_by_all(upstream: Upstream, tmp_path: Path, how: str) -> None:
    gates: list[Gate] = []

    def answer(exchange: Exchange) -> Answer:
        gates.append(Gate())
        return sse(*CHAT.opening(), CHAT.text("One "), gates[-1], CHAT.text("two"), *CHAT.closing())

    upstream.answers(answer)
    with serving(upstream, tmp_path, drain="20s") as gateway:
        asked = streams(gateway)
        if how == "the parent":
            os.kill(gateway.pid, signal.SIGTERM)
        else:
            os.killpg(gateway.pid, signal.SIGTERM if how == "the group" else signal.SIGINT)
        until(lambda: refused(gateway), "that nobody listens")
        for gate in gates:
            gate.open()
        for one in asked:
            found = one.said()
            assert (found.text, found.errors) == ("One two", [])
        assert gateway.running.process.wait(15) == 0
        assert gateway.stderr == ""
        assert [row["outcome"] for row in gateway.stored()] == ["complete"] * len(asked)


def refused(gateway: Gateway) -> bool:
    try:
        socket.create_connection(("127.0.0.1", gateway.port), 1).close()
    except ConnectionError:
        return True
    return False


def test_a_second_signal_ends_all_at_once(upstream: Upstream, tmp_path: Path) -> None:
    upstream.answers(sse(*CHAT.opening(), CHAT.text("One "), end="hang"))
    with serving(upstream, tmp_path, drain="10m") as gateway:
        asked = streams(gateway)
        os.kill(gateway.pid, signal.SIGTERM)
        until(lambda: refused(gateway), "that nobody listens")
        os.kill(gateway.pid, signal.SIGTERM)
        for one in asked:
            assert "shutting down" in one.said().errors[0]["message"]
        assert gateway.running.process.wait(15) == 0
        assert {row["error_type"] for row in gateway.stored()} == {"shutting_down"}


def test_workers_do_not_outlive_their_parent(
    upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    with serving(upstream, tmp_path) as gateway:
        pids = workers(gateway)
        os.kill(gateway.pid, signal.SIGKILL)
        until(lambda: not any(is_alive(pid) for pid in pids), "that the workers have ended")
        gateway.running.process.wait(5)
        assert list(temporary.iterdir()) == []


def test_all_take_a_new_configuration_and_one_that_is_wrong_is_told_once(upstream: Upstream, tmp_path: Path) -> None:
    with serving(upstream, tmp_path) as gateway:
        path = tmp_path / "penstock.yaml"
        given = yaml.safe_load(path.read_text())
        path.write_text("upstreams: 3")
        os.kill(gateway.pid, signal.SIGHUP)
        (line,) = until(lambda: said(gateway))
        assert line.startswith("The configuration stays as it was: In penstock.yaml, upstreams")
        path.write_text(yaml.safe_dump({**given, "models": {"new": "chat"}}))
        os.kill(gateway.pid, signal.SIGHUP)
        until(lambda: len(said(gateway)) == 2)
        assert said(gateway)[1].startswith("A new configuration is in force: models")
        until(lambda: all(gateway.post(CHAT, CHAT.request("new")).status == 200 for _ in range(12)), "both have it")
        os.kill(min(workers(gateway)), signal.SIGKILL)
        until(lambda: len(said(gateway)) == 3)
        for _ in range(12):
            assert gateway.post(CHAT, CHAT.request("new")).status == 200
        assert len(said(gateway)) == 3


def test_a_gateway_that_cannot_begin_says_so_once(upstream: Upstream, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config = two_upstreams(upstream, server={"workers": 2})
        with started(config, tmp_path, "--log", "pretty", "--port", str(port)) as process:
            assert process.wait(20) == 1
    text = (tmp_path / "stderr").read_text()
    assert text.startswith(f"penstock: Cannot listen on 127.0.0.1:{port}")
    assert text.count("\n") == 1


def test_a_second_gateway_does_not_share_the_port_in_silence(upstream: Upstream, tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    config = two_upstreams(upstream, server={"workers": 2})
    with (
        serving(upstream, tmp_path) as gateway,
        started(config, tmp_path / "second", "--log", "pretty", "--port", str(gateway.port)) as second,
    ):
        assert second.wait(20) == 1
        said = (tmp_path / "second" / "stderr").read_text()
        assert said.startswith(f"penstock: Cannot listen on 127.0.0.1:{gateway.port}")


def test_lines_of_several_processes_stay_whole(upstream: Upstream, tmp_path: Path) -> None:
    with serving(upstream, tmp_path) as gateway:
        for _ in range(5):
            for one in [gateway.post(CHAT, CHAT.request("c-1")) for _ in range(40)]:
                assert one.said().text == "One"
        until(lambda: len(gateway.records()) == 200)
