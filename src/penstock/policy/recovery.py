"""The layer that takes a stream up when it breaks after its first content. Opt-in: what was sent cannot be unsent.

`restart`: the whole reply comes again, in blocks of its own. `continue`: a target is given the text so far as the
beginning of its own reply, and goes on with it; only targets that are known to do so are asked. The place is marked
(`Batch.seam`) and on the record (`Call.recovered`). What breaks is what a second time can mend (`error.retryable`), and
nothing is taken up once a tool call has begun. What cannot be taken up is raised as it was.

The caller sees one stream: one `Start`, one id, one model. So it gets events, never the upstream's own bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from msgspec.structs import replace

from penstock.canon.errors import PenstockError, TimedOut
from penstock.canon.events import Text
from penstock.canon.request import Message
from penstock.streams.recovery import Continued, Restarted, Told
from penstock.streams.stream import EventStream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from penstock.canon.events import Event
    from penstock.canon.request import ChatRequest
    from penstock.canon.target import Target
    from penstock.streams.batch import Batch
    from penstock.streams.handler import Call, Handler, Layer
    from penstock.streams.stream import Tap

Mode = Literal["off", "restart", "continue"]

#: how often one call is taken up
MAX_SEAMS = 2

#: (dialect, profile) → what asks it to go on with the assistant's last message; "" stands for any profile. Anthropic's
#: documentation of prefilling, Ollama's templates, llama.cpp's `prefill_assistant`, vLLM's and SGLang's
#: `continue_final_message`, OpenRouter's "assistant prefill" (2026-11).
_GOES_ON: dict[tuple[str, str], dict[str, Any]] = {
    ("anthropic-messages", ""): {},
    ("ollama", ""): {},
    ("openai-chat", "llamacpp"): {},
    ("openai-chat", "openrouter"): {},
    ("openai-chat", "vllm"): {"continue_final_message": True, "add_generation_prompt": False},
    ("openai-chat", "sglang"): {"continue_final_message": True},
}


def goes_on(target: Target) -> bool:
    """Whether it is known to continue a reply whose beginning it is given."""
    return _asking(target) is not None


def _asking(target: Target) -> dict[str, Any] | None:
    found = _GOES_ON.get((target.dialect, target.profile or ""))
    return _GOES_ON.get((target.dialect, "")) if found is None else found


def recovered(mode: Mode, *, total_s: float | None = None, continues: Callable[[Target], bool] = goes_on) -> Layer:
    """Goes round whatever chooses targets. `continues` says who can go on with another's reply."""

    def layer(inner: Handler) -> Handler:
        if mode == "off":
            return inner

        def handle(call: Call) -> AbstractAsyncContextManager[EventStream]:
            return _Recovering(call, inner, mode, total_s, continues) if call.stream else inner(call)

        return handle

    return layer


class _Recovering:
    """One call: its first stream, and what follows it."""

    __slots__ = ("_call", "_continues", "_inner", "_mode", "_source", "_total_s")

    def __init__(
        self, call: Call, inner: Handler, mode: Mode, total_s: float | None, continues: Callable[[Target], bool]
    ) -> None:
        self._call = call
        self._inner = inner
        self._mode = mode
        self._total_s = total_s
        self._continues = continues

    async def __aenter__(self) -> EventStream:
        opened = self._inner(self._call)
        stream = await opened.__aenter__()
        self._source = _Joined(self._call, self._inner, self._mode, self._total_s, self._continues, opened, stream)
        return EventStream(
            self._source, target=stream.target, dialect=stream.dialect, status=stream.status, attempt=stream.attempt
        )

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self._source.close(kind, error, trace)


