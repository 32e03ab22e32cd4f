"""A conversation with everything in it, as a request of ours, and what a dialect's builder makes of a request."""

from __future__ import annotations

import json
from typing import Any

from penstock.canon.events import Reasoning, Text, ToolCall
from penstock.canon.request import ChatRequest, Image, Message, Tool, ToolResult
from penstock.canon.target import Secret, Target
from penstock.dialects import dialect

SCHEMA: dict[str, Any] = {"type": "object", "properties": {"at": {"type": "string"}}, "required": ["at"]}
LOOK = Tool("look", "Look somewhere", SCHEMA)
CALL = ToolCall("call_1", "look", '{"at":"sea"}', {"at": "sea"})
PIXEL = Image(data="iVBORw0KGgo=", media_type="image/png")

CONVERSATION = (
    Message.of("system", "Be brief."),
    Message("user", (Text("What is there?"), PIXEL)),
    Message("assistant", (Text("I look."), CALL)),
    Message("tool", (ToolResult("call_1", (Text("a horse"),)),)),
    Message.of("user", "And now?"),
)

THOUGHT = Reasoning("Let me see.", "EqQB", signed_by="anthropic-messages")


def target_for(name: str, **more: Any) -> Target:
    return Target(**{"upstream": "up", "url": "https://up.example/v1", "dialect": name, "key": Secret("sk-1"), **more})


def built(name: str, request: ChatRequest, **target: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The body that the dialect builds, and what it names as dropped."""
    made = dialect(name).build_request(request, target_for(name, **target))
    return json.loads(made.body), made.dropped


def asking(*messages: Message, **fields: Any) -> ChatRequest:
    return ChatRequest("m", messages or (Message.of("user", "Hi"),), **fields)
