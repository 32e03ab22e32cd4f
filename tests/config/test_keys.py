"""The gateway's keys in the configuration, in the environment and in their file."""

from __future__ import annotations

import stat
import threading
from datetime import date
from typing import TYPE_CHECKING, Any

import pytest

from penstock.canon.errors import ConfigError
from penstock.canon.key import Key, Moment, digest
from penstock.config.keys import add_key, new_key, parse_moment, read_keys, remove_key, written_moment
from penstock.config.load import check, gateway_keys, is_loopback

if TYPE_CHECKING:
    from pathlib import Path

LONG = "k" * 20


def key(name: str = "a", **more: Any) -> Key:
    return Key(name=name, sha256=digest(name), **more)


def test_a_key_is_256_random_bits_and_needs_no_quoting() -> None:
    keys = {new_key() for _ in range(50)}
    assert len(keys) == 50
    assert all(
        it.startswith("pnsk_") and len(it) == 48 and it.replace("-", "").replace("_", "").isalnum() for it in keys
    )


@pytest.mark.parametrize(
    ("said", "means"),
    [
        ("2027-01-31", "2027-01-31T00:00:00Z"),
        ("2027-01-31T18:00:00Z", "2027-01-31T18:00:00Z"),
        ("2027-01-31T18:00:00+02:00", "2027-01-31T16:00:00Z"),
        ("2027-01-31 18:00", "2027-01-31T18:00:00Z"),
        (date(2027, 1, 31), "2027-01-31T00:00:00Z"),
    ],
)
def test_a_moment_is_utc_unless_it_says_otherwise(said: str | date, means: str) -> None:
    assert written_moment(parse_moment(said)) == means


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    one = key("one", models=("fast", "qwen*"), expires=Moment(1_800_000_000), created=Moment(1_700_000_000))
    add_key(path, one)
    add_key(path, key("two"))
    assert read_keys(path) == (one, key("two"))
    remove_key(path, "one")
    assert read_keys(path) == (key("two"),)


def test_the_file_is_its_owners_alone_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    add_key(path, key())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [it.name for it in tmp_path.iterdir()] == ["keys.json"]


def test_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    link = tmp_path / "keys.json"
    link.symlink_to(tmp_path / "there" / "real.json")
    add_key(link, key())
    assert link.is_symlink()
    assert read_keys(tmp_path / "there" / "real.json") == (key(),)


def test_writers_take_turns(tmp_path: Path) -> None:
    """None loses another's key."""
    path = tmp_path / "keys.json"
    writers = [threading.Thread(target=add_key, args=(path, key(f"k{n}"))) for n in range(16)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert {it.name for it in read_keys(path)} == {f"k{n}" for n in range(16)}


def test_two_of_one_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    add_key(path, key("a"))
    with pytest.raises(ConfigError, match="There is a key `a` already"):
        add_key(path, key("a"))
    with pytest.raises(ConfigError, match=r"There is no key `b` in .* Known: a"):
        remove_key(path, "b")


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (b"", "is no keys file"),
        (b"[]", "is no keys file"),
        (b'{"keys": [{"name": "a"}]}', "needs either `env` or `sha256`"),
        (b'{"keys": [{"name": "a", "sha256": "abc"}]}', "is no SHA-256"),
        (b'{"keys": [{"name": "a b", "env": "A"}]}', "no name for a key"),
        (b'{"keys": [{"name": "a", "env": "A", "modles": []}]}', "modles"),
        (b'{"keys": [{"name": "a", "env": "A", "expires": "soon"}]}', "no moment"),
        (b'{"keys": [{"name": "a", "env": "A"}, {"name": "a", "env": "B"}]}', "two keys `a`"),
    ],
)
def test_a_file_that_is_wrong_says_where(written: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.touch(0o600)
    path.write_bytes(written)
    with pytest.raises(ConfigError, match=said):
        read_keys(path)


def test_a_file_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    add_key(path, key())
    path.chmod(0o620)
    with pytest.raises(ConfigError, match="chmod 600"):
        read_keys(path)


def test_no_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="penstock keys new NAME --file"):
        read_keys(tmp_path / "keys.json")


