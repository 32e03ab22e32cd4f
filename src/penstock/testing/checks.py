"""Whether a dialect keeps its promises: for every row of `DIALECTS`, on recordings and on made-up streams.

`check_dialect` is for one dialect, `check_pair` for two that clients speak: what one says, the other can say as well,
but for what `LACKS` and `REASONS` name. Each raises AssertionError with the promise and what broke it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from penstock.canon.errors import FrameTooLarge, PenstockError, StreamedError
from penstock.canon.events import Finish
from penstock.canon.usage import Usage
from penstock.dialects import CLIENT_DIALECTS, client_dialect, dialect
from penstock.dialects.base import Mark
from penstock.framing.eventstream import write_message
from penstock.testing.replay import Driven, Recording, check_events, drive, open_reply, replayed
from penstock.testing.samples import SAMPLES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from penstock.canon.events import Event, FinishReason
    from penstock.canon.response import Response

#: reads of these many bytes; larger recordings are not cut at every byte or two, which is the same test for seconds
SIZES = (1, 2, 7, 64)
SMALL_BYTES = 60_000

_COUNTS = ("input", "input_cached", "input_cache_write", "output", "output_reasoning")

#: what a wire has no place for
LACKS: dict[str, frozenset[str]] = {
    "ollama": frozenset({"input_cached", "input_cache_write", "output_reasoning"}),
    "gemini": frozenset({"input_cache_write"}),
    "openai-completions": frozenset({"reasoning", "tool_calls"}),
}

#: what becomes of a reason on a wire that has fewer words
_OPENAI: dict[FinishReason, FinishReason] = {
    "stop_sequence": "stop",
    "pause": "stop",
    "other": "stop",
    "context_full": "length",
    "refusal": "content_filter",
}
REASONS: dict[str, dict[FinishReason, FinishReason]] = {
    "openai-chat": _OPENAI,
    "openai-completions": {**_OPENAI, "tool_calls": "stop"},
    "openai-responses": _OPENAI,
    "anthropic-messages": {"content_filter": "refusal", "other": "stop"},
    "gemini": _OPENAI,
    "ollama": {**_OPENAI, "content_filter": "stop", "refusal": "stop"},
}

#: the longest frame that the bound is tried with
_BOUND_BYTES = 4096


def check_dialect(name: str, recordings: Iterable[Recording] = ()) -> None:
    """Every promise of one dialect. `recordings` are replies in it; without them only made-up ones are tried."""
    for recording in recordings:
        check_recording(name, recording)
    check_bound(name)
    if name in CLIENT_DIALECTS:
        for events in SAMPLES.values():
            check_round_trip(name, events)


def check_pair(source: str, target: str) -> None:
    """What `source` says, read and said again in `target`, means the same."""
    for what, events in SAMPLES.items():
        first = replayed(source, Recording(what, written(source, events), _stream_type(source)))
        assert first.error is None, f"{source}: {what}: {first.error}"
        second = replayed(target, Recording(what, written(target, first.events), _stream_type(target)))
        assert second.error is None, f"{source} → {target}: {what}: {second.error}"
        expected, got = kept(first.response, target), kept(second.response, target)
        assert got == expected, f"{source} → {target}: {what}: {got} is not {expected}"


# --- recordings -----------------------------------------------------------------------------------------------------


def check_recording(name: str, recording: Recording) -> None:
    """Its events hold together, are the same however the bytes are cut, and no beginning of it passes for the whole."""
    whole = replayed(name, recording)
    check_events(whole.events, complete=whole.error is None)
    check_cuts(name, recording, whole)
    check_prefixes(name, recording)


def check_cuts(name: str, recording: Recording, whole: Driven) -> None:
    ways = {f"reads of {size}": recording.cut(size) for size in SIZES}
    if recording.chunk_boundaries:
        ways["reads as recorded"] = recording.as_recorded()
    for way, reads in ways.items():
        if len(recording.data) > SMALL_BYTES and len(reads) > len(recording.data) // 4:
            continue
        driven = replayed(name, recording, reads)
        where = f"{recording.name}, {way}"
        assert driven.events == whole.events, f"{where}: other events"
        assert _before_the_end(driven) == _before_the_end(whole), f"{where}: other marks"
        assert type(driven.error) is type(whole.error), f"{where}: ended by {driven.error!r}, not {whole.error!r}"


def _before_the_end(driven: Driven) -> list[Mark]:
    """Nobody reads on after the end, so how much comes after it depends on the cuts."""
    return [mark for mark in driven.marks if mark is not Mark.AFTER]


def check_prefixes(name: str, recording: Recording) -> None:
    """Cut anywhere before the frame that proves the end, a reply is never complete."""
    proof = _proof_at(name, recording)
    step = max(1, proof // (40 if proof < SMALL_BYTES else 6))
    for end in sorted({*range(0, proof, step), *range(max(0, proof - 8), proof)}):
        framing, decoder = open_reply(name, recording, first=recording.data)
        driven = drive(framing, decoder, [recording.data[:end]] if end else [])
        where = f"{recording.name}, cut after {end} of {len(recording.data)} bytes"
        assert driven.error is not None, f"{where}: passes for complete"
        check_events(driven.events, complete=False)


def _proof_at(name: str, recording: Recording) -> int:
    """The last byte of the payload that proves the end; the recording's length where nothing does."""
    framing, decoder = open_reply(name, recording)
    at = 0
    try:
        for frame in [*framing.feed(recording.data), *framing.close()]:
            at += len(frame.raw)
            decoder.decode(frame, [])
            if decoder.proved:
                payload = frame.data or b""
                return at - len(frame.raw) + frame.raw.rfind(payload[-1:]) if payload else at
    except PenstockError:
        return at
    return len(recording.data)


