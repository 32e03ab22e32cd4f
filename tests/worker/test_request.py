"""What a job may be asked for: everything that is wrong is told at once, and the prompt by nobody."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.canon.errors import InvalidRequest
from penstock.worker.refusal import FieldError
from penstock.worker.request import FIELDS, MAX_ERRORS, MAX_STOPS, NUMBERS, read_request
from tests.virtual_clock import on_virtual_time
from tests.worker.scripted import Bench, paced

SECRET = "the-secret-of-this-prompt"


def read(**given: Any) -> bytes | list[FieldError]:
    return read_request(json.dumps(given).encode(), "m")


def asked(**given: Any) -> dict[str, Any]:
    found = read(**given)
    assert isinstance(found, bytes), found
    body: dict[str, Any] = json.loads(found)
    return body


def wrong(**given: Any) -> dict[str, str]:
    found = read(**given)
    assert isinstance(found, list), found
    return {error.field: error.message for error in found}


def test_a_prompt_becomes_the_engines_request() -> None:
    assert asked(prompt="Hello") == {
        "model": "m",
        "messages": [{"role": "user", "content": "Hello"}],
        "stream": True,
        "return_progress": True,
        "verbose": True,
    }


def test_messages_go_as_they_are() -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
    ]
    assert asked(messages=messages)["messages"] == messages
    called = [{"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}]
    assert asked(messages=called)["messages"] == called


def test_every_option_reaches_the_engine() -> None:
    options: dict[str, Any] = dict.fromkeys(NUMBERS, 1)
    options["stop"] = ["\n\n", "END"]
    body = asked(prompt="Hello", **options)
    assert {name: body[name] for name in options} == options
    assert {*options, "prompt", "messages"} == set(FIELDS)


def test_null_is_as_good_as_nothing() -> None:
    assert asked(prompt="Hello", max_tokens=None, messages=None, stop=None) == asked(prompt="Hello")


def test_everything_that_is_wrong_is_told_at_once() -> None:
    found = wrong(
        prompt="", max_tokens=0, temperature=2.5, top_p="x", seed=-1, stop=["", 3], temprature=1, top_k=1.5, min_p=True
    )
    assert found == {
        "prompt": "`prompt` must be a text, not empty.",
        "max_tokens": "`max_tokens` must be a whole number of at least 1, not 0.",
        "temperature": "`temperature` must be a number from 0 to 2, not 2.5.",
        "top_p": "`top_p` must be a number from 0 to 1.",
        "top_k": "`top_k` must be a whole number of at least 0, not 1.5.",
        "min_p": "`min_p` must be a number from 0 to 1.",
        "seed": "`seed` must be a whole number from 0 to 4294967295, not -1.",
        "stop[0]": "`stop[0]` must be a text of 1 to 256 characters.",
        "stop[1]": "`stop[1]` must be a text of 1 to 256 characters.",
        "temprature": f"There is no field `temprature`. Known: {', '.join(FIELDS)}.",
    }


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({}, "prompt"),
        ({"prompt": "a", "messages": [{"role": "user", "content": "b"}]}, "prompt"),
        ({"prompt": 3}, "prompt"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [3]}, "messages[0]"),
        ({"messages": [{"role": "user", "content": "a"}, {"role": "robot", "content": "b"}]}, "messages[1].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"prompt": "a", "stop": 3}, "stop"),
        ({"prompt": "a", "stop": ""}, "stop"),
        ({"prompt": "a", "stop": ["x"] * (MAX_STOPS + 1)}, "stop"),
        ({"prompt": "a", "stop": "x" * 257}, "stop"),
        ({"prompt": "a", "max_tokens": 10**30}, "max_tokens"),
    ],
)
def test_each_is_told_by_its_field(given: dict[str, Any], field: str) -> None:
    found = wrong(**given)
    assert list(found) == [field]


@pytest.mark.parametrize("name", NUMBERS)
def test_bounds_are_allowed_and_what_is_beyond_them_is_not(name: str) -> None:
    bounds = NUMBERS[name]
    step = 1 if bounds.whole else 0.001
    for value in (bounds.low, bounds.high):
        assert asked(prompt="a", **{name: int(value) if bounds.whole else value})
    for value in (bounds.low - step, bounds.high + step):
        assert list(wrong(prompt="a", **{name: int(value) if bounds.whole else value})) == [name]


def test_errors_are_bounded() -> None:
    found = read(messages=[3] * 1000)
    assert isinstance(found, list)
    assert len(found) == MAX_ERRORS


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'"text"', b'{"prompt": "\xff"}', b'{"prompt": "\\ud800"}', b"[" * 5000]
)
def test_what_is_no_json_object_is_one_sentence(body: bytes) -> None:
    with pytest.raises(InvalidRequest) as raised:
        read_request(body, "m")
    assert str(raised.value).count("\n") == 0


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.just(SECRET),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["role", "content"]), inner),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from([*FIELDS, "other"]), _values))
def test_c13_whatever_is_wrong_no_text_of_the_request_is_repeated(given: dict[str, Any]) -> None:
    found = read_request(msgspec.json.encode(given), "m")
    if isinstance(found, list):
        assert found
        said = msgspec.json.encode(found).decode()
        assert SECRET not in said
        assert all(error.field and error.constraint and error.message.endswith(".") for error in found)
    else:
        assert ("prompt" in given) or ("messages" in given)


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/execute"])
def test_the_answer_to_a_wrong_request(path: str) -> None:
    @on_virtual_time
    async def play() -> None:
        bench = Bench(paced(["a"]))
        answered = await bench.ask("POST", path, {"prompt": SECRET, "max_tokens": 0, "seed": "x"})
        assert answered.status == 400
        error = answered.json["error"]
        assert error.pop("errors") == [
            {
                "field": "max_tokens",
                "constraint": "a whole number of at least 1",
                "message": "`max_tokens` must be a whole number of at least 1, not 0.",
            },
            {
                "field": "seed",
                "constraint": "a whole number from 0 to 4294967295",
                "message": "`seed` must be a whole number from 0 to 4294967295.",
            },
        ]
        assert error == {
            "code": "INVALID_REQUEST",
            "message": "2 fields are wrong: `max_tokens` must be a whole number of at least 1, not 0; "
            "`seed` must be a whole number from 0 to 4294967295.",
            "retriable": False,
            "param": "max_tokens",
        }
        assert SECRET not in answered.body.decode()
        assert list(bench.jobs) == []

    play()


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/execute"])
def test_the_answer_to_no_request_at_all(path: str) -> None:
    @on_virtual_time
    async def play() -> None:
        bench = Bench(paced(["a"]))
        answered = await bench.ask("POST", path, b'{"prompt": ')
        assert answered.status == 400
        assert "not valid JSON" in answered.json["error"]["message"]
        too_large = await bench.ask("POST", path, b" " * (1 << 21))
        assert (too_large.status, too_large.json["error"]["code"]) == (413, "TOO_LARGE")

    play()
