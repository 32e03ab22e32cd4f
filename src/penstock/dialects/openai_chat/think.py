"""Thoughts that stand in the answer, between `<think>` and `</think>`: told apart as the text comes.

Only the beginning of an answer is looked at: a tag later on is text. A tag may be cut anywhere; what may still become
one is held back, and nothing else. Every character but the tags' comes out, in order. What is open at the end was a
thought.
"""

from __future__ import annotations

from typing import Literal

Said = list[tuple[Literal["text", "reasoning"], str]]

_OPEN, _CLOSE = "<think>", "</think>"


class ThinkScanner:
    """`begun`: the answer begins inside a thought. `is_over`: what comes now is text, and need not be scanned."""

    def __init__(self, *, begun: bool = False) -> None:
        self.is_over = False
        self._begun = begun
        self._is_inside = False
        self._held = ""

    def feed(self, text: str) -> Said:
        text, self._held = self._held + text, ""
        if self.is_over:
            return [("text", text)] if text else []
        if not self._is_inside:
            said = text.lstrip()
            if said.startswith(_OPEN):  # models write it even where their template has done so
                text = said.removeprefix(_OPEN)
            elif _OPEN.startswith(said):
                self._held = text
                return []
            elif not self._begun:
                self.is_over = True
                return [("text", text)]
            self._is_inside = True
        thought, end, rest = text.partition(_CLOSE)
        if end:
            self.is_over = True
            return [(kind, piece) for kind, piece in (("reasoning", thought), ("text", rest)) if piece]  # type: ignore[misc]
        keep = _partial(text)
        self._held = text[len(text) - keep :]
        thought = text[: len(text) - keep]
        return [("reasoning", thought)] if thought else []

    def close(self) -> Said:
        """What was held back for a tag that did not come."""
        held, self._held = self._held, ""
        if not held:
            return []
        return [("reasoning" if (self._is_inside or self._begun) and not self.is_over else "text", held)]


def _partial(text: str) -> int:
    """How many characters at the end may be the beginning of the closing tag."""
    for size in range(min(len(text), len(_CLOSE) - 1), 0, -1):
        if _CLOSE.startswith(text[-size:]):
            return size
    return 0
