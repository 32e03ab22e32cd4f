"""An upstream on a real socket that answers as its test says, and remembers what it saw."""

from __future__ import annotations

import socket
import struct
import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class Exchange:
    """One request on one connection; the script answers through it."""

    def __init__(self, connection: socket.socket, head: bytes, body: bytes) -> None:
        self.connection = connection
        self.head = head
        self.body = body

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def begin(self, content_type: str = "text/event-stream", status: str = "200 OK", *, headers: str = "") -> None:
        head = f"HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\ntransfer-encoding: chunked\r\n{headers}\r\n"
        self.send(head.encode())

    def chunk(self, data: bytes) -> None:
        if data:
            self.send(b"%x\r\n%b\r\n" % (len(data), data))

    def end(self) -> None:
        self.send(b"0\r\n\r\n")

    def reset(self) -> None:
        """The connection breaks: RST, not FIN."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def wait_until_closed(self, timeout_s: float = 10.0) -> float:
        """The moment at which the other side closed the connection, in monotonic seconds."""
        self.connection.settimeout(timeout_s)
        try:
            while self.connection.recv(65536):
                pass
        except ConnectionError:
            pass
        return time.monotonic()


class ScriptedUpstream:
    """`script(exchange)` runs in a thread per connection, once per request. `executions` holds every request's body."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}/v1"
        self.script: Callable[[Exchange], Any] = lambda exchange: exchange.reset()
        self.executions: list[bytes] = []
        self.heads: list[bytes] = []
        self._running = 0
        self._ended = threading.Condition()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listening.close()

    def wait_until_answered(self, timeout_s: float = 10.0) -> None:
        """Every script has ended: what it closes is closed, so that no request takes a connection about to go."""
        with self._ended:
            assert self._ended.wait_for(lambda: not self._running, timeout_s), f"{self._running} scripts still run"

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        data = b""
        while True:
            try:
                while b"\r\n\r\n" not in data:
                    if not (read := connection.recv(65536)):
                        connection.close()
                        return
                    data += read
                head, _, data = data.partition(b"\r\n\r\n")
                length = next(
                    (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
                )
                while len(data) < length:
                    data += connection.recv(65536)
                body, data = data[:length], data[length:]
                self.heads.append(head)
                self.executions.append(body)
                self._run(Exchange(connection, head, body))
            except OSError:
                connection.close()
                return

    def _run(self, exchange: Exchange) -> None:
        with self._ended:
            self._running += 1
        try:
            self.script(exchange)
        finally:
            with self._ended:
                self._running -= 1
                self._ended.notify_all()
