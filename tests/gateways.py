"""The real `penstock serve`, in a process of its own, and a client of plain sockets before it.

`serving` starts one on a free port with a folder of its own, and ends it by SIGTERM: it must end with 0 and have
written nothing on standard error. A `Gateway` gives records as they come on its standard output. An `Asked` is one
request whose answer is read as its bytes come, so that a test sees what left together and how it ended.
"""

from __future__ import annotations

import itertools
import json
import os
import select
import signal
import socket
import sqlite3
import struct
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import yaml

from tests.processes import Running, command
from tests.wires import WIRES, Pair, Said, Wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.upstreams import Upstream

DEADLINE_S = 60.0

KEYS = {"CHAT_KEY": "sk-chat-5f2c81", "ANTH_KEY": "sk-ant-93ab07"}


_numbers = itertools.count()


def a_model(pair: Pair) -> str:
    """A name that no other request uses, and that leads to the pair's upstream."""
    return f"{pair.upstream.model}-{next(_numbers)}-alone"


def until(fact: Callable[[], Any], what: str = "it", deadline_s: float = DEADLINE_S) -> Any:
    """Poll for what nobody announces: another process's state."""
    end = time.monotonic() + deadline_s
    while not (found := fact()):
        assert time.monotonic() < end, f"{what} did not come true in {deadline_s} s"
        time.sleep(0.002)
    return found


class Gateway:
    """`folder` holds its configuration, its store (`penstock.db`) and `stderr`."""

    def __init__(self, running: Running, folder: Path) -> None:
        self.running = running
        self.folder = folder
        self.url = running.url
        self.port = int(running.url.rpartition(":")[2])

    @property
    def pid(self) -> int:
        return self.running.process.pid

    # --- asking ---

    def ask(self, pair: Pair, *, stream: bool = True, headers: dict[str, str] | None = None, **more: Any) -> Asked:
        return self.post(pair.client, pair.request(stream=stream, **more), headers)

    def post(self, wire: Wire, body: Any, headers: dict[str, str] | None = None) -> Asked:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.send("POST", wire.route, raw, headers, wire)

    def send(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        wire: Wire | None = None,
        *,
        receive_buffer: int | None = None,
    ) -> Asked:
        given = {"host": "localhost", "content-type": "application/json", "content-length": str(len(body))}
        return Asked(
            self.port, method, path, given | (headers or {}), body, wire or WIRES["openai-chat"], receive_buffer
        )

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), DEADLINE_S)

    def pass_through(self) -> None:
        """Return when whatever had reached the gateway's sockets has been dealt with: it has one loop."""
        for _ in range(2):
            assert self.send("GET", "/health").body()

    # --- what it tells ---

    def record(self, request_id: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.running.wait_for_line(f'"{request_id}"'))
        return found

    def record_of(self, model: str) -> dict[str, Any]:
        """By the model that was asked for, for a request whose id nobody was told: see `a_model`."""
        found: dict[str, Any] = json.loads(self.running.wait_for_line(f'"model_requested":"{model}"'))
        return found

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.running.lines if line.startswith("{")]

    def stored(self) -> list[dict[str, Any]]:
        """The store's rows; none while there is no store yet."""
        try:
            store = sqlite3.connect(f"file:{self.folder / 'penstock.db'}?mode=ro", uri=True)
        except sqlite3.OperationalError:
            return []
        store.row_factory = sqlite3.Row
        try:
            return [dict(row) for row in store.execute("SELECT * FROM records")]
        except sqlite3.OperationalError:
            return []
        finally:
            store.close()

    @property
    def stderr(self) -> str:
        return (self.folder / "stderr").read_text()

    # --- what the system knows of it ---

    @property
    def open_files(self) -> list[str]:
        folder = Path(f"/proc/{self.pid}/fd")
        return [name for name in (_read_link(path) for path in folder.iterdir()) if name]

    @property
    def memory_bytes(self) -> int:
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) * 1024


