"""Replies from a script: what an upstream sends, and a stream of it, on the wire of OpenAI chat."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.dialects import dialect
from penstock.framing.choose import choose_framing
from penstock.streams.clocks import Clocks, Timeouts
from penstock.streams.stream import Reply
from penstock.transport.memory import Break, Hang, MemoryResponse, Pause
from penstock.transport.memory import Reply as Answer
from tests.dialects.chat_wire import DONE, STOP, said, sse
from tests.virtual_clock import now

if TYPE_CHECKING:
    from penstock.dialects.base import Decoder
    from penstock.framing.base import Framing

HEL, LO, END = sse(said("Hel")), sse(said("lo")), sse(STOP)
PING = b": ping\n\n"
ROLE = sse({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
ERROR = sse({"error": {"message": "Too bad", "code": 429}})

__all__ = ["DONE", "END", "ERROR", "HEL", "LO", "PING", "ROLE", "Break", "Hang", "Pause", "of", "reply_to", "script"]


def script(*steps: bytes | Pause | Break | Hang) -> MemoryResponse:
    return MemoryResponse(Answer(headers={"content-type": "text/event-stream"}, chunks=steps))


def reply_to(response: MemoryResponse, timeouts: Timeouts | None = None, *, name: str = "openai-chat") -> Reply:
    """The reply, with clocks where `timeouts` are given."""

    def choose(first: bytes, is_all: bool) -> tuple[Framing, Decoder] | None:
        framing = choose_framing(response.headers.get("content-type"), first, is_all=is_all)
        if framing is None:
            return None
        return framing, dialect(name).decoder(document=framing.name == "document", provider="up")

    clocks = Clocks(timeouts, now=now, began=now()) if timeouts is not None else None
    return Reply(response, choose, now=now, target="up:m", clocks=clocks)


def of(*steps: bytes | Pause | Break | Hang) -> Reply:
    return reply_to(script(*steps))
