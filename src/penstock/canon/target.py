"""Whom an attempt goes to: an upstream, the model's name there, and the key that opens it."""

from __future__ import annotations

from msgspec import Struct


class Secret:
    """A key. Prints as `***`; `.reveal()` is called where a header is written and nowhere else."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return "***"

    __str__ = __repr__

    def __reduce__(self) -> tuple[type[Secret], tuple[str]]:
        return (Secret, ("***",))


class Target(Struct, frozen=True):
    """`url` is the base (`https://api.openai.com/v1`), `model` None where the caller's name is passed on.

    `auth` is where the key goes: None the dialect's own place, `bearer`, or a header's name (`api-key`). With
    `forward_auth` it is the client's own key that goes there, and `key` is None.
    """

    upstream: str
    url: str
    dialect: str
    model: str | None = None
    key: Secret | None = None
    profile: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    auth: str | None = None
    forward_auth: bool = False

    def __repr__(self) -> str:
        names = ", ".join(name for name, _ in self.headers)  # their values may be keys
        return f"<Target {self} {self.dialect} at {self.url}{f' with {names}' if names else ''}>"

    def __str__(self) -> str:
        return f"{self.upstream}:{self.model}" if self.model else self.upstream
