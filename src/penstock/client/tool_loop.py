"""The loop of a model and its tools: ask, run what it calls, give it the results, ask again, until it calls no more.

Calls of one reply run at the same time; their results go back in the order of the calls. Whatever goes wrong with a
call (an unknown tool, arguments that do not fit, an exception, no result in time) is its result, marked as an error:
the model is told, and nothing is raised. A call that the reply's length limit cut is not run. The limits are the
caller's; beyond them is `ToolLimit`. Cancelling the loop ends the tools that run. While they run, no connection is
held: the reply was read to its end, and the next request takes a kept connection or a new one.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from penstock.canon.errors import InvalidRequest, PenstockError, ToolLimit
from penstock.canon.events import Event, Progress, Text, ToolCall
from penstock.canon.request import Message, ToolResult
from penstock.canon.response import Response
from penstock.canon.usage import Usage, added
from penstock.client.functions import FunctionTool, result_parts

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

    #: sends a conversation; whether it is the first time → the reply
    Ask = Callable[[tuple[Message, ...], bool], Awaitable[Response]]


#: how long a cancelled tool may take to end before it is left to itself
GRACE_S = 1.0

#: the endings of a reply in which its last call may be a part of a call
_CUT = frozenset({"length", "context_full", "content_filter"})


class Limits(Struct, frozen=True, kw_only=True):
    """`max_rounds` counts requests to the model; `timeout` is for all of it, `tool_timeout` for each call, in seconds;
    `concurrency` is how many calls run at once, `heartbeat` how often their running is told."""

    max_rounds: int = 10
    timeout: float | None = None
    tool_timeout: float | None = 60.0
    concurrency: int = 8
    heartbeat: float = 15.0

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise InvalidRequest(f"`{name}` is {value:g}.", param=name, fix="Give a number above 0.")


class Ran(Struct, frozen=True):
    """One call, its result as the model was told it, and the exception behind a result that is an error."""

    call: ToolCall
    result: ToolResult
    error: Exception | None
    duration_ms: float


class Step(Struct, frozen=True):
    """One request to the model: its reply, and what its calls came to."""

    response: Response
    ran: tuple[Ran, ...] = ()


class ToolRun(Struct, frozen=True):
    """`messages` is the whole conversation, the last reply included: append to it, and go on."""

    messages: tuple[Message, ...]
    steps: tuple[Step, ...]

    @property
    def response(self) -> Response:
        """The last reply."""
        return self.steps[-1].response

    @property
    def text(self) -> str:
        return self.response.text

    @property
    def parsed(self) -> Any:
        """The value that the last reply is, where a schema was asked for."""
        return self.response.parsed

    @property
    def usage(self) -> Usage | None:
        """Of all requests together; None where one of them reported none."""
        return added(step.response.usage for step in self.steps)


async def run_loop(
    ask: Ask,
    messages: tuple[Message, ...],
    tools: Mapping[str, FunctionTool[..., Any]],
    limits: Limits,
    on_event: Callable[[Event], None] | None,
) -> ToolRun:
    """Ask with these messages, and go on until a reply calls nothing. Raises `ToolLimit`, and whatever `ask` raises."""
    loop = _Loop(ask, messages, tools, limits, on_event)
    try:
        async with asyncio.timeout(limits.timeout) as clock:
            return await loop.run()
    except TimeoutError:
        if not clock.expired():
            raise
        raise ToolLimit(
            f"The model and its tools were not ready within {limits.timeout:g} s.",
            limit="time",
            run=loop.so_far(),
            fix="Raise timeout, or go on from the error's run.messages.",
        ) from None


class _Loop:
    def __init__(
        self,
        ask: Ask,
        messages: tuple[Message, ...],
        tools: Mapping[str, FunctionTool[..., Any]],
        limits: Limits,
        on_event: Callable[[Event], None] | None,
    ) -> None:
        self._ask = ask
        self._messages = messages
        self._tools = tools
        self._limits = limits
        self._on_event = on_event
        self._steps: list[Step] = []

    def so_far(self) -> ToolRun:
        return ToolRun(self._messages, tuple(self._steps))

    async def run(self) -> ToolRun:
        while True:
            response = await self._ask(self._messages, not self._steps)
            calls = response.tool_calls
            if not calls:
                self._messages += (response.message,)
                self._steps.append(Step(response))
                return self.so_far()
            if len(self._steps) + 1 >= self._limits.max_rounds:
                self._steps.append(Step(response))
                raise ToolLimit(
                    f"The model was asked {self._limits.max_rounds} times, and still calls tools.",
                    limit="rounds",
                    run=self.so_far(),
                    fix="Raise max_rounds, or tell the model when to stop.",
                )
            ran = await self._run_all(calls, _cut_call(response))
            self._steps.append(Step(response, ran))
            self._messages += (response.message, Message("tool", tuple(each.result for each in ran)))

    async def _run_all(self, calls: Sequence[ToolCall], cut: ToolCall | None) -> tuple[Ran, ...]:
        places = asyncio.Semaphore(self._limits.concurrency)

        async def one(call: ToolCall) -> Ran:
            async with places:
                return await self._run_one(call, is_cut=call is cut)

        tasks = [asyncio.create_task(one(call), name=f"tool {call.name}") for call in calls]
        try:
            pending = set(tasks)
            while pending:
                self._tell(len(tasks) - len(pending), len(tasks), pending)
                _, pending = await asyncio.wait(
                    pending, timeout=self._limits.heartbeat, return_when=asyncio.FIRST_COMPLETED
                )
            self._tell(len(tasks), len(tasks), ())
        finally:
            await _ended(tasks)
        return tuple(task.result() for task in tasks)

    def _tell(self, done: int, total: int, pending: Collection[asyncio.Task[Ran]]) -> None:
        """That tools run, for whoever must keep something of their own alive meanwhile."""
        if self._on_event is not None:
            names = sorted(task.get_name().removeprefix("tool ") for task in pending)
            self._on_event(Progress("tools", done, total, ", ".join(names) or None))

    async def _run_one(self, call: ToolCall, *, is_cut: bool) -> Ran:
        began = time.perf_counter()
        error: Exception | None = None
        try:
            if is_cut:
                raise ValueError("The reply ended at its limit inside this call, which was not run. Say less at once.")
            result = ToolResult(call.id, result_parts(await self._called(call)), name=call.name)
        except Exception as raised:  # whatever a tool raises is for the model to know
            error = raised
            said = raised.message if isinstance(raised, PenstockError) else str(raised)
            plain = isinstance(raised, ValueError | TimeoutError | PenstockError) and said
            text = said if plain else f"{type(raised).__name__}: {said}".rstrip(": ")
            result = ToolResult(call.id, (Text(text),), True, call.name)
        return Ran(call, result, error, (time.perf_counter() - began) * 1000)

    async def _called(self, call: ToolCall) -> Any:
        tool = self._tools.get(call.name)
        if tool is None:
            raise ValueError(f"There is no tool `{call.name}`. There are: {', '.join(self._tools)}.")
        if call.arguments is None:
            raise ValueError(f"The call was not understood: {call.error}.")
        seconds = tool.timeout if tool.timeout is not None else self._limits.tool_timeout
        task = asyncio.ensure_future(tool.run(call.arguments))
        try:
            done, _ = await asyncio.wait((task,), timeout=seconds)
            if not done:
                raise TimeoutError(f"The tool gave no result within {seconds:g} s.")
        finally:
            await _ended((task,))
        if task.cancelled():
            raise RuntimeError("The tool was cancelled.")
        return task.result()


def _cut_call(response: Response) -> ToolCall | None:
    """The call that may be a part of one: the last thing said by a reply that ended at a limit."""
    if response.finish is None or response.finish.reason not in _CUT:
        return None
    last = response.parts[-1] if response.parts else None
    return last if isinstance(last, ToolCall) else None


async def _ended(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Cancel what still runs, and wait for it; but not for one that will not be cancelled."""
    running = {task for task in tasks if not task.done()}
    for task in running:
        task.cancel()
    if running:
        await asyncio.wait(running, timeout=GRACE_S)
    for task in tasks:
        if task.done() and not task.cancelled():
            task.exception()  # taken note of: nobody else will ask