# --- in the configuration --------------------------------------------------------------------------------------------


def test_the_configurations_keys() -> None:
    entries = [
        {"name": "a", "env": "KEY_A", "models": ["fast"], "expires": date(2027, 1, 31)},
        {"name": "b", "env": "B"},
    ]
    config = check({"server": {"keys": entries}})
    found = gateway_keys(config, {"KEY_A": LONG, "B": LONG + "b"})
    assert [(it.name, it.env, it.sha256) for it in found] == [
        ("a", None, digest(LONG)),
        ("b", None, digest(LONG + "b")),
    ]
    assert (found[0].models, found[1].models) == (("fast",), ("*",))
    assert found[0].expires == parse_moment("2027-01-31")


@pytest.mark.parametrize(
    ("environ", "said"),
    [({}, "is not set. Put it in the variable KEY_A"), ({"KEY_A": "short"}, "shorter than 16 characters")],
)
def test_a_variable_that_holds_no_key(environ: dict[str, str], said: str) -> None:
    config = check({"server": {"keys": [{"name": "a", "env": "KEY_A"}]}})
    with pytest.raises(ConfigError, match=said):
        gateway_keys(config, environ)


@pytest.mark.parametrize(
    ("server", "said"),
    [
        ({"keys": [{"name": "a", "evn": "A"}]}, r"no key `server.keys\[0\].evn`. Did you mean `env`"),
        ({"keys": [{"name": "a"}]}, "needs either `env` or `sha256`"),
        ({"keys": [{"name": "a", "env": "A", "expires": "soon"}]}, r"server.keys\[0\].expires: `soon` is no moment"),
        ({"cors_origins": ["app.example.com"]}, "is no origin"),
        ({"cors_origins": ["https://app.example.com/page"]}, "is no origin"),
        ({"host": "0.0.0.0"}, "server.host: at 0.0.0.0 others can reach .*`penstock keys new NAME`"),
        ({"host": "gateway.example.com"}, "others can reach"),
        ({"host": "::"}, "others can reach"),
    ],
)
def test_what_is_wrong_is_said(server: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check({"server": server})


@pytest.mark.parametrize(
    "server",
    [
        {"host": "0.0.0.0", "keys": [{"name": "a", "env": "A"}]},
        {"host": "0.0.0.0", "keys_file": "keys.json"},
        {"cors_origins": ["*"]},
        {"cors_origins": ["https://app.example.com", "http://localhost:3000", "vscode-webview://abc"]},
    ],
)
def test_what_is_right_is_taken(server: dict[str, Any]) -> None:
    check({"server": server})


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False),
     ("10.0.0.1", False), ("", False), ("localhost.example.com", False)],
)  # fmt: skip
def test_which_hosts_are_this_machines_alone(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


# --- what a key may ask for ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("models", "model", "expected"),
    [(("*",), "any", True), (("fast", "qwen*"), "fast", True), (("fast", "qwen*"), "qwen3-4b", True),
     (("fast", "qwen*"), "claude", False), (("a[1]",), "a[1]", True), ((), "a", False), (("Fast",), "fast", False)],
)  # fmt: skip
def test_what_a_key_may_ask_for(models: tuple[str, ...], model: str, expected: bool) -> None:
    assert key(models=models).may_ask_for(model) is expected


@pytest.mark.parametrize("auth", ["none", "sigv4"])
def test_a_clients_key_needs_a_place(auth: str) -> None:
    upstream = {"url": "http://127.0.0.1/v1", "auth": auth, "forward_auth": True, "dialect": "bedrock"}
    with pytest.raises(ConfigError, match="no place for a client's key"):
        check({"upstreams": {"up": upstream}})
