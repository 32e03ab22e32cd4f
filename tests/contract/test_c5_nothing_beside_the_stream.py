"""C5: whoever reads logs, keeps records or looks at metrics cannot hold a stream up, not even by not doing it."""

from __future__ import annotations

import http.client
import json
import sqlite3
import time
from typing import TYPE_CHECKING

import pytest

from tests.gateways import Gateway, serving, started, two_upstreams, until
from tests.processes import Running
from tests.upstreams import Gate, sse
from tests.wires import CHAT, MESSAGES, Pair

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from tests.upstreams import Upstream

pytestmark = pytest.mark.process

PAIR = Pair(CHAT, CHAT)

#: Records of about 1 kB each: more than a pipe of 64 KiB holds.
MANY = 200


def check_streams_flow(gateway: Gateway, upstream: Upstream) -> None:
    """Still in lock step with the upstream, and ended; and nobody waited meanwhile for what is beside them."""
    began = time.monotonic()
    for pair in (PAIR, Pair(MESSAGES, CHAT)):
        gates = [Gate(), Gate()]
        upstream.answers(sse(*CHAT.opening(), CHAT.text("One "), gates[0], CHAT.text("two"), gates[1], *CHAT.closing()))
        asked = gateway.ask(pair)
        while b"One" not in asked.frame():
            pass
        gates[0].open()
        while b"two" not in asked.frame():
            pass
        gates[1].open()
        assert asked.said().terminators == 1
    assert time.monotonic() - began < 10.0


class Unread(Running):
    """Its standard output is read up to the address, and then no more."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self.process = process
        self.lines = [process.stdout.readline()]
        self.url = self.lines[0].split(" on ", 1)[1].split(",", 1)[0]


def test_c5_a_log_that_nobody_reads_holds_up_no_stream(upstream: Upstream, tmp_path: Path) -> None:
    with started(two_upstreams(upstream), tmp_path, "--store", "off") as process:
        gateway = Gateway(Unread(process), tmp_path)
        upstream.answers(sse(*CHAT.opening(), *CHAT.closing()))
        flood(gateway)
        check_streams_flow(gateway, upstream)


def flood(gateway: Gateway) -> None:
    """Many requests on one connection: what each of them costs is its record."""
    body = json.dumps(PAIR.request())
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=10)
    for _ in range(MANY):
        connection.request("POST", CHAT.route, body)
        answer = connection.getresponse()
        assert answer.read().endswith(b"[DONE]\n\n")
    connection.close()


@pytest.mark.parametrize("store", ["/proc/no/such/penstock.db", "folder"])
def test_c5_a_store_that_cannot_be_written_holds_up_no_stream(store: str, upstream: Upstream, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with serving(two_upstreams(upstream, telemetry={"store": {"path": store}}), tmp_path) as gateway:
        check_streams_flow(gateway, upstream)
        # The log has its records all the same.
        until(lambda: len(gateway.records()) == 2, "both records on the log")


def test_c5_a_store_that_another_holds_locked_holds_up_no_stream(upstream: Upstream, tmp_path: Path) -> None:
    with serving(two_upstreams(upstream), tmp_path) as gateway:
        check_streams_flow(gateway, upstream)
        until(lambda: len(gateway.stored()) == 2, "both rows")
        lock = sqlite3.connect(tmp_path / "penstock.db", isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")
        check_streams_flow(gateway, upstream)
        until(lambda: len(gateway.records()) == 4, "the log goes on")
        assert len(gateway.stored()) == 2
        lock.execute("ROLLBACK")
        lock.close()
        until(lambda: len(gateway.stored()) == 4, "what waited is stored")
