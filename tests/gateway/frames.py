"""Frames of both dialects, as an upstream sends them, and what a client makes of an answer."""

from __future__ import annotations

import json
from typing import Any

from penstock.framing.sse import SSEFraming


def _sse(data: Any, event: str | None = None) -> bytes:
    head = f"event: {event}\n".encode() if event else b""
    return head + b"data: " + json.dumps(data).encode() + b"\n\n"


def _chat(delta: Any, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return _sse({"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]})


def opening(dialect: str) -> bytes:
    if dialect == "openai-chat":
        return _chat({"role": "assistant", "content": ""})
    usage = {"input_tokens": 5, "output_tokens": 1}
    message = {"id": "m1", "type": "message", "role": "assistant", "model": "m", "content": [], "usage": usage}
    return _sse({"type": "message_start", "message": message}, "message_start") + _sse(
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        "content_block_start",
    )


def text(dialect: str, said: str) -> bytes:
    if dialect == "openai-chat":
        return _chat({"content": said})
    delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": said}}
    return _sse(delta, "content_block_delta")


def finish(dialect: str) -> bytes:
    """The proof of the ending, with its usage after it, up to but without the terminator."""
    if dialect == "openai-chat":
        usage = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
        return _chat({}, "stop") + _sse({"id": "c1", "model": "m", "choices": [], "usage": usage})
    delta = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3}}
    return _sse({"type": "content_block_stop", "index": 0}, "content_block_stop") + _sse(delta, "message_delta")


def terminator(dialect: str) -> bytes:
    return b"data: [DONE]\n\n" if dialect == "openai-chat" else _sse({"type": "message_stop"}, "message_stop")


def ping(dialect: str) -> bytes:
    return b": ping\n\n" if dialect == "openai-chat" else _sse({"type": "ping"}, "ping")


def error(dialect: str) -> bytes:
    if dialect == "openai-chat":
        return _sse({"error": {"message": "no more power", "type": "server_error", "code": "power"}})
    return _sse({"type": "error", "error": {"type": "overloaded_error", "message": "no more power"}}, "error")


def document(dialect: str, said: str) -> bytes:
    if dialect == "openai-chat":
        choice = {"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
        return json.dumps(
            {"id": "c1", "object": "chat.completion", "model": "m", "choices": [choice], "usage": usage}
        ).encode()
    content = [{"type": "text", "text": said}]
    usage = {"input_tokens": 5, "output_tokens": 3}
    body = {"id": "m1", "type": "message", "role": "assistant", "model": "m", "content": content, "usage": usage}
    return json.dumps({**body, "stop_reason": "end_turn"}).encode()


def whole(dialect: str, *words: str) -> bytes:
    return opening(dialect) + b"".join(text(dialect, word) for word in words) + finish(dialect) + terminator(dialect)


class Seen:
    """What a client of `dialect` reads in a stream's body."""

    def __init__(self, dialect: str, body: bytes) -> None:
        framing = SSEFraming()
        frames = [frame.data for frame in framing.feed(body) + framing.close() if frame.data is not None]
        self.is_terminated = False
        self.text = ""
        self.finish: str | None = None
        self.error: Any = None
        for data in frames:
            if data == b"[DONE]":
                self.is_terminated = True
                continue
            value = json.loads(data)
            self.error = value.get("error") or self.error
            if dialect == "openai-chat":
                for choice in value.get("choices", ()):
                    self.text += choice["delta"].get("content") or ""
                    self.finish = choice.get("finish_reason") or self.finish
            else:
                self.text += value.get("delta", {}).get("text") or ""
                self.finish = value.get("delta", {}).get("stop_reason") or self.finish
                self.is_terminated = self.is_terminated or value["type"] == "message_stop"
