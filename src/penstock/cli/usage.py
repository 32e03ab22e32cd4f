"""A command that was called wrongly: one sentence with the fix, exit code 2."""

from __future__ import annotations

from penstock.canon.errors import PenstockError


class UsageError(PenstockError):
    kind = "usage"
