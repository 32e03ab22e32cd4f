"""The schema accepts what the loader accepts, refuses what it refuses, and has a line for every key."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from penstock.canon.errors import ConfigError
from penstock.config.load import check, parse_duration, parse_size
from penstock.config.model import Config, Duration, Size
from penstock.config.schema import documentation, schema, structs_of, written, written_duration

ROOT = Path(__file__).resolve().parents[2]


def validator() -> Any:
    made = json.loads(msgspec.json.encode(schema()))
    jsonschema.Draft202012Validator.check_schema(made)
    return jsonschema.Draft202012Validator(made)


def every_struct(struct: type[msgspec.Struct] = Config) -> set[type[msgspec.Struct]]:
    info = msgspec.inspect.type_info(struct)
    assert isinstance(info, msgspec.inspect.StructType)
    found = {struct}
    for field in info.fields:
        for inner in structs_of(field.type):
            found |= every_struct(inner)
    return found


@pytest.mark.parametrize("struct", sorted(every_struct(), key=str), ids=lambda it: str(it.__name__))
def test_every_key_has_a_line_of_documentation(struct):
    assert struct.__doc__
    assert set(documentation(struct)) == set(struct.__struct_fields__)


def test_the_pages_own_file_fits():
    page = (ROOT / "docs/reference/configuration.md").read_text(encoding="utf-8")
    given = yaml.safe_load(re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)[0])
    check(given)
    assert list(validator().iter_errors(given)) == []


@pytest.mark.parametrize(
    "given",
    [
        {"sever": {}},
        {"server": {"port": "eighty"}},
        {"upstreams": {"a": {"dialect": "openai-chat"}}},
        {"upstreams": {"a": {"url": "http://a/v1", "url2": "http://b/v1"}}},
        {"timeouts": {"idle": "soon"}},
        {"server": {"max_body": "much"}},
        {"telemetry": {"log": {"format": "loud"}}},
        {"upstreams": {"a": {"url": "http://a/v1", "cost": {"*": {"input": -1}}}}},
        {"models": {"a": 3}},
    ],
    ids=str,
)
def test_what_the_loader_refuses_the_schema_refuses(given):
    with pytest.raises(ConfigError):
        check(given)
    assert not validator().is_valid(given)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"upstreams": {"a": {"provider": "anthropic"}}},
        {"upstreams": {"a": {"url": "http://a/v1", "key_env": ["A", "B"]}}, "models": {"*": "a"}},
        {"timeouts": {"idle": 3, "total": None, "silence": "500ms"}, "server": {"max_body": 1024}},
    ],
    ids=str,
)
def test_what_the_loader_takes_the_schema_takes(given):
    check(given)
    assert list(validator().iter_errors(given)) == []


@given(st.one_of(st.floats(0.0005, 1e9), st.integers(1, 10**7).map(float)))
def test_a_duration_is_read_as_it_was_written(seconds):
    assert parse_duration(written_duration(Duration(seconds))) == pytest.approx(seconds, rel=1e-5)


@given(st.integers(0, 2**50))
def test_a_size_is_read_as_it_was_written(size):
    assert parse_size(str(written(Size(size)))) == size
