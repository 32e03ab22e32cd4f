"""Every value, and where it is from."""

from __future__ import annotations

from typing import Any

import msgspec

from penstock.config.effective import HIDDEN, effective
from penstock.config.load import load
from penstock.config.model import Config

FILE = """
server: {port: 9001}
upstreams:
  local: {url: "http://127.0.0.1:9/v1", headers: {x-token: secret-1}}
  claude: {provider: anthropic, key_env: [FIRST, SECOND]}
models: {"*": local}
timeouts: {idle: 3s}
"""


def settings(tmp_path, **environ) -> dict[str, tuple[Any, str]]:
    path = tmp_path / "penstock.yaml"
    path.write_text(FILE)
    return {it.path: (it.value, it.source.replace(str(path), "file")) for it in effective(path, environ)}


def test_each_source_is_named(tmp_path):
    found = settings(tmp_path, PENSTOCK_TIMEOUTS__IDLE="4s", PENSTOCK_UPSTREAMS__LOCAL__PROFILE="vllm")
    assert found["server.port"] == (9001, "file")
    assert found["server.host"] == ("127.0.0.1", "default")
    assert found["timeouts.idle"] == ("4s", "PENSTOCK_TIMEOUTS__IDLE")
    assert found["upstreams.local.profile"] == ("vllm", "PENSTOCK_UPSTREAMS__LOCAL__PROFILE")
    assert found["upstreams.claude.url"] == ("https://api.anthropic.com/v1", "catalogue: anthropic")
    assert found["upstreams.claude.key_env"] == (["FIRST", "SECOND"], "file")
    assert found["upstreams.claude.auth"] == (None, "default")
    assert found["models.*"] == ("local", "file")


def test_a_whole_section_from_the_environment(tmp_path):
    found = settings(tmp_path, PENSTOCK_SERVER="{port: 9002}")
    assert found["server.port"] == (9002, "PENSTOCK_SERVER")


def test_no_secret_is_shown(tmp_path):
    found = settings(tmp_path, SECOND="sk-secret-2")
    assert found["upstreams.local.headers.x-token"] == (HIDDEN, "file")
    assert found["upstreams.claude.(key)"] == (HIDDEN, "SECOND")
    assert "secret" not in str(found)
    assert settings(tmp_path)["upstreams.claude.(key)"] == (None, "not set")


def test_a_key_of_the_gateway_is_shown_without_its_hash(tmp_path):
    path = tmp_path / "penstock.yaml"
    path.write_text(f"server: {{keys: [{{name: a, sha256: '{'0' * 64}', expires: 2027-01-31}}]}}")
    (shown,) = next(it.value for it in effective(path, {}) if it.path == "server.keys")
    assert (shown["name"], shown["sha256"], shown["expires"]) == ("a", HIDDEN, "2027-01-31T00:00:00Z")


def test_every_key_of_the_shape_is_there():
    shown = {it.path for it in effective(None, {})}
    assert {"server.host", "models", "upstreams", "timeouts.total", "telemetry.store.keep"} <= shown

    def leaves(struct, path=""):
        for name in struct.__struct_fields__:
            value = getattr(struct, name)
            if isinstance(value, msgspec.Struct):
                yield from leaves(value, f"{path}{name}.")
            else:
                yield path + name

    assert shown == set(leaves(Config()))


def test_what_is_shown_can_be_read_again(tmp_path):
    """As the command prints it, but for what is hidden."""
    from penstock.cli.config import _yaml_lines

    path = tmp_path / "penstock.yaml"
    path.write_text(FILE)
    again = tmp_path / "again.yaml"
    again.write_text("\n".join(_yaml_lines(effective(path, {}))).replace(f"'{HIDDEN}'", "secret-1"))
    assert load(again, {}) == load(path, {})
