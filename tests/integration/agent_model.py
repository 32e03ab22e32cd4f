"""Models for agents, scripted. One runs a command in its first turn, says what came of it, and remembers it later; one
thinks before it does; one runs two commands at once.

It reads requests and writes replies in three dialects, by hand. `Heard` is a request in no dialect: what was said, in
order. What it answers depends on what it heard alone, so an agent that loses a part of its history gets another answer.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

from tests.upstreams import Answer, document, sse
from tests.wires import CHAT, MESSAGES

if TYPE_CHECKING:
    from tests.upstreams import Exchange

JSON = dict[str, Any]

#: the command that it asks for, in the folder that the agent works in
COMMAND = "cat note.txt"

FIRST, SECOND = "Read note.txt aloud.", "Say the note once more."

#: dialect → (path of its base URL, path that a call has, what its replies are)
MOUNTS = {
    "openai-chat": ("/chat/v1", "/chat/v1/chat/completions"),
    "anthropic-messages": ("/anth/v1", "/anth/v1/messages"),
    "ollama": ("/ollama", "/ollama/api/chat"),
}


class Piece(NamedTuple):
    """`kind`: system, user, assistant, call or result. A call's text is its argument JSON; `name` is its tool's."""

    kind: str
    text: str
    id: str | None = None
    name: str | None = None


class Heard(NamedTuple):
    dialect: str
    pieces: list[Piece]
    tools: list[str]
    is_streamed: bool
    proofs: list[Any]  # what proves the thoughts that came back

    @property
    def said(self) -> list[Piece]:
        return [piece for piece in self.pieces if piece.kind != "system"]

    @property
    def results(self) -> list[Piece]:
        return [piece for piece in self.pieces if piece.kind == "result"]

    def asks(self, prompt: str) -> bool:
        """Whether this is what the user said last."""
        users = [piece.text for piece in self.pieces if piece.kind == "user"]
        return any(prompt in text for text in users[-2:])


def heard(dialect: str, body: bytes) -> Heard:
    asked = json.loads(body)
    if dialect == "anthropic-messages":
        tools = [tool["name"] for tool in asked.get("tools", ())]
        pieces = [Piece("system", block["text"]) for block in _blocks(asked.get("system") or [])]
        pieces += [piece for message in asked["messages"] for piece in _of_messages(message)]
    else:
        tools = [tool["function"]["name"] for tool in asked.get("tools", ())]
        pieces = [piece for message in asked["messages"] for piece in _of_chat(message)]
    return Heard(dialect, pieces, tools, bool(asked.get("stream", dialect == "ollama")), _proofs(asked["messages"]))


def _proofs(messages: list[JSON]) -> list[Any]:
    blocks = [block for message in messages if message["role"] == "assistant" for block in _blocks(message["content"])]
    signed = [block["signature"] for block in blocks if block["type"] == "thinking"]
    return signed + [message["reasoning_details"] for message in messages if "reasoning_details" in message]


def _blocks(content: str | list[JSON] | None) -> list[JSON]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content or []


def _text(content: str | list[JSON] | None) -> str:
    return "".join(block.get("text", "") for block in _blocks(content))


def _of_messages(message: JSON) -> list[Piece]:
    pieces = []
    for block in _blocks(message["content"]):
        match block["type"]:
            case "text":
                pieces.append(Piece(message["role"], block["text"]))
            case "tool_use":
                pieces.append(Piece("call", json.dumps(block["input"]), block["id"], block["name"]))
            case "tool_result":
                pieces.append(Piece("result", _text(block.get("content")), block["tool_use_id"]))
    return pieces


def _of_chat(message: JSON) -> list[Piece]:
    """OpenAI's and Ollama's: theirs differ in whether arguments are text, and in how a result names its call."""
    if message["role"] == "tool":
        return [Piece("result", _text(message["content"]), message.get("tool_call_id"), message.get("tool_name"))]
    pieces = [Piece(message["role"], _text(message["content"]))] if message.get("content") else []
    for call in message.get("tool_calls") or ():
        given = call["function"]["arguments"]
        text = given if isinstance(given, str) else json.dumps(given)
        pieces.append(Piece("call", text, call.get("id"), call["function"]["name"]))
    return pieces


# --- what it answers --------------------------------------------------------------------------------------------------


def answer(exchange: Exchange) -> Answer:
    dialect = next((name for name, (_, path) in MOUNTS.items() if exchange.path.partition("?")[0] == path), None)
    if dialect is None or exchange.method != "POST":
        return document(b'{"error":{"type":"not_found_error","message":"not here"}}', status=404)
    asked = heard(dialect, exchange.body)
    shell = next((name for name in asked.tools if name.lower() == "bash"), None)
    if shell is None:  # a title for the conversation, and other errands of the agent's own
        return _reply(asked, "Reading a note")
    if asked.asks(SECOND):
        return _reply(asked, f"Once more: {asked.results[0].text.strip() if asked.results else 'I know of no note.'}")
    if asked.results:
        return _reply(asked, f"The note says: {asked.results[0].text.strip()}")
    return _reply(asked, "I look.", shell, {"command": COMMAND, "description": "Read the note"})


def _reply(asked: Heard, text: str, tool: str | None = None, arguments: JSON | None = None) -> Answer:
    raw = json.dumps(arguments)
    if not asked.is_streamed:
        return _document(text, tool, raw)
    stop = "stop" if tool is None else "tool_calls"
    if asked.dialect == "ollama":
        lines = [{"content": text}] if tool is None else [_ollama_call(text, tool, arguments)]
        return Answer([*map(_ollama_line, lines), _ollama_line({"content": ""}, last=True)], content_type=_NDJSON)
    wire = CHAT if asked.dialect == "openai-chat" else MESSAGES
    call = [] if tool is None else wire.call(tool, [raw[:7], raw[7:]])
    return _named(*wire.opening(), wire.text(text[:4]), wire.text(text[4:]), *call, *wire.closing((90, 12), stop))


def _named(*frames: bytes) -> Answer:
    """Replies have ids of their own: Claude Code takes those of one id for one message."""
    id_ = b"-" + uuid4().hex.encode()
    return sse(*(re.sub(rb'"(chatcmpl-|msg_)7"', rb'"\g<1>7' + id_ + b'"', frame) for frame in frames))


def _document(text: str, tool: str | None, raw: str) -> Answer:
    """Of the chat dialect: Claude Code asks without a stream after one that broke."""
    message: JSON = {"role": "assistant", "content": text}
    if tool is not None:
        call = {"id": "call_1", "type": "function", "function": {"name": tool, "arguments": raw}}
        message["tool_calls"] = [call]
    choice = {"index": 0, "message": message, "finish_reason": "stop" if tool is None else "tool_calls"}
    head = {"id": f"chatcmpl-{uuid4().hex}", "object": "chat.completion", "created": 7, "model": "real-1"}
    usage = {"prompt_tokens": 90, "completion_tokens": 12, "total_tokens": 102}
    return document(json.dumps({**head, "choices": [choice], "usage": usage}).encode())


_NDJSON = "application/x-ndjson"


def _ollama_call(text: str, tool: str, arguments: JSON | None) -> JSON:
    return {"content": text, "tool_calls": [{"function": {"name": tool, "arguments": arguments}}]}


def _ollama_line(message: JSON, *, last: bool = False) -> bytes:
    head = {"model": "real-1", "created_at": "2026-11-20T10:00:00.123456Z"}
    ends: JSON = {"done_reason": "stop", "prompt_eval_count": 90, "eval_count": 12, "total_duration": 9} if last else {}
    return json.dumps({**head, "message": {"role": "assistant", **message}, "done": last, **ends}).encode() + b"\n"


# --- one that thinks --------------------------------------------------------------------------------------------------

THOUGHT = "There is a note."
#: dialect → what proves the thought, as the upstream must see it again
PROOFS: dict[str, Any] = {
    "anthropic-messages": "EqQBnote",
    "openai-chat": [
        {"type": "reasoning.text", "text": THOUGHT, "format": "anthropic-claude-v1", "index": 0},
        {"type": "reasoning.text", "signature": "EqQBnote", "format": "anthropic-claude-v1", "index": 0},
    ],
}


def thinking_answer(exchange: Exchange) -> Answer:
    dialect = next(name for name, (_, path) in MOUNTS.items() if exchange.path.partition("?")[0] == path)
    asked = heard(dialect, exchange.body)
    if "Bash" not in asked.tools or asked.results:
        return answer(exchange)
    raw = json.dumps({"command": COMMAND, "description": "Read the note"})
    if dialect == "openai-chat":
        thought = CHAT.chunk({"reasoning": THOUGHT, "reasoning_details": PROOFS[dialect]})
        return _named(*CHAT.opening(), thought, *CHAT.call("Bash", [raw]), *CHAT.closing((90, 12), "tool_calls"))
    start, _ = MESSAGES.opening()
    thinking = {"type": "thinking", "thinking": "", "signature": ""}
    event = MESSAGES.event
    return _named(
        start,
        event("content_block_start", index=0, content_block=thinking),
        event("content_block_delta", index=0, delta={"type": "thinking_delta", "thinking": THOUGHT}),
        event("content_block_delta", index=0, delta={"type": "signature_delta", "signature": PROOFS[dialect]}),
        *MESSAGES.call("Bash", [raw]),
        *MESSAGES.closing((90, 12), "tool_calls"),
    )


# --- one that wants two things at once --------------------------------------------------------------------------------

COMMANDS = {"call_a": "cat note.txt", "call_b": "echo seen twice"}


def answer_with_two_calls(exchange: Exchange) -> Answer:
    """Of the chat dialect, whose calls may come in turns: a piece of the one, a piece of the other."""
    asked = heard("openai-chat", exchange.body)
    if "Bash" not in asked.tools or asked.results:
        told = {piece.id: piece.text.strip() for piece in asked.results}  # in the order in which they were done
        return _reply(asked, " & ".join(told[id_] for id_ in COMMANDS if id_ in told) or "Two things")
    raws = [json.dumps({"command": command, "description": "Looks"}) for command in COMMANDS.values()]
    names = [
        CHAT.chunk({"tool_calls": [{"index": k, "id": id_, "type": "function", "function": {"name": "Bash"}}]})
        for k, id_ in enumerate(COMMANDS)
    ]
    pieces = [
        CHAT.chunk({"tool_calls": [{"index": k, "function": {"arguments": piece}}]})
        for halves in zip(*((raw[:9], raw[9:]) for raw in raws), strict=True)
        for k, piece in enumerate(halves)
    ]
    return _named(*CHAT.opening(), *names, *pieces, *CHAT.closing((90, 12), "tool_calls"))


# --- ones that fail first ---------------------------------------------------------------------------------------------


def broken_answer(exchange: Exchange) -> Answer:
    return sse(*CHAT.opening(), CHAT.text("I lo"), end="cut")


def slow_down(exchange: Exchange) -> Answer:
    body = CHAT.error_body("rate_limit_error", "Too fast.")
    return document(body, status=429, retry_after="1")


def too_long(exchange: Exchange) -> Answer:
    error = {"message": "The context is 4096.", "type": "invalid_request_error", "code": "context_length_exceeded"}
    return document(json.dumps({"error": error}).encode(), status=400)
