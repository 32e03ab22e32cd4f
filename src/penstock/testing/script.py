"""What an upstream says to whom: replies with their conditions, read from Python values or from YAML.

    replies:
      - when: {model: "weather*"}
        text: ["It is ", "sunny."]
        usage: {input: 9, output: 4}
        pace: {fixed: 20ms}
        faults: [cut-after-2]
      - text: Hello

The first reply whose `when` fits answers. A mistake is a `ConfigError` that names the line and the nearest word.
"""

from __future__ import annotations

import difflib
import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import msgspec
import yaml
from msgspec import Struct

from penstock.canon.errors import ConfigError
from penstock.canon.events import (
    BlockEnd,
    BlockStart,
    Delta,
    Event,
    Finish,
    FinishReason,
    Part,
    Reasoning,
    Start,
    Text,
    UsageUpdate,
)
from penstock.canon.usage import Usage
from penstock.dialects.base import finished_call
from penstock.testing.faults import Fault, parse_fault

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator
    from pathlib import Path

    from penstock.canon.events import BlockKind

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s)")


class Call(Struct, frozen=True, forbid_unknown_fields=True):
    """A tool call. `arguments` as an object, or as the very text."""

    name: str
    arguments: dict[str, Any] | str = {}
    id: str | None = None


class Counts(Struct, frozen=True, forbid_unknown_fields=True):
    input: int = 9
    output: int = 3
    cached: int | None = None
    reasoning: int | None = None


class Pace(Struct, frozen=True, forbid_unknown_fields=True):
    """Pauses between pieces of content, in seconds: always the same, around one, log-normal, or a recorded list."""

    fixed: float | str = 0.0
    jitter: float | str = 0.0
    lognormal: float | str | None = None
    sigma: float = 0.5
    recorded: tuple[float, ...] = ()

    def pauses(self, rng: random.Random) -> Iterator[float]:
        if self.recorded:
            while True:
                yield from self.recorded
        fixed, jitter = seconds(self.fixed), seconds(self.jitter)
        median = None if self.lognormal is None else seconds(self.lognormal)
        while True:
            if median is not None:
                yield median * rng.lognormvariate(0.0, self.sigma)
            else:
                yield max(0.0, fixed + rng.uniform(-jitter, jitter))


class When(Struct, frozen=True, forbid_unknown_fields=True):
    """Patterns (`*`) of the model, and the dialect's name. Unset fits anything."""

    model: str | None = None
    dialect: str | None = None

    def fits(self, model: str, dialect: str) -> bool:
        is_model = self.model is None or fnmatchcase(model, self.model)
        return is_model and self.dialect in (None, dialect)


class Reply(Struct, frozen=True, forbid_unknown_fields=True):
    """One reply. A text is cut into words; a list is its pieces. `finish` None: `stop`, or `tool_calls` with calls."""

    text: str | tuple[str, ...] = "Hello from the simulator."
    reasoning: str | tuple[str, ...] = ()
    calls: tuple[Call, ...] = ()
    usage: Counts | None = Counts()
    finish: FinishReason | None = None
    pace: Pace = Pace()
    faults: tuple[str, ...] = ()
    when: When = When()

    def events(self, model: str, request_id: str) -> list[Event]:
        events: list[Event] = [Start(model, None, None)]
        number = 0
        for kind, said in (("reasoning", self.reasoning), ("text", self.text)):
            pieces = words(said) if isinstance(said, str) else list(said)
            if pieces:
                part: Part = Reasoning("".join(pieces)) if kind == "reasoning" else Text("".join(pieces))
                events += _block(number, "reasoning" if kind == "reasoning" else "text", pieces, part)
                number += 1
        for call in self.calls:
            raw = call.arguments
            text = raw if isinstance(raw, str) else msgspec.json.encode(raw).decode()
            part = finished_call(call.id or f"call_{request_id}_{number}", call.name, text)
            events.append(BlockStart(number, "tool_call", part.id, call.name))
            events += (Delta(number, piece) for piece in _cut(text))
            events.append(BlockEnd(number, part))
            number += 1
        usage = self.usage
        told: Usage | None = None
        if usage is not None:
            told = Usage(usage.input, usage.cached, None, usage.output, usage.reasoning, usage.input + usage.output)
            events.append(UsageUpdate(told))
        events.append(Finish(self.finish or ("tool_calls" if self.calls else "stop"), None, told))
        return events

    def parsed_faults(self) -> list[Fault]:
        return [parse_fault(fault) for fault in self.faults]


