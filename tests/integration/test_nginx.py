"""Behind a real nginx with its defaults, which buffer answers, a stream still comes frame by frame (C2).

What makes it so is the header `x-accel-buffering: no`.
"""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import threading
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from tests.processes import Running, running, server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.process

CONFIG = """
worker_processes 1; daemon off; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
  uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
  server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass {gateway}; proxy_http_version 1.1; }} }}
}}
"""


def frame(content: str, finish: str = "null") -> bytes:
    data = b'data: {"id":"c","model":"m","choices":[{"index":0,"delta":{"content":%s},"finish_reason":%s}]}\n\n'
    piece = data % (json.dumps(content).encode(), finish.encode())
    return b"%x\r\n%b\r\n" % (len(piece), piece)


class StepByStep:
    """An upstream that sends its next frame only when the test says so."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}/v1"
        self.go_on = threading.Semaphore(0)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        connection, _ = self._listening.accept()
        connection.settimeout(20)
        while b"\r\n\r\n" not in connection.recv(65536):
            pass
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        for k in range(4):
            assert self.go_on.acquire(timeout=20)
            connection.sendall(frame(f"word{k}", '"stop"' if k == 3 else "null"))
        connection.sendall(b"0\r\n\r\n")
        connection.close()
        self._listening.close()


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[tuple[str, StepByStep]]:
    program = server("nginx")
    upstream = StepByStep()
    with running("serve", "--upstream", upstream.url, "--port", "0", "--store", "off", cwd=tmp_path) as gateway:
        yield from _before(program, gateway, upstream, tmp_path)


def _before(program: str, gateway: Running, upstream: StepByStep, folder: Path) -> Iterator[tuple[str, StepByStep]]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = folder / "nginx.conf"
    config.write_text(CONFIG.format(folder=folder, port=port, gateway=gateway.url))
    process = subprocess.Popen([program, "-c", str(config)], stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", port), 0.1).close()
                break
            except OSError:
                assert process.poll() is None, (folder / "error.log").read_text()
                threading.Event().wait(0.02)
        yield f"http://127.0.0.1:{port}", upstream
    finally:
        process.terminate()
        process.wait(10)


def test_c2_each_frame_passes_nginx_before_the_next_is_sent(nginx: tuple[str, StepByStep]) -> None:
    url, upstream = nginx
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=20)
    body = json.dumps({"model": "m", "stream": True, "messages": [{"role": "user", "content": "hi"}]})
    connection.request("POST", "/v1/chat/completions", body)
    upstream.go_on.release()
    answer = connection.getresponse()
    for k in range(4):
        while b"word" not in (line := answer.readline()):
            assert line
        assert f"word{k}".encode() in line
        upstream.go_on.release()
    assert b"data: [DONE]" in answer.read()
    connection.close()
