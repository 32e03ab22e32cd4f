"""`penstock keys`, as a process: what it prints, what it keeps, and how it ends."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from penstock.canon.key import digest
from tests.processes import run

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.process


def test_a_key_is_printed_once_and_kept_as_its_hash(tmp_path: Path) -> None:
    ended = run("keys", "new", "laptop", "--models", "fast, qwen*", "--expires", "2099-01-31", cwd=tmp_path)
    assert ended.returncode == 0
    key = ended.stdout.strip()
    assert key.startswith("pnsk_")
    assert ended.stdout == f"{key}\n"  # KEY=$(penstock keys new …)
    assert key not in ended.stderr
    held = (tmp_path / "penstock-keys.json").read_text()
    assert key not in held
    (entry,) = json.loads(held)["keys"]
    assert (entry["name"], entry["sha256"]) == ("laptop", digest(key))
    assert (entry["models"], entry["expires"]) == (["fast", "qwen*"], "2099-01-31T00:00:00Z")


def test_the_list_tells_all_but_the_keys(tmp_path: Path) -> None:
    made = json.loads(run("keys", "new", "a", "--json", "--file", "k.json", cwd=tmp_path).stdout)
    run("keys", "new", "b", "--expires", "2099-01-31", "--file", "k.json", cwd=tmp_path)
    shown = run("keys", "list", "--file", "k.json", cwd=tmp_path).stdout
    assert [line.split("\t")[0] for line in shown.splitlines()] == ["a", "b"]
    listed = run("keys", "list", "--json", "--file", "k.json", cwd=tmp_path).stdout
    assert [(entry["name"], entry["expires"]) for entry in json.loads(listed)] == [
        ("a", None),
        ("b", "2099-01-31T00:00:00Z"),
    ]
    for text in (shown, listed):
        assert made["key"] not in text
        assert digest(made["key"]) not in text


def test_a_key_is_taken_back(tmp_path: Path) -> None:
    run("keys", "new", "a", cwd=tmp_path)
    assert run("keys", "revoke", "a", cwd=tmp_path).stdout == "Revoked `a` in penstock-keys.json.\n"
    assert json.loads(run("keys", "list", "--json", cwd=tmp_path).stdout) == []
    run("keys", "new", "a", cwd=tmp_path)
    assert json.loads(run("keys", "revoke", "a", "--json", cwd=tmp_path).stdout)["revoked"] == "a"


def test_the_configurations_file_is_used(tmp_path: Path) -> None:
    (tmp_path / "penstock.yaml").write_text("server: {keys_file: there.json, keys: [{name: fixed, env: KEY}]}\n")
    assert run("keys", "new", "a", "--config", "penstock.yaml", cwd=tmp_path).returncode == 0
    assert (tmp_path / "there.json").exists()
    listed = json.loads(run("keys", "list", "--config", "penstock.yaml", "--json", cwd=tmp_path).stdout)
    assert [(entry["name"], entry["file"]) for entry in listed] == [("fixed", "penstock.yaml"), ("a", "there.json")]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("new", "a b"), 1, "is no name for a key"),
        (("new", "a", "--expires", "soon"), 2, "`soon` is no moment"),
        (("new", "a", "--expires", "2020-01-01"), 2, "is over"),
        (("new", "a", "--models", " , "), 2, "names none"),
        (("new", "a", "--file", "no/such/folder/keys.json"), 1, "Cannot write the keys file"),
        (("new", "a", "--file", "k.json", "--config", "p.yaml"), 2, "both say where"),
        (("new", "a", "--config", "p.yaml"), 1, "names no file of keys"),
        (("list",), 1, "There is no keys file"),
        (("revoke", "a"), 1, "There is no keys file"),
        (("new",), 2, "NAME"),
    ],
)
def test_what_is_wrong_is_one_sentence(arguments: tuple[str, ...], code: int, said: str, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("server: {port: 1}\n")
    ended = run("keys", *arguments, cwd=tmp_path)
    assert ended.returncode == code
    assert said.lower() in ended.stderr.lower()
    assert "Traceback" not in ended.stderr
    assert list(tmp_path.glob("*.json")) == []
