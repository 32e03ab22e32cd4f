"""Pathology 39: a stream that is compressed although `identity` was asked for, read as it comes."""

from __future__ import annotations

import gzip
import zlib
from typing import Any

import pytest

from penstock.canon.errors import ProtocolError
from penstock.canon.wire import ConnectionLost, HttpRequest
from penstock.streams.inflate import MAX_TAKE_BYTES, inflated
from penstock.transport.memory import MemoryTransport, Reply

TEXT = b"data: {}\n\n" * 3


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


async def reply(encoding: str, *chunks: bytes) -> Any:
    transport = MemoryTransport(Reply(headers={"content-encoding": encoding}, chunks=chunks))
    return await transport.open(HttpRequest("POST", "http://x/"), connect_s=1)


async def body(response: Any) -> bytes:
    pieces = []
    while data := await response.read():
        pieces.append(data)
    return b"".join(pieces)


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [("gzip", gzip.compress), ("X-GZIP", gzip.compress), ("deflate", zlib.compress), ("deflate", raw_deflate)],
    ids=["gzip", "x-gzip", "zlib", "raw"],
)
@pytest.mark.parametrize("size", [1, 7, 999])
async def test_pathology_39_a_compressed_body(encoding: str, pack: Any, size: int):
    packed = pack(TEXT)
    chunks = [packed[k : k + size] for k in range(0, len(packed), size)]
    assert await body(inflated(await reply(encoding, *chunks))) == TEXT


async def test_each_flush_is_given_at_once():
    packer = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    chunks = [packer.compress(piece) + packer.flush(zlib.Z_SYNC_FLUSH) for piece in (b"one", b"two")]
    response = inflated(await reply("gzip", *chunks, packer.flush()))
    assert [await response.read(), await response.read()] == [b"one", b"two"]
    assert await response.read() == b""


async def test_c11_what_a_read_inflates_to_is_bounded():
    response = inflated(await reply("gzip", gzip.compress(bytes(3 * MAX_TAKE_BYTES))))
    sizes = []
    while data := await response.read():
        sizes.append(len(data))
    assert sizes == [MAX_TAKE_BYTES] * 3


@pytest.mark.parametrize(
    "damaged", [gzip.compress(TEXT)[:-9], gzip.compress(TEXT)[:15] + b"xxxxxxx"], ids=["cut", "wrong"]
)
async def test_c4_a_cut_body_is_lost(damaged: bytes):
    with pytest.raises(ConnectionLost):
        await body(inflated(await reply("gzip", damaged)))


async def test_what_is_not_compressed_is_itself():
    for encoding in ("", "identity"):
        response = await reply(encoding, b"x")
        assert inflated(response) is response


async def test_another_encoding_is_refused_by_its_name():
    response = await reply("br", b"x")
    with pytest.raises(ProtocolError, match="`br`"):
        inflated(response)
