"""Clients that read streams as they come, and say truly how each one ended.

A token's delay is from the upstream's write to this client's read, by the clock that all processes of one machine have.
Its added inter-token time is by how much the gap before it grew on the way.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import time
from array import array
from dataclasses import dataclass, field

_TOKEN = re.compile(rb'"content":"(\d+):(\d+)"')


@dataclass
class Heard:
    """One stream. `outcome`: complete, error (said in the stream), `status N`, refused (no connection) or broken."""

    outcome: str = "broken"
    worker: str = ""
    tokens: int = 0
    in_order: bool = True
    began_at: float = 0.0
    ended_at: float = 0.0


@dataclass
class Delays:
    """Milliseconds."""

    delay: array[float] = field(default_factory=lambda: array("d"))
    added_gap: array[float] = field(default_factory=lambda: array("d"))


def request(port: int, model: str = "m") -> bytes:
    asked = {"model": model, "stream": True, "messages": [{"role": "user", "content": "hello"}]}
    body = json.dumps(asked | {"stream_options": {"include_usage": True}}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


class _Reader(asyncio.Protocol):
    def __init__(self, asked: bytes, delays: Delays | None) -> None:
        self.heard = Heard(began_at=time.monotonic())
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._asked = asked
        self._delays = delays
        self._head = b""
        self._rest = b""
        self._has_head = False
        self._is_complete = False
        self._last_delay: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        transport.write(self._asked)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        if not self._has_head:
            self._head += data
            head, found, data = self._head.partition(b"\r\n\r\n")
            if not found:
                return
            self._has_head = True
            status = int(head.split(None, 2)[1])
            said = head.partition(b"x-request-id: ")[2].split(b"\r\n")[0]
            self.heard.worker = said[:20].decode()
            if status != 200:
                self._end(f"status {status}")
                return
        whole, found, self._rest = (self._rest + data).rpartition(b"\n\n")
        for number, sent in _TOKEN.findall(whole):
            self.heard.in_order = self.heard.in_order and int(number) == self.heard.tokens
            self.heard.tokens += 1
            delay = (now - int(sent)) / 1e6
            if self._delays is not None:
                self._delays.delay.append(delay)
                if self._last_delay is not None:
                    self._delays.added_gap.append(delay - self._last_delay)
            self._last_delay = delay
        if b'"error"' in whole:
            self._end("error")
        elif b"[DONE]" in whole:
            self._is_complete = True
        if self._is_complete and self._rest.endswith(b"0\r\n\r\n"):
            self._end("complete")

    def connection_lost(self, exc: Exception | None) -> None:
        self._end("broken")

    def _end(self, outcome: str) -> None:
        if not self.over.done():
            self.heard.outcome = outcome
            self.heard.ended_at = time.monotonic()
            self.over.set_result(None)
            self._transport.close()


async def ask(port: int, *, delays: Delays | None = None, timeout_s: float = 120.0) -> Heard:
    """One stream to its end, on a connection of its own."""
    loop = asyncio.get_running_loop()
    began = time.monotonic()
    try:
        _, reader = await loop.create_connection(lambda: _Reader(request(port), delays), "127.0.0.1", port)
    except OSError:
        return Heard("refused", began_at=began, ended_at=time.monotonic())
    async with asyncio.timeout(timeout_s):
        await reader.over
    return reader.heard


async def keep_asking(port: int, clients: int, seconds: float) -> list[Heard]:
    """So many clients, each asking again when it has its answer, for so long; those under way finish."""
    until = time.monotonic() + seconds
    heard: list[Heard] = []

    async def one(number: int) -> None:
        await asyncio.sleep(number / clients)
        while time.monotonic() < until:
            heard.append(await ask(port))
            if heard[-1].outcome != "complete":
                await asyncio.sleep(0.1)

    await asyncio.gather(*(one(number) for number in range(clients)))
    return heard
