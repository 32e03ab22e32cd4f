"""What a client gets of each batch: the upstream's own bytes but for four edits, or a translation."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.canon.errors import PenstockError, Truncated
from penstock.canon.target import Target
from penstock.dialects import client_dialect
from penstock.serving.writers import Translated, Verbatim, rename_model
from penstock.streams.stream import EventStream
from tests.corpus import Recording, each
from tests.dialects.chat_wire import USAGE, chunk, sse
from tests.streams.replies import DONE, END, ERROR, HEL, LO, PING, ROLE, Break, Hang, reply_to, script
from tests.virtual_clock import on_virtual_time
from tests.wires import sse_frames

CHAT, MESSAGES = "openai-chat", "anthropic-messages"
USAGE_CHUNK = sse(chunk(choices=[], usage=USAGE))
STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'


async def relayed(
    *steps: Any, name: str = CHAT, client: str | None = None, keep_usage: bool = True, alias: str | None = None
) -> bytes:
    """What a client reads of this reply, written as a route writes it."""
    reply = reply_to(script(*steps), name=name)
    stream = EventStream(reply, target=Target("up", "http://127.0.0.1:9/v1", name, "m"), dialect=name)
    ours = client_dialect(client or name)
    encoder = ours.encoder(model=alias, include_usage=keep_usage, request_id="r", created=0)
    writer: Verbatim | Translated
    if client in (None, name):
        writer = Verbatim(stream, ours, keep_usage=keep_usage, alias=alias)
    else:
        writer = Translated(encoder)
    written = []
    try:
        async for batch in stream:
            written.append(writer.write(batch))  # noqa: PERF401 - what came before an error counts
        written.append(writer.end())
    except PenstockError as error:
        written.append(writer.failed(error, encoder))
    reply.close()
    return b"".join(written)


def relay(*steps: Any, **options: Any) -> bytes:
    found: list[bytes] = []

    @on_virtual_time
    async def run() -> None:
        found.append(await relayed(*steps, **options))

    run()
    return found[0]


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


# --- byte for byte ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 64, 10_000])
def test_c10_frames_pass_byte_for_byte(size: int):
    wire = b": hi\r\n\r\n" + ROLE + PING + HEL + b'data:{"new":1 ,"choices":null}\n\n\n' + LO + END + USAGE_CHUNK + DONE
    assert relay(*cut(wire, size)) == wire


@each(CHAT)
def test_c10_a_recorded_chat_passes_byte_for_byte(recording: Recording):
    if b"[DONE]" not in recording.data or recording.expected["finish_reason_raw"] is None:
        return  # what is not proved, or not ended, is not passed as it is: see below
    whole = recording.data[: recording.data.index(b"[DONE]") + len("[DONE]")]
    assert relay(*cut(recording.data, 1000)).startswith(whole)


@each(MESSAGES)
def test_c10_a_recorded_message_passes_byte_for_byte(recording: Recording):
    begin, stop, rest = recording.data.partition(b"event: message_stop")
    last = stop + rest.partition(b"\n\n")[0].rstrip()
    written = relay(*cut(recording.data, 1000), name=MESSAGES)
    assert written.startswith(begin + last)
    assert written.removeprefix(begin + last).strip() == b""
    assert written.endswith(b"\n\n"), "some recordings stop short of their last line end"


# --- the names of events ---------------------------------------------------------------------------------------------


@each(MESSAGES)
def test_c10_events_that_lost_their_names_are_given_them(recording: Recording):
    """Pathology 38: somebody on the way strips `event:` lines, and Anthropic's SDKs skip events without a name."""
    data = recording.data.replace(b"\r\n", b"\n")
    stripped = re.sub(rb"^event:.*\n", b"", data, flags=re.MULTILINE)
    if b"data:" not in stripped or stripped == data:
        return  # a document
    assert events_of(relay(*cut(stripped, 1000), name=MESSAGES)) == events_of(relay(*cut(data, 1000), name=MESSAGES))


def events_of(wire: bytes) -> list[tuple[str | None, str | None]]:
    return [(event, data) for event, data in sse_frames(wire.rstrip() + b"\n\n") if event or data]


