"""A way to break one promise: a text of one source file replaced by another, and the test that must notice."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[3]


class DoesNotApply(AssertionError):
    """The source no longer holds the text once: the mutation must be written anew."""


class Mutation(NamedTuple):
    """`name` begins with its promise. `file` is below `src/penstock`; `test` is a function below `tests`."""

    name: str
    #: what is wrong with the code then, in words
    breaks: str
    file: str
    old: str
    new: str
    test: str

    @property
    def promise(self) -> str:
        return self.name.partition("-")[0].upper()

    @property
    def node(self) -> str:
        """For pytest, from the project's root. A file without a folder is one of `tests/contract`."""
        return f"tests/{self.test}" if "/" in self.test.partition("::")[0] else f"tests/contract/{self.test}"

    def applied(self, source: str) -> str:
        """The file's text with the promise broken. Raises `DoesNotApply`."""
        found = source.count(self.old)
        if found != 1:
            raise DoesNotApply(f"{self.name}: {self.file} holds its text {found} times, not once:\n{self.old}")
        return source.replace(self.old, self.new)

    def check_test(self) -> None:
        """Raises AssertionError where the test is gone, or is not named after the promise."""
        path, _, name = self.node.partition("::")
        assert name.startswith(f"test_{self.promise.lower()}_"), f"{self.name}: {name} is a test of another promise"
        source = (ROOT / path).read_text(encoding="utf-8")
        is_there = re.search(rf"^(?:async )?def {re.escape(name)}\(", source, re.MULTILINE)
        assert is_there, f"{self.name}: {path} has no test {name}"
