"""NDJSON and the JSON array: the same frames however the bytes are cut, and every byte in one of them."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.canon.errors import FrameTooLarge, MalformedFrame
from penstock.framing.json_array import JSONArrayFraming
from penstock.framing.ndjson import NDJSONFraming

if TYPE_CHECKING:
    from penstock.framing.base import Frame, Framing

_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('ab{}[]",\\\n', max_size=4), inner, max_size=3),
    max_leaves=8,
)
_objects = st.lists(st.dictionaries(st.text('ab{}[]",\\\n', max_size=4), _values, max_size=3), max_size=4)


def framed(framing: Framing, reads: list[bytes]) -> list[Frame]:
    frames = [frame for data in reads for frame in framing.feed(data)]
    return frames + framing.close()


def payloads(frames: list[Frame]) -> list[Any]:
    return [json.loads(frame.data) for frame in frames if frame.data is not None]


def cut(data: bytes, at: list[int]) -> list[bytes]:
    edges = [0, *sorted(end % (len(data) + 1) for end in at), len(data)]
    return [data[begin:end] for begin, end in pairwise(edges)]


@given(_objects, st.booleans(), st.sampled_from(["\n", "\r\n", "\n\n"]), st.lists(st.integers(0, 9999), max_size=6))
def test_lines_however_they_are_cut(values: list[Any], is_ended: bool, end: str, at: list[int]):
    data = end.join(json.dumps(value, ensure_ascii=False) for value in values).encode() + (
        end.encode() if is_ended else b""
    )
    frames = framed(NDJSONFraming(), cut(data, at))
    assert payloads(frames) == values
    assert b"".join(frame.raw for frame in frames) == data
    assert [frame.unterminated for frame in frames if frame.data] == [False] * (len(values) - 1) + [
        not is_ended
    ] * bool(values)


@given(
    st.lists(_values, max_size=4),
    st.sampled_from([None, 2]),
    st.sampled_from(["", "\n", " \r\n"]),
    st.lists(st.integers(0, 9999), max_size=6),
)
def test_an_array_however_it_is_cut(values: list[Any], indent: int | None, space: str, at: list[int]):
    data = (space + json.dumps(values, ensure_ascii=False, indent=indent) + space).encode()
    frames = framed(JSONArrayFraming(), cut(data, at))
    assert payloads(frames) == values
    assert b"".join(frame.raw for frame in frames) == data
    assert not any(frame.unterminated for frame in frames if frame.data)


def test_an_element_is_out_as_soon_as_it_is_whole():
    framing = JSONArrayFraming()
    assert framing.feed(b'[{"a": "]}\\"') == []
    (frame,) = framing.feed(b'"}')
    assert (frame.raw, frame.data) == (b'[{"a": "]}\\""}', b'{"a": "]}\\""}')
    (frame,) = framing.feed(b',\r\n{"b": [1, {}]}')
    assert (frame.raw, frame.data) == (b',\r\n{"b": [1, {}]}', b'{"b": [1, {}]}')
    (frame,) = framing.feed(b"\n]")
    assert (frame.raw, frame.data) == (b"\n]", None)
    assert framing.close() == []


@pytest.mark.parametrize("end", range(1, 20))
def test_an_array_that_is_cut(end: int):
    data = b'[{"a": "b"}, {"c"}]'[:end]
    frames = framed(JSONArrayFraming(), [data])
    assert b"".join(frame.raw for frame in frames) == data
    whole = [frame.data for frame in frames if frame.data is not None and not frame.unterminated]
    assert whole == [b'{"a": "b"}', b'{"c"}'][: (end >= 11) + (end >= 18)]


def test_no_array():
    with pytest.raises(MalformedFrame):
        JSONArrayFraming().feed(b'{"a": 1}')


@pytest.mark.parametrize(("framing", "first"), [(JSONArrayFraming, b'[{"a":"'), (NDJSONFraming, b'{"a":"')])
def test_c11_what_never_ends_is_refused(framing: Any, first: bytes):
    endless = framing(max_frame_bytes=1000)
    endless.feed(first)
    for _ in range(15):
        endless.feed(b"x" * 64)
    with pytest.raises(FrameTooLarge):
        endless.feed(b"x" * 64)
    with pytest.raises(FrameTooLarge):
        endless.feed(b"x")
    with pytest.raises(FrameTooLarge):
        endless.close()


def test_c11_what_came_before_is_given_first():
    lines = NDJSONFraming(max_frame_bytes=10)
    assert payloads(lines.feed(b"1\n2\n" + b"3" * 20 + b"\n")) == [1, 2]
    with pytest.raises(FrameTooLarge):
        lines.feed(b"4\n")
    array = JSONArrayFraming(max_frame_bytes=10)
    assert payloads(array.feed(b'[{},{},{"a":"' + b"3" * 20)) == [{}, {}]
    with pytest.raises(FrameTooLarge):
        array.feed(b'"}]')


def test_a_giant_element_is_looked_at_once():
    """Pathology 11: a whole image in one frame, in small reads."""
    text = "x" * 1_000_000
    data = json.dumps([{"a": text}]).encode()
    frames = framed(JSONArrayFraming(), [data[k : k + 100] for k in range(0, len(data), 100)])
    assert payloads(frames) == [{"a": text}]
    lines = framed(NDJSONFraming(), [data[k : k + 100] for k in range(0, len(data), 100)])
    assert payloads(lines) == [[{"a": text}]]


def test_a_bom_is_no_data():
    """Pathology 40."""
    for size in (1, 2, 99):
        data = b"\xef\xbb\xbf[1]"
        reads = [data[k : k + size] for k in range(0, len(data), size)]
        assert payloads(framed(JSONArrayFraming(), reads)) == [1]
        assert payloads(framed(NDJSONFraming(), reads)) == [[1]]
