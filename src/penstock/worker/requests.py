"""What the engine is asked, where that is not what the client said: llama.cpp's own ways, mended for its clients.

- Text completions go to its own, so that a prompt is what the client wrote, and not a turn in a chat template.
- With `tool_choice: "none"` its templates still show the tools, and small models call what they see: they are left out.
- A body that is not UTF-8 is refused here: it would answer with a piece of the prompt.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from penstock.canon.errors import InvalidRequest
from penstock.policy.upstream import in_dialect

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from penstock.canon.target import Target
    from penstock.canon.wire import HttpRequest
    from penstock.dialects.base import Reader, RequestHead
    from penstock.streams.handler import Call, Handler
    from penstock.streams.stream import EventStream

_asks = in_dialect()
_NONE = b'"none"'


def asks(call: Call, target: Target) -> tuple[Reader, HttpRequest]:
    """As `policy.upstream.in_dialect` has it. A request that needs no mending costs two looks through its bytes."""
    head = call.head
    if head is not None and call.dialect is not None and call.dialect.name == target.dialect:
        _check_text(head.body)
        if _NONE in head.body:
            call.head = without_tools(head)
    return _asks(call, target)


def _check_text(body: bytes) -> None:
    if body.isascii():
        return
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"The body is not UTF-8: byte {error.start} begins no character.") from None


def without_tools(head: RequestHead) -> RequestHead:
    """The same request without the tools that may not be called."""
    fields = head.fields
    if "tools" not in fields or bytes(fields.get("tool_choice", b"")) != _NONE:
        return head
    kept = {name: value for name, value in fields.items() if name not in ("tools", "tool_choice")}
    return replace(head, body=msgspec.json.encode(kept))


def completing(inner: Handler) -> Handler:
    """A layer behind the engine's target: this call is a text completion there, too."""

    def handle(call: Call) -> AbstractAsyncContextManager[EventStream]:
        assert call.target is not None, "the engine comes first"
        call.target = replace(call.target, dialect="openai-completions")
        return inner(call)

    return handle