def _read_link(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:  # closed meanwhile
        return ""


class Asked:
    """One request on a connection of its own. Bytes are read when a method asks for them, never before."""

    _open: ClassVar[list[Asked]] = []

    @classmethod
    def close_all(cls) -> None:
        """Whatever tests have left open."""
        while cls._open:
            cls._open.pop().socket.close()

    def __init__(
        self,
        port: int,
        method: str,
        path: str,
        headers: dict[str, str],
        body: bytes,
        wire: Wire,
        receive_buffer: int | None = None,
    ) -> None:
        self.wire = wire
        self.socket = socket.socket()
        self._open.append(self)
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(DEADLINE_S)
        self.socket.connect(("127.0.0.1", port))
        self._raw = b""  # not yet understood
        self._body = b""  # of the chunks that have come
        self._given = 0  # of it, given out as frames
        self._is_chunked = False
        self._head: tuple[int, dict[str, str]] | None = None
        self.ended: str | None = None  # `clean`, or how it broke
        head = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items() if value)]
        self.socket.sendall("\r\n".join([*head, "", ""]).encode() + body)

    # --- as it comes ---

    def is_silent(self) -> bool:
        """Nothing has come that was not read."""
        return not self._raw and not select.select([self.socket], [], [], 0)[0]

    def receive(self) -> bytes:
        """What one look at the socket brings; empty at the end."""
        try:
            data = self.socket.recv(1 << 16)
        except ConnectionError:
            data = b""
        self._raw += data
        if not data and self.ended is None:
            self.ended = "broken"
        return data

    @property
    def head(self) -> tuple[int, dict[str, str]]:
        while self._head is None:
            if b"\r\n\r\n" in self._raw:
                head, _, self._raw = self._raw.partition(b"\r\n\r\n")
                first, *lines = head.decode().split("\r\n")
                headers = dict(line.split(": ", 1) for line in lines)
                self._head = int(first.split()[1]), {name.lower(): value for name, value in headers.items()}
                self._is_chunked = headers.get("transfer-encoding", "") == "chunked"
            else:
                assert self.receive(), "closed before the answer's head"
        return self._head

    @property
    def status(self) -> int:
        return self.head[0]

    @property
    def headers(self) -> dict[str, str]:
        return self.head[1]

    @property
    def request_id(self) -> str:
        return self.headers["x-request-id"]

    def frame(self) -> bytes:
        """The next frame, up to its empty line."""
        assert self.head
        while True:
            self._understand()
            found = self._body.find(b"\n\n", self._given)
            if found >= 0:
                frame = self._body[self._given : found + 2]
                self._given = found + 2
                return frame
            assert self.ended is None, f"ended ({self.ended}) instead of a frame: {self._body[self._given :]!r}"
            self.receive()

    def _understand(self) -> None:
        if not self._is_chunked:
            self._body += self._raw
            self._raw = b""
            if self.ended != "broken" and len(self._body) >= int(self.headers.get("content-length", 0)):
                self.ended = "clean"
            return
        pieces = []
        while self.ended != "clean" and b"\r\n" in self._raw:
            size, _, rest = self._raw.partition(b"\r\n")
            length = int(size, 16)
            if len(rest) < length + 2:
                break
            pieces.append(rest[:length])
            assert rest[length : length + 2] == b"\r\n"
            self._raw = rest[length + 2 :]
            if length == 0:
                assert self._raw == b"", f"bytes after the end: {self._raw!r}"
                self.ended = "clean"
        self._body += b"".join(pieces)

    # --- to its end ---

    def body(self) -> bytes:
        """All of it. The answer must end as HTTP says."""
        assert self.head
        while True:
            self._understand()
            if self.ended is not None:
                break
            self.receive()
        self.socket.close()
        assert self.ended == "clean", f"the answer broke off after {self._body[-200:]!r}"
        return self._body

    def said(self) -> Said:
        """The whole answer, in the client's dialect."""
        body = self.body()
        is_stream = self.headers["content-type"].startswith("text/event-stream")
        return self.wire.read(body) if is_stream else self.wire.read_document(body)

    # --- leaving ---

    def leave(self, *, reset: bool = False) -> float:
        """Close the connection; the moment, in monotonic seconds."""
        if reset:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        at = time.monotonic()
        self.socket.close()
        return at


# --- starting and ending ----------------------------------------------------------------------------------------------


def two_upstreams(upstream: Upstream, **more: Any) -> dict[str, Any]:
    """The configuration under which one process has every pair of dialects: `a-…` is Anthropic's, the rest chat.
    Nothing is asked again there: what asking again does has tests of its own."""
    entries = {
        "chat": {"url": upstream.url("/chat/v1"), "dialect": "openai-chat", "key_env": "CHAT_KEY"},
        "anth": {"url": upstream.url("/anth/v1"), "dialect": "anthropic-messages", "key_env": "ANTH_KEY"},
    }
    models = {"alias": "chat:real-1", "a-alias": "anth:real-1", "a-*": "anth", "*": "chat"}
    return {"upstreams": entries, "models": models, "retry": {"attempts": 1}, **more}


@contextmanager
def started(config: dict[str, Any], folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """`penstock serve` with this configuration; killed if the test has not ended it."""
    (folder / "penstock.yaml").write_text(yaml.safe_dump(config))
    with (folder / "stderr").open("w") as stderr:
        process = subprocess.Popen(
            [*command("serve"), "--config", "penstock.yaml", "--port", "0", "--log", "json", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            cwd=folder,
            env={**os.environ, **KEYS},
            start_new_session=True,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        assert process.stdout is not None
        process.stdout.close()


@contextmanager
def serving(config: dict[str, Any], folder: Path, *arguments: str) -> Iterator[Gateway]:
    with started(config, folder, *arguments) as process:
        running = Running(process)
        gateway = Gateway(running, folder)
        yield gateway
        assert running.stop(signal.SIGTERM) == 0, gateway.stderr
        assert gateway.stderr == ""
