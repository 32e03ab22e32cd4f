"""An upstream of OpenAI's dialect in a process of its own: `upstream.py PORT TOKENS INTERVAL_S`.

Each streamed reply is TOKENS frames, one every INTERVAL_S, each of which says its number and the moment at which it was
written (`number:monotonic_ns`), then the finish, the usage and `[DONE]`. It prints its port once it listens.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sys
import time

import uvloop

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _frame(choices: list[object], **more: object) -> bytes:
    base = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    said = json.dumps({**base, "choices": choices, **more}, separators=(",", ":"))
    return f"data: {said}\n\n".encode()


def _choice(delta: object, finish: str | None = None) -> list[object]:
    return [{"index": 0, "delta": delta, "finish_reason": finish}]


class Replies(asyncio.Protocol):
    tokens = 0
    interval_s = 0.0

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._came = b""
        self._transport: asyncio.Transport | None = None
        before, _, self._after = _frame(_choice({"content": "@"})).partition(b"@")
        self._before = before
        usage = {"prompt_tokens": 10, "completion_tokens": self.tokens, "total_tokens": 10 + self.tokens}
        self._end = _chunk(_frame(_choice({}, "stop")) + _frame([], usage=usage) + b"data: [DONE]\n\n") + b"0\r\n\r\n"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self._transport = transport  # type: ignore[assignment]
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None

    def data_received(self, data: bytes) -> None:
        self._came += data
        head, found, body = self._came.partition(b"\r\n\r\n")
        if not found or len(body) < int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]):
            return
        self._came = b""
        assert self._transport is not None
        self._transport.write(HEAD + _chunk(_frame(_choice({"role": "assistant", "content": ""}))))
        self._next_at = self._loop.time() + self.interval_s
        self._loop.call_at(self._next_at, self._say, 0)

    def _say(self, number: int) -> None:
        if self._transport is None:
            return
        if number == self.tokens:
            self._transport.write(self._end)
            return
        self._transport.write(_chunk(b"%b%d:%d%b" % (self._before, number, time.monotonic_ns(), self._after)))
        self._next_at += self.interval_s
        self._loop.call_at(self._next_at, self._say, number + 1)


async def main() -> None:
    Replies.tokens, Replies.interval_s = int(sys.argv[2]), float(sys.argv[3])
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Replies, "127.0.0.1", int(sys.argv[1]), backlog=4096, reuse_address=True)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(main())
