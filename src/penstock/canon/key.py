"""A key of the gateway's own: who may ask, for what, and how long. A value, without the key itself.

Only the key's SHA-256 is kept. That is enough because a key is random (256 bits when `penstock keys new` makes it):
there is nothing to guess, so nothing that a slow hash would slow down (docs/decisions/0017).
"""

from __future__ import annotations

from fnmatch import fnmatchcase

from msgspec import Struct


class Moment(float):
    """Unix seconds."""


class Key(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One client, or one group of them."""

    #: what records call it
    name: str
    #: the environment variable that holds the key
    env: str | None = None
    #: or its SHA-256, in hexadecimal digits
    sha256: str | None = None
    #: what it may name: models and patterns, as clients write them
    models: tuple[str, ...] = ("*",)
    #: the moment from which it opens nothing: 2027-01-31, or with a time of day
    expires: Moment | None = None
    #: when it was made
    created: Moment | None = None

    def may_ask_for(self, model: str) -> bool:
        return any(pattern in ("*", model) or fnmatchcase(model, pattern) for pattern in self.models)
