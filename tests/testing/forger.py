"""A proxy with at most one defect, between the judge and the simulator: OpenAI's chat dialect in, and out.

Without a defect it keeps the promises that its tests ask about: what fails upstream is an error in the stream, what is
silent for `clock_s` has failed, and who leaves is forgotten at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

from penstock.canon.errors import PenstockError
from penstock.canon.wire import ConnectionLost, HttpRequest
from penstock.testing.server import Exchanged, Seen, Server
from penstock.transport.http1 import Http1Transport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from penstock.canon.wire import HttpResponse

#: for what comes behind a proved end
AFTER_S = 0.3
DONE = b"data: [DONE]\n\n"
PASSED = ("content-type", "retry-after")


def frame(chunk: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def error_frame(message: str) -> bytes:
    return frame({"error": {"message": message, "type": "upstream_error", "code": "truncated"}})


def stop_frame() -> bytes:
    choice = {"index": 0, "delta": {}, "finish_reason": "stop"}
    return frame({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]})


class Forger(Server):
    def __init__(self, upstream: str, defect: str = "", *, clock_s: float = 10.0) -> None:
        super().__init__()
        self._clock_s = 60.0 if defect == "no-clock" else clock_s
        self._origin = upstream
        self._defect = defect
        self._transport: Http1Transport | None = None
        self._turn = asyncio.Lock()
        self._reading: set[asyncio.Task[None]] = set()

    async def answer(self, seen: Seen, exchanged: Exchanged) -> None:
        self._transport = self._transport or Http1Transport(environ={})
        if seen.method == "GET":
            await exchanged.say(200, "text/plain", b"")
            return
        if len(repr(seen.headers)) > 1 << 20 and self._defect != "any-header":
            await exchanged.say(431, "application/json", b'{"error":{"message":"too large"}}')
            return
        turn = self._turn if self._defect == "one-at-a-time" else contextlib.nullcontext()
        async with turn:
            await self._relay(seen, exchanged)

    async def _open(self, seen: Seen) -> HttpResponse:
        assert self._transport is not None
        headers = (("content-type", "application/json"),)
        return await self._transport.open(
            HttpRequest("POST", self._origin + seen.path, headers, seen.body), connect_s=5.0
        )

    async def _relay(self, seen: Seen, exchanged: Exchanged) -> None:
        if self._defect == "runs-twice":
            (await self._open(seen)).abort()
        try:
            response = await asyncio.wait_for(self._open(seen), self._clock_s)
        except (PenstockError, TimeoutError):
            await exchanged.say(502, "application/json", b'{"error":{"message":"no answer","code":"connect"}}')
            return
        if self._defect == "always-200" and response.status >= 400:
            response.abort()
            await exchanged.begin(200, {"content-type": "text/event-stream"})
            await exchanged.write(stop_frame() + DONE)
            await exchanged.end("clean")
            return
        if response.status == 200 and "html" in response.headers.get("content-type", ""):
            response.abort()
            await exchanged.say(502, "application/json", b'{"error":{"message":"no stream","code":"not_a_stream"}}')
            return
        await exchanged.begin(
            response.status, {name: response.headers[name] for name in PASSED if name in response.headers}
        )
        if response.status != 200:
            await exchanged.write(await response.read())
            await exchanged.end("clean")
            return
        try:
            await self._pass_on(self._reads(response), seen, exchanged)
        except (ConnectionLost, TimeoutError) as failure:
            await self._failed(failure, seen, exchanged)
        else:
            await exchanged.end("clean")
        finally:
            if self._defect != "never-lets-go":
                response.abort()

    async def _reads(self, response: HttpResponse) -> AsyncIterator[bytes]:
        """What comes, and as an error what should have."""
        if self._defect in ("reads-on", "never-lets-go"):
            async for data in self._read_on(response):
                yield data
            return
        loop = asyncio.get_running_loop()
        heard_at, is_proved, is_stream = loop.time(), False, "event-stream" in response.headers.get("content-type", "")
        while True:
            left_s = AFTER_S if is_proved else heard_at + self._clock_s - loop.time()
            try:
                data = await asyncio.wait_for(response.read(), max(0.001, left_s))
            except TimeoutError:
                if is_proved:
                    return
                raise
            if b"content" in data or (data and self._defect == "pings-count"):
                heard_at = loop.time()
            is_proved = is_proved or b'"finish_reason":"' in data or not is_stream
            if not data:
                if not is_proved:
                    raise ConnectionLost("the stream ended without an end")
                return
            yield data

    async def _read_on(self, response: HttpResponse) -> AsyncIterator[bytes]:
        """Whether or not anybody listens, and however far ahead of him."""
        queue: asyncio.Queue[bytes] = asyncio.Queue()

        async def read() -> None:
            while data := await response.read():
                queue.put_nowait(data)
            queue.put_nowait(b"")

        task = asyncio.create_task(read())
        self._reading.add(task)
        while data := await queue.get():
            yield data

    async def _pass_on(self, reads: AsyncIterator[bytes], seen: Seen, exchanged: Exchanged) -> None:
        defect, held = self._defect, b""
        is_stream = b'"stream":true' in seen.body
        async for data in reads:
            if defect == "buffers":
                held += data
                continue
            if defect == "sleeps":
                await asyncio.sleep(0.025)
            elif defect == "unicode-lines":
                data = "\n".join(data.decode(errors="ignore").splitlines()).encode() + b"\n\n"
            elif defect in ("loses-usage", "invents-usage", "rewrites", "hides-errors"):
                data = b"".join(self._changed(line) for line in data.split(b"\n\n") if line)
            elif defect == "cuts-tails" and is_stream:
                data = data.replace(b"seven.", b"")
            await exchanged.write(data)
        await exchanged.write(held)

    def _changed(self, line: bytes) -> bytes:
        """One event, or a document."""
        head, payload = (b"data: ", line[6:]) if line.startswith(b"data: ") else (b"", line)
        tail = b"\n\n" if head else b""
        try:
            chunk = json.loads(payload)
        except ValueError:
            return line + tail
        if self._defect == "loses-usage" and chunk.get("usage"):
            return b""
        if self._defect == "invents-usage":
            chunk["usage"] = chunk.get("usage") or {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
        if self._defect == "hides-errors" and "error" in chunk:
            return stop_frame() + DONE
        return head + json.dumps(chunk).encode() + tail

    async def _failed(self, failure: Exception, seen: Seen, exchanged: Exchanged) -> None:
        match self._defect:
            case "adds-done":
                await exchanged.write(DONE)
            case "adds-stop":
                await exchanged.write(stop_frame() + DONE)
            case "says-nothing":
                pass
            case "passes-the-cut":
                await exchanged.end("cut")
                return
            case "error-and-done":
                await exchanged.write(error_frame(str(failure)) + DONE)
            case "asks-again":
                response = await self._open(seen)
                with contextlib.suppress(ConnectionLost):
                    while data := await response.read():
                        await exchanged.write(data)
                response.abort()
                await exchanged.write(error_frame(str(failure)))
            case _:
                await exchanged.write(error_frame(str(failure)))
        await exchanged.end("clean")

    async def aclose(self) -> None:
        for task in self._reading:
            task.cancel()
        await asyncio.gather(*self._reading, return_exceptions=True)
        if self._transport is not None:
            await self._transport.aclose()