class _Joined:
    """The batches of several attempts as those of one: `streams.stream.Source`."""

    def __init__(
        self,
        call: Call,
        inner: Handler,
        mode: Mode,
        total_s: float | None,
        continues: Callable[[Target], bool],
        opened: AbstractAsyncContextManager[EventStream],
        stream: EventStream,
    ) -> None:
        self._call = call
        self._inner = inner
        self._mode = mode
        self._total_s = total_s
        self._continues = continues
        self._opened: AbstractAsyncContextManager[EventStream] | None = opened
        self._stream = stream
        self._told = Told()
        self._joint: Restarted | Continued | None = None
        self._seams = 0
        self._seam: str | None = None  # to be marked on the next batch
        self._tap: Tap | None = None
        self._is_cancelled = False

    # --- what a stream asks of its source ---

    def __aiter__(self) -> AsyncIterator[Batch]:
        return self

    async def __anext__(self) -> Batch:
        tap = self._tap
        try:
            while True:
                try:
                    batch = await self._stream.__anext__()
                except PenstockError as error:
                    if not self._may_be_mended(error) or not await self._take_up(error):
                        raise
                    continue
                batch = self._joined(batch)
                if batch.events:
                    break
        except StopAsyncIteration:
            if tap is not None:
                tap.ended()
            raise
        except Exception as error:
            if tap is not None:
                tap.failed(error)
            raise
        if tap is not None:
            tap.see(batch)
        return batch

    def tap(self, tap: Tap) -> None:
        self._tap = tap

    def cancel(self) -> None:
        self._is_cancelled = True
        self._stream.cancel()

    @property
    def framing(self) -> str:
        return "document" if self._stream.is_document else "events"

    @property
    def in_hand(self) -> Iterable[Event]:
        return self._stream.in_hand

    @property
    def error(self) -> PenstockError | None:
        return self._stream.error

    @property
    def is_complete(self) -> bool:
        return self._stream.is_complete and not self._is_cancelled

    async def close(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> bool | None:
        """End the attempt that is open, if one is."""
        opened, self._opened = self._opened, None
        return await opened.__aexit__(kind, error, trace) if opened is not None else None

    # --- the joint ---

    def _joined(self, batch: Batch) -> Batch:
        if self._joint is not None:
            batch.events = self._joint.join(batch.events)
            batch.frames, batch.marks = [], []
            if batch.events:
                batch.seam, self._seam = self._seam, None
        self._told.note(batch.events)
        return batch

    def _may_be_mended(self, error: PenstockError) -> bool:
        call, told = self._call, self._told
        if not error.retryable or self._is_cancelled or self._seams >= MAX_SEAMS or not told.may_be_restarted:
            return False
        if self._total_s is not None and call.now() >= call.began + self._total_s:
            return False
        return self._mode == "restart" or told.blocks == 0 or (told.text is not None and bool(self._able()))

    def _able(self) -> tuple[Target, ...]:
        """Who can go on, and is asked for it alike; the one that was cut first."""
        able = [target for target in self._call.targets if self._continues(target)]
        able.sort(key=lambda target: target != self._stream.target)
        return tuple(target for target in able if (_asking(target) or {}) == (_asking(able[0]) or {}))

    async def _take_up(self, error: PenstockError) -> bool:
        """Have another attempt follow; False when there is none, and the first one's error has the word."""
        call = self._call
        await self.close()
        self._seams += 1
        joint: Restarted | Continued
        if self._mode == "continue" and self._told.blocks:
            joint = Continued(self._told)
            able = self._able()
            asked = call.continuing(_continuing(call.request, joint.prefill, able[0]))
            asked.targets = able
        else:
            joint, asked = Restarted(self._told), call
        try:
            opened = self._inner(asked)
            stream = await opened.__aenter__()
        except PenstockError as failure:
            if isinstance(failure, TimedOut) and failure.clock == "total":
                raise
            return False
        self._opened, self._stream, self._joint = opened, stream, joint
        if self._told.blocks:  # before that nothing was said, and nobody can see it
            call.recovered = self._mode
            self._seam = f"penstock: {self._mode} at {stream.target} after {error.error_type}"
        if self._is_cancelled:
            stream.cancel()
        return True


def _continuing(request: ChatRequest, prefill: str, target: Target) -> ChatRequest:
    """The request with the reply's beginning as its last message."""
    messages = request.messages
    if messages and messages[-1].role == "assistant":  # the client gave a beginning itself
        last = messages[-1]
        messages = (*messages[:-1], replace(last, parts=(*last.parts, Text(prefill))))
    elif prefill:
        messages = (*messages, Message.of("assistant", prefill))
    more = _asking(target)
    extras = request.extras
    if more:
        extras = {**extras, target.dialect: {**extras.get(target.dialect, {}), **more}}
    return replace(request, messages=messages, extras=extras)
