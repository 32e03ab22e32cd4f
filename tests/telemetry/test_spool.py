"""The spool: in order, whole or not there, within its bound, shared."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from penstock.telemetry.spool import Spool

if TYPE_CHECKING:
    from pathlib import Path

if TYPE_CHECKING:
    from pathlib import Path


def batches(spool: Spool) -> list[bytes]:
    return [path.read_bytes() for path in spool.files()]


def test_what_was_added_is_there_in_order_for_the_next_process_too(tmp_path: Path):
    spool = Spool(tmp_path / "s", max_bytes=1000)
    assert spool.files() == []
    for number in range(12):
        spool.add(b"%d" % number, number)
    again = Spool(tmp_path / "s", max_bytes=1000)
    assert batches(again) == [b"%d" % number for number in range(12)]
    assert again.records == sum(range(12))
    again.remove(again.files()[0])
    assert batches(spool)[0] == b"1"


def test_a_clock_that_is_set_back_does_not_change_the_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    moments = iter([5000, 4000, 9000, 1])
    monkeypatch.setattr("penstock.telemetry.spool.time.time_ns", lambda: next(moments))
    for number in range(4):
        Spool(tmp_path, max_bytes=1000).add(b"%d" % number, 1)  # each a process of its own
    assert batches(Spool(tmp_path, max_bytes=1000)) == [b"0", b"1", b"2", b"3"]


def test_c11_the_oldest_go_when_there_is_no_room(tmp_path: Path):
    spool = Spool(tmp_path, max_bytes=25)
    for number in range(4):
        spool.add(b"%d" % number * 10, 3)
    assert batches(spool) == [b"2" * 10, b"3" * 10]
    assert spool.lost == 6
    spool.add(b"x" * 26, 5)
    assert spool.lost == 17, "what is larger than all the room takes the rest with it"
    assert batches(spool) == []


def test_a_batch_that_was_not_written_whole_is_not_there(tmp_path: Path):
    spool = Spool(tmp_path, max_bytes=100)
    (tmp_path / ".00000000000000000001-1-1-9.batch.part").write_bytes(b"half")
    (tmp_path / "notes.txt").write_bytes(b"somebody else's")
    assert spool.files() == []
    spool.add(b"whole", 1)
    assert batches(spool) == [b"whole"]


def test_one_at_a_time_takes_out(tmp_path: Path):
    one, other = (Spool(tmp_path / "s", max_bytes=100) for _ in range(2))
    with one.turn() as is_ones:
        assert is_ones, "there is no folder yet, and nothing to fight for"
    one.add(b"x", 1)
    with one.turn() as is_ones, other.turn() as is_others:
        assert (is_ones, is_others) == (True, False)
    with other.turn() as is_others:
        assert is_others


def test_nobody_else_may_read_it(tmp_path: Path):
    spool = Spool(tmp_path / "s", max_bytes=100)
    spool.add(b"x", 1)
    assert (tmp_path / "s").stat().st_mode & 0o077 == 0


def test_a_full_disk_is_the_callers_to_know(tmp_path: Path):
    place = tmp_path / "file"
    place.write_bytes(b"")
    with pytest.raises(OSError, match="exists"):
        Spool(place, max_bytes=10).add(b"x", 1)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