@pytest.mark.parametrize("alias", [None, "mine"])
def test_c10_a_name_that_was_lost_is_the_only_thing_that_is_added(alias: str | None):
    start = b'data: {"type": "message_start", "message": {"id": "m", "model": "%b", "new": 1}}\n\n'
    after: list[tuple[bytes, bytes]] = [
        (b"", b": hi\n\n"),
        (
            b"event: content_block_start\n",
            b'data:{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}\n\n',
        ),
        (
            b"event: content_block_delta\n",
            b'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hi"}}\n\n',
        ),
        (b"event: new_event\n", b'data: {"type":"new_event"}\n\n'),
        (b"", b'data: {"type":"no: name"}\n\n'),
        (b"event: message_stop\n", b'data: {"type":"message_stop"}\n\n'),
    ]
    lost = [b"\xef\xbb\xbf" + start % b"real", *(event for _, event in after)]
    named = [b"event: message_start\n" + start % (alias or "real").encode(), *(name + event for name, event in after)]
    assert relay(*lost, name=MESSAGES, alias=alias) == b"".join(named)


# --- the terminator --------------------------------------------------------------------------------------------------


def test_c10_a_terminator_that_the_upstream_left_out_is_added():
    assert relay(HEL, END) == HEL + END + DONE


@pytest.mark.parametrize("size", [1, 10_000])
def test_c10_a_terminator_that_comes_twice_is_passed_once(size: int):
    """Pathology 3."""
    assert relay(*cut(HEL + END + DONE + DONE, size)) == HEL + END + DONE


def test_c10_what_comes_after_the_terminator_is_dropped():
    assert relay(HEL + END + DONE + LO + PING + END) == HEL + END + DONE


def test_c4_a_terminator_that_nothing_proved_is_not_passed():
    written = relay(HEL + DONE)
    assert b"data: [DONE]" not in written
    assert error_of(written)["type"] == "truncated"


@pytest.mark.parametrize("last", [b"data: [DONE]", b"data: [DONE]\n", b"data: [DONE]\r", b"data: [DONE]\r\n"])
def test_c4_a_terminator_without_its_blank_line_is_given_one(last: bytes):
    written = relay(HEL + END + last)
    assert written.startswith(HEL + END + b"data: [DONE]")
    assert written.endswith((b"\n\n", b"\r\n\r\n", b"\r\n\n"))
    assert written.count(b"[DONE]") == 1


def test_c4_a_finish_without_its_blank_line_is_given_one_before_the_terminator():
    assert relay(HEL + END.rstrip()) == HEL + END + DONE


def test_c10_a_crlf_that_is_cut_before_its_lf_is_made_whole():
    wire = (HEL + END + DONE).replace(b"\n", b"\r\n")
    assert relay(wire[:-1], b"\n") == wire


# --- errors ----------------------------------------------------------------------------------------------------------


def error_of(written: bytes) -> dict[str, Any]:
    payload: dict[str, Any] = json.loads(written.strip().rpartition(b"data: ")[2])
    error: dict[str, Any] = payload["error"]
    return error


def test_c4_the_providers_own_error_passes_as_it_is_and_is_the_last_word():
    assert relay(HEL + ERROR + END + DONE) == HEL + ERROR


def test_c4_an_error_of_ours_is_the_last_word():
    written = relay(HEL, LO, Break())
    assert written.startswith(HEL + LO)
    assert error_of(written)["type"] == "truncated"
    assert b"[DONE]" not in written


def test_c4_an_error_is_never_glued_to_an_open_event():
    """Pathology 16."""
    written = relay(HEL, LO.rstrip())
    assert written.startswith(HEL + LO)
    assert error_of(written)["type"] == "truncated"


def test_c4_half_a_frame_is_not_passed():
    written = relay(HEL, LO[:20])
    assert written.startswith(HEL + b"data: {")
    assert error_of(written)["type"] == "truncated"


def test_c4_an_error_in_the_wire_of_messages():
    begun = b'event: message_start\ndata: {"type":"message_start","message":{"model":"m"}}\n\n'
    written = relay(begun, Break(), name=MESSAGES)
    assert written.startswith(begun + b"event: error\ndata: {")
    assert b"message_stop" not in written


# --- usage that was not asked for ------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 10_000])
def test_c10_usage_that_was_not_asked_for_is_kept_back(size: int):
    assert relay(*cut(HEL + END + USAGE_CHUNK + DONE, size), keep_usage=False) == HEL + END + DONE


def test_c10_usage_beside_content_is_not_worth_the_content():
    last = sse(chunk({"content": "lo"}, "stop", usage=USAGE))
    assert relay(HEL + last + DONE, keep_usage=False) == HEL + last + DONE


