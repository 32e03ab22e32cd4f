"""Tools and values from a real model: the demo worker's, in a process of its own, in both of its dialects."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

import penstock

if TYPE_CHECKING:
    from tests.processes import Running

pytestmark = pytest.mark.process


class Mood(Enum):
    GOOD = "good"
    BAD = "bad"


class Answer(msgspec.Struct):
    mood: Mood
    is_sure: bool


@pytest.fixture(params=["openai-chat", "anthropic-messages"])
def at(request: pytest.FixtureRequest, worker: Running) -> dict[str, Any]:
    return {"base_url": f"{worker.url}/v1", "dialect": request.param, "temperature": 0, "max_tokens": 120}


def test_a_model_calls_a_function_and_is_told_what_it_gave(at: dict[str, Any]) -> None:
    asked: list[str] = []

    def get_weather(city: str) -> str:
        """The weather in a city."""
        asked.append(city)
        return "It rains."

    run = penstock.run_tools("local:tiny", "What is the weather in Paris?", tools=[get_weather], max_rounds=5, **at)
    assert asked[0] == "Paris"
    assert run.steps[0].ran[0].result.parts == (penstock.Text("It rains."),)
    assert run.response.outcome == "complete"
    assert run.messages[-1] == run.response.message


def test_a_model_is_held_to_a_schema(worker: Running) -> None:
    where: Any = {"base_url": f"{worker.url}/v1", "temperature": 0, "max_tokens": 120}
    with penstock.stream("local:tiny", "How are you?", schema=Answer, **where) as stream:
        seen = list(stream.partial())
    answer = stream.response.parsed
    assert isinstance(answer, Answer)
    assert seen[-1] == {"mood": answer.mood.value, "is_sure": answer.is_sure}
    assert all(value.get("mood") in (None, answer.mood.value) for value in seen)
    assert penstock.generate("local:tiny", "How are you?", schema=Mood, **where).parsed in Mood
