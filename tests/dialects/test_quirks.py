"""What recorded streams of real providers do that their documentation does not say: a test per kind.

Those of Gemini, Bedrock, Cohere and of tags in the answer stand with their dialects, and are called quirks there too.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from penstock.canon.errors import StreamedError
from penstock.canon.events import KeepAlive, Reasoning, Text, ToolCall
from penstock.testing.replay import Driven, Recording, check_events, replayed
from tests.dialects.chat_wire import DONE, STOP, USAGE, call, calls, chunk, said, sse, told


def got(data: bytes, name: str = "openai-chat") -> Driven:
    driven = replayed(name, Recording("a stream", data, "text/event-stream"))
    check_events(driven.events, complete=driven.error is None)
    return driven


def test_quirk_usage_beside_choices_without_choices_or_never():
    beside = {**STOP, "usage": USAGE}
    alone = {**chunk(), "choices": [], "usage": USAGE}
    for chunks, is_known in (([beside], True), ([STOP, alone], True), ([STOP], False)):
        response = got(sse(said("Hi"), *chunks) + DONE).response
        assert (response.usage is not None) is is_known


def test_quirk_usage_in_several_chunks_and_in_groqs_own_member():
    groq = {**chunk(), "x_groq": {"id": "req", "usage": {"prompt_tokens": 9, "completion_tokens": 2}}}
    grown = [said("a", usage={"prompt_tokens": 9, "completion_tokens": 1}), {**STOP, "usage": USAGE}]
    for chunks in ([groq, STOP], [*grown]):
        usage = got(sse(said("Hi"), *chunks)).response.usage
        assert usage is not None
        assert (usage.input, usage.output) == (9, 2)


def test_quirk_xai_leaves_reasoning_out_of_its_completion_tokens():
    reported = {
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "total_tokens": 35,
        "completion_tokens_details": {"reasoning_tokens": 20},
    }
    usage = got(sse(said("Hi"), {**STOP, "usage": reported})).response.usage
    assert usage is not None
    assert (usage.output, usage.output_reasoning, usage.total) == (25, 20, 35)


def test_quirk_deepseek_and_moonshot_count_elsewhere():
    deepseek = {**USAGE, "prompt_cache_hit_tokens": 4}
    usage = got(sse(said("Hi"), {**STOP, "usage": deepseek})).response.usage
    assert usage is not None
    assert usage.input_cached == 4
    moonshot: Any = chunk(finish="stop")
    moonshot["choices"][0]["usage"] = USAGE
    usage = got(sse(said("Hi"), moonshot)).response.usage
    assert usage is not None
    assert usage.input == 9


def test_quirk_comments_while_it_thinks():
    driven = got(b": OPENROUTER PROCESSING\n\n" + sse(said("Hi")) + b": OPENROUTER PROCESSING\n\n" + sse(STOP) + DONE)
    assert driven.response.text == "Hi"
    assert KeepAlive("comment") in driven.events


def test_quirk_crlf_and_reads_that_end_inside_a_line():
    data = (sse(said("Hi"), STOP) + DONE).replace(b"\n", b"\r\n")
    for end in range(len(data)):
        driven = replayed("openai-chat", Recording("cut", data, "text/event-stream"), [data[:end], data[end:]])
        assert driven.response.text == "Hi"
        assert driven.error is None


def test_quirk_the_end_without_done():
    assert got(sse(said("Hi"), STOP)).error is None


@pytest.mark.parametrize(
    "delta",
    [
        {"reasoning": "Hm"},
        {"reasoning_content": "Hm"},
        {"reasoning": "Hm", "reasoning_details": [{"type": "reasoning.text", "text": "Hm"}]},
        {"reasoning": "Hm", "reasoning_content": "Hm"},
        {"reasoning_details": [{"type": "reasoning.text", "text": "Hm"}]},
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]}]},
    ],
)
def test_quirk_thoughts_in_any_member_count_once(delta: dict[str, Any]):
    response = told(chunk(delta), said("Hi")).response
    assert (response.reasoning, response.text) == ("Hm", "Hi")
    assert isinstance(response.parts[0], Reasoning)


def test_quirk_content_and_calls_beside_the_finish_reason():
    driven = got(sse(chunk({"content": "Hi", "tool_calls": [call(0, "a", "f", "{}")]}, "tool_calls")))
    assert driven.response.parts == (Text("Hi"), ToolCall("a", "f", "{}", {}))


def test_quirk_more_than_one_finish_reason():
    driven = got(sse(said("Hi"), chunk(finish="length"), chunk(finish="stop")) + DONE)
    assert driven.response.finish is not None
    assert driven.response.finish.raw == "length", "the first is the reason, the others repeat that it is over"


def test_quirk_azures_first_chunk_says_nothing():
    first = {"id": "", "object": "", "created": 0, "model": "", "choices": [], "prompt_filter_results": [{}]}
    filters = {**chunk(), "id": "", "choices": [{"index": 0, "content_filter_offsets": {"check_offset": 1}}]}
    response = got(sse(first, said("Hi"), filters, STOP) + DONE).response
    assert (response.response_id, response.model, response.text) == ("chatcmpl-1", "m", "Hi")


@pytest.mark.parametrize("kind", ["", None, "chat.completion.done", "chat.completion"])
def test_quirk_the_object_is_called_anything(kind: str | None):
    assert got(sse({**said("Hi"), "object": kind}, {**STOP, "object": kind})).response.text == "Hi"


def test_quirk_an_error_inside_a_stream_that_began_well():
    openrouter = {**chunk(finish="error"), "error": {"code": 502, "message": "It broke."}}
    groq = b'event: error\ndata: {"error":{"message":"It broke.","type":"server_error"}}\n\n'
    for data in (sse(openrouter), groq):
        driven = got(sse(said("Hi")) + data)
        assert isinstance(driven.error, StreamedError)
        assert driven.error.message == "It broke."


def test_quirk_calls_without_index_with_null_arguments_and_names_again():
    pieces = [
        {"id": "a", "function": {"name": "f", "arguments": None}},
        {"index": 0, "id": "a", "function": {"name": "f", "arguments": "{}"}},
    ]
    driven = got(sse(*(chunk({"tool_calls": [piece]}) for piece in pieces), chunk(finish="tool_calls")))
    assert [(made.name, made.raw) for made in driven.response.tool_calls] == [("f", "{}")]


def test_quirk_parallel_calls_come_in_turns():
    pieces = [
        call(0, "a", "f", '{"x'),
        call(1, "b", "g", '{"y'),
        call(0, None, None, '":1}'),
        call(1, None, None, '":2}'),
    ]
    driven = got(sse(*(calls(piece) for piece in pieces), chunk(finish="tool_calls")))
    assert [made.arguments for made in driven.response.tool_calls] == [{"x": 1}, {"y": 2}]


# --- messages ---------------------------------------------------------------------------------------------------------


def messages(*events: dict[str, Any]) -> Driven:
    start = {"type": "message_start", "message": {"id": "m", "model": "c", "content": []}}
    ending: list[dict[str, Any]] = [
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
        {"type": "message_stop"},
    ]
    told_: list[dict[str, Any]] = [start, *events, *ending]
    data = b"".join(f"event: {each['type']}\ndata: {json.dumps(each)}\n\n".encode() for each in told_)
    return got(data, "anthropic-messages")


BLOCKS = [
    "text",
    "thinking",
    "redacted_thinking",
    "tool_use",
    "server_tool_use",
    "mcp_tool_use",
    "web_search_tool_result",
    "code_execution_tool_result",
    "mcp_tool_result",
    "container_upload",
    "compaction",
    "something_new",
]


@pytest.mark.parametrize("kind", BLOCKS)
def test_quirk_twelve_kinds_of_block(kind: str):
    block = {"type": kind, "id": "b1", "name": "f", "data": "x", "tool_use_id": "t1", "content": []}
    driven = messages(
        {"type": "ping"},
        {"type": "content_block_start", "index": 0, "content_block": block},
        {"type": "content_block_stop", "index": 0},
    )
    assert driven.error is None
    assert len(driven.response.parts) == 1


@pytest.mark.parametrize(
    "delta",
    [
        {"type": "text_delta", "text": "x"},
        {"type": "thinking_delta", "thinking": "x", "estimated_tokens": 1},
        {"type": "signature_delta", "signature": "x"},
        {"type": "input_json_delta", "partial_json": "{}"},
        {"type": "citations_delta", "citation": {"type": "char_location"}},
        {"type": "compaction_delta", "content": "x"},
        {"type": "new_delta", "new": "x"},
    ],
)
@pytest.mark.parametrize("kind", ["text", "thinking", "tool_use", "compaction"])
def test_quirk_seven_kinds_of_delta_on_any_block(kind: str, delta: dict[str, Any]):
    driven = messages(
        {"type": "content_block_start", "index": 0, "content_block": {"type": kind, "id": "b", "name": "f"}},
        {"type": "content_block_delta", "index": 0, "delta": delta},
        {"type": "content_block_stop", "index": 0},
    )
    assert driven.error is None


# --- responses --------------------------------------------------------------------------------------------------------


def responses(*events: dict[str, Any]) -> Driven:
    return got(sse({"type": "response.created", "response": {"id": "r", "model": "m"}}, *events), "openai-responses")


def incomplete(reason: str) -> dict[str, Any]:
    return {"type": "response.incomplete", "response": {"incomplete_details": {"reason": reason}}}


COMPLETED = {"type": "response.completed", "response": {"status": "completed", "output": []}}


@pytest.mark.parametrize(
    "kind",
    [
        "response.queued",
        "response.web_search_call.searching",
        "response.file_search_call.completed",
        "response.code_interpreter_call_code.delta",
        "response.image_generation_call.partial_image",
        "response.mcp_list_tools.failed",
        "response.audio.transcript.delta",
        "response.shell_call_command.added",
        "response.compaction.compacting",
        "response.something.new",
    ],
)
def test_quirk_dozens_of_event_types(kind: str):
    assert responses({"type": kind, "delta": "x", "item_id": "i", "output_index": 0}, COMPLETED).error is None


@pytest.mark.parametrize(
    ("last", "outcome"),
    [
        (
            {"type": "response.incomplete", "response": {"incomplete_details": {"reason": "max_output_tokens"}}},
            "length",
        ),
        (
            {"type": "response.incomplete", "response": {"incomplete_details": {"reason": "content_filter"}}},
            "content_filter",
        ),
        ({"type": "response.incomplete", "response": {}}, "other"),
        ({"type": "response.failed", "response": {"error": {"code": "server_error", "message": "It broke."}}}, None),
        ({"type": "error", "code": "rate_limit_exceeded", "message": "Slow down.", "param": None}, None),
        ({"type": "error", "error": {"type": "server_error", "message": "It broke."}}, None),
    ],
)
def test_quirk_other_ends_than_completed(last: dict[str, Any], outcome: str | None):
    driven = responses({"type": "response.output_text.delta", "item_id": "i", "delta": "Hi"}, last)
    if outcome is None:
        assert isinstance(driven.error, StreamedError)
    else:
        assert driven.response.finish is not None
        assert driven.response.finish.reason == outcome


def test_quirk_messages_have_phases():
    def message(phase: str, said_: str) -> list[dict[str, Any]]:
        item = {"type": "message", "id": phase, "phase": phase, "content": []}
        return [
            {"type": "response.output_item.added", "item": item},
            {"type": "response.output_text.delta", "item_id": phase, "delta": said_},
            {"type": "response.output_item.done", "item": item},
        ]

    driven = responses(*message("commentary", "I look. "), *message("final_answer", "A horse."), COMPLETED)
    assert driven.response.parts == (Text("I look. "), Text("A horse."))
