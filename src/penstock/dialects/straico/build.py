"""Our request → a Straico chat body, which knows a model, messages of text, a temperature and a limit.

Tools are told in the system's words and called in a tagged block of the answer, which `decode` finds. What cannot be
said in words and changes the meaning (images, stop sequences) raises `Unsupported`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from penstock.canon.errors import Unsupported
from penstock.canon.events import Reasoning, Refusal, Text, ToolCall
from penstock.canon.request import ChatRequest, ContentPart, File, Message, ToolResult
from penstock.dialects.base import call_names, foreign_extras
from penstock.dialects.straico.calls import CLOSE, OPEN

if TYPE_CHECKING:
    from penstock.canon.target import Target

_UNKNOWN = (
    "top_p",
    "top_k",
    "seed",
    "presence_penalty",
    "frequency_penalty",
    "parallel_tool_calls",
    "reasoning_effort",
    "reasoning_budget",
    "user",
)


def build_body(request: ChatRequest, target: Target) -> tuple[bytes, tuple[str, ...]]:
    """The body, and the names of what it leaves out."""
    if request.stop:
        raise Unsupported("Straico has no stop sequences.", param="stop", fix="Leave it out.")
    dropped = [name for name in _UNKNOWN if getattr(request, name) is not None]
    names = call_names(request)
    system: list[str] = []
    messages: list[dict[str, str]] = []
    for message in request.messages:
        text = _said(message, names, dropped)
        if message.role == "system" and not messages:
            system.append(text)
        else:
            messages.append({"role": "user" if message.role == "tool" else message.role, "content": text})
    if told := _told(request):
        system.append(told)
    if system:
        messages = _with_system("\n\n".join(system), messages, fold=target.profile == "straico-no-system")
    body: dict[str, Any] = {"model": target.model or request.model, "messages": messages}
    if request.temperature is not None:
        body["temperature"] = request.temperature
    if request.max_tokens is not None:
        body["max_tokens"] = request.max_tokens
    dropped += foreign_extras(request, "straico")
    return msgspec.json.encode(body), tuple(dict.fromkeys(dropped))


def _with_system(system: str, messages: list[dict[str, str]], *, fold: bool) -> list[dict[str, str]]:
    """Some models behind Straico refuse a system message: theirs begins the first turn."""
    if not fold:
        return [{"role": "system", "content": system}, *messages]
    if messages and messages[0]["role"] == "user":
        return [{"role": "user", "content": f"{system}\n\n{messages[0]['content']}"}, *messages[1:]]
    return [{"role": "user", "content": system}, *messages]


def _told(request: ChatRequest) -> str:
    """What other wires have fields for, in words."""
    told: list[str] = []
    choice = request.tool_choice
    tools = request.tools if choice is None or choice.mode != "none" else ()
    if choice is not None and choice.mode == "tool":
        tools = tuple(tool for tool in tools if tool.name == choice.name)
    if tools:
        listed = [
            {"name": tool.name, "description": tool.description or "", "parameters": tool.parameters or {}}
            for tool in tools
        ]
        must = "You must call a tool now." if choice is not None and choice.mode in ("any", "tool") else ""
        told.append(
            f"You can call these tools: {msgspec.json.encode(listed).decode()}\n"
            "To call, end your answer with a JSON array of calls in this form and write nothing after it:\n"
            f'{OPEN}[{{"name": "…", "arguments": {{…}}}}]{CLOSE}\n'
            f"{must}".rstrip()
        )
    if request.output is not None:
        told.append("Answer with one JSON object and nothing else.")
        if request.output.schema:
            told.append(f"It must fit this JSON schema: {msgspec.json.encode(request.output.schema).decode()}")
    return "\n".join(told)


def _said(message: Message, names: dict[str, str], dropped: list[str]) -> str:
    texts: list[str] = [f"{message.name}:"] if message.name and message.role == "user" else []
    calls: list[dict[str, Any]] = []
    for part in message.parts:
        if isinstance(part, ToolCall):
            calls.append({"name": part.name, "arguments": part.arguments or {}})
        elif isinstance(part, Reasoning):
            dropped.append("reasoning")
        elif isinstance(part, ToolResult):
            name = part.name or names.get(part.id) or part.id
            texts.append(f"Result of {name}{' (it failed)' if part.is_error else ''}: {_plain(part.parts)}")
        else:
            texts.append(_plain((part,)))
    if calls:
        texts.append(f"{OPEN}{msgspec.json.encode(calls).decode()}{CLOSE}")
    return "\n\n".join(texts)


def _plain(parts: tuple[ContentPart, ...]) -> str:
    texts: list[str] = []
    for part in parts:
        match part:
            case Text() | Refusal():
                texts.append(part.text)
            case File(text=str() as text):
                texts.append(text)
            case _:
                raise Unsupported(f"Straico takes no {type(part).__name__.lower()}.", fix="Send its text.")
    return "".join(texts)
