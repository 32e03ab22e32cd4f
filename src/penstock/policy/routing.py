"""Which target a call goes to: the model's name, looked up in a table of names and patterns.

A name that stands in the table wins; then the longest pattern that fits (`claude-*`); then `*`.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from penstock.canon.errors import UnknownModel

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractAsyncContextManager

    from penstock.canon.target import Target
    from penstock.streams.handler import Call, Handler, Layer
    from penstock.streams.stream import EventStream


class Routes:
    """Model name or pattern → target. `find` is the decision, and nothing else."""

    def __init__(self, table: Mapping[str, Target]) -> None:
        self._exact = {name: target for name, target in table.items() if not is_pattern(name)}
        patterns = [name for name in table if is_pattern(name)]
        self._patterns = [(name, table[name]) for name in sorted(patterns, key=len, reverse=True)]

    @property
    def names(self) -> list[str]:
        """The names that stand in the table, patterns left out."""
        return list(self._exact)

    @property
    def open_targets(self) -> list[Target]:
        """The targets that patterns lead to: what models they have, only they know."""
        return list({target.upstream: target for _, target in self._patterns}.values())

    def find(self, model: str) -> Target:
        target = self._exact.get(model)
        if target is not None:
            return target
        for pattern, candidate in self._patterns:
            if fnmatchcase(model, pattern):
                return candidate
        known = ", ".join(sorted(self._exact)) or "none by name"
        raise UnknownModel(f"There is no model `{model}` here.", param="model", fix=f"Known: {known}.")


def is_pattern(name: str) -> bool:
    return any(sign in name for sign in "*?[")


def routed(routes: Routes) -> Layer:
    def layer(inner: Handler) -> Handler:
        def handle(call: Call) -> AbstractAsyncContextManager[EventStream]:
            call.target = routes.find(call.model)
            return inner(call)

        return handle

    return layer
