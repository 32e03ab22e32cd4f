"""An upstream on a real socket that speaks every client dialect, says what a script says, and misbehaves on purpose.

    with Upstream(Reply(text="Hello", faults=("cut-after-2",))) as upstream:
        ask(upstream.url)                      # ends in /v1; `root` is the server itself
    assert upstream.seen[0].closed_at is not None

It listens on 127.0.0.1 in a thread with a loop of its own, so that a test may block. Faults come from the script, from
the request's header `x-penstock-fault`, or from the model's name (`fault:cut-after-3`), several joined by `+`; so any
gateway in between can be tested. It counts what it saw, and never stops by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import threading
import time
from dataclasses import dataclass, field
from itertools import count, cycle
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

import httptools
import msgspec
from msgspec.structs import replace

from penstock.canon.errors import ConfigError, InvalidRequest, PenstockError, UnknownRoute
from penstock.dialects import client_dialect, gemini, ollama
from penstock.testing.faults import Fault, parse_fault
from penstock.testing.plan import Piece, document_plan, stream_plan
from penstock.testing.script import Reply, Script

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

    from penstock.dialects.base import Dialect
    from penstock.testing.plan import Plan

FAULT_HEADER = "x-penstock-fault"
KEY_HEADER = "idempotency-key"

_STOP_S = 5.0
_BEFORE_RESET_S = 0.02
_BUFFER_BYTES = 64 * 1024


@dataclass
class Seen:
    """One request, and what became of its answer. Moments are monotonic seconds."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    began_at: float
    dialect: str | None = None
    model: str | None = None
    faults: tuple[str, ...] = ()
    written_bytes: int = 0
    written_after_close_bytes: int = 0
    #: when the other side closed while it was being answered
    closed_at: float | None = None
    #: how long a write waited, because nobody read
    blocked_s: float = 0.0
    is_over: threading.Event = field(default_factory=threading.Event)

    def wait_over(self, timeout_s: float = 10.0) -> Seen:
        if not self.is_over.wait(timeout_s):
            raise TimeoutError(f"{self.method} {self.path} is still being answered.")
        return self


class Upstream:
    """`script` says who is answered how; a single `Reply` answers everybody. `seed` makes its chances the same."""

    def __init__(self, script: Script | Reply | None = None, *, port: int = 0, seed: int = 0) -> None:
        self.script = Script((script,)) if isinstance(script, Reply) else script or Script()
        self.seen: list[Seen] = []
        self._rng = random.Random(seed)
        self._numbers = count(1)
        self._arrived = threading.Condition()
        self._listening = socket.create_server(("127.0.0.1", port), backlog=512)
        self._listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
        self._loop = asyncio.new_event_loop()
        self._stopped = asyncio.Event()
        self._connections: set[_Connection] = set()
        self._thread = threading.Thread(target=self._run, name="penstock-upstream", daemon=True)

    # --- what a test asks of it ---------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def port(self) -> int:
        return int(self._listening.getsockname()[1])

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.root}/v1"

    def url_for(self, dialect: str) -> str:
        """The base URL that an upstream of this dialect is configured with."""
        return {"gemini": f"{self.root}/v1beta", "ollama": self.root}.get(dialect, self.url)

    def says(self, reply: Reply) -> None:
        """From now on, this."""
        self.script = Script((reply,))

    def wait_for(self, number: int = 1, timeout_s: float = 10.0) -> Seen:
        """The request that is the `number`th to have come."""
        with self._arrived:
            if not self._arrived.wait_for(lambda: len(self.seen) >= number, timeout_s):
                raise TimeoutError(f"{len(self.seen)} requests came, not {number}.")
        return self.seen[number - 1]

    def executions(self) -> dict[str, int]:
        """How often each idempotency key was executed."""
        keys = [seen.headers[KEY_HEADER] for seen in self.seen if KEY_HEADER in seen.headers]
        return {key: keys.count(key) for key in keys}

    def close(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopped.set)
            self._thread.join(_STOP_S)
        self._listening.close()

    # --- the thread ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        with contextlib.closing(self._loop):
            self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        server = await self._loop.create_server(lambda: _Connection(self), sock=self._listening)
        await self._stopped.wait()
        server.close()
        for connection in tuple(self._connections):
            connection.abort()
        await asyncio.sleep(0)

    def _note(self, seen: Seen) -> None:
        with self._arrived:
            self.seen.append(seen)
            self._arrived.notify_all()

    def _plan(self, seen: Seen) -> Plan:
        """What to write. Raises a `PenstockError` that is answered in the dialect of the path."""
        dialect, head_path = _spoken_at(seen.path)
        seen.dialect = dialect.name
        head = dialect.read_head(seen.body, head_path)
        seen.model = head.model
        reply = self.script.find(head.model, dialect.name)
        faults = [*reply.parsed_faults(), *_asked_faults(seen, head.model)]
        seen.faults = tuple(fault.name for fault in faults)
        request_id = f"sim_{next(self._numbers)}"
        events = reply.events(head.model, request_id)
        is_stream = head.stream
        if any(fault.name == "json" for fault in faults):
            is_stream = False
        elif any(fault.name == "sse" for fault in faults):
            is_stream = True
        plan = (stream_plan if is_stream else document_plan)(dialect, head, events, request_id=request_id)
        plan = replace(plan, pieces=tuple(self._paced(reply, plan.pieces)))
        for fault in faults:
            plan = fault.apply(plan, dialect)
        return plan

    def _paced(self, reply: Reply, pieces: tuple[Piece, ...]) -> Iterator[Piece]:
        pauses = reply.pace.pauses(self._rng)
        for piece in pieces:
            yield replace(piece, after_s=next(pauses)) if piece.kind == "content" else piece


