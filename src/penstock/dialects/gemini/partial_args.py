"""Arguments of a call that come in pieces, each with the path of the value that it is (Vertex).

A piece is `{"jsonPath": "$.place.city", "stringValue": "Os", "willContinue": true}`; a string goes on in the next piece
of the same path. Paths are `$` and then `.name`, `['name']` or `[0]`; a piece with another path, or with one that leads
too deep, is left out. Pure.
"""

from __future__ import annotations

import re
from typing import Any

_STEP = re.compile(r"""\.([^.\[\]]+)|\[(\d{1,4})\]|\['([^']*)'\]|\["([^"]*)"\]""")
#: no tool's arguments are as deep
_MAX_STEPS = 64
_VALUES = ("stringValue", "numberValue", "boolValue", "nullValue")


class PartialArgs:
    """`i` is the call's block, `args` what has come of its arguments."""

    def __init__(self, i: int, args: dict[str, Any]) -> None:
        self.i = i
        self.args = args

    def add(self, pieces: Any) -> None:
        for piece in pieces if isinstance(pieces, list) else ():
            if isinstance(piece, dict) and (steps := _steps(piece.get("jsonPath"))):
                for kind in _VALUES:
                    if kind in piece:
                        value = None if kind == "nullValue" else piece[kind]
                        _put(self.args, steps, value)
                        break


def _steps(path: Any) -> list[str | int]:
    """The steps of a path; none where it is no path that we know, or leads to a list."""
    if not isinstance(path, str) or not path.startswith("$"):
        return []
    steps: list[str | int] = []
    at = 1
    while at < len(path):
        found = _STEP.match(path, at)
        if found is None:
            return []
        name, index, single, double = found.groups()
        if len(steps) == _MAX_STEPS:
            return []
        steps.append(int(index) if index is not None else next(s for s in (name, single, double) if s is not None))
        at = found.end()
    return steps if steps and isinstance(steps[0], str) else []


def _put(args: Any, steps: list[str | int], value: Any) -> None:
    """Set the value at the path, making the way to it; a string there is gone on with."""
    here = args
    for step, following in zip(steps, [*steps[1:], None], strict=True):
        if isinstance(step, int):
            if not isinstance(here, list) or step > len(here):
                return
            if step == len(here):
                here.append(None)
        elif not isinstance(here, dict):
            return
        held = here[step] if isinstance(step, int) else here.get(step)
        if following is None:
            here[step] = held + value if isinstance(held, str) and isinstance(value, str) else value
        else:
            if held is None:
                held = here[step] = [] if isinstance(following, int) else {}
            here = held
