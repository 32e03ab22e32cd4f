"""A model as its provider lists it."""

from __future__ import annotations

from typing import Any

from msgspec import Struct


class Model(Struct, frozen=True):
    """`context` and `output` are the most tokens that it takes and gives; None: nobody said. `raw` is the entry."""

    id: str
    name: str | None = None
    owned_by: str | None = None
    context: int | None = None
    output: int | None = None
    raw: dict[str, Any] = {}