def _asked_faults(seen: Seen, model: str) -> list[Fault]:
    asked = [seen.headers.get(FAULT_HEADER, "")]
    if "fault:" in model:  # behind whatever a gateway has put before it
        asked.append(model.partition("fault:")[2])
    return [parse_fault(each) for text in asked for each in text.replace(",", "+").split("+") if each.strip()]


_PATHS = {
    "/chat/completions": "openai-chat",
    "/completions": "openai-completions",
    "/responses": "openai-responses",
    "/messages": "anthropic-messages",
}


def _spoken_at(path: str) -> tuple[Dialect, str]:
    """The dialect of a path, and what of the path its request needs."""
    plain, _, query = path.partition("?")
    if plain.endswith("/api/chat"):
        return ollama.DIALECT, ""
    if plain.endswith("/api/generate"):
        return ollama.GENERATE, ""
    if ":generateContent" in plain or ":streamGenerateContent" in plain:
        return (gemini.DIALECT if parse_qs(query).get("alt") == ["sse"] else gemini.ARRAY), path
    name = next((name for end, name in _PATHS.items() if plain.endswith(end)), None)
    if name is None:
        raise UnknownRoute(f"The simulator has no {plain}.", param="path", fix=f"It has {', '.join(_PATHS)}.")
    return client_dialect(name), ""


