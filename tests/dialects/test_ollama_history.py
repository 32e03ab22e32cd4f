"""Ollama clients' conversations: whose result is whose, what pictures are, whose thoughts go back, what is no text."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.canon.errors import InvalidRequest
from penstock.canon.events import Reasoning, Text, ToolCall
from penstock.canon.request import Image, Message, ToolResult
from penstock.dialects import CLIENT_DIALECTS, client_dialect
from penstock.dialects.ollama import DIALECT, GENERATE
from tests.dialects.conversations import THOUGHT, asking, built

HI = {"role": "user", "content": "Hi"}


def call(name: str, id_: str | None = None, **arguments: Any) -> dict[str, Any]:
    return {**({"id": id_} if id_ else {}), "function": {"name": name, "arguments": arguments}}


def calling(*calls: dict[str, Any]) -> dict[str, Any]:
    return {"role": "assistant", "content": "", "tool_calls": list(calls)}


def result(said: str, name: str | None = None, id_: str | None = None) -> dict[str, Any]:
    named = {"tool_name": name, "tool_call_id": id_}
    return {"role": "tool", "content": said, **{key: value for key, value in named.items() if value}}


def read(*messages: dict[str, Any], **more: Any) -> Any:
    return DIALECT.parse_request(json.dumps({"model": "m", "messages": [*messages], **more}).encode())


def answers(*messages: dict[str, Any]) -> tuple[list[str], dict[str, str]]:
    """The calls' ids, and what was said to each."""
    parts = [part for message in read(*messages).messages for part in message.parts]
    said = {}
    for part in parts:
        if isinstance(part, ToolResult):
            (text,) = part.parts
            assert isinstance(text, Text)
            said[part.id] = text.text
    return [part.id for part in parts if isinstance(part, ToolCall)], said


# --- whose result is whose --------------------------------------------------------------------------------------------


def test_results_without_ids_answer_the_calls_of_their_tool_in_order():
    """The SDK keeps no ids: a tool that is called twice is told apart by its turn alone."""
    ids, said = answers(
        HI,
        calling(call("look", at="sea"), call("now"), call("look", at="sky")),
        result("a horse", "look"),
        result("a bird", "look"),
        result("noon", "now"),
        calling(call("look", at="hill")),
        result("a goat", "look"),
    )
    assert len(set(ids)) == 4
    assert [said[id_] for id_ in ids] == ["a horse", "noon", "a bird", "a goat"]


def test_ids_that_are_given_stay():
    ids, said = answers(
        HI, calling(call("look", "x"), call("look", "call_0"), call("look")), result("b", "look", "call_0"),
        result("a", id_="x"), result("c", "look"),
    )  # fmt: skip
    assert ids[:2] == ["x", "call_0"]
    assert len(set(ids)) == 3
    assert [said[id_] for id_ in ids] == ["a", "b", "c"]


def test_a_result_that_names_nothing_answers_the_oldest_call():
    ids, said = answers(HI, calling(call("look"), call("now")), result("a horse"), result("noon"))
    assert [said[id_] for id_ in ids] == ["a horse", "noon"]


def test_a_call_that_was_never_answered_takes_no_later_result():
    ids, said = answers(HI, calling(call("look")), HI, calling(call("look")), result("a horse", "look"))
    assert said == {ids[1]: "a horse"}


def test_a_result_of_no_call_is_nobody_elses():
    ids, said = answers(HI, calling(call("look")), result("noon", "now"))
    assert list(said.values()) == ["noon"]
    assert ids[0] not in said


names = st.sampled_from(["look", "now", "ask"])


@given(st.lists(st.lists(st.tuples(names, st.booleans()), min_size=1, max_size=4), max_size=4))
def test_every_call_has_an_id_of_its_own_and_its_own_result(turns: list[list[tuple[str, bool]]]):
    messages: list[dict[str, Any]] = [HI]
    number = 0
    for turn in turns:
        calls, results = [], []
        for name, has_id in turn:
            id_ = f"given_{number}" if has_id else None
            calls.append(call(name, id_, number=number))
            results.append(result(str(number), name, id_))
            number += 1
        messages += [calling(*calls), *results]
    parts = [part for message in read(*messages).messages for part in message.parts]
    calls_read = [part for part in parts if isinstance(part, ToolCall)]
    said = {part.id: part.parts[0] for part in parts if isinstance(part, ToolResult)}
    assert len({each.id for each in calls_read}) == number
    for each in calls_read:
        assert each.arguments is not None
        assert said[each.id] == Text(str(each.arguments["number"]))


