"""C10: between a client and an upstream of one dialect, every byte passes; three edits are allowed and nothing else."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.contract.simulated import Pair as AnyPair
from tests.contract.simulated import Told, check_whole, each_form
from tests.corpus import each
from tests.upstreams import Answer, Gate, document, sse
from tests.wires import CHAT, MESSAGES, Pair, each_client

if TYPE_CHECKING:
    from tests.contract.clients import Client
    from tests.contract.simulated import Bench
    from tests.corpus import Recording
    from tests.gateways import Asked, Gateway
    from tests.upstreams import Upstream
    from tests.wires import Wire

pytestmark = pytest.mark.process

TEXTS = ["One ", "two ", "three"]


def replayed(recording: Recording) -> Answer:
    """As it was recorded, read by read; else as one piece."""
    pieces = recording.cuts().get("as recorded", [recording.data])
    return Answer(pieces, content_type=recording.meta["content_type"] or "text/event-stream")


def payload_of(frame: bytes) -> Any:
    data = re.findall(rb"^data: ?(.*?)\r?$", frame, re.MULTILINE)
    try:
        return json.loads(b"\n".join(data))
    except ValueError:
        return None


def frames_of(data: bytes) -> list[bytes]:
    return [frame for frame in re.split(rb"(?<=\n\n)|(?<=\r\n\r\n)", data) if frame]


def is_proved(recording: Recording) -> bool:
    return recording.expected["finish_reason_raw"] is not None and recording.expected["error"] is None


def check_unproved(asked: Asked, recording: Recording) -> None:
    """An error as the first word is a status. A later one is the stream's last word: theirs as it is, or ours."""
    body = asked.body()
    assert b"data: [DONE]" not in body
    if asked.status != 200:
        assert json.loads(body)["error"]["message"]
        return
    sent = recording.data.removesuffix(CHAT.terminator)
    assert body.startswith(sent)
    assert b'"error"' in frames_of(body)[-1]
    assert len(frames_of(body[len(sent) :])) == (b'"error"' not in frames_of(sent)[-1])


@each("openai-chat")
def test_c10_every_recorded_chat_stream_passes_byte_for_byte(
    recording: Recording, upstream: Upstream, gateway: Gateway
) -> None:
    upstream.answers(replayed(recording))
    asked = gateway.ask(Pair(CHAT, CHAT))
    if is_proved(recording):
        added = b"" if b"[DONE]" in recording.data else CHAT.terminator
        assert asked.body() == recording.data + added
    else:
        check_unproved(asked, recording)


@each("openai-chat")
def test_c10_only_the_usage_frame_is_kept_from_who_did_not_ask(
    recording: Recording, upstream: Upstream, gateway: Gateway
) -> None:
    upstream.answers(replayed(recording))
    asked = gateway.ask(Pair(CHAT, CHAT), stream_options=None)
    if not is_proved(recording):
        check_unproved(asked, recording)
        return
    kept = [frame for frame in frames_of(recording.data) if not is_usage_alone(payload_of(frame))]
    added = b"" if b"[DONE]" in recording.data else CHAT.terminator
    assert asked.body() == b"".join(kept) + added


def is_usage_alone(payload: Any) -> bool:
    return isinstance(payload, dict) and bool(payload.get("usage")) and not payload.get("choices")


@each("anthropic-messages")
def test_c10_every_recorded_messages_stream_passes_byte_for_byte(
    recording: Recording, upstream: Upstream, gateway: Gateway
) -> None:
    upstream.answers(replayed(recording))
    body = gateway.ask(Pair(MESSAGES, MESSAGES)).body()
    # One recording is three replies in a row; a reply ends with its first message_stop.
    before, stop, after = recording.data.partition(b"event: message_stop")
    last, *_ = frames_of(after)
    # Two stop short of their last line end, without which no client dispatches the event.
    assert body == before + stop + last.rstrip() + b"\n\n"


# --- the request, on its way up ---------------------------------------------------------------------------------------


@each_client
def test_c10_a_request_passes_byte_for_byte(wire: Wire, upstream: Upstream, gateway: Gateway) -> None:
    upstream.answers(sse(*wire.opening(), wire.text("One"), *wire.closing()))
    body = json.dumps(wire.request(wire.model, unknown={"Ä": [1.0, 2e3]}, metadata=None), indent=3).encode()
    gateway.post(wire, body).body()
    assert upstream.wait_for().body == body


