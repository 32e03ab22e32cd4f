"""A chat request, in no dialect: what a client's body is parsed into and an upstream's body is built from.

Only cross-dialect calls and the library pass through here; a same-dialect call forwards the caller's own bytes.
"""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from penstock.canon.events import Reasoning, Refusal, Text, ToolCall

Role = Literal["system", "user", "assistant", "tool"]


class Image(Struct, frozen=True, tag="image"):
    """Either `url`, or `data` (base64) with `media_type` (`image/png`)."""

    url: str | None = None
    data: str | None = None
    media_type: str | None = None
    detail: str | None = None


class Audio(Struct, frozen=True, tag="audio"):
    """`data` is base64; `format` is `wav` or `mp3`."""

    data: str
    format: str


class File(Struct, frozen=True, tag="file"):
    """A document: `data` (base64) with `media_type`, a `url`, plain `text`, or a provider's own `file_id`."""

    data: str | None = None
    url: str | None = None
    text: str | None = None
    file_id: str | None = None
    media_type: str | None = None
    name: str | None = None


class ToolResult(Struct, frozen=True, tag="tool_result"):
    """What the call `id` came to. `is_error`: it failed, and the text says how."""

    id: str
    parts: tuple[Text | Image | Audio | File, ...] = ()
    is_error: bool = False
    name: str | None = None

    @classmethod
    def of(cls, call: ToolCall, *content: str | Text | Image | Audio | File, is_error: bool = False) -> ToolResult:
        """The answer to a call of a response's `tool_calls`."""
        parts = tuple(Text(part) if isinstance(part, str) else part for part in content)
        return cls(call.id, parts, is_error, call.name)


ContentPart = Text | Image | Audio | File | ToolCall | ToolResult | Reasoning | Refusal


class Message(Struct, frozen=True):
    role: Role
    parts: tuple[ContentPart, ...]
    name: str | None = None

    @classmethod
    def of(cls, role: Role, *content: str | ContentPart) -> Message:
        """A message of texts and parts: `Message.of("user", "What is this?", Image(url="https://…"))`."""
        return cls(role, tuple(Text(part) if isinstance(part, str) else part for part in content))


class Tool(Struct, frozen=True):
    """`parameters` is a JSON Schema of type object."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ToolChoice(Struct, frozen=True):
    """`name` goes with mode `tool` alone."""

    mode: Literal["auto", "any", "none", "tool"]
    name: str | None = None


class OutputFormat(Struct, frozen=True):
    """Structured output: `json` for any object, `schema` for one that fits `schema`."""

    kind: Literal["json", "schema"]
    schema: dict[str, Any] | None = None
    name: str | None = None
    strict: bool | None = None


class ChatRequest(Struct, frozen=True):
    """Unset is None: nothing is sent for it. `extras`: what a dialect says that has no name here, by dialect."""

    model: str
    messages: tuple[Message, ...]
    stream: bool = False
    include_usage: bool = False
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: str | None = None
    reasoning_budget: int | None = None
    output: OutputFormat | None = None
    user: str | None = None
    extras: dict[str, Any] = {}
