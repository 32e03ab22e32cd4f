"""Gemini's streams relayed as they come, both forms: byte for byte, closed when proved, and told of a failure."""

from __future__ import annotations

import json

import pytest

from penstock.canon.errors import PenstockError
from penstock.canon.target import Target
from penstock.dialects.gemini import ARRAY, DIALECT, Gemini
from penstock.framing.choose import choose_framing
from penstock.serving.writers import Verbatim
from penstock.streams.stream import EventStream, Reply
from penstock.transport.memory import MemoryResponse
from penstock.transport.memory import Reply as Answer
from tests.dialects.gemini_wire import STOP, array, chunk, decoded, decoded_array, sse, text
from tests.virtual_clock import now

FORMS = {"sse": (DIALECT, sse), "array": (ARRAY, array)}
each_form = pytest.mark.parametrize("form", FORMS)

CHUNKS = [chunk(text("Hel")), chunk(text("lo")), STOP]
BUSY = {"error": {"code": 503, "message": "Busy", "status": "UNAVAILABLE"}}


async def relayed(dialect: Gemini, wire: bytes, size: int = 7, alias: str | None = None) -> bytes:
    """What a client reads of this stream, written as a route writes it."""
    reads = tuple(wire[at : at + size] for at in range(0, len(wire), size))
    response = MemoryResponse(Answer(headers={"content-type": dialect.stream_type}, chunks=reads))

    def choose(first: bytes, is_all: bool):
        framing = choose_framing(dialect.stream_type, first, is_all=is_all, streams_as=dialect.streams_as)
        return framing and (framing, dialect.decoder(document=framing.name == "document", provider="up"))

    reply = Reply(response, choose, now=now, target="up:m")
    stream = EventStream(reply, target=Target("up", "http://127.0.0.1:9/v1", "gemini", "m"), dialect="gemini")
    writer = Verbatim(stream, dialect, keep_usage=True, alias=alias)
    written = []
    try:
        async for batch in stream:
            written.append(writer.write(batch))  # noqa: PERF401 - what came before an error counts
        written.append(writer.end())
    except PenstockError as error:
        encoder = dialect.encoder(model=alias, include_usage=True, request_id="req_1", created=0)
        written.append(writer.failed(error, encoder))
    reply.close()
    return b"".join(written)


@each_form
@pytest.mark.parametrize("size", [1, 7, 10_000])
async def test_c10_a_stream_passes_byte_for_byte(form: str, size: int):
    dialect, wire_of = FORMS[form]
    assert await relayed(dialect, wire_of(*CHUNKS), size) == wire_of(*CHUNKS)


@each_form
async def test_c10_a_mapped_model_is_named_as_the_client_knows_it(form: str):
    dialect, wire_of = FORMS[form]
    written = await relayed(dialect, wire_of(*CHUNKS), alias="my-model")
    assert written == wire_of(*CHUNKS).replace(b'"gem-x"', b'"my-model"')


async def test_c10_a_bracket_that_the_upstream_left_out_is_added():
    written = await relayed(ARRAY, array(*CHUNKS).rstrip(b"]\n"))
    assert json.loads(written) == CHUNKS


@pytest.mark.parametrize("size", [1, 7, 10_000])
async def test_c4_a_bracket_that_nothing_proved_is_not_passed(size: int):
    written = await relayed(ARRAY, array(*CHUNKS[:2]), size)
    assert [*CHUNKS[:2]] == json.loads(written + b"]")[:2]
    assert json.loads(written + b"]")[2]["error"]["code"] == 502


@pytest.mark.parametrize("size", [1, 10_000])
@pytest.mark.parametrize("wire", [b"[]", b"[\n]\n"])
async def test_c4_an_array_that_holds_nothing_is_told_as_an_error(wire: bytes, size: int):
    (said,) = json.loads(await relayed(ARRAY, wire, size) + b"]")
    assert said["error"]["code"] == 502


@each_form
@pytest.mark.parametrize("cut", [0, 40])
async def test_c4_an_error_of_ours_is_the_last_word_and_can_be_read(form: str, cut: int):
    """A stream that ends between two chunks, and one that ends inside of one."""
    dialect, wire_of = FORMS[form]
    whole = wire_of(*CHUNKS[:2]).removesuffix(b"\n]")
    written = await relayed(dialect, whole[: len(whole) - cut])
    driven = (decoded if form == "sse" else decoded_array)(written)
    assert "finishReason" in str(driven.error), "our own words, read back by a client of this wire"
    assert getattr(driven.error, "type", None) == "UNAVAILABLE"
    assert driven.response.text == ("Hello" if cut == 0 else "Hel")


@each_form
async def test_c4_the_providers_own_error_passes_as_it_is_and_is_the_last_word(form: str):
    dialect, wire_of = FORMS[form]
    written = await relayed(dialect, wire_of(CHUNKS[0], BUSY, CHUNKS[1]))
    assert written.rstrip(b"\r\n]") == wire_of(CHUNKS[0], BUSY).rstrip(b"\r\n]")
    assert not written.endswith(b"]")
