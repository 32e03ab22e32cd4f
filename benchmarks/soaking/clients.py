"""The clients: one question each, asked of the gateway in some form of some dialect, heard to the end or left.

A form is a dialect, or one of the two ways in which some dialects stream. What comes back is a `Heard`, or None from
those who could hear nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from penstock.canon.errors import PenstockError
from penstock.canon.request import ChatRequest, Message, Tool
from penstock.canon.target import Target
from penstock.dialects import anthropic_messages, client_dialect, gemini, ollama
from penstock.testing.judge.heard import Heard, listen

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from penstock.canon.wire import HttpRequest, HttpResponse
    from penstock.dialects.base import Dialect
    from penstock.transport.http1 import Http1Transport
    from soaking.plan import Asking

#: everything ends before this, by one clock of the gateway's or another
PATIENCE_S = 40.0
_ARRIVAL_S = 20.0
_SLOW_S = 0.01
_STUCK_S = 0.3
_STUCK_BYTES = 16 * 1024

_TOOL = Tool("look", "Look at a place.", {"type": "object", "properties": {"at": {"type": "string"}}})


class Form(Struct, frozen=True):
    """`path` is the base of its URL."""

    name: str
    dialect: Dialect
    path: str = "/v1"
    headers: tuple[tuple[str, str], ...] = ()


FORMS: dict[str, Form] = {
    form.name: form
    for form in (
        Form("openai-chat", client_dialect("openai-chat")),
        Form("openai-completions", client_dialect("openai-completions")),
        Form("openai-responses", client_dialect("openai-responses")),
        Form("anthropic-messages", client_dialect("anthropic-messages")),
        Form(
            "anthropic-messages-2026",
            anthropic_messages.DIALECT_2026_10_21,
            headers=(("anthropic-version", anthropic_messages.NEWER_VERSION),),
        ),
        Form("gemini", gemini.DIALECT, "/v1beta"),
        Form("gemini-array", gemini.ARRAY, "/v1beta"),
        Form("ollama", ollama.DIALECT, ""),
        Form("ollama-generate", ollama.GENERATE, ""),
    )
}


class Clients:
    """`url` is the gateway's root. `has_arrived` tells whether the upstream has a question, by its number."""

    def __init__(self, url: str, transport: Http1Transport, has_arrived: Callable[[int], bool]) -> None:
        self._url = url
        self._transport = transport
        self._has_arrived = has_arrived

    def request(self, asking: Asking) -> HttpRequest:
        form = FORMS[asking.form]
        target = Target("gateway", self._url + form.path, form.dialect.name, headers=form.headers)
        # What a wire has no word for is not asked: text completions know no tools.
        tools = (_TOOL,) if asking.reply.calls else ()
        asked = ChatRequest(
            asking.model,
            (Message.of("user", f"Say what is planned for {asking.number}."),),
            stream=asking.stream,
            include_usage=asking.stream,
            max_tokens=500,
            tools=tools,
        )
        request = form.dialect.build_request(asked, target)
        if form.name == "gemini-array":
            return replace(request, url=request.url.removesuffix("?alt=sse"))
        if form.name == "ollama-generate":
            body = {"model": asking.model, "prompt": "Say what is planned.", "stream": asking.stream}
            return replace(request, url=f"{self._url}/api/generate", body=json.dumps(body).encode())
        return request

    async def ask(self, asking: Asking) -> Heard | None:
        match asking.reader:
            case "half":
                await self._ask_half(asking)
                return None
            case "early" | "blind":
                await self._ask_and_leave(asking)
                return None
            case "stuck":
                await self._ask_and_stop_reading(asking)
                return None
            case _:
                return await self._ask(asking)

    async def _ask(self, asking: Asking) -> Heard:
        began = time.monotonic()
        try:
            async with asyncio.timeout(PATIENCE_S):
                response: HttpResponse = await self._transport.open(self.request(asking))
        except TimeoutError:
            return Heard(began, ended="open", ended_at=time.monotonic())
        except PenstockError as error:
            return Heard(began, malformed=error, ended="cut", ended_at=time.monotonic())
        if asking.reader == "slow":
            response = _Slow(response)
        return await listen(
            response,
            FORMS[asking.form].dialect,
            asked_at=began,
            patience_s=PATIENCE_S,
            leave_after=asking.leave_after if asking.reader == "leaves" else None,
        )

    async def _ask_and_leave(self, asking: Asking) -> None:
        """Before there is a head. A heartbeat may have brought one: then we leave all the same."""
        opening = asyncio.create_task(self._transport.open(self.request(asking)))
        if asking.reader == "early":
            end = time.monotonic() + _ARRIVAL_S
            while not self._has_arrived(asking.number) and time.monotonic() < end:  # noqa: ASYNC110 (another thread)
                await asyncio.sleep(0.002)
        else:
            await asyncio.sleep(asking.leave_after * 0.001)
        opening.cancel()
        with contextlib.suppress(asyncio.CancelledError, PenstockError):
            (await opening).abort()

    async def _ask_half(self, asking: Asking) -> None:
        """A head that promises a body, half of the body, and good-bye."""
        head, body = self._written(asking)
        _, writer = await asyncio.open_connection(*self._address)
        writer.write(head + body[: len(body) // 2])
        await asyncio.sleep(asking.leave_after * 0.01)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    async def _ask_and_stop_reading(self, asking: Asking) -> None:
        """Hear a first word, let the rest fill whatever holds it, and leave."""
        loop = asyncio.get_running_loop()
        with socket.socket() as plain:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _STUCK_BYTES)
            plain.setblocking(False)
            await loop.sock_connect(plain, self._address)
            await loop.sock_sendall(plain, b"".join(self._written(asking)))
            async with asyncio.timeout(PATIENCE_S):
                await loop.sock_recv(plain, _STUCK_BYTES)
            await asyncio.sleep(_STUCK_S)

    @property
    def _address(self) -> tuple[str, int]:
        host, _, port = self._url.partition("://")[2].rpartition(":")
        return host, int(port)

    def _written(self, asking: Asking) -> tuple[bytes, bytes]:
        """Head and body of the request, for clients who do not keep to HTTP."""
        request = self.request(asking)
        host, _, path = request.url.partition("://")[2].partition("/")
        lines = [f"POST /{path} HTTP/1.1", f"host: {host}", f"content-length: {len(request.body)}"]
        lines += [f"{name}: {value}" for name, value in request.headers]
        return "\r\n".join([*lines, "", ""]).encode(), request.body


async def ask_all(
    planned: Sequence[Asking], clients: Clients, concurrency: int, told: Callable[[], None]
) -> dict[int, Heard | None]:
    """What each heard, by its number; so many ask at a time. `told` is called for each that has ended."""
    heard: dict[int, Heard | None] = {}
    waiting = iter(planned)

    async def client() -> None:
        for each in waiting:
            heard[each.number] = await clients.ask(each)
            told()

    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(client())
    return heard


class _Slow:
    """A response whose reader takes a rest before each read."""

    def __init__(self, response: HttpResponse) -> None:
        self._response = response
        self.status = response.status
        self.headers = response.headers

    async def read(self) -> bytes:
        await asyncio.sleep(_SLOW_S)
        return await self._response.read()

    def take(self) -> bytes | None:
        return self._response.take()

    async def arrival(self) -> None:
        await self._response.arrival()

    def release(self) -> None:
        self._response.release()

    def abort(self) -> None:
        self._response.abort()
