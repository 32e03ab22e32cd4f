"""The worker's routes over a scripted engine, on virtual time: what each client read, and when."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from penstock.canon.target import Target
from penstock.policy.limits import Limits, Quota, Rules
from penstock.policy.upstream import upstream
from penstock.serving.asgi import App
from penstock.serving.paths import dialect_of_path
from penstock.streams.clocks import Timeouts
from penstock.streams.handler import compose
from penstock.telemetry.recorder import recorded
from penstock.transport.memory import MemoryTransport, Pause, Reply
from penstock.worker.job_routes import job_routes
from penstock.worker.jobs import Jobs
from penstock.worker.narration import acquired
from tests.virtual_clock import START, now

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from penstock.streams.handler import Call, Handler, Layer
    from penstock.streams.stream import EventStream
    from penstock.telemetry.record import CallRecord
    from penstock.transport.memory import Script, Step

UNLIMITED = Timeouts(None, None, None, None, None, None)


def chunk(delta: dict[str, Any], finish: str | None = None, **extra: Any) -> bytes:
    body = {"id": "c", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **extra}
    return b"data: " + json.dumps(body).encode() + b"\n\n"


def token(text: str) -> bytes:
    return chunk({"content": text})


def progress(done: int, total: int) -> bytes:
    return chunk({"role": "assistant"}, prompt_progress={"processed": done, "total": total})


END = (chunk({}, "stop"), b"data: [DONE]\n\n")


def reply(*steps: Step) -> Reply:
    return Reply(headers={"content-type": "text/event-stream"}, chunks=steps)


def paced(words: Sequence[str], every_s: float = 0.1, ending: Sequence[Step] = END) -> Reply:
    """A token each `every_s`, then the ending."""
    steps: list[Step] = []
    for word in words:
        steps += [Pause(every_s), token(word)]
    return reply(*steps, *ending)


@asynccontextmanager
async def _at(call: Call, inner: Handler) -> AsyncIterator[EventStream]:
    call.target = Target("engine", "http://engine/v1", "openai-chat")
    async with inner(call) as stream:
        yield stream


class Bench:
    """The worker's own routes before an engine that plays `script`. `layers` stand behind the line for a slot."""

    def __init__(
        self,
        script: Script,
        *layers: Layer,
        slots: int = 2,
        queue: int = 8,
        heartbeat_s: float | None = None,
        **kept: Any,
    ) -> None:
        self.transport = MemoryTransport(script)
        self.records: list[CallRecord] = []
        self.limits = Limits(Rules(Quota(concurrency=slots), queue, None), whole="The engine", now=now)
        self.handler = compose(
            upstream(self.transport, UNLIMITED),
            recorded(self.records.append),
            self.limits.admitted,
            acquired,
            *layers,
            lambda inner: lambda call: _at(call, inner),
        )
        self.jobs = Jobs(self.handler, **kept)
        routes = job_routes("m", self.jobs, max_body_bytes=1 << 20, heartbeat_s=heartbeat_s, now=now)
        self.app = App(routes, dialect_of=dialect_of_path)

    @property
    def busy(self) -> int:
        return self.limits.gates[0][2].busy

    def client(self, *, connected: bool = False) -> Client:
        return Client(self.app, connected=connected)

    async def ask(self, method: str, path: str, body: Any = None) -> Client:
        client = self.client()
        await client.ask(method, path, body)
        return client

    async def submit(self, **body: Any) -> str:
        answered = await self.ask("POST", "/v1/jobs", {"prompt": "hi", **body})
        assert answered.status == 202, answered.body
        return str(answered.json["job_id"])

    def listen(self, job_id: str, **options: Any) -> Client:
        """A reader, in a task of its own."""
        client = self.client(**options)
        client.begin("GET", f"/v1/jobs/{job_id}/stream")
        return client

    async def stop(self) -> None:
        await self.jobs.stop()
        await self.transport.aclose()


class _Connection:
    """As `serving.connection.Connection`: takes what it is given while its client reads."""

    is_cut = False
    write_s: float | None = None

    def __init__(self, client: Client) -> None:
        self._client = client
        self.gone: Any = None

    def when_gone(self, gone: Any) -> None:
        self.gone = gone

    def hold_head(self) -> None:
        pass

    def write_chunk(self, data: bytes) -> bool:
        if not self._client.reads.is_set():
            return False
        self._client.got(data)
        return True


class Client:
    """One ASGI client. `pieces` is each piece of the body with its moment; while `reads` is not set, writes wait."""

    def __init__(self, app: App, *, connected: bool = False) -> None:
        self._app = app
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.pieces: list[tuple[float, bytes]] = []
        self.reads = asyncio.Event()
        self.reads.set()
        self.task: asyncio.Task[None] | None = None
        self._left = asyncio.Event()
        self._connection = _Connection(self) if connected else None
        self._writing = False

    def got(self, data: bytes) -> None:
        assert not self._writing, "two writers at once"
        self.pieces.append((round(now() - START, 3), data))

    async def ask(self, method: str, path: str, body: Any = None) -> None:
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        waiting = [{"type": "http.request", "body": data, "more_body": False}]

        async def receive() -> dict[str, Any]:
            if waiting:
                return waiting.pop()
            await self._left.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                self.status, self.headers = message["status"], dict(message["headers"])
                return
            if message["body"]:
                self.got(message["body"])
            self._writing = True
            try:
                await self.reads.wait()
            finally:
                self._writing = False

        scope: dict[str, Any] = {"type": "http", "method": method, "path": path, "headers": [], "query_string": b""}
        if self._connection is not None:
            scope["penstock.connection"] = self._connection
        await self._app(scope, receive, send)

    def begin(self, method: str, path: str, body: Any = None) -> None:
        self.task = asyncio.get_running_loop().create_task(self.ask(method, path, body))

    async def ended(self) -> list[Any]:
        """All that it read, once its answer is over."""
        assert self.task is not None
        await self.task
        return self.events

    def leave(self) -> None:
        self._left.set()
        if self._connection is not None and self._connection.gone is not None:
            self._connection.gone()

    # --- what it read -------------------------------------------------------------------------------------------------

    @property
    def body(self) -> bytes:
        return b"".join(piece for _, piece in self.pieces)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        return events_of(self.body)

    @property
    def kinds(self) -> list[str]:
        return kinds_of(self.events)

    @property
    def text(self) -> str:
        tokens = [event for event in self.events if event != "[DONE]" and event["type"] == "token"]
        assert [event["i"] for event in tokens] == list(range(len(tokens)))
        return "".join(event["t"] for event in tokens)

    def of(self, kind: str) -> list[Any]:
        return [event for event in self.events if event != "[DONE]" and event["type"] == kind]

    def moments(self, kind: str) -> list[float]:
        """When each event of this kind came."""
        return [at for at, piece in self.pieces for event in events_of(piece) if kind in kinds_of([event])]


def events_of(data: bytes) -> list[Any]:
    frames = [frame.removeprefix(b"data: ") for frame in data.split(b"\n\n") if frame.startswith(b"data: ")]
    return ["[DONE]" if frame == b"[DONE]" else json.loads(frame) for frame in frames]


def kinds_of(events: list[Any]) -> list[str]:
    return [event if event == "[DONE]" else event["type"] for event in events]
