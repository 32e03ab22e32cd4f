"""What an item means: the shapes of many libraries, each read by its own dialect."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

import penstock
from penstock.dialects import CLIENT_DIALECTS, client_dialect
from penstock.framing.choose import choose_framing
from penstock.testing.checks import written
from penstock.testing.samples import AWKWARD, SAMPLES


def response_of(*items: Any, **how: Any) -> penstock.Response:
    return penstock.adapt(list(items), **how).response


def items_of(dialect: str, data: bytes) -> list[Any]:
    """What a library would have made of these bytes: the JSON of each frame."""
    spoken = client_dialect(dialect)
    framing = choose_framing(spoken.stream_type, data, is_all=True, streams_as=spoken.streams_as)
    assert framing is not None
    frames = [*framing.feed(data), *framing.close()]
    return [msgspec.json.decode(frame.data) for frame in frames if frame.data and frame.data.startswith(b"{")]


@pytest.mark.parametrize("dialect", sorted(CLIENT_DIALECTS - {"openai-completions"}))
@pytest.mark.parametrize("sample", ["awkward text", "thought, text and two calls"])
def test_dicts_of_every_dialect_mean_what_they_mean_on_the_wire(sample: str, dialect: str) -> None:
    data = written(dialect, SAMPLES[sample])
    on_the_wire = penstock.replay(data, dialect=dialect).response
    adapted = response_of(*items_of(dialect, data))
    assert (adapted.text, adapted.reasoning, adapted.finish) == (
        on_the_wire.text,
        on_the_wire.reasoning,
        on_the_wire.finish,
    )
    assert [(call.name, call.arguments) for call in adapted.tool_calls] == [
        (call.name, call.arguments) for call in on_the_wire.tool_calls
    ]
    if sample == "awkward text":
        assert adapted.text == AWKWARD


@pytest.mark.parametrize(
    "item",
    [
        {"content": "Hi", "text": "no", "delta": {"content": "no"}},
        {"text": "Hi", "delta": {"content": "no"}},
        {"delta": {"content": "Hi", "role": "assistant"}},
        {"delta": "Hi"},
        SimpleNamespace(content="Hi", finish_reason=None),
    ],
)
def test_the_text_of_a_flat_chunk_is_looked_for_in_order(item: Any) -> None:
    assert response_of(item, {"finish_reason": "stop"}).text == "Hi"


@pytest.mark.parametrize(
    ("reason", "ours"), [("stop", "stop"), ("length", "length"), ("tool_calls", "tool_calls"), ("content_filter",) * 2]
)
def test_the_reasons_that_end_a_flat_stream(reason: str, ours: str) -> None:
    response = response_of({"content": "x", "finish_reason": reason})
    assert response.finish is not None
    assert (response.finish.reason, response.finish.raw) == (ours, reason)


def test_our_own_chunks_make_a_stream_again() -> None:
    """Events → flat chunks → `adapt`: nothing that the flat form has is lost."""
    data = written("openai-chat", SAMPLES["thought, text and two calls"])
    response = penstock.replay(data, dialect="openai-chat").response
    again = response_of(*penstock.replay(data, dialect="openai-chat").chunks(metadata=True))
    assert [(call.id, call.name, call.raw) for call in again.tool_calls] == [
        (call.id, call.name, call.raw) for call in response.tool_calls
    ]
    assert again.finish is not None
    assert again.finish.reason == "tool_calls"


def test_tool_calls_of_a_flat_chunk_in_openais_form() -> None:
    calls = [
        {"id": f"c{number}", "type": "function", "function": {"name": "now", "arguments": f'{{"n":{number}}}'}}
        for number in range(2)
    ]
    response = response_of({"content": "", "tool_calls": calls, "finish_reason": "tool_calls"})
    assert [(call.id, call.arguments) for call in response.tool_calls] == [("c0", {"n": 0}), ("c1", {"n": 1})]


def test_an_error_item_is_the_providers_own_error() -> None:
    with pytest.raises(penstock.StreamedError) as caught:
        response_of({"content": "Hi"}, {"error": {"message": "busy", "type": "overloaded", "code": "x"}})
    assert (str(caught.value), caught.value.type, caught.value.code) == ("busy", "overloaded", "x")


def test_events_of_the_openai_sdks_helper_are_read_once() -> None:
    chunk = {"id": "c", "model": "m", "choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": None}]}
    last = {"id": "c", "model": "m", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    response = response_of(
        {"type": "chunk", "chunk": chunk, "snapshot": {}},
        {"type": "content.delta", "delta": "Hi", "snapshot": "Hi"},
        {"type": "chunk", "chunk": last, "snapshot": {}},
        {"type": "content.done", "content": "Hi"},
    )
    assert response.text == "Hi"


# --- LangChain, by the shapes of langchain-core 1.7 and langchain-openai 1.7 (seen 2026-11) ---------------------------


@dataclass
class AIMessageChunk:
    content: Any
    additional_kwargs: dict[str, Any] = field(default_factory=dict)
    response_metadata: dict[str, Any] = field(default_factory=dict)
    id: str = "lc_run--1"
    tool_call_chunks: list[dict[str, Any]] = field(default_factory=list)
    usage_metadata: dict[str, Any] | None = None
    chunk_position: str | None = None


def call_chunk(name: str | None, args: str, id: str | None) -> AIMessageChunk:
    return AIMessageChunk(
        "", tool_call_chunks=[{"name": name, "args": args, "id": id, "index": 0, "type": "tool_call_chunk"}]
    )


def test_langchains_chunks() -> None:
    response = response_of(
        AIMessageChunk("", additional_kwargs={"reasoning_content": "hm"}),
        AIMessageChunk("one"),
        AIMessageChunk([{"type": "text", "text": " two", "index": 0}]),
        call_chunk("now", "", "call_1"),
        call_chunk(None, '{"a":', None),
        call_chunk(None, "1}", None),
        AIMessageChunk("", response_metadata={"finish_reason": "tool_calls", "model_name": "m"}),
        AIMessageChunk("", usage_metadata={"input_tokens": 9, "output_tokens": 1, "total_tokens": 10}),
        AIMessageChunk(
            "", usage_metadata={"input_tokens": 0, "output_tokens": 2, "output_token_details": {"reasoning": 1}}
        ),
        AIMessageChunk("", chunk_position="last"),
    )
    assert (response.reasoning, response.text) == ("hm", "one two")
    assert [(call.id, call.name, call.arguments) for call in response.tool_calls] == [("call_1", "now", {"a": 1})]
    assert response.usage is not None
    assert (response.usage.input, response.usage.output, response.usage.output_reasoning) == (9, 3, 1)
    assert response.model == "m"


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [({"stop_reason": "end_turn"}, "stop"), ({"done_reason": "length"}, "length"), ({"finish_reason": "STOP"}, "stop")],
)
def test_langchains_reasons_of_other_providers(metadata: dict[str, Any], reason: str) -> None:
    response = response_of(AIMessageChunk("x"), AIMessageChunk("", response_metadata=metadata))
    assert response.finish is not None
    assert response.finish.reason == reason


def test_c4_langchains_own_last_chunk_proves_nothing() -> None:
    """It comes as well where the provider's stream was cut."""
    with pytest.raises(penstock.Truncated):
        response_of(AIMessageChunk("x"), AIMessageChunk("", chunk_position="last"))
