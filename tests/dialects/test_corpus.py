"""What recordings of the younger dialects mean: text, thoughts, calls, endings and usage, as they are expected.

How they hold together, at every cut and cut short, is `tests/testing/test_checks.py`.
"""

from __future__ import annotations

from typing import Any

import pytest

from penstock.canon.errors import PenstockError
from penstock.dialects import DIALECTS
from penstock.testing.replay import replayed
from tests.corpus import CORPUS
from tests.testing.test_checks import of_the_corpus, recorded

#: recordings whose `expected` is not what the reply means, and why
DIFFERENT: dict[str, dict[str, str]] = {
    "agentgateway/responses__stream-custom-tool": {
        "tool_calls": "a custom call is a call as well: its free text is its one argument, `input`"
    },
    "mirascope/output__test_call_with_thinking__openai_gpt_5_responses__async_stream@0": {
        "reasoning": "the parts of a summary are paragraphs, not one word that runs into the next"
    },
}

NAMES = sorted({"ollama", "openai-responses", "openai-completions", "cohere", "bedrock"} & DIALECTS.keys())
_found = [
    pytest.param(name, recording, expected, id=recording.name)
    for name in NAMES
    for recording, expected in zip(of_the_corpus(name), recorded(name), strict=True)
]
_absent = pytest.param("", None, {}, marks=pytest.mark.skip(reason=f"no recorded streams at {CORPUS}"), id="no corpus")


@pytest.mark.parametrize(("name", "recording", "expected"), _found or [_absent])
def test_a_recording_means_what_is_expected_of_it(name: str, recording: Any, expected: dict[str, Any]):
    different = DIFFERENT.get(recording.name, {})
    driven = replayed(name, recording)
    response = driven.response
    if expected["error"] is not None:
        assert isinstance(driven.error, PenstockError)
        return
    assert driven.error is None
    got = {
        "text": response.text,
        "reasoning": response.reasoning,
        "refusal": response.refusal or "",
        "tool_calls": [(call.name, call.arguments) for call in response.tool_calls],
        "finish_reason_raw": response.finish.raw if response.finish else None,
        "model": response.model or "",
        "response_id": response.response_id or "",
        "usage_raw": response.usage.raw if response.usage else None,
    }
    meant = {
        **{key: expected[key] for key in ("text", "reasoning", "finish_reason_raw", "usage_raw")},
        **{key: expected[key] or "" for key in ("refusal", "model", "response_id")},
        "tool_calls": [(call["name"], call["arguments"]) for call in expected["tool_calls"]],
    }
    for key, value in meant.items():
        assert (got[key] == value) is (key not in different), (key, got[key], value, different.get(key))
