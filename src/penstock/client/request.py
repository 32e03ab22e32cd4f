"""What a program passes → a `ChatRequest`. Whatever is wrong with it is a `RequestError`, before anything is sent."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from penstock.canon.errors import InvalidRequest
from penstock.canon.request import ChatRequest, Message, Tool, ToolChoice
from penstock.catalogue.provider import nearest
from penstock.client.conversation import Messages, read_conversation, read_tool
from penstock.client.functions import FunctionTool, tool

if TYPE_CHECKING:
    from penstock.client.options import AnyTool, Options
    from penstock.client.output import Shape


def build_request(model: str, messages: Messages, options: Options, shape: Shape | None = None) -> ChatRequest:
    told, extras = read_conversation(messages)
    if (system := options.get("system")) is not None:
        told = (Message.of("system", system), *told)
    tools = tuple(shown(each) for each in read_tools(options.get("tools") or ()))
    for dialect, fields in (options.get("extra") or {}).items():
        extras[dialect] = {**extras.get(dialect, {}), **fields}
    stop = options.get("stop") or ()
    return ChatRequest(
        model=model,
        messages=told,
        stream=True,
        include_usage=True,
        max_tokens=options.get("max_tokens"),
        temperature=options.get("temperature"),
        top_p=options.get("top_p"),
        top_k=options.get("top_k"),
        stop=(stop,) if isinstance(stop, str) else tuple(stop),
        seed=options.get("seed"),
        presence_penalty=options.get("presence_penalty"),
        frequency_penalty=options.get("frequency_penalty"),
        tools=tools,
        tool_choice=_choice(options.get("tool_choice"), [each.name for each in tools]),
        parallel_tool_calls=options.get("parallel_tool_calls"),
        reasoning_effort=options.get("reasoning_effort"),
        reasoning_budget=options.get("reasoning_budget"),
        output=shape.format if shape is not None else None,
        user=options.get("user"),
        extras=extras,
    )


def read_tools(given: Sequence[AnyTool]) -> list[Tool | FunctionTool[..., Any]]:
    """Each as a value that has a name, a description and a schema; a function stays callable."""
    if isinstance(given, Mapping | str) or not isinstance(given, Sequence):
        raise InvalidRequest("`tools` is no list.", param="tools", fix="Write tools=[…], also for one.")
    tools: list[Tool | FunctionTool[..., Any]] = []
    for k, each in enumerate(given):
        if isinstance(each, Tool | FunctionTool):
            tools.append(each)
        elif isinstance(each, Mapping):
            tools.append(read_tool(each, k))
        elif isinstance(each, Callable):  # type: ignore[arg-type]
            tools.append(tool(each))
        else:
            raise InvalidRequest(
                f"A `{type(each).__name__}` is no tool.", param=f"tools[{k}]", fix="Pass a function or a penstock.Tool."
            )
        if any(before.name == tools[-1].name for before in tools[:-1]):
            raise InvalidRequest(
                f"Two tools are called `{tools[-1].name}`.",
                param=f"tools[{k}]",
                fix="Give one another name: penstock.tool(name=…).",
            )
    return tools


def read_functions(given: Sequence[AnyTool]) -> dict[str, FunctionTool[..., Any]]:
    """Tools that can be run, by name."""
    functions: dict[str, FunctionTool[..., Any]] = {}
    for k, each in enumerate(read_tools(given)):
        if not isinstance(each, FunctionTool):
            raise InvalidRequest(
                f"The tool `{each.name}` has no function to run.",
                param=f"tools[{k}]",
                fix="Pass the function: penstock.tool(name=…, parameters={…})(function).",
            )
        functions[each.name] = each
    if not functions:
        raise InvalidRequest("There are no tools to run.", param="tools", fix="Pass tools=[…], or use generate.")
    return functions


def unforced(options: Options) -> Options:
    """The same without a forced call, which would be forced for ever."""
    if options.get("tool_choice") in (None, "auto", "none"):
        return options
    freed = options.copy()
    freed["tool_choice"] = "auto"
    return freed


def shown(each: Tool | FunctionTool[..., Any]) -> Tool:
    """What the model is told of a tool."""
    return each.tool if isinstance(each, FunctionTool) else each


_MODES: dict[str, ToolChoice] = {
    "auto": ToolChoice("auto"),
    "any": ToolChoice("any"),
    "required": ToolChoice("any"),
    "none": ToolChoice("none"),
}


def _choice(given: str | None, names: Sequence[str]) -> ToolChoice | None:
    if given is None:
        return None
    if given in names:
        return ToolChoice("tool", given)
    if given in _MODES and (names or given in ("auto", "none")):
        return _MODES[given]
    if not names:
        raise InvalidRequest("`tool_choice` wants tools to choose from.", param="tool_choice", fix="Pass tools=[…].")
    raise InvalidRequest(
        f"There is no tool `{given}` to choose.", param="tool_choice", fix=nearest(given, [*names, *_MODES])
    )
