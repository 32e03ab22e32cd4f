"""A model as its provider lists it, and tables that say something of models by their names."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Mapping

T = TypeVar("T")


class Model(Struct, frozen=True):
    """`context` and `output` are the most tokens that it takes and gives; None: nobody said. `raw` is the entry."""

    id: str
    name: str | None = None
    owned_by: str | None = None
    context: int | None = None
    output: int | None = None
    raw: dict[str, Any] = {}


def of_model(model: str, table: Mapping[str, T]) -> T | None:
    """The name itself wins, then the longest pattern that fits."""
    if model in table:
        return table[model]
    fitting = [pattern for pattern in table if fnmatchcase(model, pattern)]
    return table[max(fitting, key=len)] if fitting else None
