"""The keyring alone: what is found, when the file is read again, and what happens when it cannot be."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from typing import TYPE_CHECKING

import pytest

from penstock.canon.errors import ConfigError, Forbidden, InvalidRequest, Unauthenticated
from penstock.canon.key import Key, Moment, digest
from penstock.config.keys import add_key, remove_key
from penstock.dialects import client_dialect
from penstock.gateway.keyring import Keyring, allowed
from penstock.streams.handler import Call

if TYPE_CHECKING:
    from pathlib import Path


class Clock:
    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


def key(name: str, expires: float | None = None) -> Key:
    return Key(name=name, sha256=digest(f"secret-of-{name}"), expires=Moment(expires) if expires else None)


def finds(keyring: Keyring, *given: str) -> str:
    try:
        return keyring.find([f"secret-of-{name}" for name in given]).name
    except Unauthenticated as error:
        return str(error)


def test_whichever_of_several_words_is_one() -> None:
    keyring = Keyring([key("a"), key("b")])
    assert finds(keyring, "a") == "a"
    assert finds(keyring, "x", "b") == "b"
    assert "does not know the key" in finds(keyring, "x")
    assert "none came" in finds(keyring)
    with pytest.raises(Unauthenticated):
        keyring.find([key("a").sha256 or ""])  # the hash is no key
    with pytest.raises(Unauthenticated):
        keyring.find(["\udcff", ""])


def test_a_key_opens_until_it_expires() -> None:
    clock = Clock()
    keyring = Keyring([key("a", expires=1060.0)], unix_now=clock)
    clock.at = 1059.9
    assert finds(keyring, "a") == "a"
    clock.at = 1060.0
    assert finds(keyring, "a") == "The key `a` has expired. Ask for a new one."


def test_a_change_of_the_file_counts_after_a_second(tmp_path: Path) -> None:
    path, clock = tmp_path / "keys.json", Clock()
    add_key(path, key("a"))
    keyring = Keyring([key("c")], str(path), now=clock)
    add_key(path, key("b"))
    remove_key(path, "a")
    assert finds(keyring, "a") == "a"
    clock.at += 1.0
    assert finds(keyring, "b") == "b"
    assert finds(keyring, "c") == "c"
    assert "does not know" in finds(keyring, "a")


@pytest.mark.parametrize("how", ["broken", "gone", "the configuration's name"])
def test_a_file_that_cannot_be_read_leaves_the_keys_as_they_were(
    how: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, clock = tmp_path / "keys.json", Clock()
    add_key(path, key("a"))
    keyring = Keyring([key("c")], str(path), now=clock)
    if how == "broken":
        path.write_text("{")
    elif how == "gone":
        path.unlink()
    else:
        add_key(path, key("c"))
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            clock.at += 1.0
            assert finds(keyring, "a") == "a"
    assert len(caplog.records) == 1
    assert "The keys stay as they were" in caplog.text


def test_a_file_that_is_wrong_to_begin_with_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        Keyring([], str(tmp_path / "none.json"))
    add_key(tmp_path / "keys.json", key("a"))
    with pytest.raises(ConfigError, match="two keys `a`"):
        Keyring([key("a")], str(tmp_path / "keys.json"))


def test_its_repr_shows_no_key() -> None:
    assert repr(Keyring([key("a")])) == "<Keyring of 1>"


def asked_for(body: bytes, models: tuple[str, ...]) -> bytes:
    """What an upstream of the client's own dialect would be sent, for a key that may ask for these models."""
    ours = client_dialect("ollama")
    head = ours.read_head(body)
    call = Call(request_id="r", model=head.model, stream=True, dialect=ours, head=head, body=body)
    call.key = Key(name="k", sha256=digest("k"), models=models)
    kept: list[Call] = []
    allowed(lambda call: kept.append(call) or nullcontext())(call)  # type: ignore[func-returns-value, arg-type, return-value]
    (passed,) = kept
    assert passed.head is not None
    return passed.head.body


MESSAGES = b'"messages":[{"role":"user","content":"Hi"}]'


@pytest.mark.parametrize(
    "name", [b"Model", b"MODEL", b"mode\\u004c"], ids=["a capital", "capitals", "an escaped capital"]
)
def test_a_key_of_one_model_cannot_name_another_beside_it(name: bytes) -> None:
    """Servers in Go go by a name in capitals as well, and by the last that comes."""
    body = b'{"model":"cheap",' + MESSAGES + b',"' + name + b'":"dear"}'
    with pytest.raises(InvalidRequest, match="more than once"):
        asked_for(body, ("cheap",))
    assert asked_for(body, ("*",)) == body


def test_of_two_names_the_one_that_was_looked_at_is_passed_on() -> None:
    body = b'{"model":"dear","mod\\u0065l":"cheap",' + MESSAGES + b"}"
    assert asked_for(body, ("cheap",)) == b'{"model":"cheap",' + MESSAGES + b"}"
    with pytest.raises(Forbidden):
        asked_for(b'{"model":"cheap","model":"dear",' + MESSAGES + b"}", ("cheap",))
