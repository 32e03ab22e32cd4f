"""The incremental JSON reader: the same for every cut, certain in every prefix, and linear in the length."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.client.partial import MAX_DEPTH, Growth, JsonReader, Place

NOTHING = object()
#: other programs share the machine: how long one example took says nothing
quietly = settings(deadline=None, max_examples=60)

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=12
)
#: as different servers write it
texts = st.builds(
    lambda value, is_ascii, indent: json.dumps(value, ensure_ascii=is_ascii, indent=indent),
    values, st.booleans(), st.sampled_from([None, 1]),
)  # fmt: skip


def shown(reader: JsonReader) -> Any:
    return reader.snapshot() if reader.has_value else NOTHING


def read(text: str, cuts: list[int] | None = None, schema: Any = None) -> JsonReader:
    reader = JsonReader(schema)
    ends = sorted({min(cut, len(text)) for cut in cuts or ()} | {len(text)})
    at = 0
    for end in ends:
        reader.feed(text[at:end])
        at = end
    return reader


def is_part(part: Any, whole: Any) -> bool:
    """Whether `whole` is what `part` can still grow into."""
    if isinstance(part, str):
        return isinstance(whole, str) and whole.startswith(part)
    if isinstance(part, list):
        return (
            isinstance(whole, list)
            and len(part) <= len(whole)
            and part[:-1] == whole[: max(len(part) - 1, 0)]
            and (not part or is_part(part[-1], whole[len(part) - 1]))
        )
    if isinstance(part, dict):
        if not isinstance(whole, dict) or list(part) != list(whole)[: len(part)]:
            return False
        *closed, last = list(part) or [None]
        return all(part[key] == whole[key] for key in closed) and (not part or is_part(part[last], whole[last]))
    return type(part) is type(whole) and part == whole


@quietly
@given(texts, st.lists(st.integers(0, 200)))
def test_every_cut_gives_the_value_that_json_is(text: str, cuts: list[int]) -> None:
    reader = read(text, cuts)
    reader.close()
    assert reader.error is None
    assert reader.is_whole
    assert reader.snapshot() == json.loads(text)


@quietly
@given(texts)
def test_every_prefix_shows_a_part_of_the_value_and_ever_more(text: str) -> None:
    whole, before = json.loads(text), NOTHING
    reader = JsonReader()
    snapshots: list[tuple[Any, str]] = []
    for char in text:
        reader.feed(char)
        now = shown(reader)
        if now is not NOTHING:
            assert is_part(now, whole)
            assert before is NOTHING or is_part(before, now)
            snapshots.append((now, json.dumps(now)))
        else:
            assert before is NOTHING
        before = now
    assert all(json.dumps(snapshot) == said for snapshot, said in snapshots), "a value handed out changed afterwards"


@quietly
@given(texts, st.integers(0, 200), st.lists(st.integers(0, 200)))
def test_what_is_shown_depends_on_the_prefix_and_not_on_its_cuts(text: str, end: int, cuts: list[int]) -> None:
    now, other = shown(read(text[:end], cuts)), shown(read(text[:end], list(range(end))))
    assert now is other is NOTHING or now == other


@pytest.mark.parametrize(
    ("prefix", "value"),
    [
        ("", NOTHING),
        ("4", NOTHING),
        ("[4", []),
        ("[42,", [42]),
        ("[-1.5e3 ", [-1500.0]),
        ("[tru", []),
        ("[true", [True]),
        ("[null", [None]),
        ("[nul", []),
        ('{"a', {}),
        ('{"a"', {}),
        ('{"a":', {}),
        ('{"a":"', {"a": ""}),
        ('{"a":"x\\', {"a": "x"}),
        ('{"a":"x\\u00', {"a": "x"}),
        ('{"a":"x\\u00e9', {"a": "xé"}),
        ('{"a":"\\ud83d', {"a": ""}),
        ('{"a":"\\ud83d\\ude00', {"a": "😀"}),
        ('{"a":[{"b":1', {"a": [{}]}),
        ('{"a":[{"b":1}', {"a": [{"b": 1}]}),
        ('\ufeff{"a":1}', {"a": 1}),
        ('```json\n{"a":1}\n```', {"a": 1}),
        ("```js", NOTHING),
    ],
)
def test_what_is_certain(prefix: str, value: Any) -> None:
    reader = read(prefix, list(range(len(prefix))))
    assert reader.error is None
    assert shown(reader) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Sure: {", NOTHING),
        ('{"a":1,}', {"a": 1}),
        ('{"a" 1}', {}),
        ("{a:1}", {}),
        ("[1 2]", [1]),
        ("[01]", []),
        ("[1.]", []),
        ("[NaN]", []),
        ("[tru]", []),
        ('["\\x"]', [""]),
        ('["\\u00zz"]', [""]),
        ('["\\u 041"]', [""]),
        ('["\\ud83dx"]', [""]),
        ('["\\ude00"]', [""]),
        ('["\\ud83d"]', [""]),
        ('["a\nb"]', ["a"]),
        ("{} x", {}),
        ("{}}", {}),
        ("[1}", [1]),
        ("[" * (MAX_DEPTH + 1), NOTHING),
        ("[" + "9" * 5000 + "]", []),
    ],
)
def test_what_is_no_json_stops_the_reader_and_keeps_what_was_certain(text: str, value: Any) -> None:
    for cuts in ([], list(range(len(text)))):
        reader = read(text, cuts)
        reader.close()
        assert reader.error is not None
        assert not reader.is_whole
        if value is not NOTHING:
            assert shown(reader) == value


@pytest.mark.parametrize("text", ["", " ", "[", '{"a":', '"a', "[1", "-", "tru"])
def test_a_text_that_ends_too_early_is_an_error_at_its_end(text: str) -> None:
    reader = read(text)
    assert reader.error is None
    reader.close()
    assert reader.error is not None


def test_a_number_is_whole_when_the_text_ends() -> None:
    reader = read("42")
    assert not reader.has_value
    reader.close()
    assert reader.snapshot() == 42


# --- with a schema ---------------------------------------------------------------------------------------------------

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "unit": {"$ref": "#/$defs/Unit"},
        "when": {"type": "string", "format": "date"},
        "code": {"anyOf": [{"type": "null"}, {"type": "string", "pattern": "^[A-Z]+$"}]},
        "kind": {"const": "city"},
        "name": {"type": "string"},
        "tree": {"$ref": "#/$defs/Tree"},
        "pair": {"prefixItems": [{"enum": ["ab", "abc"]}, {"type": "string"}], "items": {"enum": ["xy"]}},
    },
    "additionalProperties": {"enum": ["ab"]},
    "$defs": {
        "Unit": {"enum": ["m", "mm"]},
        "Tree": {"properties": {"unit": {"$ref": "#/$defs/Unit"}, "next": {"$ref": "#/$defs/Tree"}}},
    },
}


@pytest.mark.parametrize(
    ("prefix", "value"),
    [
        ('{"unit":"m', {}),
        ('{"unit":"m"', {"unit": "m"}),
        ('{"when":"2026-1', {}),
        ('{"code":"AB', {}),
        ('{"kind":"cit', {}),
        ('{"name":"An', {"name": "An"}),
        ('{"other":"a', {}),
        ('{"tree":{"next":{"next":{"unit":"m', {"tree": {"next": {"next": {}}}}),
        ('{"tree":{"next":{"next":{"unit":"mm"', {"tree": {"next": {"next": {"unit": "mm"}}}}),
        ('{"pair":["ab', {"pair": []}),
        ('{"pair":["ab","q', {"pair": ["ab", "q"]}),
        ('{"pair":["ab","q","x', {"pair": ["ab", "q"]}),
        ('{"pair":["ab","q","xy","x', {"pair": ["ab", "q", "xy"]}),
    ],
)
def test_a_string_that_must_be_one_of_some_words_is_held_until_it_is_one(prefix: str, value: Any) -> None:
    assert shown(read(prefix, list(range(len(prefix))), SCHEMA)) == value


def test_a_schema_that_refers_to_itself_ends() -> None:
    place = Place({"$ref": "#"}, {"$ref": "#"}, {"anyOf": [{"$ref": "#/nowhere"}]})
    assert not place.holds


# --- cost ------------------------------------------------------------------------------------------------------------


def document(members: int) -> str:
    rows = [{"id": k, "name": f"row {k}", "tags": ["a", "b"], "ok": True} for k in range(members)]
    return json.dumps({"rows": rows, "note": "word " * members, "numbers": list(range(members))})


def spent(text: str, size: int) -> float:
    """Processor seconds to read it in pieces of `size`, looking whenever there is something to see."""
    best = float("inf")
    for _ in range(3):
        growth = Growth(SCHEMA)
        began = time.process_time()
        for at in range(0, len(text), size):
            growth.feed(text[at : at + size])
        growth.close()
        best = min(best, time.process_time() - began)
    return best


def test_reading_is_linear_in_the_length() -> None:
    small, large = document(250), document(2_000)
    ratio = len(large) / len(small)
    assert spent(large, 4) < 3 * ratio * spent(small, 4)


@pytest.mark.parametrize("text", ['"' + "x" * 80_000 + '"', "[" + "1," * 40_000 + "1]"], ids=["string", "array"])
def test_what_is_copied_is_linear_in_the_length(text: str) -> None:
    """Counted, not timed: members and pieces of strings that snapshots copied, for every character of text."""
    copied = looks = 0

    class Counted(JsonReader):
        def snapshot(self) -> Any:
            nonlocal copied, looks
            copied += self.size
            looks += 1
            return super().snapshot()

    growth = Growth(None)
    growth._reader = Counted()
    for at in range(0, len(text), 4):
        growth.feed(text[at : at + 4])
    growth.close()
    assert copied <= 65 * len(text) + 1_000
    assert looks > 100  # and it is looked at often all the same


def test_a_short_value_is_shown_at_every_character() -> None:
    text = json.dumps({"title": "Emma", "pages": 474, "tags": ["novel", "irony"]})
    growth = Growth(None)
    seen = [value for char in text if (value := growth.feed(char)) is not None]
    assert len(seen) == len({json.dumps(value) for value in seen}) == 20
    assert growth.close() is None
