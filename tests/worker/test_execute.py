"""The whole worker over a scripted engine: what `/v1/execute` says while it loads, thinks and ends."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from penstock.canon.errors import ConfigError, EngineCrashed, PenstockError
from penstock.canon.target import Target
from penstock.telemetry.bus import Bus
from penstock.transport.memory import Break, Hang, MemoryTransport, Pause, Reply
from penstock.worker.app import worker
from penstock.worker.engine import Loaded

if TYPE_CHECKING:
    from penstock.serving.asgi import App
    from penstock.worker.engine import Tell


def chunk(delta: dict[str, Any], finish: str | None = None, **extra: Any) -> bytes:
    body = {"id": "c", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **extra}
    return b"data: " + json.dumps(body).encode() + b"\n\n"


PROGRESS = chunk({"role": "assistant"}, prompt_progress={"processed": 1, "total": 2})
END = [chunk({}, "stop"), b"data: [DONE]\n\n"]


class ScriptedEngine:
    """An engine whose load takes as long as its test wants, and which ends when its test says so."""

    model = "m"
    slots = 2
    embeds: int | None = None

    def __init__(self, *, fails: bool = False, until: asyncio.Event | None = None) -> None:
        self._fails = fails
        self._until = until
        self._crashed = asyncio.Event()
        self.loads = 0

    async def load(self, tell: Tell) -> Target:
        self.loads += 1
        tell(Loaded("reading", 1, 2, 0, 1))
        if self._until is not None:
            await self._until.wait()
        if self._fails:
            raise ConfigError("The model is broken.")
        return Target("engine", "http://engine/v1", "openai-chat", profile=None)

    def crash(self) -> None:
        self._crashed.set()

    async def ended(self) -> EngineCrashed:
        await self._crashed.wait()
        self._crashed.clear()
        return EngineCrashed("The engine was killed by its test.")

    async def stop(self) -> None:
        pass

    def about(self) -> dict[str, Any]:
        return {"model": self.model}


class Client:
    """One ASGI client: what it was sent, and a way to leave."""

    def __init__(self, app: App) -> None:
        self._app = app
        self.sent: list[dict[str, Any]] = []
        self.left = asyncio.Event()
        self.changed = asyncio.Event()

    async def execute(self, **body: Any) -> list[Any]:
        asked = False

        async def receive() -> dict[str, Any]:
            nonlocal asked
            if not asked:
                asked = True
                return {"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}
            await self.left.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            self.sent.append(message)
            self.changed.set()

        scope = {"type": "http", "method": "POST", "path": "/v1/execute", "headers": []}
        await self._app(scope, receive, send)
        return self.events()

    def events(self) -> list[Any]:
        body = b"".join(message.get("body", b"") for message in self.sent)
        frames = [frame[6:] for frame in body.split(b"\n\n") if frame.startswith(b"data: ")]
        return ["[DONE]" if frame == b"[DONE]" else json.loads(frame) for frame in frames]


async def started(app: App) -> None:
    assert app._startup is not None
    await app._startup()


async def loaded(app: App) -> None:
    """Started, and its model there: asked as anybody would ask."""
    await started(app)
    status = b""
    while b'"ok"' not in status:
        sent: list[Any] = []

        async def send(message: Any, sent: list[Any] = sent) -> None:
            sent.append(message)

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b""}

        await app({"type": "http", "method": "GET", "path": "/health", "headers": []}, receive, send)
        status = sent[-1]["body"]
        await asyncio.sleep(0)


async def stopped(app: App) -> None:
    assert app._shutdown is not None
    await app._shutdown()


async def executed(*chunks: Any, engine: ScriptedEngine | None = None, **options: Any) -> list[Any]:
    reply = Reply(headers={"content-type": "text/event-stream"}, chunks=chunks)
    app = worker(engine or ScriptedEngine(), MemoryTransport(reply), Bus([]), **options)
    await loaded(app)
    try:
        return await asyncio.wait_for(Client(app).execute(prompt="hi"), 10)
    finally:
        await stopped(app)


def types(events: list[Any]) -> list[str]:
    return [event if event == "[DONE]" else event["type"] for event in events]


async def test_c5_narration_comes_before_the_first_token_and_not_after_it() -> None:
    events = await executed(PROGRESS, Pause(0.01), chunk({"content": "a"}), PROGRESS, chunk({"content": "b"}), *END)
    kinds = types(events)
    assert kinds.index("narration") < kinds.index("token")
    assert "narration" not in kinds[kinds.index("token") :]
    assert [event["t"] for event in events[:-1] if event["type"] == "token"] == ["a", "b"]


async def test_c5_a_flood_of_narration_is_bounded_and_changes_no_token() -> None:
    events = await executed(*[PROGRESS * 50] * 40, chunk({"content": "a"}), *END)
    kinds = types(events)
    told = [event for event in events[:-1] if event["type"] == "narration" and event["stage"] == "prompt"]
    assert len(told) <= 40  # one per read at the most
    assert kinds[-4:] == ["token", "metrics", "end", "[DONE]"]


async def test_c5_no_token_waits_for_narration_that_goes_on() -> None:
    """It never ends here, and the tokens are there all the same."""
    reply = Reply(
        headers={"content-type": "text/event-stream"},
        chunks=[PROGRESS, chunk({"content": "a"}), PROGRESS, chunk({"content": "b"}), PROGRESS, Hang()],
    )
    app = worker(ScriptedEngine(), MemoryTransport(reply), Bus([]))
    await loaded(app)
    client = Client(app)
    executing = asyncio.create_task(client.execute(prompt="hi"))
    try:
        async with asyncio.timeout(5):
            while types(client.events()).count("token") < 2:
                client.changed.clear()
                await client.changed.wait()
    finally:
        client.left.set()
        await asyncio.wait_for(executing, 10)
        await stopped(app)


async def test_c5_a_reply_without_narration_is_the_same() -> None:
    assert types(await executed(chunk({"content": "a"}), *END)) == ["started", "token", "metrics", "end", "[DONE]"]


async def test_c4_a_cut_reply_ends_in_one_error() -> None:
    kinds = types(await executed(chunk({"content": "a"}), Break()))
    assert kinds == ["started", "token", "error", "[DONE]"]


async def test_c4_an_engine_error_ends_in_one_error() -> None:
    error = b'data: {"error":{"message":"no memory","type":"server_error","code":500}}\n\n'
    events = await executed(chunk({"content": "a"}), error, *END)
    assert types(events) == ["started", "token", "error", "[DONE]"]
    assert events[2]["message"] == "no memory"
    assert events[2]["retriable"] is True


async def test_started_comes_while_the_model_still_loads() -> None:
    loaded = asyncio.Event()
    engine = ScriptedEngine(until=loaded)
    reply = Reply(headers={"content-type": "text/event-stream"}, chunks=[chunk({"content": "a"}), *END])
    app = worker(engine, MemoryTransport(reply), Bus([]))
    await started(app)
    client = Client(app)
    asking = asyncio.create_task(client.execute(prompt="hi"))
    while "narration" not in types(client.events()):
        client.changed.clear()
        await asyncio.wait_for(client.changed.wait(), 10)
    assert types(client.events()) == ["started", "narration"]
    assert client.events()[1]["stage"] == "loading"
    loaded.set()
    assert types(await asyncio.wait_for(asking, 10))[2:] == ["token", "metrics", "end", "[DONE]"]
    await stopped(app)


async def test_a_model_that_cannot_be_loaded_ends_the_worker_and_every_job() -> None:
    until = asyncio.Event()
    app = worker(ScriptedEngine(fails=True, until=until), MemoryTransport(Reply()), Bus([]))
    ended: list[PenstockError | None] = []
    app.on_failure = lambda: ended.append(app.failure)
    await started(app)
    client = Client(app)
    asking = asyncio.create_task(client.execute(prompt="hi"))
    while "started" not in types(client.events()):
        client.changed.clear()
        await asyncio.wait_for(client.changed.wait(), 10)
    until.set()
    assert types(await asyncio.wait_for(asking, 10))[-2:] == ["error", "[DONE]"]
    late = Client(app)
    await late.execute(prompt="hi")
    assert late.sent[0]["status"] == 503
    assert [str(error) for error in ended] == ["The model is broken."]
    await stopped(app)


async def test_c7_a_client_that_leaves_closes_the_engines_connection() -> None:
    transport = MemoryTransport(
        Reply(headers={"content-type": "text/event-stream"}, chunks=[chunk({"content": "a"}), Hang()])
    )
    app = worker(ScriptedEngine(), transport, Bus([]))
    await loaded(app)
    client = Client(app)
    asking = asyncio.create_task(client.execute(prompt="hi"))
    while "token" not in types(client.events()):
        client.changed.clear()
        await asyncio.wait_for(client.changed.wait(), 10)
    client.left.set()
    await asyncio.wait_for(asking, 10)
    assert "end" not in types(client.events())
    await stopped(app)


@pytest.mark.parametrize("pause_s", [0.02])
async def test_heartbeats_while_the_engine_thinks(pause_s: float) -> None:
    reply = Reply(
        headers={"content-type": "text/event-stream"}, chunks=[Pause(pause_s * 4), chunk({"content": "a"}), *END]
    )
    app = worker(ScriptedEngine(), MemoryTransport(reply), Bus([]), heartbeat_s=pause_s)
    await loaded(app)
    client = Client(app)
    await client.execute(prompt="hi")
    body = b"".join(message.get("body", b"") for message in client.sent)
    assert b": keep-alive\n\n" in body.partition(b'"token"')[0]
    await stopped(app)
