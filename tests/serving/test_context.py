"""The size of a target's context: where servers tell it, for how long it is believed, and that nobody waits for it."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from penstock.canon.target import Secret, Target
from penstock.canon.wire import HttpRequest
from penstock.serving.context import LIST_TTL_S, MAX_MODELS, RETRY_S, TTL_S, ContextWindows
from penstock.transport.memory import Hang, MemoryTransport, Reply
from tests.virtual_clock import now, on_virtual_time

if TYPE_CHECKING:
    from collections.abc import Callable

LLAMA = Target("local", "http://127.0.0.1:8080/v1", "openai-chat", key=Secret("sk-1"), profile="llamacpp")
VLLM = Target("gpu", "http://127.0.0.1:8000/v1", "openai-chat", profile="vllm")

REFUSED = Reply(status=501)


def says(value: Any) -> Reply:
    return Reply(headers={"content-type": "application/json"}, chunks=(json.dumps(value).encode(),))


PROPS = says({"default_generation_settings": {"n_ctx": 8192}, "total_slots": 4})


class Server:
    """Answers by path; what it has no answer for it refuses. `asked`: paths, in order."""

    def __init__(self, answers: dict[str, Reply]) -> None:
        self.answers = answers
        self.asked: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.windows = ContextWindows(MemoryTransport(self._answer), now=now)

    def _answer(self, request: HttpRequest) -> Reply:
        path = "/" + request.url.split("/", 3)[3]
        self.asked.append(path)
        self.headers.append(dict(request.headers))
        return self.answers.get(path, REFUSED)

    async def learnt(self, target: Target, model: str = "m") -> int | None:
        """What is known once whoever is asked has answered; the first word is that of the moment."""
        self.windows.get(target, model)
        await settled()
        return self.windows.get(target, model)


async def settled() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("answers", "size"),
    [
        ({"/props": PROPS}, 8192),
        ({"/slots": says([{"id": 0, "n_ctx": 4096}, {"id": 1, "n_ctx": 2048}])}, 2048),
        ({"/props?model=m": PROPS}, 8192),
        ({"/v1/models": says({"data": [{"id": "m", "meta": {"n_ctx": 1024, "n_ctx_train": 131072}}]})}, 1024),
        ({"/v1/models": says({"data": [{"id": "m", "meta": {"n_ctx_train": 131072}}]})}, None),
        ({"/v1/models": says({"data": [{"id": "m", "meta": None}]})}, None),
        ({"/props": says({"default_generation_settings": {"n_ctx": 0}})}, None),
        ({"/props": says({"default_generation_settings": "none"}), "/slots": says({"n_ctx": 1})}, None),
        ({"/props": says([]), "/slots": says([1, None, {"n_ctx": "x"}])}, None),
        ({"/props": Reply(chunks=(b"<html>",))}, None),
    ],
)
def test_llama_cpp_tells_it_in_four_places(answers: dict[str, Reply], size: int | None):
    @on_virtual_time
    async def run() -> None:
        assert await Server(answers).learnt(LLAMA) == size

    run()


@pytest.mark.parametrize("field", ["max_model_len", "context_length", "context_window", "max_context_length"])
def test_others_tell_it_in_their_lists_for_each_model(field: str):
    @on_virtual_time
    async def run() -> None:
        server = Server({"/v1/models": says({"data": [{"id": "m", field: 32768}, {"id": "n", field: 4096}]})})
        assert await server.learnt(VLLM) == 32768
        assert server.windows.get(VLLM, "n") == 4096
        assert server.windows.get(VLLM, "unknown") is None
        assert server.asked == ["/v1/models"]

    run()


@on_virtual_time
async def test_the_key_goes_with_it_and_a_clients_own_does_not():
    server = Server({"/props": PROPS})
    assert await server.learnt(LLAMA) == 8192
    assert server.headers[0]["authorization"] == "Bearer sk-1"
    own = Secret("of-a-client")
    theirs = Target("theirs", LLAMA.url, "openai-chat", key=own, profile="llamacpp", forward_auth=True)
    assert await server.learnt(theirs) is None
    assert len(server.asked) == 1


@on_virtual_time
async def test_a_server_that_nobody_knows_to_tell_it_is_not_asked():
    server = Server({})
    for profile in (None, "xai", "deepseek"):
        assert await server.learnt(Target("up", VLLM.url, "openai-chat", profile=profile)) is None
    assert server.asked == []


@on_virtual_time
async def test_c5_a_server_that_never_answers_holds_nobody_up():
    server = Server({"/props": Reply(opening=(Hang(),))})
    began = now()
    for _ in range(100):
        assert server.windows.get(LLAMA, "m") is None
    assert now() == began
    await settled()
    assert server.asked == ["/props"], "one at a time"
    await server.windows.aclose()


def old_after(target: Target, answers: dict[str, Reply], ttl_s: float) -> Callable[[], None]:
    @on_virtual_time
    async def run() -> None:
        server = Server(answers)
        size = await server.learnt(target)
        asked = len(server.asked)
        await asyncio.sleep(ttl_s - 1)
        assert await server.learnt(target) == size
        assert len(server.asked) == asked
        server.answers = {"/props": says({"default_generation_settings": {"n_ctx": 16384}})}
        await asyncio.sleep(1.1)
        assert server.windows.get(target, "m") == size, "the old word stands while a new one is asked for"
        await settled()
        assert len(server.asked) == asked + 1
        await server.windows.aclose()

    return run


@pytest.mark.parametrize(
    ("target", "answers", "ttl_s"),
    [
        (LLAMA, {"/props": PROPS}, TTL_S),
        (VLLM, {"/v1/models": says({"data": [{"id": "m", "max_model_len": 32768}]})}, LIST_TTL_S),
    ],
)
def test_what_is_old_is_asked_for_again_and_believed_meanwhile(target: Target, answers: dict[str, Reply], ttl_s: float):
    old_after(target, answers, ttl_s)()


@on_virtual_time
async def test_one_that_tells_nothing_is_asked_less_and_less_often():
    server = Server({})
    rounds = 0
    for _ in range(2000):  # calls, a second apart
        before = len(server.asked)
        await server.learnt(LLAMA)
        rounds += len(server.asked) > before
        await asyncio.sleep(1)
    assert 8 <= rounds <= 16


@on_virtual_time
async def test_c11_of_several_models_each_is_asked_for_and_names_that_are_made_up_are_bounded():
    server = Server({"/props?model=a": PROPS, "/props?model=b": says({"default_generation_settings": {"n_ctx": 2048}})})
    assert await server.learnt(LLAMA, "a") == 8192
    await asyncio.sleep(RETRY_S)
    assert await server.learnt(LLAMA, "b") == 2048
    assert server.windows.get(LLAMA, "a") == 8192
    listed = {"data": [{"id": f"m{number}", "max_model_len": 1 + number} for number in range(MAX_MODELS + 100)]}
    long = Server({"/v1/models": says(listed)})
    assert await long.learnt(VLLM, f"m{MAX_MODELS + 99}") == MAX_MODELS + 100
    assert long.windows.get(VLLM, "m0") is None
