from __future__ import annotations

from penstock.telemetry.beside import NOTHING, Belongings, Beside


def test_what_was_put_is_taken_once():
    beside, own = Beside(), Belongings(content={"a": "b"})
    beside.put("1", own)
    assert beside.take("1") is own
    assert beside.take("1") is NOTHING
    assert beside.take(None) is NOTHING
    assert len(beside) == 0


def test_c11_what_nobody_takes_goes_oldest_first():
    beside = Beside(max_calls=2, max_chars=100)
    for name in "abc":
        beside.put(name, Belongings(content={"x": name}))
    assert beside.take("a") is NOTHING
    assert beside.take("c").content == {"x": "c"}
    beside.put("d", Belongings(content={"x": "d" * 99}))
    assert len(beside) == 2
    beside.put("e", Belongings(content={"x": "ee"}))
    assert (beside.take("d"), beside.take("b")) == (NOTHING, NOTHING)
    beside.put("f", Belongings(content={"x": "f" * 101}))
    assert len(beside) == 0


def test_room_that_was_taken_is_free_again():
    beside = Beside(max_chars=10)
    for _ in range(5):
        beside.put("a", Belongings(content={"x": "1234567890"}))
        beside.put("a", Belongings(content={"x": "0987654321"}))
        assert beside.take("a").content == {"x": "0987654321"}
