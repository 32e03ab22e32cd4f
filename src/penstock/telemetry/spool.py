"""What could not be sent, on disk: files in a folder, oldest first, within a bound, for this process and the next.

One file per batch: `<nanoseconds>-<process>-<number>-<records>.batch`. It is written beside its name and renamed, so a
file is whole or not there. Several processes may share the folder: each adds files of its own, and one at a time takes
them out. When the bound is reached the oldest go, and are counted.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_NAME = re.compile(r"\d{20}-\d+-\d+-(\d+)\.batch")


class Spool:
    """Constructing one opens nothing. Every method raises `OSError` for what the disk refuses."""

    def __init__(self, folder: str | os.PathLike[str], *, max_bytes: int) -> None:
        self._folder = Path(folder)
        self._max_bytes = max_bytes
        self._numbers = count()
        #: records that had to go because there was no room, since the start
        self.lost = 0

    def files(self) -> list[Path]:
        """Oldest first."""
        try:
            return sorted(path for path in self._folder.iterdir() if _NAME.fullmatch(path.name))
        except (FileNotFoundError, NotADirectoryError):
            return []

    @property
    def records(self) -> int:
        return sum(records_of(path) for path in self.files())

    def add(self, batch: bytes, records: int) -> None:
        """Keep it. What is older goes first when there is no room; what is larger than all the room is lost itself."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._make_room(len(batch))
        if len(batch) > self._max_bytes:
            self.lost += records
            return
        # Never before what is there: a clock that was set back must not change the order.
        after_ns = max(time.time_ns(), self._newest_ns() + 1)
        name = f"{after_ns:020d}-{os.getpid()}-{next(self._numbers)}-{records}.batch"
        part = self._folder / f".{name}.part"
        try:
            part.write_bytes(batch)
            part.rename(self._folder / name)
        except OSError:
            with suppress(OSError):
                part.unlink()
            raise

    def _newest_ns(self) -> int:
        files = self.files()
        return int(files[-1].name.partition("-")[0]) if files else 0

    def remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)

    @contextmanager
    def turn(self) -> Iterator[bool]:
        """Whether it is ours to take batches out: False while another process does."""
        try:
            handle = os.open(self._folder, os.O_RDONLY)
        except FileNotFoundError:
            yield True
            return
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(handle)

    def _make_room(self, size: int) -> None:
        sizes = {path: _size(path) for path in self.files()}
        held = sum(sizes.values())
        for path, taken in sizes.items():
            if held + size <= self._max_bytes:
                return
            self.lost += records_of(path)
            self.remove(path)
            held -= taken


def records_of(path: Path) -> int:
    found = _NAME.fullmatch(path.name)
    return int(found[1]) if found else 0


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