# --- the model's name ------------------------------------------------------------------------------------------------


def test_c10_a_mapped_model_is_named_as_the_client_knows_it():
    wire = ROLE + PING + HEL + LO + END + USAGE_CHUNK + DONE
    written = relay(wire, alias="fast")
    assert written == wire.replace(b'"model": "m"', b'"model": "fast"')
    assert b'"fast"' in written


@pytest.mark.parametrize(
    ("raw", "renamed"),
    [
        (b'data: {"id":"1","model":"gpt","choices":[]}\n\n', b'data: {"id":"1","model":"fast","choices":[]}\n\n'),
        (b'data: {"model" : "gpt" }\n\n', b'data: {"model" : "fast" }\n\n'),
        (b'data: {"model":""}\n\n', b'data: {"model":"fast"}\n\n'),
        (b'data: {"model":"g\\"p\\\\t"}\n\n', b'data: {"model":"fast"}\n\n'),
        (b'data: {"message":{"model":"gpt"}}\n\n', b'data: {"message":{"model":"fast"}}\n\n'),
        (
            b'data: {"a":"\\"model\\":\\"x\\"","model":"gpt"}\n\n',
            b'data: {"a":"\\"model\\":\\"x\\"","model":"fast"}\n\n',
        ),
        (
            b'{"content":[{"input":{"model":"x"}}],"model":"gpt"}',
            b'{"content":[{"input":{"model":"x"}}],"model":"fast"}',
        ),
        (b'data: {"model":null}\n\n', None),
        (b'data: {"models":"gpt"}\n\n', None),
        (b'data: {"delta":{"text":"\\"model\\":\\"x\\""}}\n\n', None),
        (b'data: {"content_block":{"input":{"model":"gpt"}}}\n\n', None),
        (b'data: {"choices":[{"delta":{"tool_calls":[{"function":{"arguments":{"model":"x"}}}]}}]}\n\n', None),
        (
            b'data: {"choices":[{"delta":{"x":{"y":{"model":"z"}}}}],"model":"gpt"}\n\n',
            b'data: {"choices":[{"delta":{"x":{"y":{"model":"z"}}}}],"model":"fast"}\n\n',
        ),
        (b'data: {"a":"}}}{{","b":{"c":{"model":"x"}}}\n\n', None),
    ],
)
def test_only_the_models_own_name_is_changed(raw: bytes, renamed: bytes | None):
    assert rename_model(raw, "fast") == (raw if renamed is None else renamed)


@given(st.text(), st.text(), st.dictionaries(st.text(max_size=5), st.text(max_size=20) | st.none(), max_size=4))
def test_a_renamed_frame_is_the_same_frame_but_for_its_model(model: str, name: str, others: dict[str, Any]):
    payload = {**others, "model": model, "text": others}
    renamed = rename_model(b"data: " + json.dumps(payload).encode() + b"\n\n", name)
    assert json.loads(renamed.removeprefix(b"data: ")) == {**payload, "model": name}


# --- a translation ---------------------------------------------------------------------------------------------------


def test_a_translation_has_its_own_terminator_once():
    written = relay(ROLE, HEL, LO, END + USAGE_CHUNK + DONE + DONE, client=MESSAGES)
    assert written.endswith(STOP)
    assert written.count(STOP) == 1


def test_c4_a_translation_of_an_error_has_no_terminator():
    for steps in ((HEL, Break()), (HEL, ERROR, END, DONE), (HEL + DONE,)):
        written = relay(*steps, client=MESSAGES)
        assert written.rpartition(b"event: ")[2].startswith(b"error\n")
        assert STOP not in written


def test_c2_a_translation_writes_each_batch_at_once():
    @on_virtual_time
    async def run() -> None:
        reply = reply_to(script(ROLE + HEL, LO, Hang()))
        stream = EventStream(reply, target=Target("up", "http://x", CHAT), dialect=CHAT)
        encoder = client_dialect(MESSAGES).encoder(model="m", include_usage=True, request_id="r", created=0)
        writer = Translated(encoder)
        first, second = writer.write(await anext(stream)), writer.write(await anext(stream))
        assert b'"Hel"' in first
        assert b'"lo"' in second
        assert b'"type":"overloaded"' not in writer.failed(Truncated("It was cut."), encoder)
        reply.close()

    run()
