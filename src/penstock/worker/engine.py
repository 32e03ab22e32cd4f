"""What the worker asks of an engine: load, be reachable over loopback in the `openai-chat` dialect, stop.

An engine is an upstream. So cancelling, clocks, dialects and records are the gateway's own code, and no thread of ours
ever hands a token over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from penstock.canon.target import Target


class Engine(Protocol):
    """`model` is the name that clients use; `slots` is how many calls run at the same time: further ones wait in line.

    `load` and `stop` block, and are called from a thread.
    """

    model: str
    slots: int

    def load(self) -> Target:
        """Load the model and answer on loopback. Raises `ConfigError`, in one sentence, when it cannot."""
        ...

    def stop(self) -> None: ...