@each_client
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "document"])
def test_c10_an_alias_changes_the_models_name_and_nothing_else(
    stream: bool, wire: Wire, upstream: Upstream, gateway: Gateway
) -> None:
    """Here and there: the upstream hears its own name, the client the one that it used."""
    alias = {CHAT.name: "alias", MESSAGES.name: "a-alias"}[wire.name]
    # Another `model`, inside the text, is text.
    sent = [*wire.opening(), wire.text('"model": "real-1" {"model":"real-1"}'), *wire.closing()]
    replied = b"".join(sent) if stream else wire.document('"model": "real-1"')
    upstream.answers(sse(*sent) if stream else document(replied))
    body = gateway.ask(Pair(wire, wire), stream=stream, model=alias, unknown=[1]).body()
    assert body == replied.replace(b'"model": "real-1"', b'"model": "%s"' % alias.encode())
    assert json.loads(upstream.wait_for().body) == wire.request("real-1", stream=stream, unknown=[1])


def test_c10_usage_is_asked_for_and_the_rest_of_the_options_kept(upstream: Upstream, gateway: Gateway) -> None:
    upstream.answers(sse(*CHAT.opening(), CHAT.text("One"), *CHAT.closing()))
    asked = gateway.ask(Pair(CHAT, CHAT), stream_options={"include_obfuscation": False}, unknown=[1])
    assert asked.said().usage is None
    seen = json.loads(upstream.wait_for().body)
    assert seen.pop("stream_options") == {"include_obfuscation": False, "include_usage": True}
    wanted = CHAT.request("c-1", unknown=[1])
    del wanted["stream_options"]
    assert seen == wanted


# --- frames -----------------------------------------------------------------------------------------------------------


@each_client
def test_c10_unknown_frames_fields_and_odd_spellings_pass(wire: Wire, upstream: Upstream, gateway: Gateway) -> None:
    odd = [
        b": a comment\n\n",
        wire.text("One").replace(b"data: {", b'data:  {"new_field" : [ 1,2.50 , null],', 1),
        wire.text("two").replace(b"\n", b"\r\n"),
        b'event: brand_new\nid: 7\nretry: 100\ndata: {"type": "brand_new", "choices": [], "x": "\xe2\x80\xa8"}\n\n',
    ]
    sent = [*wire.opening(), *odd, *wire.closing()]
    upstream.answers(sse(*sent))
    assert gateway.ask(Pair(wire, wire)).body() == b"".join(sent)


@each_client
@pytest.mark.parametrize("end", ["clean", "cut", "reset"])
def test_c10_a_missing_terminator_is_added_after_a_proved_end(
    end: Any, wire: Wire, upstream: Upstream, gateway: Gateway
) -> None:
    """Where the terminator itself is the proof, its absence is a cut, and nothing is added."""
    sent = [*CHAT.opening(), CHAT.text("One"), *CHAT.closing()[:-1]]
    upstream.answers(sse(*sent, 0.02, end=end))
    asked = gateway.ask(Pair(wire, CHAT))
    if wire is CHAT:
        assert asked.body() == b"".join(sent) + b"data: [DONE]\n\n"
    else:
        assert asked.said().terminators == 1
    assert gateway.record(asked.request_id)["outcome"] == "complete"


@each_client
def test_c10_a_doubled_terminator_passes_once(wire: Wire, upstream: Upstream, gateway: Gateway) -> None:
    sent = [*wire.opening(), wire.text("One"), *wire.closing()]
    upstream.answers(sse(*sent, wire.terminator, b": and more\n\n", wire.text("late")))
    assert gateway.ask(Pair(wire, wire)).body() == b"".join(sent)


@each_client
def test_c10_a_last_line_end_that_was_cut_in_two_is_whole(wire: Wire, upstream: Upstream, gateway: Gateway) -> None:
    """A CR ends the last event, so nobody reads on for its LF; but some clients look for all of CR LF CR LF."""
    sent = b"".join([*wire.opening(), wire.text("One"), *wire.closing()]).replace(b"\n", b"\r\n")
    upstream.answers(sse(sent[:-1], Gate(), sent[-1:]))
    assert gateway.ask(Pair(wire, wire)).body() == sent


