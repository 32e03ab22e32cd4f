"""AWS event streams: messages out at every cut, checksums and lengths checked, botocore as the judge."""

from __future__ import annotations

import struct
import zlib

import pytest
from botocore.eventstream import EventStreamBuffer
from hypothesis import given
from hypothesis import strategies as st

from penstock.canon.errors import FrameTooLarge, MalformedFrame
from penstock.framing.base import Frame
from penstock.framing.eventstream import EventStreamFraming, write_message
from tests.corpus import CORPUS, needs_corpus, recordings

_messages = st.lists(
    st.tuples(
        st.dictionaries(st.text("abc:-", min_size=1, max_size=9), st.text(max_size=9), max_size=3),
        st.binary(max_size=40),
    ),
    max_size=4,
)


def framed(reads: list[bytes]) -> list[Frame]:
    framing = EventStreamFraming()
    frames = [frame for data in reads for frame in framing.feed(data)]
    return frames + framing.close()


@given(_messages, st.integers(1, 30))
def test_messages_there_and_back(messages: list[tuple[dict[str, str], bytes]], size: int):
    data = b"".join(write_message(headers, payload) for headers, payload in messages)
    frames = framed([data[k : k + size] for k in range(0, len(data), size)])
    assert [(frame.headers, frame.data) for frame in frames] == messages
    assert b"".join(frame.raw for frame in frames) == data
    judge = EventStreamBuffer()
    judge.add_data(data)
    assert [(found.headers, found.payload) for found in judge] == messages


def test_the_event_is_named_by_its_header():
    for name in (":event-type", ":exception-type", ":error-code"):
        (frame,) = framed([write_message({":message-type": "x", name: "thrown"}, b"{}")])
        assert frame.event == "thrown"


def test_headers_of_every_type_are_passed_over():
    values = [(0, b""), (1, b""), (2, b"\1"), (3, b"\0\1"), (4, b"\0" * 4), (5, b"\0" * 8), (6, b"\0\3abc"),
              (7, b"\0\2hi"), (8, b"\0" * 8), (9, b"\0" * 16)]  # fmt: skip
    headers = b"".join(b"\1" + bytes([97 + kind, kind]) + value for kind, value in values)
    lengths = struct.pack(">II", len(headers) + 16, len(headers))
    message = lengths + struct.pack(">I", zlib.crc32(lengths)) + headers
    (frame,) = framed([message + struct.pack(">I", zlib.crc32(message))])
    assert (frame.headers, frame.data) == ({"h": "hi"}, b"")


@pytest.mark.parametrize("at", range(30))
def test_a_wrong_byte_is_found(at: int):
    data = bytearray(write_message({"a": "b"}, b'{"p":"abcd"}'))
    data[at] ^= 1
    with pytest.raises((MalformedFrame, FrameTooLarge)):
        EventStreamFraming().feed(bytes(data))


def test_good_messages_go_before_a_bad_one():
    framing = EventStreamFraming()
    good = write_message({"a": "b"}, b"1")
    assert [frame.data for frame in framing.feed(good + b"\xff" * 16)] == [b"1"]
    with pytest.raises(MalformedFrame):
        framing.feed(b"")
    with pytest.raises(MalformedFrame):
        framing.close()


def test_a_cut_message_is_unterminated():
    data = write_message({"a": "b"}, b"1")
    for end in range(1, len(data)):
        (frame,) = framed([data[:end]])
        assert (frame.raw, frame.data, frame.unterminated) == (data[:end], None, True)


def test_c11_a_message_over_the_bound_is_refused_by_its_length():
    framing = EventStreamFraming(max_frame_bytes=100)
    with pytest.raises(FrameTooLarge):
        framing.feed(write_message({}, b"x" * 200)[:12])


def test_impossible_lengths():
    lengths = struct.pack(">II", 20, 9)
    with pytest.raises(MalformedFrame):
        EventStreamFraming().feed(lengths + struct.pack(">I", zlib.crc32(lengths)))


@needs_corpus
def test_every_recording_is_read_as_botocore_reads_it():
    assert CORPUS.is_dir()
    found = [held for name in ("bedrock-converse", "bedrock-invoke") for held in recordings(name)]
    streams = [held for held in found if held.framing == "aws-eventstream"]
    assert len(streams) >= 16
    for recording in streams:
        judge = EventStreamBuffer()
        judge.add_data(recording.data)
        expected = [(event.headers, event.payload) for event in judge]
        for reads in recording.cuts().values():
            frames = framed(reads)
            assert [frame.data for frame in frames] == [payload for _, payload in expected]
            assert [frame.headers for frame in frames] == [headers for headers, _ in expected]
