"""The one writer of a streamed answer: headers with the first content or the first heartbeat, heartbeats while idle.

Heartbeats come from one lazily re-armed timer: a write costs an assignment. A heartbeat never falls inside an event,
because it is a write of its own, and it never stands in line: while a write waits for the client to read, there is no
heartbeat to send. What is said beside the stream (`aside`) goes the same way: bounded, and dropped before it waits.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from penstock.canon.events import Progress
    from penstock.serving.asgi import Header, Send
    from penstock.serving.connection import Connection
    from penstock.streams.handler import Call

_STREAM_HEADERS: list[Header] = [
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]

#: the upstream does not stream: what the client reads as one is made of a document
SYNTHETIC: Header = (b"x-penstock-synthetic", b"true")

#: asides that may wait for the next turn of the loop
MAX_ASIDES = 64


class Downstream:
    """`heartbeat_s` None: no heartbeats. `started`: the status is sent, so a failure can only be told in the stream."""

    def __init__(
        self,
        send: Send,
        call: Call,
        *,
        content_type: str,
        heartbeat: bytes,
        heartbeat_s: float | None,
        connection: Connection | None = None,
    ) -> None:
        self.started = False
        self._send = send
        self._call = call
        self._sent = call.sent
        self._headers = [
            (b"content-type", content_type.encode()),
            (b"x-request-id", call.request_id.encode()),
            *_STREAM_HEADERS,
        ]
        self._heartbeat = heartbeat
        self._is_sse = content_type.startswith("text/event-stream")
        self._connection = connection
        self._write_chunk: Callable[[bytes], bool] | None = None  # once the head has left
        self._heartbeat_s = heartbeat_s
        self._written_at = call.began
        self._busy = False
        self._beating: asyncio.Task[None] | None = None
        self._asides: list[bytes] = []
        self._timer: asyncio.TimerHandle | None = None
        if heartbeat_s is not None and heartbeat:
            self._arm(heartbeat_s)

    def add_headers(self, headers: list[Header]) -> None:
        """Say more at the head of the answer, if it has not left already."""
        self._headers += headers

    def write_now(self, data: bytes, at: float) -> bool:
        """`write`, where it need not wait, `at` being this moment. False when it must."""
        if self._write_chunk is None or self._beating is not None or not self._write_chunk(data):
            return False
        self._sent.bytes_out += len(data)
        self._written_at = at
        return True

    async def write(self, data: bytes) -> None:
        if self._beating is not None:
            await self._beating
        self._busy = True
        try:
            if not self.started:
                await self._start()
            self._call.sent.bytes_out += len(data)
            await self._send({"type": "http.response.body", "body": data, "more_body": True})
        finally:
            self._busy = False
        self._written_at = self._call.now()

    async def end(self, data: bytes = b"") -> None:
        """The last write: what it carries, and the end of the body."""
        self.stop()
        self._busy = True  # for good: nothing is said beside it any more
        if self._beating is not None:
            await self._beating
        if not self.started:
            await self._start()
        self._call.sent.bytes_out += len(data)
        self._call.sent.is_whole = True
        await self._send({"type": "http.response.body", "body": data})

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def _start(self) -> None:
        self.started = True
        self._call.http_status = 200
        if self._connection is not None:
            self._connection.hold_head()
        await self._send({"type": "http.response.start", "status": 200, "headers": self._headers})
        if self._connection is not None:
            self._write_chunk = self._connection.write_chunk

    def _arm(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._due)

    def _due(self) -> None:
        assert self._heartbeat_s is not None
        left = self._written_at + self._heartbeat_s - self._call.now()
        if left > 0.001:
            self._arm(left)
            return
        if self._call.waits_for is not None and self._is_sse:
            self.aside(_standing(self._call.waits_for()))
        self.aside(self._heartbeat)
        self._arm(self._heartbeat_s)

    def aside(self, data: bytes) -> None:
        """Whole events, said beside the stream. Returns at once; says nothing while a write waits for the client."""
        if self._busy or self._call.sent.is_whole or len(self._asides) >= MAX_ASIDES:
            return
        self._asides.append(data)
        if self._beating is None:
            self._beating = asyncio.get_running_loop().create_task(self._say())

    async def _say(self) -> None:
        try:
            if not self.started:
                if self._sent.is_whole:  # refused with a status, in the very turn of the loop that asked for this one
                    return
                if self._call.stream and not self._call.asks_stream:
                    self._headers.append(SYNTHETIC)
                await self._start()
            data, sent = b"".join(self._asides), self._call.sent
            sent.heartbeats += self._asides.count(self._heartbeat)
            self._asides.clear()
            sent.bytes_out += len(data)
            await self._send({"type": "http.response.body", "body": data, "more_body": True})
            self._written_at = self._call.now()
        finally:
            self._asides.clear()
            self._beating = None


def _standing(progress: Progress) -> bytes:
    """Where a call stands in line, as a comment, which every reader of SSE passes over."""
    return f": {progress.stage}, {progress.done} of {progress.total} ({progress.message})\n\n".encode()
