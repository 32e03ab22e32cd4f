"""The engine's life, on a scripted one: who waits, who is refused, what is told, and what a crash does to whom."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from penstock.canon.errors import ConfigError, ConnectError, EngineCrashed, EngineOutOfMemory
from penstock.canon.wire import ConnectionLost, HttpRequest
from penstock.telemetry.bus import Bus
from penstock.transport.memory import Break, Hang, MemoryTransport, Pause, Reply
from penstock.worker.app import worker
from penstock.worker.crash import EngineTransport
from penstock.worker.engine import Loaded
from penstock.worker.llamacpp import crashed, reason
from penstock.worker.loading import Backoff, Loading
from tests.worker.test_execute import END, Client, ScriptedEngine, chunk, loaded, started, stopped, types

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from penstock.serving.asgi import App
    from penstock.telemetry.record import CallRecord

SSE = {"content-type": "text/event-stream"}


async def ask(app: App, path: str, body: Any = None, method: str | None = None) -> tuple[int, dict[str, str], bytes]:
    sent: list[Any] = []
    messages = [{"type": "http.request", "body": b"" if body is None else json.dumps(body).encode()}]

    async def receive() -> Any:
        if messages:
            return messages.pop()
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method or ("GET" if body is None else "POST"), "path": path, "headers": []}
    await app({**scope, "query_string": b""}, receive, send)
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], headers, b"".join(message.get("body", b"") for message in sent)


@asynccontextmanager
async def running(app: App) -> AsyncIterator[App]:
    await started(app)
    await asyncio.sleep(0)
    try:
        yield app
    finally:
        await stopped(app)


async def until_status(app: App, status: str) -> None:
    """Asked as anybody would ask: nothing here knows more."""
    while json.loads((await ask(app, "/health"))[2])["status"] != status:  # noqa: ASYNC110
        await asyncio.sleep(0)


CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True}


async def test_health_answers_while_the_model_loads_and_ready_says_how_far_it_is() -> None:
    until = asyncio.Event()
    async with running(worker(ScriptedEngine(until=until), MemoryTransport(Reply()), Bus([]))) as app:
        status, _, body = await ask(app, "/health")
        assert (status, json.loads(body)["status"]) == (200, "loading")
        status, headers, body = await ask(app, "/ready")
        assert (status, int(headers["retry-after"]) >= 1) == (503, True)
        assert json.loads(body) == {
            "status": "loading",
            "model": "m",
            "stage": "reading",
            "bytes_loaded": 1,
            "bytes_total": 2,
            "layers_loaded": 0,
            "layers_total": 1,
        }
        until.set()
        await until_status(app, "ok")
        assert json.loads((await ask(app, "/ready"))[2]) == {"status": "ready", "model": "m"}


async def test_loading_is_told_as_a_stream_that_ends_when_the_model_is_there() -> None:
    until = asyncio.Event()
    async with running(worker(ScriptedEngine(until=until), MemoryTransport(Reply()), Bus([]))) as app:
        watching = asyncio.create_task(ask(app, "/v1/loading"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        until.set()
        status, headers, body = await asyncio.wait_for(watching, 10)
    assert (status, headers["content-type"]) == (200, "text/event-stream")
    frames = [frame.removeprefix(b"data: ") for frame in body.split(b"\n\n") if frame]
    assert frames.pop() == b"[DONE]"
    told = [json.loads(frame) for frame in frames]
    assert [it["status"] for it in told] == ["loading", "ready"]
    assert (told[0]["stage"], told[0]["layers_loaded"], told[0]["layers_total"]) == ("reading", 0, 1)


async def test_who_watches_a_load_does_not_keep_the_worker_from_ending(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.worker.about.LOOK_S", 0.001)
    until = asyncio.Event()
    app = worker(ScriptedEngine(until=until), MemoryTransport(Reply()), Bus([]), heartbeat_s=0.002)
    async with running(app):
        watching = asyncio.create_task(ask(app, "/v1/loading"))
        await asyncio.sleep(0.02)
        assert not watching.done()
        app.running.is_draining = True
        body = (await asyncio.wait_for(watching, 10))[2]
    assert b"[DONE]" not in body
    assert b": keep-alive\n\n" in body


async def test_loading_that_failed_is_told_with_why() -> None:
    async with running(worker(ScriptedEngine(fails=True), MemoryTransport(Reply()), Bus([]))) as app:
        body = (await ask(app, "/v1/loading"))[2]
        assert b'"failed"' in body
        assert b"The model is broken." in body
        assert body.endswith(b"data: [DONE]\n\n")
        assert (await ask(app, "/ready"))[0] == 503


async def test_who_need_not_wait_is_refused_with_the_time_to_come_back() -> None:
    until = asyncio.Event()
    async with running(worker(ScriptedEngine(until=until), MemoryTransport(Reply()), Bus([]), refuses=True)) as app:
        status, headers, body = await ask(app, "/v1/chat/completions", CHAT)
        assert (status, int(headers["retry-after"]) >= 1) == (503, True)
        assert json.loads(body)["error"]["message"] == "The model m is loading."
        for path in ("/v1/execute", "/v1/jobs"):
            status, headers, body = await ask(app, path, {"prompt": "hi"})
            assert (status, int(headers["retry-after"]) >= 1) == (503, True)
            assert json.loads(body)["error"]["code"] == "ENGINE_UNAVAILABLE"
        until.set()


# --- a crash --------------------------------------------------------------------------------------------------------


async def test_c4_a_crash_ends_every_call_in_its_own_error_and_the_engine_is_loaded_again() -> None:
    records: list[CallRecord] = []

    class Kept(Bus):
        def publish(self, record: CallRecord) -> None:
            records.append(record)

    engine = ScriptedEngine()
    asked: list[HttpRequest] = []

    def reply(request: HttpRequest) -> Reply:
        """The engine dies under the first two calls, which run at the same time."""
        asked.append(request)
        if len(asked) == 2:
            engine.crash()
        end = END if len(asked) > 2 else [Pause(0.001), Break()]
        return Reply(headers=SSE, chunks=[chunk({"content": "a"}), *end])

    app = worker(engine, MemoryTransport(reply), Kept([]))
    await loaded(app)
    client = Client(app)
    events, (status, _, body) = await asyncio.gather(
        client.execute(prompt="hi"), ask(app, "/v1/chat/completions", CHAT)
    )
    assert types(events)[-2:] == ["error", "[DONE]"]
    assert (events[-2]["code"], events[-2]["retriable"]) == ("ENGINE_CRASHED", True)
    assert status == 200
    assert b"[DONE]" not in body
    assert b"The engine was killed by its test." in body
    assert {(record.outcome, record.error_type) for record in records} == {("upstream_error", "engine_crashed")}
    assert (await ask(app, "/v1/chat/completions", CHAT))[2].endswith(b"data: [DONE]\n\n")
    assert engine.loads == 2
    await stopped(app)


async def test_a_call_that_comes_after_a_crash_waits_for_the_next_engine() -> None:
    again = asyncio.Event()
    again.set()
    engine = ScriptedEngine(until=again)
    app = worker(engine, MemoryTransport(Reply(headers=SSE, chunks=[chunk({"content": "b"}), *END])), Bus([]))
    await loaded(app)
    again.clear()
    engine.crash()
    await until_status(app, "restarting")
    asking = asyncio.create_task(Client(app).execute(prompt="hi"))
    await asyncio.sleep(0)
    assert not asking.done()
    again.set()
    assert types(await asyncio.wait_for(asking, 10))[-2:] == ["end", "[DONE]"]
    await stopped(app)


def test_an_engine_that_goes_on_crashing_is_started_ever_later() -> None:
    backoff = Backoff()
    assert [backoff.after(1.0) for _ in range(9)] == [0, 0.5, 1, 2, 4, 8, 16, 30, 30]
    assert [backoff.after(100.0), backoff.after(1.0)] == [0, 0.5]


async def test_a_connection_that_breaks_while_the_engine_lives_is_no_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.worker.loading.REASON_S", 0.0)
    life: asyncio.Future[EngineCrashed] = asyncio.get_running_loop().create_future()
    transport = EngineTransport(MemoryTransport(Reply(chunks=[b"a", Break()])), lambda: life)
    response = await transport.open(HttpRequest("GET", "http://engine/"))
    assert await response.read() == b"a"
    with pytest.raises(ConnectionLost) as raised:
        await response.read()
    assert raised.value.reason is None


async def test_a_connection_that_the_engine_does_not_take_any_more_is_its_crash() -> None:
    life: asyncio.Future[EngineCrashed] = asyncio.get_running_loop().create_future()
    life.set_result(EngineOutOfMemory("m", fix="f"))

    class Refusing(MemoryTransport):
        async def open(self, request: HttpRequest, *, connect_s: float | None = None) -> Any:
            raise ConnectError("refused")

    with pytest.raises(EngineOutOfMemory) as raised:
        await EngineTransport(Refusing(Reply()), lambda: life).open(HttpRequest("GET", "http://engine/"))
    assert raised.value is not life.result()
    with pytest.raises(ConnectError):
        await EngineTransport(Refusing(Reply()), lambda: None).open(HttpRequest("GET", "http://engine/"))


async def test_a_response_that_was_given_up_does_not_wait_for_a_reason() -> None:
    life: asyncio.Future[EngineCrashed] = asyncio.get_running_loop().create_future()
    transport = EngineTransport(MemoryTransport(Reply(chunks=[b"a", Hang()])), lambda: life)
    response = await transport.open(HttpRequest("GET", "http://engine/"))
    await response.read()
    response.abort()
    with pytest.raises(ConnectionLost):
        await response.read()


@pytest.mark.parametrize(
    ("code", "kills", "kind", "said"),
    [
        (-9, (3, 4), EngineOutOfMemory, "The system killed the engine, because memory had run out."),
        (-9, (3, 3), EngineCrashed, "The engine was killed by SIGKILL."),
        (-9, (None, None), EngineCrashed, "The engine was killed by SIGKILL."),
        (-6, (3, 4), EngineCrashed, "The engine was killed by SIGABRT."),
        (1, (3, 3), EngineCrashed, "The engine ended with 1."),
    ],
)
def test_why_an_engine_is_gone_is_told_by_its_exit(code: int, kills: Any, kind: type, said: str) -> None:
    error = crashed(code, *kills)
    assert type(error) is kind
    assert error.message == said


def test_a_crash_while_it_loads_is_not_told_to_be_asked_again() -> None:
    error = crashed(-6, 0, 0, while_loading=True)
    assert str(error) == (
        "The engine was killed by SIGABRT while it loaded the model. The file may be damaged, or memory short."
    )


def test_the_reason_of_a_load_that_failed_is_llama_cpps_own() -> None:
    said = [
        "0.00.001.897 I srv          init: build_info",
        "0.00.004.349 E llama_model_load: error loading model: unknown model architecture: 'x'",
        "0.00.004.372 E llama_model_load_from_file_impl: failed to load model",
    ]
    assert reason(said) == "unknown model architecture: 'x'"
    assert reason(said[2:]) == "failed to load model"
    assert reason([]) == "it does not say why"


async def test_who_is_refused_is_told_how_long_the_rest_takes() -> None:
    now = 0.0
    loading = Loading(ScriptedEngine(), lambda error: None, now=lambda: now)
    assert loading.retry_after_s() == 2
    now = 10.0
    loading.loaded = Loaded("reading", 25, 100)
    assert loading.retry_after_s() == 30
    loading.loaded = Loaded("reading", 1, 100)
    assert loading.retry_after_s() == 60


async def test_a_load_that_fails_after_a_crash_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.worker.loading.FIRST_PAUSE_S", 0.0)

    class Failing(ScriptedEngine):
        async def load(self, tell: Any) -> Any:
            target = await super().load(tell)
            if self.loads in (2, 3):
                raise ConfigError("There is no memory now.")
            return target

    engine = Failing()
    loading = Loading(engine, lambda error: pytest.fail("it had been loaded once"))
    loading.start()
    await loading.ready()
    engine.crash()
    while engine.loads < 4:
        await asyncio.wait_for(loading.changed.wait(), 10)
    await loading.ready()
    assert loading.restarts == 3
    await loading.stop()
