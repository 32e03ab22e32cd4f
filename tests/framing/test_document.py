"""A reply that does not stream: bytes in, one frame out."""

from __future__ import annotations

import pytest

from penstock.canon.errors import FrameTooLarge
from penstock.framing.base import Frame
from penstock.framing.document import DocumentFraming


@pytest.mark.parametrize("size", [1, 3, 100])
def test_the_whole_body_is_one_frame_at_the_end(size: int):
    framing, body = DocumentFraming(), b'{"a": "\n\n", "b": 1}'
    for at in range(0, len(body), size):
        assert framing.feed(body[at : at + size]) == []
    assert framing.close() == [Frame(body, body)]
    assert framing.close() == []


def test_blank_lines_before_a_document_keep_it_alive_and_are_no_payload():
    framing = DocumentFraming()
    for read in (b"\n", b"\n\n", b'{"a":1}', b"\n"):
        framing.feed(read)
    assert framing.close() == [Frame(b'\n\n\n{"a":1}\n', b'{"a":1}')]


@pytest.mark.parametrize("body", [b"\xef\xbb\xbf{}", b"\n\xef\xbb\xbf\n{}\n"])
def test_a_byte_order_mark_is_no_payload(body: bytes):
    framing = DocumentFraming()
    framing.feed(body)
    assert framing.close() == [Frame(body, b"{}")]


@pytest.mark.parametrize("body", [b"", b"\n \r\n", b"\xef\xbb\xbf"])
def test_an_empty_body_is_no_frame(body: bytes):
    framing = DocumentFraming()
    framing.feed(body)
    assert framing.close() == []


def test_c11_a_document_has_a_bound():
    framing = DocumentFraming(max_frame_bytes=10)
    framing.feed(b"x" * 10)
    with pytest.raises(FrameTooLarge, match="10 bytes"):
        framing.feed(b"x")
