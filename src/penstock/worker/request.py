"""What a job is asked for: the worker's own request → the engine's, or everything that is wrong with it.

All errors come at once. None repeats what was sent, but for numbers and the names of fields: a prompt is its owner's.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from penstock.canon.errors import InvalidRequest
from penstock.dialects.base import decode_body
from penstock.telemetry.record import word
from penstock.worker.refusal import FieldError

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_STOPS = 16
MAX_STOP_CHARS = 256
#: of what is wrong, that one answer tells
MAX_ERRORS = 32
ROLES = ("system", "developer", "user", "assistant", "tool")
_LARGEST_INT32 = 2**31 - 1


class Numeric(Struct, frozen=True):
    """A field's bounds, both allowed."""

    low: float
    high: float
    whole: bool = False

    @property
    def constraint(self) -> str:
        what = "a whole number" if self.whole else "a number"
        if self.high == _LARGEST_INT32:
            return f"{what} of at least {self.low:g}"
        return f"{what} from {self.low:g} to {int(self.high) if self.whole else self.high}"

    def takes(self, value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int if self.whole else int | float):
            return False
        return self.low <= value <= self.high


#: sampling, as llama.cpp calls it; what is not sent is the engine's own default
NUMBERS = {
    "max_tokens": Numeric(1, _LARGEST_INT32, whole=True),
    "temperature": Numeric(0, 2),
    "top_p": Numeric(0, 1),
    "top_k": Numeric(0, _LARGEST_INT32, whole=True),
    "min_p": Numeric(0, 1),
    "repeat_penalty": Numeric(0, 2),
    "presence_penalty": Numeric(-2, 2),
    "frequency_penalty": Numeric(-2, 2),
    "seed": Numeric(0, 2**32 - 1, whole=True),
}
FIELDS = ("prompt", "messages", *NUMBERS, "stop")

_decode: msgspec.json.Decoder[Any] = msgspec.json.Decoder()


def read_request(body: bytes, model: str) -> bytes | list[FieldError]:
    """The engine's request (OpenAI chat), or what is wrong. Raises `InvalidRequest` where it is no JSON at all."""
    given = decode_body(_decode, body)
    if not isinstance(given, dict):
        raise InvalidRequest("The body is no JSON object.", fix='Send {"prompt": "…"}.')
    found: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    errors = [*_asked(found), *_numbers(found), *_stops(found.get("stop")), *_unknown(given)]
    if errors:
        return errors[:MAX_ERRORS]
    prompt = found.pop("prompt", None)
    messages = found.pop("messages", None) or [{"role": "user", "content": prompt}]
    # `verbose` makes llama.cpp say which stop string matched.
    asked = {"model": model, "messages": messages, "stream": True, "return_progress": True, "verbose": True}
    return msgspec.json.encode({**asked, **found})


def _asked(given: dict[str, Any]) -> list[FieldError]:
    if ("prompt" in given) == ("messages" in given):
        return [FieldError("prompt", "exactly one of prompt and messages", "Send either `prompt` or `messages`.")]
    if "prompt" in given:
        return [] if isinstance(given["prompt"], str) and given["prompt"] else [_wrong("prompt", "a text, not empty")]
    messages = given["messages"]
    if not isinstance(messages, list) or not messages:
        return [_wrong("messages", "a list of messages, not empty")]
    return [error for number, message in enumerate(messages) for error in _message(f"messages[{number}]", message)]


def _message(path: str, message: Any) -> list[FieldError]:
    if not isinstance(message, dict):
        return [_wrong(path, "an object with a role and content")]
    errors = []
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        errors.append(_wrong(f"{path}.role", f"one of {', '.join(ROLES)}"))
    if not isinstance(content, str | list) and not (content is None and message.get("tool_calls")):
        errors.append(_wrong(f"{path}.content", "a text, or a list of parts"))
    return errors


def _numbers(given: dict[str, Any]) -> list[FieldError]:
    return [
        _wrong(name, field.constraint, given[name])
        for name, field in NUMBERS.items()
        if name in given and not field.takes(given[name])
    ]


def _stops(given: Any) -> list[FieldError]:
    if given is None:
        return []
    stops: Sequence[Any] = [given] if isinstance(given, str) else given
    if not isinstance(stops, list) or len(stops) > MAX_STOPS:
        return [_wrong("stop", f"a text, or a list of at most {MAX_STOPS}")]
    return [
        _wrong("stop" if isinstance(given, str) else f"stop[{number}]", f"a text of 1 to {MAX_STOP_CHARS} characters")
        for number, stop in enumerate(stops)
        if not isinstance(stop, str) or not 1 <= len(stop) <= MAX_STOP_CHARS
    ]


def _unknown(given: dict[str, Any]) -> list[FieldError]:
    return [
        FieldError(word(name), "a known field", f"There is no field `{word(name)}`. Known: {', '.join(FIELDS)}.")
        for name in given
        if name not in FIELDS
    ]


def _wrong(field: str, constraint: str, value: Any = None) -> FieldError:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    said = f", not {value:g}" if is_number and abs(value) < 1e15 else ""
    return FieldError(field, constraint, f"`{field}` must be {constraint}{said}.")
