"""What the worker asks of an engine: load, be reachable over loopback in the `openai-chat` dialect, tell its end, stop.

An engine is an upstream, in a process of its own. So cancelling, clocks, dialects and records are the gateway's own
code, no thread of ours ever hands a token over, and an engine that crashes takes nobody with it
(docs/decisions/0024).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from msgspec import Struct

if TYPE_CHECKING:
    from penstock.canon.errors import EngineCrashed
    from penstock.canon.target import Target


class Loaded(Struct, frozen=True):
    """How far a load is. `stage`: `preparing`, `reading` the file, `starting` the engine; what is None is not known."""

    stage: str
    bytes_loaded: int | None = None
    bytes_total: int | None = None
    layers_loaded: int | None = None
    layers_total: int | None = None


Tell = Callable[[Loaded], None]


class Engine(Protocol):
    """`model` is the name that clients use; `slots` is how many calls run at the same time: further ones wait in line;
    `embeds`: how many tokens a text may have to be embedded, None where no embeddings are made.

    `load` may be called again after `ended` has returned. All of it belongs to one loop.
    """

    model: str
    slots: int
    embeds: int | None

    async def load(self, tell: Tell) -> Target:
        """Load the model and answer on loopback. Raises `ConfigError` in one sentence when it cannot, and
        `EngineCrashed` when it ended while it tried."""
        ...

    async def ended(self) -> EngineCrashed:
        """Return when an engine that was loaded has ended by itself, with why."""
        ...

    async def stop(self) -> None:
        """End it, loaded or not. May be called any number of times."""
        ...

    def about(self) -> dict[str, Any]:
        """For people and programs that ask what runs here: JSON values, without a secret or a path."""
        ...
