"""The loop of a model and its tools, over real sockets; its clocks on virtual time."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from typing import TYPE_CHECKING, Any, cast

import pytest

import penstock
from penstock.canon.events import Event
from penstock.canon.request import Message
from penstock.canon.response import Ending, Response
from penstock.client.request import read_functions
from penstock.client.tool_loop import Limits, ToolRun, run_loop
from penstock.testing import Call, Counts, Pace, Reply, Turns, Upstream
from tests.gateway import frames
from tests.scripted_upstream import Exchange, ScriptedUpstream
from tests.virtual_clock import now, on_virtual_time

if TYPE_CHECKING:
    from collections.abc import Callable

DIALECTS = ["openai-chat", "openai-responses", "anthropic-messages", "gemini", "ollama"]


def weather(city: str) -> str:
    """The weather in a city."""
    return {"Paris": "rain", "Rome": "sun"}[city]


def at(upstream: Upstream, dialect: str = "openai-chat") -> dict[str, Any]:
    return {"base_url": upstream.url_for(dialect), "dialect": dialect}


def asks(*cities: str) -> Reply:
    return Reply(text=(), calls=tuple(Call("weather", {"city": city}, id=f"call_{city}") for city in cities))


def results(run: ToolRun, step: int = 0) -> list[tuple[str, bool]]:
    return [(str(ran.result.parts[0].text), ran.result.is_error) for ran in run.steps[step].ran]  # type: ignore[union-attr]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_model_is_asked_until_it_calls_no_more(dialect: str) -> None:
    with Upstream(Turns(asks("Paris", "Rome"), asks("Rome"), Reply(text="Rain and sun."))) as upstream:
        run = penstock.run_tools("here:m", "How is it?", tools=[weather], **at(upstream, dialect))
        assert run.text == "Rain and sun."
        assert [results(run, k) for k in range(3)] == [[("rain", False), ("sun", False)], [("sun", False)], []]
        assert [message.role for message in run.messages] == [
            "user", "assistant", "tool", "assistant", "tool", "assistant",
        ]  # fmt: skip
        assert run.response.finish is not None
        assert run.response.finish.reason == "stop"
        assert len(upstream.seen) == 3
        # the conversation can go on
        penstock.generate("here:m", [*run.messages, "Thanks."], **at(upstream, dialect))


def test_the_wire_has_each_result_after_its_call() -> None:
    with Upstream(Turns(asks("Paris", "Rome"), Reply(text="ok"))) as upstream:
        penstock.run_tools("here:m", "How is it?", tools=[weather], **at(upstream))
        sent = json.loads(upstream.seen[1].body)["messages"]
    assert [(m["role"], m.get("tool_call_id"), m["content"]) for m in sent] == [
        ("user", None, "How is it?"),
        ("assistant", None, None),
        ("tool", "call_Paris", "rain"),
        ("tool", "call_Rome", "sun"),
    ]


def test_the_usage_of_all_rounds_is_added_up() -> None:
    replies = [
        Reply(text=(), calls=(Call("weather", {"city": "Rome"}),), usage=Counts(9, 4)),
        Reply(usage=Counts(5, 1)),
    ]
    with Upstream(Turns(*replies)) as upstream:
        usage = penstock.run_tools("here:m", "?", tools=[weather], **at(upstream)).usage
    assert usage is not None
    assert (usage.input, usage.output, usage.total) == (14, 5, 19)


def test_what_goes_wrong_with_a_call_is_told_to_the_model() -> None:
    def broken() -> None:
        raise KeyError("nothing here")

    async def quits() -> None:
        raise asyncio.CancelledError

    calls = (
        Call("weathr", {"city": "Rome"}),
        Call("weather", {"town": "Rome"}),
        Call("weather", '{"city":'),
        Call("broken"),
        Call("quits"),
        Call("weather", {"city": "Rome"}),
    )
    with Upstream(Turns(Reply(text=(), calls=calls), Reply(text="Sorry."))) as upstream:
        run = penstock.run_tools("here:m", "?", tools=[weather, broken, quits], **at(upstream))
        sent = json.loads(upstream.seen[1].body)["messages"]
    assert [is_error for _, is_error in results(run)] == [True, True, True, True, True, False]
    said = [text for text, _ in results(run)]
    assert said[0] == "There is no tool `weathr`. There are: weather, broken, quits."
    assert said[1].startswith("The arguments do not fit: Object")
    assert "not valid JSON" in said[2]
    assert said[3] == "KeyError: 'nothing here'"
    assert said[4] == "RuntimeError: The tool was cancelled."
    assert isinstance(run.steps[0].ran[3].error, KeyError)
    assert [message["content"] for message in sent[2:]] == [*(f"Error: {text}" for text in said[:5]), "sun"]


async def test_calls_run_at_once_and_results_keep_the_order_of_the_calls() -> None:
    running: list[str] = []
    both = asyncio.Event()
    ended: list[str] = []

    async def meet(city: str) -> str:
        running.append(city)
        if len(running) == 3:
            both.set()
        await asyncio.wait_for(both.wait(), 5)
        await asyncio.sleep({"a": 0.03, "b": 0.01, "c": 0.0}[city])
        ended.append(city)
        return city

    calls = tuple(Call("meet", {"city": city}) for city in "abc")
    with Upstream(Turns(Reply(text=(), calls=calls), Reply(text="ok"))) as upstream:
        run = await penstock.arun_tools("here:m", "?", tools=[meet], **at(upstream))
    assert [text for text, _ in results(run)] == ["a", "b", "c"]
    assert ended == ["c", "b", "a"]


def test_an_endless_loop_ends_at_its_limit() -> None:
    with Upstream(asks("Rome")) as upstream:
        with pytest.raises(penstock.ToolLimit, match=r"asked 3 times.*max_rounds") as caught:
            penstock.run_tools("here:m", "?", tools=[weather], max_rounds=3, **at(upstream))
        assert len(upstream.seen) == 3
    run = caught.value.run
    assert caught.value.limit == "rounds"
    assert [len(step.ran) for step in run.steps] == [1, 1, 0]  # what would not be read is not run
    assert [message.role for message in run.messages] == ["user", "assistant", "tool", "assistant", "tool"]


@pytest.mark.parametrize("choice", ["weather", "any"])
def test_a_forced_call_is_forced_once(choice: str) -> None:
    with Upstream(Turns(asks("Rome"), Reply(text="ok"))) as upstream:
        penstock.run_tools("here:m", "?", tools=[weather], tool_choice=choice, **at(upstream))
        forced = [json.loads(seen.body)["tool_choice"] for seen in upstream.seen]
    assert forced[0] != "auto"
    assert forced[1] == "auto"


def test_a_call_that_the_limit_cut_is_not_run() -> None:
    called: list[str] = []

    def wipe(what: str = "everything") -> str:
        called.append(what)
        return what

    cut = Reply(text=(), calls=(Call("wipe", {"what": "x"}), Call("wipe", "")), finish="length")
    with Upstream(Turns(cut, Reply(text="ok"))) as upstream:
        run = penstock.run_tools("here:m", "?", tools=[wipe], **at(upstream))
    assert called == ["x"]
    assert results(run)[0] == ("x", False)
    assert results(run)[1][1] is True
    assert "limit inside this call" in results(run)[1][0]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tools": []}, "Pass tools"),
        ({"tools": [penstock.Tool("look")]}, "`look` has no function.* Pass the function"),
        ({"tools": [weather], "max_rounds": 0}, "`max_rounds` is 0.* above 0"),
        ({"tools": [weather], "tool_timeout": -1}, "`tool_timeout` is -1"),
        ({"tools": [weather], "max_round": 1}, "Did you mean `max_rounds`"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_sent(options: Any, said: str) -> None:
    with pytest.raises(penstock.InvalidRequest, match=said):
        penstock.run_tools("here:m", "?", base_url="http://127.0.0.1:9/v1", **options)


def test_an_error_of_the_models_is_raised() -> None:
    with (
        Upstream(Turns(asks("Rome"), Reply(faults=("cut-after-1",)))) as upstream,
        pytest.raises(penstock.Truncated),
    ):
        penstock.run_tools("here:m", "?", tools=[weather], **at(upstream))


def test_events_of_every_round_and_of_the_tools_between() -> None:
    events: list[Event] = []
    with Upstream(Turns(asks("Rome"), Reply(text="Sun."))) as upstream:
        penstock.run_tools("here:m", "?", tools=[weather], on_event=events.append, **at(upstream))
    kinds = [type(event).__name__ for event in events]
    assert kinds.count("Start") == kinds.count("Finish") == 2
    assert [event for event in events if isinstance(event, penstock.Progress)] == [
        penstock.Progress("tools", 0, 1, "weather"),
        penstock.Progress("tools", 1, 1, None),
    ]


async def test_a_callback_that_nothing_would_await_is_refused() -> None:
    async def tell(event: Event) -> None: ...

    with pytest.raises(penstock.ConfigError, match="on_event is a coroutine function"):
        await penstock.arun_tools(
            "here:m", "?", tools=[weather], on_event=cast("Any", tell), base_url="http://x.example"
        )


# --- connections -----------------------------------------------------------------------------------------------------


async def test_no_connection_is_held_while_tools_run_and_the_next_request_takes_it_again() -> None:
    held: list[tuple[int, int]] = []
    async with penstock.Client() as client:
        transport = client._kept[asyncio.get_running_loop()]

        async def look() -> str:
            for _ in range(5000):  # the body's last bytes may still be on their way
                if transport.idle_connections:
                    break
                await asyncio.sleep(0.001)
            held.append((transport.open_connections, transport.idle_connections))
            return "x"

        with Upstream(Turns(Reply(text=(), calls=(Call("look"),)), Reply(text="ok"))) as upstream:
            await client.arun_tools("here:m", "?", tools=[look], **at(upstream))
        assert held == [(1, 1)]


@pytest.mark.parametrize("pause_s", [0.0, 0.05], ids=["noticed-late", "noticed"])
async def test_a_connection_that_died_while_a_tool_ran_costs_nothing(pause_s: float) -> None:
    """The upstream closes what is idle; the request after a tool goes out on a new connection, once."""
    upstream = ScriptedUpstream()
    connections: list[socket.socket] = []

    def script(exchange: Exchange) -> None:
        connections.append(exchange.connection)
        exchange.begin()
        exchange.chunk(CALLING if len(connections) == 1 else frames.whole("openai-chat", "Done"))
        exchange.end()

    async def slow() -> str:
        connections[0].shutdown(socket.SHUT_RDWR)
        await asyncio.sleep(pause_s)
        return "x"

    upstream.script = script
    try:
        run = await penstock.Client(upstreams={"u": upstream.url}).arun_tools("u:m", "?", tools=[slow])
    finally:
        upstream.close()
    assert run.text == "Done"
    assert len(upstream.executions) == 2
    assert connections[0] is not connections[1]


CALLING = (
    b'data: {"id":"c","model":"m","choices":[{"index":0,"delta":{"role":"assistant","tool_calls":[{"index":0,"id":"c1",'
    b'"type":"function","function":{"name":"slow","arguments":"{}"}}]}}]}\n\n'
    b'data: {"id":"c","model":"m","choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}\n\n'
    b"data: [DONE]\n\n"
)


async def test_c7_cancelling_the_loop_closes_a_reply_that_is_still_coming() -> None:
    with Upstream(Turns(asks("Rome"), Reply(faults=("endless",), pace=Pace(fixed=0.01)))) as upstream:
        task = asyncio.create_task(penstock.arun_tools("here:m", "?", tools=[weather], **at(upstream)))
        seen = await asyncio.to_thread(upstream.wait_for, 2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.to_thread(seen.wait_over)
        assert seen.closed_at is not None


# --- clocks, on virtual time -----------------------------------------------------------------------------------------


def calls(*names: str) -> Response:
    parts = tuple(penstock.ToolCall(f"c{k}", name, "{}", {}) for k, name in enumerate(names))
    return Response(parts=parts, finish=Ending("tool_calls"))


DONE = Response(parts=(penstock.Text("done"),), finish=Ending("stop"))


async def looped(
    *replies: Response, tools: list[Any], on_event: Callable[[Any], None] | None = None, **limits: Any
) -> ToolRun:
    """The loop alone, its model a list of replies."""
    waiting = list(replies)

    async def ask(conversation: tuple[Message, ...], is_first: bool) -> Response:
        return waiting.pop(0)

    messages = (Message.of("user", "?"),)
    return await run_loop(ask, messages, read_functions(tools), Limits(**limits), on_event)


@on_virtual_time
async def test_a_tool_that_hangs_is_cut_by_its_timeout() -> None:
    ended: list[float] = []

    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(now())

    @penstock.tool(timeout=5)
    async def patient() -> None:
        await asyncio.sleep(100)

    began = now()
    run = await looped(calls("hang", "patient"), DONE, tools=[hang, patient], tool_timeout=60)
    assert results(run) == [
        ("The tool gave no result within 60 s.", True),
        ("The tool gave no result within 5 s.", True),
    ]
    assert ended == [began + 60]
    assert now() == began + 60


@on_virtual_time
async def test_a_tool_that_will_not_be_cancelled_is_left_to_itself() -> None:
    freed = asyncio.Event()

    async def stubborn() -> None:
        while not freed.is_set():
            try:
                await freed.wait()
            except asyncio.CancelledError:
                continue

    began = now()
    run = await looped(calls("stubborn"), DONE, tools=[stubborn], tool_timeout=60)
    assert results(run)[0][1] is True
    assert now() <= began + 62
    freed.set()
    await asyncio.sleep(0)


@on_virtual_time
async def test_the_whole_has_its_timeout_and_what_was_done_is_kept() -> None:
    ended: list[str] = []

    async def slow() -> str:
        try:
            await asyncio.sleep(40)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise
        return "x"

    with pytest.raises(penstock.ToolLimit, match=r"within 100 s.*Raise timeout") as caught:
        await looped(*[calls("slow")] * 9, tools=[slow], timeout=100)
    assert caught.value.limit == "time"
    assert len(caught.value.run.steps) == 2
    assert caught.value.run.messages[-1].role == "tool"
    assert ended == ["cancelled"]


@on_virtual_time
async def test_a_timeout_of_the_callers_own_is_not_taken_for_ours() -> None:
    async def slow() -> None:
        raise TimeoutError("mine")

    run = await looped(calls("slow"), DONE, tools=[slow], timeout=100)
    assert results(run) == [("mine", True)]


@on_virtual_time
async def test_cancelling_ends_the_tools_that_run() -> None:
    state: list[str] = []

    async def slow() -> None:
        state.append("runs")
        try:
            await asyncio.sleep(1000)
        finally:
            state.append("ended")

    task = asyncio.create_task(looped(calls("slow", "slow"), DONE, tools=[slow]))
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert state == ["runs", "runs", "ended", "ended"]
    assert len(asyncio.all_tasks()) == 1


@on_virtual_time
async def test_no_more_run_at_once_than_may() -> None:
    most = 0
    running = 0

    async def work() -> None:
        nonlocal most, running
        running += 1
        most = max(most, running)
        await asyncio.sleep(1)
        running -= 1

    began = now()
    await looped(calls(*["work"] * 7), DONE, tools=[work], concurrency=3)
    assert most == 3
    assert now() == began + 3


@on_virtual_time
async def test_the_time_in_the_line_is_not_a_tools_own() -> None:
    async def work() -> str:
        await asyncio.sleep(9)
        return "x"

    run = await looped(calls("work", "work"), DONE, tools=[work], concurrency=1, tool_timeout=10)
    assert results(run) == [("x", False)] * 2


@on_virtual_time
async def test_while_tools_run_somebody_is_told_so() -> None:
    told: list[tuple[float, Any]] = []
    began = now()

    async def slow() -> None:
        await asyncio.sleep(40)

    async def quick() -> None:
        await asyncio.sleep(1)

    await looped(calls("slow", "quick"), DONE, tools=[slow, quick], on_event=lambda e: told.append((now() - began, e)))
    assert [(when, event.done, event.message) for when, event in told] == [
        (0, 0, "quick, slow"),
        (1, 1, "slow"),
        (16, 1, "slow"),
        (31, 1, "slow"),
        (40, 2, None),
    ]


def test_a_function_in_a_thread_that_hangs_holds_up_nothing() -> None:
    gate = threading.Event()

    def hang() -> None:
        gate.wait(30)

    began = time.monotonic()
    with Upstream(Turns(Reply(text=(), calls=(Call("hang"),)), Reply(text="ok"))) as upstream:
        run = penstock.run_tools("here:m", "?", tools=[hang], tool_timeout=0.05, **at(upstream))
    assert results(run) == [("The tool gave no result within 0.05 s.", True)]
    assert time.monotonic() - began < 10
    gate.set()