class Script(Struct, frozen=True, forbid_unknown_fields=True):
    replies: tuple[Reply, ...] = (Reply(),)

    def find(self, model: str, dialect: str) -> Reply:
        return next((reply for reply in self.replies if reply.when.fits(model, dialect)), Reply())


class Turns:
    """A conversation: each request gets the next reply, and the last one stays for whatever follows."""

    def __init__(self, *replies: Reply) -> None:
        self._replies = list(replies) or [Reply()]

    def find(self, model: str, dialect: str) -> Reply:
        return self._replies.pop(0) if len(self._replies) > 1 else self._replies[0]


def words(text: str) -> list[str]:
    """A text as a model would say it: a word at a time, its space before it."""
    return re.findall(r"\s*\S+\s*$|\s*\S+", text) or ([text] if text else [])


def seconds(given: float | str) -> float:
    """`20ms`, `1.5s`, or a number of seconds."""
    if not isinstance(given, str):
        return float(given)
    found = _DURATION.fullmatch(given.strip())
    if found is None:
        raise ConfigError(f"`{given}` is no duration.", fix="Write 20ms or 1.5s.")
    return float(found[1]) * (0.001 if found[2] == "ms" else 1.0)


def load_script(path: Path) -> Script:
    """The script in a YAML file, every fault of it checked."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"Cannot read {path}: {error}.", fix="Check --script.") from error
    return read_script(text, str(path))


def read_script(text: str, where: str = "the script") -> Script:
    try:
        given = yaml.safe_load(text) or {}
        node = yaml.compose(text, yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where} is not YAML: {' '.join(str(error).split())}.") from error
    try:
        script = msgspec.convert(given, Script)
    except msgspec.ValidationError as error:
        raise ConfigError(f"In {where}: {_mended(str(error))}.") from error
    for reply in script.replies:
        for fault in reply.faults:
            try:
                parse_fault(fault)
            except ConfigError as error:
                raise ConfigError(f"In {where}, line {_line(node, fault)}: {error.message}", fix=error.fix) from error
        for pause in (reply.pace.fixed, reply.pace.jitter, reply.pace.lognormal or 0.0):
            seconds(pause)
    return script


def _mended(message: str) -> str:
    """msgspec names an unknown field; we say which one was meant."""
    found = re.search(r"unknown field `(\w+)`", message)
    known = {name for struct in (Script, Reply, When, Pace, Call, Counts) for name in struct.__struct_fields__}
    close = difflib.get_close_matches(found[1], known, n=1) if found else []
    return message.rstrip(".") + (f"; did you mean `{close[0]}`?" if close else "")


def _line(node: Any, value: str) -> int:
    """Where the value stands first."""
    if isinstance(node, yaml.ScalarNode):
        return node.start_mark.line + 1 if node.value == value else 0
    inner = node.value if isinstance(node, yaml.SequenceNode | yaml.MappingNode) else []
    flat = [each for pair in inner for each in (pair if isinstance(pair, tuple) else (pair,))]
    return next((line for each in flat if (line := _line(each, value))), 0)


def _block(i: int, kind: BlockKind, pieces: list[str], part: Part) -> list[Event]:
    return [BlockStart(i, kind), *(Delta(i, piece) for piece in pieces), BlockEnd(i, part)]


def _cut(text: str) -> list[str]:
    """Argument text as providers stream it: in a few pieces."""
    return [text[at : at + 12] for at in range(0, len(text), 12)]
