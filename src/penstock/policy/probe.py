"""Does an upstream answer? Asked once, for its list of models, which costs nothing and runs no model.

It never raises for what an upstream does: every answer, and every lack of one, is a `Probed`.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from penstock.canon.errors import PenstockError, Unsupported
from penstock.policy.models import ask_models

if TYPE_CHECKING:
    from collections.abc import Collection

    from penstock.canon.target import Target
    from penstock.transport.base import Transport


class Probed(Struct, frozen=True):
    """`state`: `ok`, `failed`, or `unknown` where the dialect has no list to ask for. `models`: how many it lists.
    `missing`: of the models that the configuration names there, those that it does not list."""

    upstream: str
    url: str
    state: Literal["ok", "failed", "unknown"]
    models: int | None = None
    ms: float | None = None
    missing: tuple[str, ...] = ()
    error: str | None = None


async def probe(
    target: Target,
    transport: Transport,
    *,
    path: str | None = None,
    wanted: Collection[str] = (),
    timeout_s: float = 10.0,
) -> Probed:
    began = time.monotonic()
    try:
        found = await ask_models(target, transport, path=path, timeout_s=timeout_s)
    except PenstockError as error:
        state: Literal["failed", "unknown"] = "unknown" if isinstance(error, Unsupported) else "failed"
        return Probed(target.upstream, target.url, state, error=str(error))
    listed = {model.id.removeprefix("models/") for model in found}
    missing = tuple(sorted(name for name in wanted if name.removeprefix("models/") not in listed))
    return Probed(target.upstream, target.url, "ok", len(found), (time.monotonic() - began) * 1e3, missing)