# --- bounds ---------------------------------------------------------------------------------------------------------


def check_bound(name: str) -> None:
    """A frame that never ends is refused when it passes the bound, not kept."""
    language = dialect(name)
    openings = {
        "sse": b"data: {",
        "ndjson": b'{"a": "',
        "json-array": b'[{"a": "',
        "eventstream": write_message({":message-type": "event"}, b"x" * 2 * _BOUND_BYTES)[:12],
    }
    first = openings[language.streams_as]
    types = {"ndjson": "application/x-ndjson", "eventstream": "application/vnd.amazon.eventstream"}
    endless = Recording("a frame without an end", first, types.get(language.streams_as, "text/event-stream"))
    framing, decoder = open_reply(name, endless, max_frame_bytes=_BOUND_BYTES)
    driven = drive(framing, decoder, [first, *(b"x" * 64 for _ in range(2 * _BOUND_BYTES // 64))])
    assert isinstance(driven.error, FrameTooLarge), f"{name}: a frame beyond the bound ended in {driven.error!r}"


# --- there and back -------------------------------------------------------------------------------------------------


def check_round_trip(name: str, events: Sequence[Event]) -> None:
    """What is encoded and decoded again means what it did, as a stream and as a document; and a failure stays one."""
    ours = _folded(events)
    for size in (1, 2, len(events)):
        data = written(name, events, batch=size)
        for reads in (1, 7, len(data)):
            recording = Recording("a sample", data, _stream_type(name))
            driven = replayed(name, recording, recording.cut(reads))
            assert driven.error is None, f"{name}: {driven.error}"
            check_events(driven.events, complete=True)
            got, expected = kept(driven.response, name), kept(ours, name)
            assert got == expected, f"{name}: wrote {expected}, read back {got}"
    document = client_dialect(name).write_document(ours, model=None, request_id="req_1", created=1_700_000_000)
    driven = replayed(name, Recording("a sample", document, "application/json"))
    assert driven.error is None, f"{name}, document: {driven.error}"
    got, expected = kept(driven.response, name), kept(ours, name)
    assert got == expected, f"{name}, document: wrote {expected}, read back {got}"
    check_failure(name, events)


def check_failure(name: str, events: Sequence[Event]) -> None:
    """A stream that fails half way is read back as failed, with what had come."""
    encoder = client_dialect(name).encoder(model=None, include_usage=True, request_id="req_1", created=1_700_000_000)
    data = b"".join(encoder.encode([event]) for event in events if not isinstance(event, Finish))
    data += encoder.error(StreamedError("It broke.", type="server_error", status=500))
    driven = replayed(name, Recording("a failure", data, _stream_type(name)))
    assert driven.error is not None, f"{name}: a failure passes for complete"
    assert not any(isinstance(event, Finish) for event in driven.events), f"{name}: a failure has a finish"


def written(name: str, events: Sequence[Event], *, batch: int = 2) -> bytes:
    """The bytes that a relay writes of these events, `batch` of them at a time."""
    encoder = client_dialect(name).encoder(model=None, include_usage=True, request_id="req_1", created=1_700_000_000)
    return b"".join(encoder.encode(events[k : k + batch]) for k in range(0, len(events), batch))


def kept(response: Response, name: str) -> dict[str, Any]:
    """What of a response a wire must keep. An unreported count may be 0 on a wire that has to say one."""
    lacks = LACKS.get(name, frozenset())
    reason = response.finish.reason if response.finish else None
    usage = response.usage or Usage()
    calls = [(call.name, call.arguments) for call in response.tool_calls]
    return {
        "text": response.text,
        "reasoning": "" if "reasoning" in lacks else response.reasoning,
        "tool_calls": [] if "tool_calls" in lacks else calls,
        "finish": REASONS.get(name, {}).get(reason, reason) if reason else None,
        "usage": {count: getattr(usage, count) or 0 for count in _COUNTS if count not in lacks},
    }


def _folded(events: Sequence[Event]) -> Response:
    driven = Driven()
    driven.events = list(events)
    return driven.response


def _stream_type(name: str) -> str:
    return client_dialect(name).stream_type
