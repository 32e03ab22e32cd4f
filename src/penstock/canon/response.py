"""A whole reply, folded from events: what `.response` gives, what a document encoder writes, what an error carries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct

from penstock.canon.events import (
    Annotation,
    BlockEnd,
    BlockStart,
    Delta,
    Event,
    Finish,
    FinishReason,
    Part,
    Reasoning,
    Refusal,
    Start,
    Text,
    Timings,
    ToolCall,
    UsageUpdate,
)
from penstock.canon.request import Message
from penstock.canon.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Iterable


class Ending(Struct, frozen=True):
    """`reason` is ours, `raw` the provider's own word."""

    reason: FinishReason
    raw: str | None = None


class Timing(Struct, frozen=True):
    """Milliseconds from the moment the request was made; None where it never came to that, or nobody knows.

    `itl_*` are the gaps between network reads that brought content. `stalls` counts those of a second or more, and
    `stalled_ms` is their sum. `prompt_tps` and `generation_tps` are tokens per second, by the clock of the `server`
    where it told, else of the `client`, who knows the generation's alone (`timings_source`).
    """

    ttfb_ms: float | None = None
    ttft_ms: float | None = None
    duration_ms: float | None = None
    itl_p50_ms: float | None = None
    itl_p95_ms: float | None = None
    itl_max_ms: float | None = None
    stalls: int | None = None
    stalled_ms: float | None = None
    prompt_tps: float | None = None
    generation_tps: float | None = None
    timings_source: Literal["server", "client"] | None = None


class Response(Struct, frozen=True):
    """`outcome` is one of complete, truncated, upstream_error, timeout, cancelled, capped; None while it streams."""

    parts: tuple[Part, ...] = ()
    finish: Ending | None = None
    usage: Usage | None = None
    timings: Timings | None = None
    model: str | None = None
    provider: str | None = None
    response_id: str | None = None
    outcome: str | None = None
    timing: Timing | None = None
    attempts: int = 1
    request_id: str | None = None
    metadata: dict[str, Any] = {}
    #: the value that the text is, where a schema was asked for
    parsed: Any = None
    #: what was asked for and not sent, a sentence each
    warnings: tuple[str, ...] = ()

    @property
    def message(self) -> Message:
        """The reply as the next call takes it, thoughts and their signatures included.

        What the provider executed itself is left out: it means nothing without results that only the provider has.
        """
        kept = tuple(
            part
            for part in self.parts
            if isinstance(part, Text | Reasoning | Refusal) or (isinstance(part, ToolCall) and not part.server)
        )
        return Message("assistant", kept)

    @property
    def text(self) -> str:
        return "".join(part.text for part in self.parts if isinstance(part, Text))

    @property
    def reasoning(self) -> str:
        return "".join(part.text for part in self.parts if isinstance(part, Reasoning))

    @property
    def refusal(self) -> str | None:
        said = [part.text for part in self.parts if isinstance(part, Refusal)]
        return "".join(said) if said else None

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The calls that the caller is asked to execute; a provider's own server calls are in `parts` only."""
        return tuple(part for part in self.parts if isinstance(part, ToolCall) and not part.server)


class _Open:
    __slots__ = ("annotations", "start", "text")

    def __init__(self, start: BlockStart) -> None:
        self.start = start
        self.text: list[str] = []
        self.annotations: list[Any] = []

    def part(self) -> Part | None:
        """What had arrived of a block that was cut."""
        text = "".join(self.text)
        match self.start.kind:
            case "text":
                return Text(text, tuple(self.annotations))
            case "reasoning":
                return Reasoning(text)
            case "refusal":
                return Refusal(text)
            case "tool_call":
                # Never parsed: a cut argument text that happens to be JSON must not be executed.
                cut = "the stream ended inside the arguments"
                return ToolCall(self.start.id or "", self.start.name or "", text, None, cut, self.start.server)
        return None


class Fold:
    """Fold events into a `Response`, at any moment. Costs a list append per delta; keeps no event."""

    def __init__(self) -> None:
        self._start = Start()
        self._open: dict[int, _Open] = {}
        self._parts: dict[int, Part] = {}
        self._usage: Usage | None = None
        self._timings: Timings | None = None
        self._finish: Finish | None = None

    def feed(self, events: Iterable[Event]) -> None:
        for event in events:
            kind = type(event)
            if kind is Delta:
                self._open[event.i].text.append(event.text)  # type: ignore[union-attr]
            elif isinstance(event, BlockStart):
                self._open[event.i] = _Open(event)
            elif isinstance(event, BlockEnd):
                self._open.pop(event.i, None)
                self._parts[event.i] = event.part
            elif isinstance(event, Annotation):
                if event.i in self._open:
                    self._open[event.i].annotations.append(event.data)
            elif isinstance(event, UsageUpdate):
                self._usage = event.usage
            elif isinstance(event, Timings):
                self._timings = event
            elif isinstance(event, Start):
                self._start = event
            elif isinstance(event, Finish):
                self._finish = event
                self._usage = event.usage or self._usage

    def begin_again(self, events: Iterable[Event]) -> None:
        """Feed these, and forget the blocks that were begun before them: the reply is said anew."""
        before = [*self._open, *self._parts]
        self.feed(events)
        for i in before:
            self._open.pop(i, None)
            self._parts.pop(i, None)

    @property
    def usage(self) -> Usage | None:
        """The last that was said."""
        return self._usage

    @property
    def ending(self) -> Ending | None:
        return Ending(self._finish.reason, self._finish.raw_reason) if self._finish is not None else None

    def response(
        self,
        *,
        outcome: str | None = None,
        timing: Timing | None = None,
        attempts: int = 1,
        request_id: str | None = None,
        warnings: tuple[str, ...] = (),
        parsed: Any = None,
    ) -> Response:
        parts = dict(self._parts)
        for i, block in self._open.items():
            part = block.part()
            if part is not None:
                parts[i] = part
        finish = self._finish
        metadata = finish.metadata if finish else {}
        return Response(
            parts=tuple(parts[i] for i in sorted(parts)),
            finish=self.ending,
            usage=self._usage,
            timings=self._timings,
            model=self._start.model or metadata.get("model"),
            provider=self._start.provider,
            response_id=self._start.response_id or metadata.get("response_id"),
            outcome=outcome,
            timing=timing,
            attempts=attempts,
            request_id=request_id,
            metadata=metadata,
            warnings=warnings,
            parsed=parsed,
        )


def fold(events: Iterable[Event]) -> Response:
    """The response that these events make."""
    folding = Fold()
    folding.feed(events)
    return folding.response()
