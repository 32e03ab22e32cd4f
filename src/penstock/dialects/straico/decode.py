"""Straico's reply → events: a completion as OpenAI's, alone or wrapped in `{success, data}` with words and a price.

Words are no tokens and coins no dollars, so both go to `Finish.metadata`; usage is known only where it is said. Calls
are found at the end of the text. `success: false` is an error, whatever the status was. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from penstock.canon.errors import StreamedError, Truncated
from penstock.canon.events import BlockEnd, BlockStart, Delta, Event, Finish, Text
from penstock.dialects.base import Mark, finished_call, load_json
from penstock.dialects.openai_chat.decode import ChatDecoder
from penstock.dialects.straico.calls import split_calls
from penstock.framing.base import Frame

if TYPE_CHECKING:
    from penstock.canon.events import FinishReason
    from penstock.dialects.base import Decoder


def decoder(*, document: bool, provider: str | None = None, profile: str | None = None) -> Decoder:
    if document:
        return DocumentDecoder(provider)
    return ChatDecoder(document=False, provider=provider)


class DocumentDecoder:
    def __init__(self, provider: str | None) -> None:
        self.proved = False
        self.done = False
        self._inner = ChatDecoder(document=True, provider=provider)
        self._finish: Finish | None = None
        self._closed = False

    def decode(self, frame: Frame, events: list[Event]) -> Mark | None:
        if self.done:
            return Mark.AFTER
        data = frame.data
        found = load_json(data or b"")
        about: dict[str, Any] = {}
        if isinstance(found, dict):
            if found.get("success") is False:
                raise _refused(found)
            wrapped = found.get("data")
            about = wrapped if isinstance(wrapped, dict) else found
            if isinstance(about.get("completion"), dict):
                data = msgspec.json.encode(about["completion"])
        said: list[Event] = []
        mark = self._inner.decode(Frame(frame.raw, data, frame.event), said)
        if self._inner.proved:
            self._inner.close(said)
            finish = said.pop()
            assert isinstance(finish, Finish)
            said, reason = _with_calls(said, finish)
            paid = {key: about[key] for key in ("words", "price") if about.get(key) is not None}
            self._finish = replace(finish, reason=reason, metadata={**finish.metadata, **paid})
            self.proved = self.done = True
        events.extend(said)
        return mark

    def close(self, events: list[Event]) -> None:
        if self._closed:
            return
        self._closed = True
        if self._finish is None:
            raise Truncated("The reply ended before it was whole.")
        events.append(self._finish)


def _refused(found: dict[str, Any]) -> StreamedError:
    error = found.get("error")
    message = error.get("message") if isinstance(error, dict) else error
    return StreamedError(
        message if isinstance(message, str) and message else "Straico refused the request.", status=502, raw=found
    )


def _with_calls(events: list[Event], finish: Finish) -> tuple[list[Event], FinishReason]:
    """Calls where the text at the end has them. The text is the last block of a document."""
    start = next((event for event in events if isinstance(event, BlockStart) and event.kind == "text"), None)
    if start is None:
        return events, finish.reason
    i = start.i
    left, calls = split_calls("".join(event.text for event in events if type(event) is Delta and event.i == i))
    if not calls:
        return events, finish.reason
    found = [event for event in events if getattr(event, "i", None) != i]
    if left:
        found += (BlockStart(i, "text"), Delta(i, left), BlockEnd(i, Text(left)))
    reply = finish.metadata.get("response_id", "straico")
    for k, (name, raw) in enumerate(calls):
        call = finished_call(f"call_{reply}_{k}", name, raw)
        number = i + 1 + k
        found += (BlockStart(number, "tool_call", call.id, name), Delta(number, raw), BlockEnd(number, call))
    return found, "tool_calls" if finish.reason == "stop" else finish.reason
