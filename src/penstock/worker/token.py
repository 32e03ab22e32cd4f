"""The worker's one token, for who asks from another machine: `Door`'s keys, with a single one in them."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from penstock.canon.errors import ConfigError, Unauthenticated
from penstock.canon.key import Key, digest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MIN_CHARS = 16


class Token:
    """Keeps its hash alone."""

    def __init__(self, token: str) -> None:
        self._key = Key(name="token", sha256=digest(token))

    def find(self, given: Sequence[str]) -> Key:
        if not given:
            raise Unauthenticated(
                "This worker asks for its token, and none came.", fix="Send it as `Authorization: Bearer …`."
            )
        known = self._key.sha256 or ""
        if not any(hmac.compare_digest(digest(word), known) for word in given):
            raise Unauthenticated("That is not this worker's token.", fix="Check it.")
        return self._key

    def __repr__(self) -> str:
        return "<Token ***>"


def token_of(variable: str | None, environ: Mapping[str, str]) -> Token | None:
    """The token that the variable holds; None where none is named. Raises `ConfigError` for one that is no token."""
    if variable is None:
        return None
    held = environ.get(variable, "")
    if not held:
        raise ConfigError(f"The variable {variable} of --token-env is not set.", fix="Put the worker's token into it.")
    if len(held) < MIN_CHARS:
        raise ConfigError(
            f"The token in {variable} is shorter than {MIN_CHARS} characters.",
            fix="Take a longer one: `openssl rand -hex 24` makes one.",
        )
    return Token(held)
