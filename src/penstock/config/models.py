"""The table of models: what each entry may say, and where it leads. Read by `load`."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from penstock.canon.errors import ConfigError
from penstock.config.model import Spread, Weighted
from penstock.policy.routing import Destination

if TYPE_CHECKING:
    from collections.abc import Callable

    from penstock.canon.target import Target
    from penstock.config.model import Config
    from penstock.policy.routing import Choice


Entry = str | tuple[str, ...] | Spread


def weighted_targets(given: Entry) -> list[Weighted]:
    """The targets of an entry, in its longest form."""
    listed = given.targets if isinstance(given, Spread) else (given,) if isinstance(given, str) else given
    return [Weighted(target) if isinstance(target, str) else target for target in listed]


def _choice(given: Entry) -> Choice:
    return given.choice if isinstance(given, Spread) else "ordered"


def destination(given: Entry, target: Callable[[str], Target]) -> Destination:
    """Where an entry leads; `target` makes one of `upstream:model`."""
    weighted = weighted_targets(given)
    targets, weights = tuple(target(each.to) for each in weighted), tuple(each.weight for each in weighted)
    return Destination(targets, _choice(given), weights)


def check_models(config: Config, where: str) -> None:
    """Raise the one sentence that says what is wrong with the table of models."""
    for model, given in config.models.items():
        at = f"In {where}, models.{model}"
        weighted = weighted_targets(given)
        if not weighted:
            raise ConfigError(f"{at}: there is no target.", fix="Name an upstream, or upstream:model.")
        for each in weighted:
            upstream = each.to.partition(":")[0]
            if upstream not in config.upstreams:
                raise ConfigError(
                    f"{at}: there is no upstream `{upstream}`.", fix=_nearest(upstream, list(config.upstreams))
                )
        named = [each.to for each in weighted]
        twice = next((name for name in named if named.count(name) > 1), None)
        if twice is not None:
            raise ConfigError(f"{at}: {twice} stands there twice.", fix="A target is asked again by retry.attempts.")
        if _choice(given) == "ordered" and any(each.weight != 1.0 for each in weighted):
            raise ConfigError(f"{at}: weights mean nothing in order.", fix="Add choice: weighted, or least_busy.")


def _nearest(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    if close:
        return f"Did you mean `{close[0]}`?"
    return f"Known: {', '.join(sorted(known))}." if known else "None is configured."
