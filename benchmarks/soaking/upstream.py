"""The simulator, saying to each what its plan says, and remembering by the plan's number who asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.testing import Reply, Script, Upstream
from soaking.plan import number_of

if TYPE_CHECKING:
    from penstock.testing import Seen
    from penstock.testing.server import Exchanged
    from soaking.plan import Asking


class Planned(Script, frozen=True, kw_only=True):
    """A script that looks its replies up by the number in the model's name."""

    askings: dict[int, Asking]

    def find(self, model: str, dialect: str) -> Reply:
        number = number_of(model)
        if number is None or number not in self.askings:
            raise LookupError(f"nobody planned to ask {model}")
        return self.askings[number].reply


class SoakUpstream(Upstream):
    """`askings` may grow while it runs."""

    def __init__(self, askings: dict[int, Asking]) -> None:
        super().__init__(Planned(askings=askings))
        self.seen_by_number: dict[int, list[Seen]] = {}

    async def answer(self, seen: Seen, exchanged: Exchanged) -> None:
        number = number_of(f"{seen.path} {seen.body.decode(errors='replace')}")
        if number is not None:
            self.seen_by_number.setdefault(number, []).append(seen)
        try:
            await super().answer(seen, exchanged)
        finally:
            seen.sent.clear()  # of thousands, megabytes

    def forget(self) -> None:
        """What was seen so far was judged."""
        self.seen.clear()
        self.seen_by_number.clear()
