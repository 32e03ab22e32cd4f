"""The flat form: events → chunks with `content`, `finish_reason`, `usage`, `tool_calls` and `delta`, as many programs
expect them. One chunk per piece of text and one at the end, which has the finish reason, the usage and the tool calls.
"""

from __future__ import annotations

import time

from msgspec import Struct

from penstock.canon.events import BlockEnd, BlockStart, Delta, Event, Finish, Start, ToolCall, UsageUpdate


class ChunkMetadata(Struct, frozen=True):
    """`timestamp` is Unix time in seconds, `chunk_size` the content's length in bytes."""

    index: int
    timestamp: float
    chunk_size: int
    provider: str


class Chunk(Struct, frozen=True):
    """The last one has the finish reason, the usage and the tool calls."""

    content: str
    finish_reason: str | None
    usage: dict[str, int | None] | None
    tool_calls: tuple[ToolCall, ...]
    delta: dict[str, str]
    chunk_metadata: ChunkMetadata | None = None


class Flat:
    """`provider` None: the name of the model that answers stands for it, or `unknown`."""

    def __init__(self, provider: str | None, *, metadata: bool) -> None:
        self._provider = provider
        self._metadata = metadata
        self._index = 0
        self._kinds: dict[int, str] = {}
        self._calls: list[ToolCall] = []
        self._usage: dict[str, int | None] | None = None

    def chunk(self, event: Event) -> Chunk | None:
        match event:
            case Delta():
                if event.text and self._kinds.get(event.i) == "text":
                    return self._made(event.text, None)
            case BlockStart():
                self._kinds[event.i] = event.kind
            case BlockEnd(part=ToolCall() as call) if not call.server:
                self._calls.append(call)
            case Start():
                self._provider = self._provider or event.provider or event.model
            case UsageUpdate(usage=usage) | Finish(usage=usage) if usage is not None:
                self._usage = {
                    "prompt_tokens": usage.input,
                    "completion_tokens": usage.output,
                    "total_tokens": usage.total,
                }
        return self._made("", event.reason) if isinstance(event, Finish) else None

    def _made(self, content: str, finish: str | None) -> Chunk:
        about = None
        if self._metadata:
            about = ChunkMetadata(self._index, time.time(), len(content.encode()), self._provider or "unknown")
        self._index += 1
        last = finish is not None
        return Chunk(
            content=content,
            finish_reason=finish,
            usage=self._usage if last else None,
            tool_calls=tuple(self._calls) if last else (),
            delta={"content": content, "role": "assistant"},
            chunk_metadata=about,
        )
