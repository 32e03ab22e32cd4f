"""A key of the gateway's own: who may ask, for what, how much and how long. A value, without the key itself.

Only the key's SHA-256 is kept. That is enough because a key is random (256 bits when `penstock keys new` makes it):
there is nothing to guess, so nothing that a slow hash would slow down (docs/decisions/0017).
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from hashlib import sha256
from typing import Annotated

from msgspec import Meta, Struct

Count = Annotated[int, Meta(ge=1)]


def digest(key: str) -> str:
    return sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


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
    #: calls at the same time; null: as limits.per_key says
    concurrency: Count | None = None
    #: calls in a minute; null: as limits.per_key says
    requests_per_minute: Count | None = None
    #: tokens in a minute, prompts and replies together; null: as limits.per_key says
    tokens_per_minute: Count | None = None
    #: the moment from which it opens nothing: 2027-01-31, or with a time of day
    expires: Moment | None = None
    #: when it was made
    created: Moment | None = None

    def may_ask_for(self, model: str) -> bool:
        return any(pattern in ("*", model) or fnmatchcase(model, pattern) for pattern in self.models)
