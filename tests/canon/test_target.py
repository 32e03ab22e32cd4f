"""C13: a key is shown where a header is written, and nowhere else."""

from __future__ import annotations

import pickle

from penstock.canon.target import Secret, Target

KEY = "sk-live-1234567890"
TARGET = Target("up", "https://x/v1", "openai-chat", "m", Secret(KEY), headers=(("x-api-key", KEY),))


def test_c13_a_secret_prints_as_stars():
    secret = Secret(KEY)
    assert secret.reveal() == KEY
    for shown in (repr(secret), str(secret), f"{secret}", f"{secret!r:>5}", f"{[secret]}", "%s" % secret):  # noqa: UP031
        assert KEY not in shown
        assert "***" in shown


def test_c13_a_secret_does_not_travel():
    assert pickle.loads(pickle.dumps(Secret(KEY))).reveal() == "***"
    assert KEY.encode() not in pickle.dumps(Secret(KEY))


def test_c13_a_target_shows_no_key_and_no_header_value():
    for shown in (repr(TARGET), str(TARGET), f"{(TARGET,)}"):
        assert KEY not in shown
    assert "x-api-key" in repr(TARGET)


def test_a_target_is_named_by_upstream_and_model():
    assert str(TARGET) == "up:m"
    assert str(Target("up", "https://x/v1", "openai-chat")) == "up"
