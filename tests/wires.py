"""Both chat wires as tests write and read them: plain JSON and string handling, nothing of the package's own.

A wire writes an upstream's frames (`opening`, `text`, `closing` …) and reads what a client got (`read`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest

JSON = dict[str, Any]


@dataclass
class Said:
    """What a client of a stream, or of a document, has been told."""

    text: str = ""
    reasoning: str = ""
    calls: list[tuple[str, str]] = field(default_factory=list)  # name, argument text
    stops: list[str] = field(default_factory=list)  # every stop reason that was said
    usage: tuple[int, int] | None = None
    errors: list[JSON] = field(default_factory=list)
    terminators: int = 0
    heartbeats: int = 0
    models: set[str] = field(default_factory=set)
    frames: list[tuple[str | None, Any]] = field(default_factory=list)  # event name, data


def sse_frames(body: bytes) -> list[tuple[str | None, str | None]]:
    """(event, data) of each block; a comment is (":", its text). Raises when the bytes end inside a block."""
    assert body == b"" or body.endswith(b"\n\n"), f"ends inside a frame: {body[-80:]!r}"
    found: list[tuple[str | None, str | None]] = []
    for block in body.decode().split("\n\n")[:-1]:
        event: str | None = None
        data: str | None = None
        for line in block.split("\n"):
            if line.startswith(":"):
                event, data = ":", line[1:].strip()
            elif line.startswith("event:"):
                event = line[6:].strip()
            elif line.startswith("data:"):
                assert data is None, f"two data lines: {block!r}"
                data = line[5:].strip()
            else:
                assert not line, f"a line that nobody knows: {line!r}"
        found.append((event, data))
    return found


def _event(data: Any, name: str | None = None) -> bytes:
    line = f"data: {json.dumps(data, ensure_ascii=False)}\n\n"
    return (f"event: {name}\n{line}" if name else line).encode()


class ChatWire:
    name = "openai-chat"
    route = "/v1/chat/completions"
    model = "c-1"
    mount = "/chat/v1"
    upstream_path = "/chat/v1/chat/completions"
    terminator = b"data: [DONE]\n\n"
    comment = b": still here\n\n"

    def request(self, model: str, *, stream: bool = True, **more: Any) -> JSON:
        body: JSON = {"model": model, "messages": [{"role": "user", "content": "Tell me"}], "max_tokens": 100}
        if stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        return body | more

    # --- what an upstream says ---

    def chunk(self, delta: JSON, finish: str | None = None, **more: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        head = {"id": "chatcmpl-7", "object": "chat.completion.chunk", "created": 7, "model": "real-1"}
        return _event({**head, "choices": [choice], **more})

    def opening(self) -> list[bytes]:
        return [self.chunk({"role": "assistant", "content": ""})]

    def text(self, piece: str) -> bytes:
        return self.chunk({"content": piece})

    def call(self, name: str, arguments: list[str]) -> list[bytes]:
        """A whole tool call."""
        first = {"index": 0, "id": "call_1", "type": "function", "function": {"name": name, "arguments": ""}}
        return [self.chunk({"tool_calls": [first]})] + [
            self.chunk({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}) for piece in arguments
        ]

    def usage(self, usage: tuple[int, int]) -> bytes:
        said = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}
        head = {"id": "chatcmpl-7", "object": "chat.completion.chunk", "created": 7, "model": "real-1"}
        return _event({**head, "choices": [], "usage": said})

    def closing(self, usage: tuple[int, int] | None = (9, 2), stop: str = "stop") -> list[bytes]:
        said = [self.usage(usage)] if usage is not None else []
        return [self.chunk({}, stop), *said, self.terminator]

    def error(self, type_: str, message: str) -> bytes:
        return _event({"error": {"message": message, "type": type_, "param": None, "code": None}})

    def error_body(self, type_: str, message: str) -> bytes:
        return json.dumps({"error": {"message": message, "type": type_, "param": None, "code": None}}).encode()

    def document(self, text: str = "Hello", usage: tuple[int, int] = (9, 2), calls: bool = False) -> bytes:
        message: JSON = {"role": "assistant", "content": text}
        if calls:
            call = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"at": "sea"}'}}
            message |= {"tool_calls": [call], "content": None}
        said = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}
        choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if calls else "stop"}
        head = {"id": "chatcmpl-7", "object": "chat.completion", "created": 7, "model": "real-1"}
        return json.dumps({**head, "choices": [choice], "usage": said}).encode()

    # --- what a client reads ---

    def read(self, body: bytes) -> Said:
        said = Said()
        calls: dict[int, list[str]] = {}
        for event, data in sse_frames(body):
            if event == ":":
                said.heartbeats += 1
                continue
            assert data is not None
            if data == "[DONE]":
                said.terminators += 1
                said.frames.append((event, data))
                continue
            chunk = json.loads(data)
            said.frames.append((event, chunk))
            if chunk.get("error"):
                said.errors.append(chunk["error"])
                continue
            said.models.add(chunk["model"])
            if usage := chunk.get("usage"):
                said.usage = (usage["prompt_tokens"], usage["completion_tokens"])
            for choice in chunk["choices"]:
                said.text += choice["delta"].get("content") or ""
                if choice["finish_reason"]:
                    said.stops.append(choice["finish_reason"])
                for call in choice["delta"].get("tool_calls") or ():
                    held = calls.setdefault(call["index"], ["", ""])
                    held[0] += call["function"].get("name") or ""
                    held[1] += call["function"].get("arguments") or ""
        said.calls = [(name, arguments) for name, arguments in calls.values()]
        return said

    def read_document(self, body: bytes) -> Said:
        found = json.loads(body)
        if "error" in found:
            return Said(errors=[found["error"]])
        assert found["object"] == "chat.completion"
        (choice,) = found["choices"]
        said = Said(choice["message"]["content"] or "", stops=[choice["finish_reason"]], models={found["model"]})
        for call in choice["message"].get("tool_calls") or ():
            said.calls.append((call["function"]["name"], call["function"]["arguments"]))
        if usage := found.get("usage"):
            said.usage = (usage["prompt_tokens"], usage["completion_tokens"])
        return said


class MessagesWire:
    name = "anthropic-messages"
    route = "/v1/messages"
    model = "a-1"
    mount = "/anth/v1"
    upstream_path = "/anth/v1/messages"
    terminator = b'event: message_stop\ndata: {"type": "message_stop"}\n\n'
    comment = b'event: ping\ndata: {"type": "ping"}\n\n'

    def request(self, model: str, *, stream: bool = True, **more: Any) -> JSON:
        body: JSON = {"model": model, "messages": [{"role": "user", "content": "Tell me"}], "max_tokens": 100}
        return body | ({"stream": True} if stream else {}) | more

    # --- what an upstream says ---

    def event(self, name: str, **fields: Any) -> bytes:
        return _event({"type": name, **fields}, name)

    def _message_start(self) -> bytes:
        message = {"id": "msg_7", "type": "message", "role": "assistant", "model": "real-1", "content": []}
        ends = {"stop_reason": None, "stop_sequence": None, "usage": {"input_tokens": 9, "output_tokens": 1}}
        return self.event("message_start", message=message | ends)

    def opening(self) -> list[bytes]:
        block = self.event("content_block_start", index=0, content_block={"type": "text", "text": ""})
        return [self._message_start(), block]

    def text(self, piece: str) -> bytes:
        return self.event("content_block_delta", index=0, delta={"type": "text_delta", "text": piece})

    def call(self, name: str, arguments: list[str]) -> list[bytes]:
        """A whole tool call; the text block before it is closed."""
        block = {"type": "tool_use", "id": "toolu_1", "name": name, "input": {}}
        pieces = [
            self.event("content_block_delta", index=1, delta={"type": "input_json_delta", "partial_json": piece})
            for piece in arguments
        ]
        opened = self.event("content_block_start", index=1, content_block=block)
        return [
            self.event("content_block_stop", index=0), opened, *pieces, self.event("content_block_stop", index=1)
        ]  # fmt: skip

    def usage(self, usage: tuple[int, int], stop: str | None = None) -> bytes:
        said = {"input_tokens": usage[0], "output_tokens": usage[1]}
        return self.event("message_delta", delta={"stop_reason": stop, "stop_sequence": None}, usage=said)

    def closing(self, usage: tuple[int, int] | None = (9, 2), stop: str = "stop") -> list[bytes]:
        word = {"stop": "end_turn", "tool_calls": "tool_use", "length": "max_tokens"}[stop]
        stopped = [] if stop == "tool_calls" else [self.event("content_block_stop", index=0)]
        if usage is None:
            delta = self.event("message_delta", delta={"stop_reason": word, "stop_sequence": None})
        else:
            delta = self.usage(usage, word)
        return [*stopped, delta, self.terminator]

    def error(self, type_: str, message: str) -> bytes:
        return self.event("error", error={"type": type_, "message": message})

    def error_body(self, type_: str, message: str) -> bytes:
        return json.dumps({"type": "error", "error": {"type": type_, "message": message}}).encode()

    def document(self, text: str = "Hello", usage: tuple[int, int] = (9, 2), calls: bool = False) -> bytes:
        block: JSON = {"type": "text", "text": text}
        if calls:
            block = {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"at": "sea"}}
        head = {"id": "msg_7", "type": "message", "role": "assistant", "model": "real-1", "content": [block]}
        ends = {"stop_reason": "tool_use" if calls else "end_turn", "stop_sequence": None}
        return json.dumps({**head, **ends, "usage": {"input_tokens": usage[0], "output_tokens": usage[1]}}).encode()

    # --- what a client reads ---

    def read(self, body: bytes) -> Said:
        said = Said()
        calls: dict[int, list[str]] = {}
        prompt = completion = 0
        for event, data in sse_frames(body):
            assert event is not None, f"every event of this wire has a name: {data!r}"
            if event == ":":
                said.heartbeats += 1
                continue
            assert data is not None
            found = json.loads(data)
            assert found["type"] == event
            said.frames.append((event, found))
            usage = found.get("usage") or found.get("message", {}).get("usage") or {}
            prompt, completion = usage.get("input_tokens", prompt), usage.get("output_tokens", completion)
            match event:
                case "message_start":
                    said.models.add(found["message"]["model"])
                case "content_block_start" if found["content_block"]["type"] == "tool_use":
                    calls[found["index"]] = [found["content_block"]["name"], ""]
                case "content_block_delta" if found["delta"]["type"] == "text_delta":
                    said.text += found["delta"]["text"]
                case "content_block_delta" if found["delta"]["type"] == "input_json_delta":
                    calls[found["index"]][1] += found["delta"]["partial_json"]
                case "message_delta":
                    said.usage = (prompt, completion)
                    if found["delta"]["stop_reason"]:
                        said.stops.append(found["delta"]["stop_reason"])
                case "message_stop":
                    said.terminators += 1
                case "ping":
                    said.heartbeats += 1
                case "error":
                    said.errors.append(found["error"])
        said.calls = [(name, arguments) for name, arguments in calls.values()]
        return said

    def read_document(self, body: bytes) -> Said:
        found = json.loads(body)
        if found["type"] == "error":
            return Said(errors=[found["error"]])
        assert found["type"] == "message"
        said = Said(stops=[found["stop_reason"]], models={found["model"]})
        said.text = "".join(block["text"] for block in found["content"] if block["type"] == "text")
        said.calls = [(b["name"], json.dumps(b["input"])) for b in found["content"] if b["type"] == "tool_use"]
        if usage := found.get("usage"):
            said.usage = (usage["input_tokens"], usage["output_tokens"])
        return said


Wire = ChatWire | MessagesWire

CHAT, MESSAGES = ChatWire(), MessagesWire()
WIRES: dict[str, Wire] = {CHAT.name: CHAT, MESSAGES.name: MESSAGES}

#: what each wire calls a reason to stop
STOPPED = {CHAT.name: "stop", MESSAGES.name: "end_turn"}


class Pair(NamedTuple):
    """Who asks in which dialect, and who answers in which."""

    client: Wire
    upstream: Wire

    @property
    def is_same(self) -> bool:
        return self.client.name == self.upstream.name

    def request(self, *, stream: bool = True, **more: Any) -> JSON:
        return self.client.request(more.pop("model", self.upstream.model), stream=stream, **more)


PAIRS = [Pair(client, upstream) for client in WIRES.values() for upstream in WIRES.values()]
each_pair = pytest.mark.parametrize("pair", PAIRS, ids=[f"{p.client.name} from {p.upstream.name}" for p in PAIRS])
each_client = pytest.mark.parametrize("wire", WIRES.values(), ids=WIRES)
