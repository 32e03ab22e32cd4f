"""A client's `messages` → ours.

Clients of this wire may keep no ids (their SDK does not): a call without one gets one that no other call of the
conversation has, and a result without one answers the oldest open call of its tool, or, when it names no tool, the
oldest of all. Pictures come as bytes alone; their first say what they are. Pure; raises `InvalidRequest` with the
message's path.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from penstock.canon.errors import InvalidRequest
from penstock.canon.events import Reasoning, Text, ToolCall
from penstock.canon.request import Audio, ContentPart, File, Image, Message, Role, ToolResult
from penstock.dialects.base import finished_call
from penstock.dialects.signatures import split_id

if TYPE_CHECKING:
    from collections.abc import Sequence

_ROLES: dict[str, Role] = {"system": "system", "user": "user", "assistant": "assistant"}

#: how the base64 of a picture begins
_MEDIA_TYPES = {"/9j/": "image/jpeg", "iVBORw0KGgo": "image/png", "R0lGOD": "image/gif", "UklGR": "image/webp"}


class _Function(msgspec.Struct):
    name: str
    arguments: dict[str, Any] | None = None


class _Call(msgspec.Struct):
    function: _Function
    id: str = ""


class GivenMessage(msgspec.Struct):
    role: str
    content: str | None = None
    thinking: str | None = None
    images: list[str] | None = None
    tool_calls: list[_Call] | None = None
    tool_name: str | None = None
    name: str | None = None
    tool_call_id: str | None = None


def read_messages(given: Sequence[GivenMessage]) -> tuple[Message, ...]:
    reader = _Reader({split_id(call.id)[0] for message in given for call in message.tool_calls or ()})
    return tuple(reader.read(message, f"messages[{k}]") for k, message in enumerate(given))


def image(data: str) -> Image:
    media_type = next((kind for start, kind in _MEDIA_TYPES.items() if data.startswith(start)), None)
    return Image(data=data, media_type=media_type)


class _Reader:
    """`taken` are the ids that the client gave."""

    def __init__(self, taken: set[str]) -> None:
        self._taken = taken
        self._made = 0
        self._waiting: list[ToolCall] = []  # calls without a result

    def read(self, given: GivenMessage, path: str) -> Message:
        if given.role == "tool":
            shown: list[Text | Image | Audio | File] = [Text(given.content or "")]
            shown += map(image, given.images or ())
            name = given.tool_name or given.name
            return Message("tool", (ToolResult(self._answered(given, name), tuple(shown), name=name),))
        role = _ROLES.get(given.role)
        if role is None:
            raise InvalidRequest(
                f"Unknown role `{given.role}`.", param=f"{path}.role", fix="Use system, user, assistant or tool."
            )
        if role == "user":
            self._waiting.clear()  # what was not answered by now never will be
        parts: list[ContentPart] = [Reasoning(given.thinking)] if given.thinking else []
        if given.content or not (given.tool_calls or given.images or given.thinking):
            parts.append(Text(given.content or ""))
        parts += map(image, given.images or ())
        parts += map(self._call, given.tool_calls or ())
        return Message(role, tuple(parts))

    def _call(self, given: _Call) -> ToolCall:
        id_, signature = split_id(given.id)
        raw = msgspec.json.encode(given.function.arguments or {}).decode()
        call = finished_call(id_ or self._new_id(), given.function.name, raw, signature=signature)
        self._waiting.append(call)
        return call

    def _answered(self, given: GivenMessage, name: str | None) -> str:
        """The id of the call that this is the result of."""
        id_ = split_id(given.tool_call_id or "")[0]
        for call in self._waiting:
            if call.id == id_ if id_ else name in (None, call.name):
                self._waiting.remove(call)
                return call.id
        return id_ or self._new_id()

    def _new_id(self) -> str:
        while (id_ := f"call_{self._made}") in self._taken:
            self._made += 1
        self._made += 1
        return id_
