"""C10: where client and upstream speak one dialect, a client gets the bytes that were sent, apart from three edits."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from penstock.framing.sse import SSEFraming
from tests.corpus import Recording, needs_corpus, recordings
from tests.gateway import frames

if TYPE_CHECKING:
    from tests.gateway.conftest import Bench
    from tests.scripted_upstream import Exchange

pytestmark = pytest.mark.process

DONE = b"data: [DONE]\n\n"


def serve(bench: Bench, data: bytes, cuts: list[bytes] | None = None) -> None:
    def script(exchange: Exchange) -> None:
        exchange.begin()
        for piece in cuts or [data]:
            exchange.chunk(piece)
        exchange.end()

    bench.upstream.script = script


def without_usage_frame(data: bytes) -> bytes:
    kept = []
    framing = SSEFraming()
    for frame in framing.feed(data) + framing.close():
        value: Any = json.loads(frame.data) if frame.data and frame.data.startswith(b"{") else {}
        if not (value.get("choices") == [] and value.get("usage")):
            kept.append(frame.raw)
    return b"".join(kept)


@needs_corpus
def test_c10_every_recorded_chat_stream_passes_byte_for_byte(bench: Bench) -> None:
    checked = 0
    for recording in recordings("openai-chat"):
        serve(bench, recording.data, recording.cuts().get("as recorded"))
        asked = bench.ask("openai-chat", "openai-chat", stream_options={"include_usage": True}).body
        unasked = bench.ask("openai-chat", "openai-chat").body
        assert_passed(recording, asked, recording.data)
        assert_passed(recording, unasked, without_usage_frame(recording.data))
        checked += 1
    assert checked > 100


def assert_passed(recording: Recording, got: bytes, sent: bytes) -> None:
    expected = recording.expected
    if expected["error"]:
        # The provider's own error is the last thing that passes; before any other event it is a status instead.
        assert got == sent or json.loads(got)["error"]["message"], recording.name
        assert b"[DONE]" not in got, recording.name
    elif b"\nerror: {" in sent:
        # gpustack's old llama.cpp says its error in a field of its own, which `expected` does not read.
        assert got == sent, recording.name
    elif expected["finish_reason_raw"] is None:
        # Never proved: an error of ours in place of a terminator that would have forged its ending; a status when the
        # whole of it came at once.
        sent = b"" if got.startswith(b"{") else sent.replace(DONE, b"")
        assert got.startswith(sent), recording.name
        assert json.loads(got[len(sent) :].removeprefix(b"data: "))["error"]["type"] == "truncated", recording.name
    elif b"[DONE]" not in sent:
        assert got == sent + DONE, recording.name
    else:
        assert got == sent, recording.name


@needs_corpus
def test_c10_every_recorded_messages_stream_passes_byte_for_byte(bench: Bench) -> None:
    checked = 0
    for recording in recordings("anthropic-messages"):
        if recording.data.count(b"event: message_start") > 1:
            continue  # three replies in one file: what comes after the first one's end is dropped, rightly
        serve(bench, recording.data, recording.cuts().get("as recorded"))
        assert bench.ask("anthropic-messages", "anthropic-messages").body == recording.data, recording.name
        checked += 1
    assert checked > 50


def chat(*pieces: bytes) -> bytes:
    return frames.opening("openai-chat") + b"".join(pieces)


def test_c10_a_missing_terminator_is_added_to_a_proved_ending(bench: Bench) -> None:
    sent = chat(frames.text("openai-chat", "a"), frames.finish("openai-chat"))
    serve(bench, sent)
    assert bench.ask("openai-chat", "openai-chat", stream_options={"include_usage": True}).body == sent + DONE


def test_c10_a_terminator_that_came_twice_passes_once(bench: Bench) -> None:
    sent = frames.whole("openai-chat", "a")
    serve(bench, sent + DONE + b"data: trailing\n\n")
    assert bench.ask("openai-chat", "openai-chat", stream_options={"include_usage": True}).body == sent


def test_c10_unknown_fields_and_odd_line_ends_pass(bench: Bench) -> None:
    odd = b'data:{"id":"c1","vendor":{"x":[1,2]},"choices":[{"index":0,"delta":{"content":"a"},"new":true}]}\r\n\r\n'
    end = b': a comment\r\rid: 7\rdata: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\r\rdata: [DONE]\r\r'
    serve(bench, odd + end)
    assert bench.ask("openai-chat", "openai-chat").body == odd + end


def test_c10_the_usage_frame_is_asked_for_always_and_kept_from_who_did_not_ask(bench: Bench) -> None:
    sent = frames.whole("openai-chat", "a")
    serve(bench, sent)
    assert b'"usage"' not in bench.ask("openai-chat", "openai-chat").body
    assert json.loads(bench.upstream.executions[-1])["stream_options"] == {"include_usage": True}
    assert bench.ask("openai-chat", "openai-chat", stream_options={"include_usage": True}).body == sent


def test_c10_an_alias_changes_the_models_name_and_nothing_else(bench: Bench) -> None:
    sent = frames.whole("openai-chat", 'say \\"model\\": \\"m\\"')
    serve(bench, sent)
    got = bench.ask("openai-chat", "openai-chat", model="alias", stream_options={"include_usage": True}).body
    assert got == sent.replace(b'"model": "m"', b'"model": "alias"')
    assert json.loads(bench.upstream.executions[-1])["model"] == "real-model"


def test_c10_the_callers_own_bytes_reach_the_upstream(bench: Bench) -> None:
    body = b'{ "model":"chat",  "messages":[{"role":"user","content":"hi"}], "vendor": {"a" : 1.50} }'
    serve(bench, frames.document("openai-chat", "a"))
    connection = bench.connect()
    connection.request("POST", "/v1/chat/completions", body)
    connection.getresponse().read()
    connection.close()
    assert bench.upstream.executions[-1] == body
