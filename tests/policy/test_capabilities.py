"""What is known of targets: learnt from refusals and replies, believed for a time, and acted on."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from penstock.canon.errors import NotAStream, StatusError, TimedOut, Unsupported
from penstock.canon.request import ChatRequest, Message, Tool
from penstock.canon.response import fold
from penstock.canon.target import Target
from penstock.dialects import client_dialect
from penstock.policy.capabilities import MAX_NAME_CHARS, Capabilities, capable
from penstock.policy.upstream import in_dialect, upstream
from penstock.streams.clocks import Timeouts
from penstock.streams.handler import Attempt, Call, compose
from penstock.transport.memory import Break, Hang, MemoryTransport, Pause, Reply
from tests.streams.replies import DONE, END, HEL, LO, ROLE
from tests.virtual_clock import now, on_virtual_time

if TYPE_CHECKING:
    from collections.abc import Callable

    from penstock.canon.wire import HttpRequest

TARGET = Target("up", "http://127.0.0.1:9/v1", "openai-chat", "m")
HELLO = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
TTL_S = 300.0
LOOK = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}

STREAMED = Reply(headers={"content-type": "text/event-stream"}, chunks=(ROLE, HEL, LO, END + DONE))
WHOLE = Reply(
    headers={"content-type": "application/json"},
    chunks=(b'{"choices":[{"message":{"content":"Hello"},"finish_reason":"stop"}]}',),
)


def refused(param: str | None, code: str | None = "unsupported_parameter", status: int = 400, **more: Any) -> Reply:
    error = {"message": "No.", "type": "invalid_request_error", "param": param, "code": code, **more}
    body = json.dumps({"error": error}).encode()
    return Reply(status=status, headers={"content-type": "application/json"}, chunks=(body,))


def without(*names: str) -> Callable[[HttpRequest], Reply]:
    """A server that refuses these members, one at a time, and streams what is left."""

    def answer(request: HttpRequest) -> Reply:
        body = json.loads(request.body)
        found = next((name for name in names if name in body), None)
        if found is not None:
            return refused(found)
        return STREAMED if body.get("stream") else WHOLE

    return answer


def call(
    dialect: str = "openai-chat", target: Target = TARGET, strict: bool = False, said: Any = None, **fields: Any
) -> Call:
    """A client's call; the same dialect as the target's by default, so that it is forwarded."""
    said = {"model": "m", "messages": HELLO, "stream": True, **(said or {}), **fields}
    if dialect == "anthropic-messages":
        said = {"max_tokens": 9, **said, "messages": HELLO[1:], "system": "Be brief."}
    body = json.dumps({name: value for name, value in said.items() if value is not None}).encode()
    ours = client_dialect(dialect)
    head = ours.read_head(body)
    return Call(
        request_id="r",
        model=head.model,
        stream=head.stream,
        dialect=ours,
        head=head,
        body=body,
        target=target,
        strict=strict,
        now=now,
    )


class Bench:
    """The layer, over a network that plays a script."""

    def __init__(self, script: Any, *, configured: Any = None, timeouts: Timeouts | None = None, **policy: Any) -> None:
        self.known = Capabilities(configured, ttl_s=TTL_S, max_targets=policy.pop("max_targets", 8), now=now)
        self.network = MemoryTransport(script)
        asks = in_dialect()
        self.handler = compose(
            upstream(self.network, timeouts or Timeouts(), asks), capable(self.known, asks, **policy)
        )

    async def ask(self, asked: Call | None = None) -> str:
        asked = asked or call()
        async with self.handler(asked) as stream:
            text = fold([event async for batch in stream for event in batch.events]).text
            assert stream.is_complete
        return text

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(request.body) for request in self.network.requests]

    def lacks(self, model: str = "m") -> set[str]:
        return set(self.known.find(TARGET, model).lacks)


# --- what a refusal teaches ------------------------------------------------------------------------------------------


@on_virtual_time
async def test_c12_a_refused_member_is_left_out_and_the_call_asked_again_once():
    bench, asked = Bench(without("stream_options")), call()
    assert await bench.ask(asked) == "Hello"
    assert ["stream_options" in body for body in bench.bodies] == [True, False]
    assert asked.attempts == [Attempt("up:m", 400, "status", "stream_options", 0.0), Attempt("up:m", 200, took_s=0.0)]
    assert asked.dropped == (), "it was ours"
    assert bench.lacks() == {"stream_options"}
    await bench.ask()
    assert len(bench.bodies) == 3, "and never asked for again"


@on_virtual_time
async def test_what_the_client_asked_for_itself_is_named_when_it_is_left_out():
    bench, asked = Bench(without("stream_options", "seed")), call(stream_options={"include_usage": True}, seed=7)
    assert await bench.ask(asked) == "Hello"
    assert set(asked.dropped) == {"stream_options", "seed"}
    assert [attempt.learnt for attempt in asked.attempts] == ["stream_options", "seed", None]


@on_virtual_time
@pytest.mark.parametrize("ours", ["max_tokens", "max_completion_tokens"])
async def test_a_limit_has_two_names(ours: str):
    theirs = {"max_tokens": "max_completion_tokens"}.get(ours, "max_tokens")
    bench, asked = Bench(without(ours)), call(said={ours: 9})
    assert await bench.ask(asked) == "Hello"
    assert (bench.bodies[1][theirs], asked.dropped) == (9, ())
    both = call(max_tokens=9, max_completion_tokens=9)
    await bench.ask(both)
    assert ours not in bench.bodies[2]
    assert bench.bodies[2][theirs] == 9


@on_virtual_time
async def test_a_limit_that_has_no_name_there_is_not_lost():
    bench = Bench(without("max_tokens", "max_completion_tokens"))
    with pytest.raises(StatusError) as raised:
        await bench.ask(call(max_tokens=9))
    assert raised.value.param == "max_completion_tokens"
    assert len(bench.bodies) == 2


@on_virtual_time
async def test_a_translated_call_learns_the_same():
    bench, asked = Bench(without("max_tokens", "temperature")), call("anthropic-messages", temperature=0.5)
    assert await bench.ask(asked) == "Hello"
    assert (bench.bodies[-1]["max_completion_tokens"], asked.dropped) == (9, ("temperature",))


@on_virtual_time
async def test_strict_leaves_nothing_out_and_still_says_it_in_another_way():
    bench = Bench(without("seed", "max_tokens"))
    asked = call(strict=True, seed=7)
    with pytest.raises(StatusError):
        await bench.ask(asked)
    assert len(asked.attempts) == 1
    assert await bench.ask(call(strict=True, max_tokens=9)) == "Hello"
    assert await bench.ask(call(strict=True)) == "Hello"
    with pytest.raises(StatusError):
        await bench.ask(call(strict=True, seed=7))


def with_roles(*known: str) -> Callable[[HttpRequest], Reply]:
    def answer(request: HttpRequest) -> Reply:
        for number, message in enumerate(json.loads(request.body)["messages"]):
            if message["role"] not in known:
                return refused(f"messages[{number}].role", "unsupported_value")
        return STREAMED

    return answer


@on_virtual_time
async def test_a_role_that_a_server_does_not_know_is_said_by_the_other():
    bench = Bench(with_roles("user", "developer"))
    await bench.ask()
    assert bench.bodies[-1]["messages"] == [{"role": "developer", "content": "Be brief."}, HELLO[1]]
    bench = Bench(with_roles("user", "system", "assistant"))
    await bench.ask(call(messages=[{"role": "developer", "content": "Be brief."}, *HELLO]))
    assert [message["role"] for message in bench.bodies[-1]["messages"]] == ["system", "system", "user"]


@on_virtual_time
async def test_a_server_that_knows_neither_role_hears_it_at_the_beginning_of_the_users_turn():
    bench, asked = Bench(with_roles("user", "assistant")), call()
    assert await bench.ask(asked) == "Hello"
    assert bench.bodies[-1]["messages"] == [{"role": "user", "content": "Be brief.\n\nHi"}]
    assert [attempt.learnt for attempt in asked.attempts] == ["system", "developer", None]
    parts = [{"type": "text", "text": "Look"}, {"type": "image_url", "image_url": {"url": "data:,"}}]
    await bench.ask(call(messages=[HELLO[0], HELLO[0], {"role": "user", "content": parts}]))
    (turn,) = bench.bodies[-1]["messages"]
    assert turn["content"] == [{"type": "text", "text": "Be brief.\n\nBe brief."}, *parts]


@on_virtual_time
async def test_a_model_without_tools_is_a_typed_error_and_not_a_reply_without_them():
    bench = Bench(without("tools"))
    with pytest.raises(StatusError):
        await bench.ask(call(tools=[LOOK]))
    assert await bench.ask() == "Hello"
    asked = call(tools=[LOOK])
    with pytest.raises(Unsupported, match="takes no `tools`"):
        await bench.ask(asked)
    assert asked.attempts == []


@on_virtual_time
async def test_pydantics_words_name_the_member_too():
    """Mistral, and servers of FastAPI: 422, the path as a list."""
    detail = [{"type": "extra_forbidden", "loc": ["body", "stream_options"], "msg": "Extra inputs are not permitted"}]
    for said in ({"detail": detail}, {"object": "error", "message": {"detail": detail}, "type": "invalid"}):

        def answer(request: HttpRequest, said: Any = said) -> Reply:
            if "stream_options" not in json.loads(request.body):
                return STREAMED
            return Reply(status=422, chunks=(json.dumps(said).encode(),))

        bench = Bench(answer)
        assert await bench.ask() == "Hello"
        assert bench.lacks() == {"stream_options"}


TEACHES_NOTHING = [
    refused(None),
    refused("messages"),
    refused("temperature", "invalid_value"),
    refused("temperature", None),
    refused("max_tokens", "unsupported_value"),
    refused("reasoning_effort", "unsupported_value"),
    refused("tools[0].function.name", "unsupported_parameter"),
    refused("seed", status=401),
    refused("seed", status=500),
    refused("response_format"),
    refused("messages[9].role", "unsupported_value"),
    refused("messages[1].role", "unsupported_value"),
    refused("max_completion_tokens"),  # was not sent
    refused(None, None, message="Unsupported parameter: 'temperature' is not supported with this model."),
]


@on_virtual_time
@pytest.mark.parametrize("reply", TEACHES_NOTHING, ids=range(len(TEACHES_NOTHING)))
async def test_what_is_no_lesson_is_the_clients_to_read(reply: Reply):
    bench, asked = Bench(reply), call(temperature=0.5, max_tokens=9, seed=7, tools=[LOOK])
    with pytest.raises(StatusError):
        await bench.ask(asked)
    assert len(asked.attempts) == 1
    assert asked.attempts[0].learnt in (None, "max_completion_tokens")


@on_virtual_time
async def test_c1_lessons_in_one_call_are_bounded():
    names = ("seed", "user", "top_p", "verbosity", "temperature")
    bench, asked = Bench(without(*names)), call(said=dict.fromkeys(names, 1))
    with pytest.raises(StatusError):
        await bench.ask(asked)
    assert len(asked.attempts) == 4
    assert await bench.ask(call(said=dict.fromkeys(names, 1))) == "Hello", "and the next call goes on from there"


@on_virtual_time
async def test_a_server_that_refuses_what_was_left_out_is_not_asked_for_ever():
    bench, asked = Bench(lambda request: refused("stream_options")), call()
    with pytest.raises(StatusError):
        await bench.ask(asked)
    assert len(asked.attempts) == 2


# --- streams and documents -------------------------------------------------------------------------------------------


@on_virtual_time
async def test_c12_a_document_in_answer_to_a_stream_is_learnt_and_costs_nothing():
    bench, asked = Bench(WHOLE), call()
    assert await bench.ask(asked) == "Hello"
    assert len(asked.attempts) == 1
    asked = call()
    assert await bench.ask(asked) == "Hello"
    assert [body["stream"] for body in bench.bodies] == [True, False]
    assert "stream_options" not in bench.bodies[1], "servers refuse it where there is no stream"
    assert (asked.stream, asked.asks_stream) == (True, False)
    assert dict(bench.network.requests[1].headers)["accept"] == "application/json"


@on_virtual_time
async def test_c12_a_server_that_refuses_to_stream_is_asked_without():
    def answer(request: HttpRequest) -> Reply:
        return refused("stream", "unsupported_value") if json.loads(request.body).get("stream") else WHOLE

    bench, asked = Bench(answer), call()
    assert await bench.ask(asked) == "Hello"
    assert [attempt.learnt for attempt in asked.attempts] == ["stream", None]
    assert await bench.ask(call("anthropic-messages")) == "Hello"
    assert len(bench.bodies) == 3


@on_virtual_time
async def test_c12_a_server_that_only_streams_is_asked_for_a_stream_by_who_wants_a_document():
    def answer(request: HttpRequest) -> Reply:
        return STREAMED if json.loads(request.body).get("stream") else refused("stream", None)

    bench = Bench(answer)
    for asked in (call(stream=False), call(stream=None), call("anthropic-messages", stream=False)):
        assert await bench.ask(asked) == "Hello"
        assert asked.asks_stream
    assert len(bench.bodies) == 4
    assert bench.bodies[-1]["stream_options"] == {"include_usage": True}


@on_virtual_time
async def test_who_has_neither_is_believed_the_last_word():
    bench = Bench([refused("stream", None), refused("stream", None), WHOLE])
    with pytest.raises(StatusError):
        await bench.ask(call(stream=False))
    assert bench.lacks() == {"stream"}
    assert await bench.ask(call(stream=False)) == "Hello"


@on_virtual_time
async def test_a_server_that_streams_without_tools_alone_goes_on_streaming_without_them():
    def answer(request: HttpRequest) -> Reply:
        body = json.loads(request.body)
        return STREAMED if body["stream"] and not body.get("tools") else WHOLE

    bench = Bench(answer)
    await bench.ask(call(tools=[LOOK]))
    await bench.ask()
    await bench.ask(call(tools=[LOOK]))
    await bench.ask(call(tools=[]))
    assert [body["stream"] for body in bench.bodies] == [True, True, False, True]
    bench = Bench(answer)
    for tools in ([], [LOOK], [], [LOOK], [LOOK], [LOOK], []):
        await bench.ask(call(tools=tools))
    assert [body["stream"] for body in bench.bodies] == [True] * 5 + [False, True]


@on_virtual_time
async def test_c12_a_document_now_and_then_takes_nothing_from_a_server_that_streams():
    """A cache answers with one; three in a row are no accident."""
    bench = Bench([STREAMED, WHOLE, WHOLE, STREAMED, WHOLE, WHOLE, WHOLE, STREAMED, STREAMED])
    for _ in range(9):
        await bench.ask()
    assert [body["stream"] for body in bench.bodies] == [True] * 7 + [False, True], "and one stream shows it again"


@on_virtual_time
async def test_a_failure_says_nothing_of_what_a_server_can_do():
    error = Reply(headers={"content-type": "application/json"}, chunks=(b'{"error":{"message":"No."}}',))
    cut = Reply(headers={"content-type": "application/json"}, chunks=(b'{"choices":[{"mess', Break()))
    page = Reply(headers={"content-type": "text/html"}, chunks=(b"<html>",))
    bench = Bench([error, cut, page, Reply(status=502), STREAMED])
    for _ in range(4):
        with pytest.raises(Exception):  # noqa: B017
            await bench.ask()
    assert bench.known.report() == []
    assert await bench.ask() == "Hello"
    assert all(body["stream"] for body in bench.bodies)


@on_virtual_time
async def test_force_non_streaming_asks_nobody_for_a_stream():
    bench, asked = Bench(WHOLE, force_non_streaming=True), call()
    assert await bench.ask(asked) == "Hello"
    assert bench.bodies[0]["stream"] is False
    assert (asked.stream, asked.asks_stream) == (True, False)


@on_virtual_time
async def test_force_non_streaming_gives_way_to_a_server_that_has_nothing_else():
    def answer(request: HttpRequest) -> Reply:
        return STREAMED if json.loads(request.body).get("stream") else refused("stream", None)

    bench = Bench(answer, force_non_streaming=True)
    assert await bench.ask() == "Hello"
    assert await bench.ask() == "Hello"
    assert [body["stream"] for body in bench.bodies] == [False, True, True]


@on_virtual_time
async def test_without_fallback_no_stream_is_made_of_a_document():
    bench, asked = Bench(WHOLE, fallback=False), call()
    with pytest.raises(NotAStream) as raised:
        await bench.ask(asked)
    assert raised.value.target == "up:m"
    assert asked.attempts == [Attempt("up:m", 200, "not_a_stream", took_s=0.0)]
    assert bench.network.responses[0].ended is not None
    asked = call()
    with pytest.raises(Unsupported) as refusal:
        await bench.ask(asked)
    assert (refusal.value.param, asked.attempts) == ("stream", [])
    assert await bench.ask(call(stream=False)) == "Hello"


@on_virtual_time
async def test_without_fallback_a_refusal_to_stream_stays_one():
    bench, asked = Bench(refused("stream", None), fallback=False), call()
    with pytest.raises(StatusError):
        await bench.ask(asked)
    assert len(asked.attempts) == 1


GEMINI_WHOLE = Reply(
    headers={"content-type": "application/json"},
    chunks=(b'{"candidates":[{"content":{"parts":[{"text":"Hello"}]},"finishReason":"STOP"}]}',),
)


@on_virtual_time
@pytest.mark.parametrize("array", [False, True], ids=["sse", "array"])
async def test_gemini_says_in_its_path_whether_to_stream(array: bool):
    from penstock.dialects import gemini

    ours = gemini.ARRAY if array else gemini.DIALECT
    target = Target("up", "http://127.0.0.1:9/v1beta", "gemini", "m")
    body = b'{"contents":[{"parts":[{"text":"Hi"}]}]}'
    bench = Bench(GEMINI_WHOLE, configured={"up": {"stream": False}})
    path = "/v1beta/models/m:streamGenerateContent" + ("" if array else "?alt=sse")
    head = ours.read_head(body, path)
    asked = Call(request_id="r", model="m", stream=True, dialect=ours, head=head, body=body, target=target, now=now)
    assert await bench.ask(asked) == "Hello"
    only_streams = Bench(GEMINI_WHOLE, configured={"up": {"document": False}})
    head = ours.read_head(body, "/v1beta/models/m:generateContent")
    asked = Call(request_id="r", model="m", stream=False, dialect=ours, head=head, body=body, target=target, now=now)
    assert await only_streams.ask(asked) == "Hello"
    urls = [request.url.rpartition(":")[2] for it in (bench, only_streams) for request in it.network.requests]
    assert urls == ["generateContent", "streamGenerateContent" + ("" if array else "?alt=sse")]


# --- how long it is believed -----------------------------------------------------------------------------------------


@on_virtual_time
async def test_what_was_learnt_is_asked_for_again_after_its_time():
    takes = False

    def answer(request: HttpRequest) -> Reply:
        return STREAMED if takes else without("stream_options")(request)

    bench = Bench(answer)
    await bench.ask()
    await asyncio.sleep(TTL_S - 1)
    await bench.ask()
    assert len(bench.bodies) == 3
    await asyncio.sleep(2)
    await bench.ask()
    assert [("stream_options" in body) for body in bench.bodies[3:]] == [True, False], "refused again: known again"
    takes = True
    await asyncio.sleep(TTL_S + 1)
    await bench.ask()
    assert bench.lacks() == set()
    await bench.ask()
    assert all("stream_options" in body for body in bench.bodies[5:])


@on_virtual_time
async def test_a_call_that_shows_nothing_of_it_leaves_it_as_it_was():
    bench = Bench(without("seed", "temperature"))
    await bench.ask(call(seed=7, temperature=1))
    await asyncio.sleep(TTL_S + 1)
    await bench.ask()
    assert bench.lacks() == {"seed", "temperature"}
    await bench.ask(call(seed=7))
    assert len(bench.bodies) == 3 + 1 + 2
    assert bench.known.find(TARGET, "m").due == pytest.approx(now() - 1), "temperature is still to be asked for"


@on_virtual_time
async def test_a_server_that_begins_to_stream_is_found_out():
    replies = [WHOLE, WHOLE, STREAMED, STREAMED]
    bench = Bench(replies)
    await bench.ask()
    await bench.ask()
    await asyncio.sleep(TTL_S + 1)
    asked = call()
    await bench.ask(asked)
    assert asked.asks_stream
    await bench.ask()
    assert [body["stream"] for body in bench.bodies] == [True, False, True, True]


@on_virtual_time
async def test_c12_many_at_once_cause_one_question_and_nobody_waits():
    """When what is known has grown old, one asks for the whole; the others go on as before, at the same moment."""

    def answer(request: HttpRequest) -> Reply:
        if "stream_options" not in json.loads(request.body):
            return STREAMED
        return Reply(
            status=400, opening=(Pause(1),), headers=refused("x").headers, chunks=refused("stream_options").chunks
        )

    bench = Bench(answer)
    await bench.ask()
    await asyncio.sleep(TTL_S + 1)
    began = now()
    took: list[float] = []

    async def one() -> None:
        await bench.ask()
        took.append(now() - began)

    await asyncio.gather(*(one() for _ in range(50)))
    assert sum("stream_options" in body for body in bench.bodies[2:]) == 1
    assert sorted(took) == [0.0] * 49 + [1.0]


@on_virtual_time
async def test_c12_the_first_of_many_do_not_wait_for_each_other_and_what_one_learns_all_know():
    def answer(request: HttpRequest) -> Reply:
        if "stream_options" not in json.loads(request.body):
            return STREAMED
        return Reply(
            status=400, opening=(Pause(1),), headers=refused("x").headers, chunks=refused("stream_options").chunks
        )

    bench = Bench(answer)
    began = now()
    calls = [call() for _ in range(50)]
    await asyncio.gather(*(bench.ask(each) for each in calls))
    assert now() - began == 1.0
    assert {len(each.attempts) for each in calls} == {2}
    assert bench.lacks() == {"stream_options"}
    (entry,) = bench.known.report()
    assert entry["capabilities"]["stream_options"] == {"value": False, "source": "refusal", "age_s": 0.0}


@on_virtual_time
async def test_an_asker_that_fails_or_leaves_hands_the_question_on():
    bench = Bench([refused("stream_options"), STREAMED, Reply(status=503), Reply(opening=(Hang(),)), STREAMED])
    await bench.ask()
    await asyncio.sleep(TTL_S + 1)
    with pytest.raises(StatusError):
        await bench.ask()
    leaving = asyncio.ensure_future(bench.ask())
    await asyncio.sleep(1)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    await bench.ask()
    assert ["stream_options" in body for body in bench.bodies[2:]] == [True, True, True]


# --- what is said, and how much is kept ------------------------------------------------------------------------------


@on_virtual_time
async def test_the_owners_word_is_acted_on_at_once_and_never_grows_old():
    bench = Bench(WHOLE, configured={"up": {"stream": False, "max_tokens": False, "images": False}})
    await bench.ask(call(max_tokens=9))
    await asyncio.sleep(10 * TTL_S)
    await bench.ask()
    assert [body["stream"] for body in bench.bodies] == [False, False]
    assert bench.bodies[0]["max_completion_tokens"] == 9
    (entry,) = bench.known.report()
    assert (entry["upstream"], entry["model"]) == ("up", None)
    assert entry["capabilities"]["stream"] == {"value": False, "source": "configured", "age_s": None}


@on_virtual_time
async def test_straico_needs_nobody_to_say_that_it_does_not_stream():
    target = Target("s", "http://127.0.0.1:9/v2", "straico", "m")
    bench = Bench(WHOLE)
    asked = call(target=target)
    assert await bench.ask(asked) == "Hello"
    assert not asked.asks_stream
    assert "stream" not in bench.bodies[0]


@on_virtual_time
async def test_c8_a_long_thought_of_a_server_that_cannot_stream_is_no_failure():
    """The old proxy's 90 s were for the whole generation, so that long answers always failed."""
    target = Target("s", "http://127.0.0.1:9/v2", "straico", "m")
    slow = Reply(opening=(Pause(500),), headers=WHOLE.headers, chunks=(Pause(50), *WHOLE.chunks))
    bench = Bench(slow)
    (answered,) = await asyncio.gather(bench.ask(call(target=target)), return_exceptions=True)
    assert answered == "Hello"
    bench = Bench(Reply(opening=(Pause(601),), chunks=WHOLE.chunks))
    with pytest.raises(TimedOut) as raised:
        await bench.ask(call(target=target))
    assert (raised.value.clock, raised.value.after_s) == ("document", 600.0)