class _Connection(asyncio.Protocol):
    """One connection: requests one after the other, each answered by its plan."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None
        self._seen: Seen | None = None
        self._can_write = asyncio.Event()
        self._can_write.set()
        self._gone = asyncio.Event()
        self._path = b""
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self._waiting: list[Seen] = []

    # --- asyncio's side -----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        transport.set_write_buffer_limits(_BUFFER_BYTES)
        self._upstream._connections.add(self)  # two halves of one thing

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.abort()

    def eof_received(self) -> bool:
        """The other side says no more. It may still read, so that what is written on can be counted."""
        self._left()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._left()
        self._can_write.set()
        self._transport = None
        if self._task is not None:
            self._task.cancel()
        self._upstream._connections.discard(self)

    def pause_writing(self) -> None:
        self._can_write.clear()

    def resume_writing(self) -> None:
        self._can_write.set()

    def _left(self) -> None:
        if self._seen is not None and self._seen.closed_at is None:
            self._seen.closed_at = time.monotonic()
        self._gone.set()

    def abort(self) -> None:
        """RST, not FIN."""
        if self._transport is not None:
            held = self._transport.get_extra_info("socket")
            held.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()

    # --- httptools' side ----------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._path, self._headers, self._body = b"", {}, []

    def on_url(self, url: bytes) -> None:
        self._path += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, data: bytes) -> None:
        self._body.append(data)

    def on_message_complete(self) -> None:
        method = self._parser.get_method().decode("latin-1")
        path = self._path.decode("latin-1")
        self._waiting.append(Seen(method, path, self._headers, b"".join(self._body), time.monotonic()))
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._answer())

    # --- answering ----------------------------------------------------------------------------------------------------

    async def _answer(self) -> None:
        while self._waiting:
            seen = self._seen = self._waiting.pop(0)
            try:
                if seen.method == "POST":
                    self._upstream._note(seen)
                    await self._play(seen, self._planned(seen))
                else:
                    await self._write(seen, _answer_of(200, "application/json", _MODELS))
            finally:
                self._seen = None
                seen.is_over.set()

    def _planned(self, seen: Seen) -> Plan | bytes:
        try:
            return self._upstream._plan(seen)
        except PenstockError as error:
            dialect = client_dialect(seen.dialect or "openai-chat")
            said = InvalidRequest(error.message, fix=error.fix) if isinstance(error, ConfigError) else error
            return _answer_of(getattr(said, "status", 400), "application/json", dialect.write_error(said, None))

    async def _play(self, seen: Seen, plan: Plan | bytes) -> None:
        if isinstance(plan, bytes):
            await self._write(seen, plan)
            return
        await self._pause(plan.before_s)
        if plan.has_head:
            head = [f"HTTP/1.1 {plan.status} {_REASONS.get(plan.status, 'Said')}", f"content-type: {plan.content_type}"]
            head += ["transfer-encoding: chunked", *(f"{name}: {value}" for name, value in plan.headers), "", ""]
            await self._write(seen, "\r\n".join(head).encode())
            content = [piece for piece in plan.pieces if piece.kind == "content"]
            again = cycle(content) if plan.repeats and content else iter(())
            for pieces in (plan.pieces, again):
                for piece in pieces:
                    await self._pause(piece.after_s)
                    if piece.data:
                        await self._write(seen, b"%x\r\n%b\r\n" % (len(piece.data), piece.data))
                    if self._transport is None:
                        return
        await self._end(seen, plan)

    async def _end(self, seen: Seen, plan: Plan) -> None:
        match plan.end:
            case "clean":
                await self._write(seen, b"0\r\n\r\n")
            case "cut" if self._transport is not None:
                self._transport.close()
            case "reset":
                await asyncio.sleep(_BEFORE_RESET_S)  # a reset takes with it what was not read
                self.abort()
            case "hang":
                await self._gone.wait()

    async def _write(self, seen: Seen, data: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        self._transport.write(data)
        seen.written_bytes += len(data)
        if seen.closed_at is not None:
            seen.written_after_close_bytes += len(data)
        if not self._can_write.is_set():
            began = time.monotonic()
            await self._can_write.wait()
            seen.blocked_s += time.monotonic() - began
        else:
            await asyncio.sleep(0)  # each piece is a write of its own, and the other side may leave in between

    async def _pause(self, seconds: float) -> None:
        if seconds > 0:
            await asyncio.sleep(seconds)


def _answer_of(status: int, content_type: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status} {_REASONS.get(status, 'Said')}\r\ncontent-type: {content_type}\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


_REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 429: "Too Many Requests"}
_MODELS = msgspec.json.encode(
    {
        "object": "list",
        "data": [{"id": "simulated", "object": "model", "created": 0, "owned_by": "penstock"}],
        "models": [{"name": "simulated", "model": "simulated"}],
    }
)
