"""One spelling for two: members in `snake_case` are accepted wherever `camelCase` is, as Google accepts them.

What is a caller's own (arguments, results, schemas, labels) keeps its names. Pure.
"""

from __future__ import annotations

import re
from typing import Any

_UNDERSCORE = re.compile(r"_([a-z0-9])")

#: members whose values are the caller's own
_OWN_NAMES = frozenset(
    {"args", "response", "parameters", "parametersJsonSchema", "responseSchema", "responseJsonSchema", "labels"}
)


def camel(name: str) -> str:
    return _UNDERSCORE.sub(lambda found: found[1].upper(), name.lstrip("_"))  # Google's JavaScript SDK: `_response…`


def in_camel_case(value: Any) -> Any:
    """JSON with every member's name in camel case, but for the caller's own."""
    if isinstance(value, dict):
        renamed = {}
        for name, inner in value.items():
            name = camel(name)
            renamed[name] = inner if name in _OWN_NAMES else in_camel_case(inner)
        return renamed
    if isinstance(value, list):
        return [in_camel_case(inner) for inner in value]
    return value
