"""Tool calls in the words of an answer: the tagged block that the model is told to end with. Pure.

A block that is not strictly a JSON array of calls stays text: nothing is guessed and nothing is repaired.
"""

from __future__ import annotations

from typing import Any

import msgspec

from penstock.dialects.base import load_json

OPEN, CLOSE = "<tool_calls>", "</tool_calls>"


def split_calls(text: str) -> tuple[str, list[tuple[str, str]]]:
    """What the answer says, and the calls at its end: name and argument JSON."""
    before, mark, rest = text.rpartition(OPEN)
    inner, end, after = rest.partition(CLOSE)
    if not mark or not end or after.strip():
        return text, []
    found = load_json(inner.strip().encode())
    if not isinstance(found, list) or not found:
        return text, []
    calls = [call for each in found if (call := _call(each)) is not None]
    if len(calls) != len(found):
        return text, []
    return before.rstrip(), calls


def _call(given: Any) -> tuple[str, str] | None:
    if not isinstance(given, dict) or not isinstance(given.get("name"), str):
        return None
    arguments = given.get("arguments", {})
    if not isinstance(arguments, dict):
        return None
    return given["name"], msgspec.json.encode(arguments).decode()
