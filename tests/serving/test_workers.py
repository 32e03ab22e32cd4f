"""When the next worker takes a place that has become free."""

from __future__ import annotations

import socket

from penstock.serving.workers import FIRST_PAUSE_S, LIVED_S, LONGEST_PAUSE_S, Slot


class Place:
    """A slot and its clock."""

    def __init__(self) -> None:
        self.slot = Slot()
        self.now = 0.0

    def lives(self, seconds: float) -> float:
        """A worker begins as soon as it may and lives so long: the pause after it."""
        self.now = max(self.now, self.slot.start_at)
        ours, theirs = socket.socketpair()
        self.slot.began(7, ours, self.now)
        theirs.close()
        self.now += seconds
        pause = self.slot.ended(self.now)
        assert ours.fileno() == -1
        assert self.slot.pid is None
        assert self.slot.start_at == self.now + pause
        return pause


def test_the_first_is_replaced_at_once():
    assert Place().lives(0.1) == 0
    assert Place().lives(LIVED_S * 100) == 0


def test_one_that_keeps_ending_is_replaced_ever_later():
    place = Place()
    pauses = [place.lives(0.1) for _ in range(50)]
    assert pauses[:4] == [0, FIRST_PAUSE_S, FIRST_PAUSE_S * 2, FIRST_PAUSE_S * 4]
    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST_PAUSE_S


def test_one_that_has_lived_is_forgiven():
    place = Place()
    for _ in range(5):
        place.lives(0.1)
    assert place.lives(LIVED_S) == 0
    assert place.lives(0.1) == FIRST_PAUSE_S
