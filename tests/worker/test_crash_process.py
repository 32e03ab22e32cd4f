"""The real engine is killed under real calls: each ends in its own error, none hangs, and the worker goes on."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest

from tests.gateways import until
from tests.processes import Running, command, running

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.process

MESSAGES = [{"role": "user", "content": "Write a very long essay about rivers."}]
ENDLESS = {"model": "tiny", "messages": MESSAGES, "max_tokens": 8000, "ignore_eos": True, "stream": True}
#: each way to ask → status, and what ends it, in its own dialect
CALLS: dict[str, tuple[dict[str, Any], int, bytes]] = {
    "/v1/messages": ({"model": "tiny", "messages": MESSAGES, "max_tokens": 99, "stream": True}, 503, b'"type":"error"'),
    "/v1/execute": ({"prompt": "Hello"}, 200, b'"code":"ENGINE_CRASHED"'),
    "/v1/chat/completions": ({"model": "tiny", "messages": MESSAGES}, 503, b"The engine was killed by SIGKILL."),
}


@pytest.fixture(scope="module")
def own_worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("crash")
    with running("worker", "--demo", "--port", "0", "--slots", "4", "--log", "json", cwd=folder) as started:
        until(lambda: get(started, "/health")["status"] == "ok", "the model")
        yield started


def get(at: Running, path: str) -> Any:
    with urlopen(at.url + path, timeout=10) as answer:
        return json.load(answer)


class Asking(threading.Thread):
    """One call, which has left when this is there, and all of its answer."""

    def __init__(self, at: Running, path: str, body: Any) -> None:
        super().__init__()
        self.connection = http.client.HTTPConnection(urlsplit(at.url).netloc, timeout=60)
        self.connection.request("POST", path, json.dumps(body).encode())
        self.has_content = threading.Event()
        self.status = 0
        self.data = b""
        self.start()

    def run(self) -> None:
        answer = self.connection.getresponse()
        self.status = answer.status
        while piece := answer.read1(4096):
            self.data += piece
            self.has_content.set()
        self.connection.close()


def test_c4_every_call_ends_in_its_own_error_and_the_next_is_answered(own_worker: Running) -> None:
    """One is in the middle of its tokens; the others are with the engine, which has said nothing to them yet."""
    before = get(own_worker, "/v1/info")
    engine = before["engine"]["pid"]
    streaming = Asking(own_worker, "/v1/chat/completions", ENDLESS)
    assert streaming.has_content.wait(30)
    os.kill(engine, signal.SIGSTOP)
    waiting = {path: Asking(own_worker, path, body) for path, (body, _, _) in CALLS.items()}
    for _ in range(3):  # what the worker answers now comes after what it did for them
        get(own_worker, "/health")
    os.kill(engine, signal.SIGKILL)

    for call in (streaming, *waiting.values()):
        call.join(30)
        assert not call.is_alive()
    assert streaming.status == 200
    assert b'"type":"engine_crashed"' in streaming.data
    assert b"[DONE]" not in streaming.data
    for path, (_, status, said) in CALLS.items():
        assert (path, waiting[path].status) == (path, status)
        assert said in waiting[path].data

    until(lambda: get(own_worker, "/health")["status"] == "ok", "the engine again", 30)
    after = get(own_worker, "/v1/info")
    assert after["engine"]["pid"] != engine
    assert after["restarts"] == before["restarts"] + 1
    again = Asking(own_worker, "/v1/execute", {"prompt": "Hello", "temperature": 0})
    again.join(30)
    assert b'"type":"end"' in again.data


def test_calls_that_wait_in_line_for_a_crashed_engine_are_answered_by_the_next(own_worker: Running) -> None:
    """Its slots are all taken: those who have one lose their calls, and nobody else does."""
    info = get(own_worker, "/v1/info")
    running = [Asking(own_worker, "/v1/chat/completions", ENDLESS) for _ in range(info["slots"])]
    for call in running:
        assert call.has_content.wait(30)
    waiting = [Asking(own_worker, "/v1/execute", {"prompt": "Hello", "temperature": 0}) for _ in range(5)]
    for call in waiting:
        assert call.has_content.wait(30)  # it has begun, as a job that stands in line
    os.kill(info["engine"]["pid"], signal.SIGKILL)
    for call in (*running, *waiting):
        call.join(60)
        assert not call.is_alive()
    assert all(b'"type":"engine_crashed"' in call.data for call in running)
    assert all(b'"type":"end"' in call.data for call in waiting)
    assert get(own_worker, "/v1/info")["restarts"] == info["restarts"] + 1


def test_a_worker_that_is_killed_takes_its_engine_with_it(tmp_path: Path) -> None:
    """Nobody is there any more to end it, so it ends by itself."""
    arguments = command("worker", "--demo", "--port", "0")
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        started = Running(process)
        until(lambda: get(started, "/health")["status"] == "ok", "the model")
        engine = get(started, "/v1/info")["engine"]["pid"]
        process.kill()
        process.wait(10)
    until(lambda: not is_alive(engine), "the engine's end")


def is_alive(pid: int) -> bool:
    """Whether it runs; one that nobody has asked for its end yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