@on_virtual_time
async def test_c8_a_document_that_has_begun_may_not_fall_silent():
    stuck = Reply(headers=WHOLE.headers, chunks=(Pause(300), b'{"choi', Hang()))
    bench = Bench(stuck)
    began = now()
    with pytest.raises(TimedOut) as raised:
        await bench.ask(call(stream=False))
    assert (raised.value.clock, now() - began) == ("silence", 360.0)


@on_virtual_time
async def test_c11_only_so_many_are_remembered_and_the_least_used_goes_first():
    bench = Bench(WHOLE, max_targets=3)
    for name in ("a", "b", "c", "a", "d"):
        await bench.ask(call(target=Target("up", TARGET.url, "openai-chat", name)))
    assert [entry["model"] for entry in bench.known.report()] == ["d", "a", "c"]
    await bench.ask(call(target=Target("up", TARGET.url, "openai-chat", "x" * (MAX_NAME_CHARS + 1))))
    assert len(bench.known.report()) == 3


@on_virtual_time
async def test_models_and_upstreams_are_apart():
    bench = Bench(WHOLE)
    await bench.ask(call(target=Target("up", TARGET.url, "openai-chat")))
    asked = call(target=Target("other", TARGET.url, "openai-chat"))
    await bench.ask(asked)
    assert asked.asks_stream
    assert [(entry["upstream"], entry["model"]) for entry in bench.known.report()] == [("other", "m"), ("up", "m")]


@on_virtual_time
async def test_two_who_learn_at_once_do_not_forget_each_others():
    bench = Bench(lambda request: Reply(opening=(Pause(1),), status=400, headers={}, chunks=_one_of(request)))
    asked = [call(seed=7), call(user="u")]
    await asyncio.gather(*(bench.ask(each) for each in asked), return_exceptions=True)
    assert bench.lacks() == {"seed", "user"}


def _one_of(request: HttpRequest) -> tuple[bytes, ...]:
    body = json.loads(request.body)
    found = next((name for name in ("seed", "user") if name in body), None)
    return tuple(step for step in refused(found).chunks if isinstance(step, bytes))


@on_virtual_time
async def test_a_library_call_is_asked_in_the_same_way():
    request = ChatRequest("m", (Message.of("user", "Hi"),), stream=True, tools=(Tool("look"),), max_tokens=9)
    bench = Bench(without("max_tokens"))
    asked = Call(request_id="r", model="m", stream=True, request=request, target=TARGET, now=now)
    assert await bench.ask(asked) == "Hello"
    assert bench.bodies[-1]["max_completion_tokens"] == 9
