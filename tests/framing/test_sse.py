"""SSE bytes in, frames out (WHATWG HTML, "server-sent events")."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from penstock.canon.errors import FrameTooLarge
from penstock.framing.base import Frame
from penstock.framing.sse import SSEFraming, write_comment, write_event
from tests.corpus import SSE_CASES, SSECase, each_sse_case

BOM = b"\xef\xbb\xbf"


def frames_of(*reads: bytes, framing: SSEFraming | None = None) -> list[Frame]:
    framing = framing or SSEFraming()
    frames = [frame for read in reads for frame in framing.feed(read)]
    return frames + framing.close()


def events_of(*reads: bytes) -> list[tuple[str | None, str, str]]:
    """What a browser would dispatch: type, data, last event id."""
    return [
        (frame.event, frame.data.decode(errors="replace"), frame.id or "")
        for frame in frames_of(*reads)
        if frame.data is not None and not frame.unterminated
    ]


def data_of(*reads: bytes) -> list[str]:
    return [data for _, data, _ in events_of(*reads)]


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def cut_at(data: bytes, ends: list[int]) -> list[bytes]:
    return [data[begin:end] for begin, end in pairwise([0, *sorted(ends), len(data)])]


# --- the cases of the standard's own tests, eventsource-parser, LaunchDarkly, httpx-sse and the SDKs ------------------


@each_sse_case
def test_a_conformance_case(case: SSECase):
    ways = {f"{size} bytes": cut(case.data, size) for size in (1, 2, 3, 7, 64)}
    ways["whole"] = [case.data]
    ways["as recorded"] = cut_at(case.data, list(case.chunk_boundaries))
    for way, reads in ways.items():
        framing = SSEFraming()
        frames = frames_of(*reads, framing=framing)
        assert [
            {"event": frame.event, "data": frame.data.decode(errors="replace"), "last_event_id": frame.id or ""}
            for frame in frames
            if frame.data is not None and not frame.unterminated
        ] == case.expected_events, way
        assert b"".join(frame.raw for frame in frames) == case.data.removeprefix(BOM), way
        if case.final_retry is not None:
            assert framing.retry_ms == case.final_retry, way


def test_the_conformance_cases_are_all_there():
    if not SSE_CASES:
        pytest.skip("no recorded streams at hand")
    assert len(SSE_CASES) == 127


# --- our own ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
def test_line_ends(end: bytes):
    wire = end.join([b"event: greet", b"data: a", b"data: b", b"", b"data: c", b"", b""])
    for size in range(1, len(wire) + 1):
        assert events_of(*cut(wire, size)) == [("greet", "a\nb", ""), (None, "c", "")], size


def test_line_ends_may_change_within_a_stream():
    assert data_of(b"data: a\rdata: b\ndata: c\r\n\rdata: d\n\r\ndata: e\r\n\n") == ["a\nb\nc", "d", "e"]


def test_crlf_split_between_reads():
    assert data_of(b"data: a\r", b"\ndata: b\r\n\r\n") == ["a\nb"]


def test_crlf_of_an_empty_line_split_between_reads():
    assert data_of(b"data: a\r\n\r", b"\ndata: b\r\n\r", b"\n") == ["a", "b"]


def test_c2_a_cr_ends_its_line_at_once():
    framing = SSEFraming()
    (frame,) = framing.feed(b"data: a\r\r")
    assert frame.data == b"a"
    assert [frame.data for frame in framing.feed(b"\ndata: b\n\n")] == [None, b"b"]


def test_a_bom_is_dropped_once():
    wire = BOM + b"data: a\n\ndata: " + BOM + b"b\n\n" + BOM + b"data: c\n\n"
    for size in range(1, len(wire) + 1):
        assert data_of(*cut(wire, size)) == ["a", "\ufeffb"], size


@pytest.mark.parametrize("held", [b"\xef", b"\xef\xbb"])
def test_what_looked_like_a_bom_is_not_lost(held: bytes):
    assert frames_of(held) == [Frame(held, unterminated=True)]
    assert b"".join(frame.raw for frame in frames_of(held, b"x\n\n")) == held + b"x\n\n"


@pytest.mark.parametrize("sign", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c"])
def test_only_cr_and_lf_end_a_line(sign: str):
    assert data_of(f"data: a{sign}b\n\n".encode()) == [f"a{sign}b"]


def test_utf8_split_between_reads():
    wire = "data: ✔ 水 😀\n\n".encode()
    assert data_of(*cut(wire, 1)) == ["✔ 水 😀"]


@pytest.mark.parametrize(
    ("line", "value"),
    [
        (b"data: x", "x"),
        (b"data:x", "x"),
        (b"data:  x", " x"),
        (b"data:\tx", "\tx"),
        (b"data: x ", "x "),
        (b"data: a: b", "a: b"),
        (b"data::x", ":x"),
        (b"data:", ""),
        (b"data: ", ""),
        (b"data", ""),
        (b"data: \xff", "\ufffd"),
    ],
)
def test_the_value_of_a_field(line: bytes, value: str):
    assert data_of(line + b"\n\n") == [value]


@pytest.mark.parametrize("line", [b"Data: x", b" data: x", b"datax: x", b"dat", b":data: x", b"", b": ping"])
def test_lines_that_say_nothing(line: bytes):
    assert data_of(line + b"\n\n") == []


def test_lines_of_data_are_joined():
    assert data_of(b"data: a\ndata:\ndata: b\n\n", b"data\ndata\n\n") == ["a\n\nb", "\n"]


def test_a_comment_is_a_frame_without_data():
    assert frames_of(b": OPENROUTER PROCESSING\n\n") == [Frame(b": OPENROUTER PROCESSING\n\n")]
    assert data_of(b": note\ndata: a\n: more\n\n") == ["a"]


def test_an_event_name_counts_for_its_own_event():
    wire = b"event: a\nevent: b\ndata: 1\n\ndata: 2\n\nevent:\ndata: 3\n\nevent: ping\n\nevent:x\ndata: 4\n\n"
    assert events_of(wire) == [("b", "1", ""), (None, "2", ""), (None, "3", ""), ("x", "4", "")]


def test_a_named_event_of_one_line_is_the_same_alone_and_in_company():
    one = b'event: content_block_delta\ndata: {"a":1}\n\n'
    frame = Frame(one, b'{"a":1}', "content_block_delta")
    assert frames_of(one) == [frame]
    assert frames_of(one + one) == [frame, frame]
    assert frames_of(*cut(one, 5)) == [frame]


@pytest.mark.parametrize(
    ("wire", "expected"),
    [
        (b"event: a\ndata: b\ndata: c\n\n", ("a", "b\nc", "")),
        (b"event: a\ndata:b\n\n", ("a", "b", "")),
        (b"event: \ndata: b\n\n", (None, "b", "")),
        (b"event: \xff\ndata: b\n\n", ("\ufffd", "b", "")),
        (b"event: a\ndata: b\nid: 7\n\n", ("a", "b", "7")),
        (b"event: a\nid: 7\ndata: b\n\n", ("a", "b", "7")),
        (b"event: a\nretry: 7\ndata: b\n\n", ("a", "b", "")),
        (b"event: a\ndata: b\nevent: c\n\n", ("c", "b", "")),
        (b"data: b\nevent: c\n\n", ("c", "b", "")),
        (b"event: a\r\ndata: b\n\n", ("a", "b", "")),
        (b"event: a\ndata: b\r\n\n", ("a", "b", "")),
    ],
)
def test_events_that_are_nearly_the_common_one(wire: bytes, expected: tuple[str | None, str, str]):
    for size in range(1, len(wire) + 1):
        assert events_of(*cut(wire, size)) == [expected], size


def test_an_id_stays_until_it_is_replaced():
    wire = b"id: 1\ndata: a\n\ndata: b\n\nevent: x\ndata: c\n\nid\ndata: d\n\nid: 2\n\ndata: e\n\n"
    assert [id_ for _, _, id_ in events_of(wire)] == ["1", "1", "1", "", "2"]
    assert [id_ for _, _, id_ in events_of(*cut(wire, 1))] == ["1", "1", "1", "", "2"]


def test_an_id_with_a_null_is_ignored():
    assert events_of(b"id: 1\ndata: a\n\nid: 2\x003\ndata: b\n\n") == [(None, "a", "1"), (None, "b", "1")]


@pytest.mark.parametrize(
    ("value", "retry_ms"),
    [
        (b"3000", 3000),
        (b"0", 0),
        (b"3s", None),
        (b"-1", None),
        (b"1.5", None),
        (b"", None),
        ("٣".encode(), None),
        (b"9" * 5000, None),
    ],
)
def test_retry_is_digits_or_nothing(value: bytes, retry_ms: int | None):
    framing = SSEFraming()
    framing.feed(b"retry: " + value + b"\n\n")
    assert framing.retry_ms == retry_ms


def test_the_error_field_of_old_llama_cpp():
    (frame,) = frames_of(b'error: {"code":500}\n\n')
    assert (frame.event, frame.data) == ("error", b'{"code":500}')


def test_c4_an_event_that_the_end_cuts_is_told_apart():
    *whole, last = frames_of(b"data: a\n\ndata: [DONE]")
    assert [(frame.data, frame.unterminated) for frame in whole] == [(b"a", False)]
    assert last == Frame(b"data: [DONE]", b"[DONE]", unterminated=True)
    assert [frame.unterminated for frame in frames_of(b"data: a\n")] == [True]


def test_an_event_that_the_end_cuts_commits_nothing():
    framing = SSEFraming()
    frames_of(b"id: 1\nretry: 5\ndata: a\n\nid: 2\nretry: 6\ndata: b\n", framing=framing)
    assert (framing.last_event_id, framing.retry_ms) == ("1", 5)


def test_an_empty_stream_has_no_frames():
    assert frames_of() == frames_of(b"") == frames_of(b"", b"") == []


def test_reads_without_bytes_change_nothing():
    assert data_of(b"", b"data: a\r\n\r", b"", b"\n", b"", b"data: b\n\n") == ["a", "b"]


# --- bounds ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_c11_a_frame_that_is_too_large_is_refused_after_those_before_it(size: int):
    framing = SSEFraming(max_frame_bytes=64)
    wire = b"data: a\n\n" + b"event: b\ndata: b\n\n" + b"data: " + b"x" * 100 + b"\n\ndata: c\n\n"
    seen: list[Frame] = []

    def feed_all() -> None:
        for read in [*cut(wire, size), b"data: d\n\n"]:
            seen.extend(framing.feed(read))

    with pytest.raises(FrameTooLarge, match="64 bytes"):
        feed_all()
    assert [frame.data for frame in seen] == [b"a", b"b"]
    for again in (lambda: framing.feed(b"data: e\n\n"), framing.close):
        with pytest.raises(FrameTooLarge):
            again()


@pytest.mark.parametrize("wire", [b"data: " + b"x" * 100 + b"\n\n", b"event: y\ndata: " + b"x" * 100 + b"\n\n"])
def test_c11_the_bound_holds_for_a_frame_that_comes_in_one_read(wire: bytes):
    with pytest.raises(FrameTooLarge):
        SSEFraming(max_frame_bytes=64).feed(wire)


def test_many_small_frames_in_one_read_are_none_too_large():
    assert len(SSEFraming(max_frame_bytes=64).feed(b"data: a\n\n" * 100)) == 100


@pytest.mark.parametrize(
    "line",
    [b"data: " + b"x" * 4096, b"data: " + b"x" * 100 + b"\n", b"data: " + b"x" * 100 + b"\r\n", b"data: x\r"],
    ids=["one line", "LF lines", "CRLF lines", "CR lines"],
)
def test_c11_the_work_for_a_giant_frame_is_in_proportion_to_it(line: bytes):
    """4 MiB in reads of 1 KiB: what comes is looked at once, and joined once."""
    size = 4 << 20
    wire = (line * (size // len(line) + 1))[:size]

    def cost(data: bytes) -> float:
        framing = SSEFraming()
        reads = cut(data, 1024)
        began = time.process_time()
        for read in reads:
            assert framing.feed(read) == []
        return time.process_time() - began

    cost(wire[: size // 8])
    half, whole = (min(cost(wire[:end]) for _ in range(3)) for end in (size // 2, size))
    assert whole < 3 * half + 0.005
    assert whole < 0.5  # a join of the whole at every read takes seconds


def test_a_giant_frame_arrives_whole():
    payload = b"x" * (1 << 20)
    wire = b"data: a\n\ndata: " + payload + b"\ndata: b\n\ndata: c\n\n"
    assert [frame.data for frame in frames_of(*cut(wire, 1000))] == [b"a", payload + b"\nb", b"c"]


# --- anything at all -------------------------------------------------------------------------------------------------

_SIGNS = b"\\n|\\r|\\r\\n|\\n\\n|:| |data: |data:|event: |id: |retry: 1|error: |x|\\xff|\\0|{}|[DONE]"
_signs = st.sampled_from([sign.decode("unicode_escape").encode("latin-1") for sign in _SIGNS.split(b"|")] + [BOM])
_streams = st.binary(max_size=40) | st.lists(_signs, max_size=25).map(b"".join)


@settings(max_examples=300, deadline=None)
@given(_streams, st.lists(st.integers(0, 200), max_size=12))
@example(b"\r\r\n\n", [1])
@example(BOM + b"\r\ndata: x\r", [1, 2, 3])
def test_c3_any_bytes_cut_anywhere_are_the_same_frames(data: bytes, ends: list[int]):
    whole = frames_of(data)
    pieces = frames_of(*cut_at(data, [end % (len(data) + 1) for end in ends]))

    def said(frames: list[Frame]) -> list[tuple[bytes | None, str | None, str | None, bool]]:
        return [(frame.data, frame.event, frame.id, frame.unterminated) for frame in frames if frame.data is not None]

    assert said(pieces) == said(whole)
    assert b"".join(frame.raw for frame in whole) == data.removeprefix(BOM)
    assert b"".join(frame.raw for frame in pieces) == data.removeprefix(BOM)


@settings(max_examples=200, deadline=None)
@given(_streams)
def test_frames_are_what_the_standards_own_steps_give(data: bytes):
    assert events_of(data) == _by_the_book(data)


def _by_the_book(data: bytes) -> list[tuple[str | None, str, str]]:
    """WHATWG HTML 9.2.6, word for word, one line after the other; and the one field that is ours (`error`)."""
    text = data.removeprefix(BOM).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    events: list[tuple[str | None, str, str]] = []
    event, id_, held = "", "", b""
    for line in text.split(b"\n")[:-1]:
        name, colon, value = line.partition(b":")
        value = value.removeprefix(b" ") if colon else b""
        if not line:
            if held:
                events.append((event or None, held[:-1].decode(errors="replace"), id_))
            event, held = "", b""
        elif name == b"data":
            held += value + b"\n"
        elif name == b"event":
            event = value.decode(errors="replace")
        elif name == b"id" and b"\0" not in value:
            id_ = value.decode(errors="replace")
        elif name == b"error" and not held:
            event, held = "error", value + b"\n"
    return events


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.text(st.characters(exclude_characters="\r\n", codec="utf-8")),
            st.none() | st.sampled_from(["ping", "x"]),
        )
    ),
    st.integers(1, 30),
)
def test_what_is_written_is_read(events: list[tuple[str, str | None]], size: int):
    wire = b"".join(write_event(data.encode(), event) for data, event in events)
    assert [(event, data) for event, data, _ in events_of(*cut(wire, size))] == [
        (event, data) for data, event in events
    ]


def test_a_written_comment_is_one_comment():
    assert write_comment("keep-alive") == b": keep-alive\n\n"
    (frame,) = frames_of(write_comment("a\nb"))
    assert frame.data is None