# --- the other parts --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "media_type"),
    [
        ("/9j/4AAQSkZJRg==", "image/jpeg"),
        ("iVBORw0KGgo=", "image/png"),
        ("R0lGODlhAQABAAAAACw=", "image/gif"),
        ("UklGRiQAAABXRUJQ", "image/webp"),
        ("Qk0=", None),
    ],
)
def test_what_a_picture_is_stands_in_its_first_bytes(data: str, media_type: str | None):
    """Ollama's clients send the bytes alone; others' servers refuse a picture under another's name."""
    asked = read({**HI, "images": [data]})
    assert asked.messages[0].parts[1] == Image(data=data, media_type=media_type)
    prompt = json.dumps({"model": "m", "prompt": "Hi", "images": [data]}).encode()
    assert GENERATE.parse_request(prompt).messages[0].parts[1] == Image(data=data, media_type=media_type)


def test_a_tool_may_show_pictures():
    asked = read(HI, calling(call("look")), {**result("a horse", "look"), "images": ["iVBORw0KGgo="]})
    (shown,) = asked.messages[2].parts
    assert shown.parts == (Text("a horse"), Image(data="iVBORw0KGgo=", media_type="image/png"))


def test_another_providers_thoughts_stay_behind():
    own = Reasoning("Hm.")
    body, dropped = built("ollama", asking(Message("assistant", (own, Text("I see."))), Message.of("user", "Go on")))
    assert (body["messages"][0]["thinking"], dropped) == ("Hm.", ())
    body, dropped = built(
        "ollama", asking(Message("assistant", (THOUGHT, Text("I see."))), Message.of("user", "Go on"))
    )
    assert ("thinking" in body["messages"][0], dropped) == (False, ("reasoning",))


# --- what servers forgive ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [0, -1, -2])
def test_a_limit_that_is_none(limit: int):
    assert read(HI, options={"num_predict": limit}).max_tokens is None


def test_whole_numbers_may_be_written_with_a_point():
    asked = read(HI, options={"num_predict": 9.0, "top_k": 40.0, "seed": 3.0, "temperature": 1})
    assert (asked.max_tokens, asked.top_k, asked.seed, asked.temperature) == (9, 40, 3, 1)
    assert [type(each) for each in (asked.max_tokens, asked.top_k, asked.seed)] == [int] * 3


def test_what_is_empty_says_nothing():
    asked = read(HI, think="", format="", options={}, tools=[], keep_alive=None)
    assert (asked.reasoning_effort, asked.output, asked.tools, asked.extras) == (None, None, (), {})


@pytest.mark.parametrize(("dialect", "param"), [(DIALECT, "messages"), (GENERATE, "prompt")])
def test_what_is_missing_is_named_as_its_path_has_it(dialect: Any, param: str):
    with pytest.raises(InvalidRequest) as caught:
        dialect.parse_request(b'{"model":"m"}')
    assert caught.value.param == param


BODIES = {
    "anthropic-messages": b'{"model":"m","max_tokens":5,"messages":[{"role":"user","content":"x"}],"new":"%s"}',
    "gemini": b'{"contents":[{"parts":[{"text":"x"}]}],"new":"%s"}',
    "ollama": b'{"model":"m","messages":[{"role":"user","content":"x"}],"new":"%s"}',
    "openai-chat": b'{"model":"m","messages":[{"role":"user","content":"x"}],"new":"%s"}',
    "openai-completions": b'{"model":"m","prompt":"x","new":"%s"}',
    "openai-responses": b'{"model":"m","input":"x","new":"%s"}',
}


@pytest.mark.parametrize("name", sorted(CLIENT_DIALECTS))
@pytest.mark.parametrize("text", [b"\xff", b"\\ud800"])
def test_text_that_is_none_is_the_callers_mistake_even_where_nobody_looks(name: str, text: bytes):
    path = "/v1beta/models/m:generateContent" if name == "gemini" else ""
    with pytest.raises(InvalidRequest):
        client_dialect(name).parse_request(BODIES[name] % text, path)