@each_client
def test_c10_a_document_passes_byte_for_byte(wire: Wire, upstream: Upstream, gateway: Gateway) -> None:
    sent = b"\n\n " + wire.document("Hällo").replace(b'"usage"', b'"new":  [1.50], "usage"', 1) + b"\n"
    upstream.answers(document(sent))
    assert gateway.ask(Pair(wire, wire), stream=False).body() == sent


@each_client
@pytest.mark.parametrize("status", [400, 401, 403, 404, 418, 429, 503])
def test_c10_an_error_body_of_the_same_dialect_passes(
    status: int, wire: Wire, upstream: Upstream, gateway: Gateway
) -> None:
    sent = wire.error_body("some_new_error", "Nö").replace(b'"message"', b'"new":  [1.50], "message"', 1)
    upstream.answers(document(sent, status=status, retry_after="7"))
    asked = gateway.ask(Pair(wire, wire))
    assert (asked.status, asked.body(), asked.headers["retry-after"]) == (status, sent, "7")


# --- every form of client before every upstream -----------------------------------------------------------------------


@each_form
@pytest.mark.parametrize("looks", ["", "unknown-fields", "crlf", "one-write", "unknown-fields+bytewise"])
def test_c10_every_dialect_passes_byte_for_byte(looks: str, client: Client, bench: Bench) -> None:
    told = bench.tell(AnyPair(client, client.dialect), looks, "thought" if client.has_thoughts else "text")
    assert told.body == bytes(bench.the_one(told.model).sent)
    assert bench.record(told.model)["outcome"] == "complete"


@each_form
@pytest.mark.parametrize("looks", ["", "unknown-fields"])
def test_c10_every_dialects_document_passes_byte_for_byte(looks: str, client: Client, bench: Bench) -> None:
    told = bench.tell(AnyPair(client, client.dialect), looks, "text", stream=False)
    assert told.body == bytes(bench.the_one(told.model).sent)


@each_form
def test_c10_every_dialects_request_passes_byte_for_byte(client: Client, bench: Bench) -> None:
    for stream in (True, False):
        model = bench.model(client.dialect)
        said = {**client.body(model, stream, "Äh? 🐎"), "unknown": {"Ä": [1.0, 2e3]}, "x": None}
        body = json.dumps(said, indent=3).encode()
        bench.gateway.send("POST", client.path(model, stream), body).body()
        assert bench.the_one(model).body == body


@each_form
def test_c10_in_every_dialect_an_alias_changes_the_models_name_and_nothing_else(client: Client, bench: Bench) -> None:
    pair, alias = AnyPair(client, client.dialect), f"alias-{client.dialect}"
    before = len(bench.seen("real"))
    asked = bench.ask(pair, alias)
    body = asked.body()
    check_whole(pair, Told(asked, client, alias, True, body, 0.0))
    seen = bench.seen("real")[before].wait_over()
    key = client.model_key.encode()
    assert b'"%b":"real"' % key in seen.sent
    assert body == bytes(seen.sent).replace(b'"%b":"real"' % key, b'"%b":"%b"' % (key, alias.encode()))


@each_form
def test_c10_in_every_dialect_a_doubled_end_passes_once(client: Client, bench: Bench) -> None:
    told = bench.tell(AnyPair(client, client.dialect), "double-done")
    sent = bytes(bench.the_one(told.model).sent)
    assert sent.startswith(told.body)
    check_whole(AnyPair(client, client.dialect), told)


@each_form
def test_c10_a_byte_order_mark_never_comes_behind_a_heartbeat(client: Client, beating_bench: Bench) -> None:
    """There it would not begin the stream but be a part of its first event, which no client could read any more."""
    told = beating_bench.tell(AnyPair(client, client.dialect), "slow-head-250+bom")
    mark, sent = b"\xef\xbb\xbf", bytes(beating_bench.the_one(told.model).sent)
    assert sent.startswith(mark)
    if client.heartbeat:
        beats = beating_bench.record(told.model)["heartbeats"]
        assert beats >= 1
        assert told.body == client.heartbeat * beats + sent.removeprefix(mark)
    else:
        assert told.body.removeprefix(mark) == sent.removeprefix(mark)
