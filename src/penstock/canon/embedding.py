"""Embeddings, in no dialect: texts in, a vector for each out, in the same order."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from penstock.canon.usage import Usage


class EmbedRequest(Struct, frozen=True):
    """`dimensions` None: as many as the model has. `base64`: the client wants its vectors as bytes of 32-bit floats."""

    model: str
    inputs: tuple[str, ...]
    dimensions: int | None = None
    user: str | None = None
    base64: bool = False
    extras: dict[str, Any] = {}


class Embeddings(Struct, frozen=True):
    """One vector for each input, in its order. `warnings`: what was asked for and not sent, a sentence each."""

    vectors: tuple[tuple[float, ...], ...]
    model: str | None = None
    usage: Usage | None = None
    warnings: tuple[str, ...] = ()

    @property
    def vector(self) -> tuple[float, ...]:
        """The one that there is. Raises `ValueError` where there are several."""
        (only,) = self.vectors
        return only
