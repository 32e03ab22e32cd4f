"""Which target a model's name leads to."""

from __future__ import annotations

import pytest

from penstock.canon.errors import UnknownModel
from penstock.canon.target import Target
from penstock.policy.routing import Routes, is_pattern


def target(name: str) -> Target:
    return Target(name, "http://127.0.0.1:9/v1", "openai-chat")


TABLE = {
    "*": target("any"),
    "claude-*": target("claude"),
    "claude-opus-*": target("opus"),
    "claude-opus-5": target("exact"),
    "gpt-?": target("gpt"),
    "[ab]-x": target("set"),
}


@pytest.mark.parametrize(
    ("model", "found"),
    [
        ("claude-opus-5", "exact"),
        ("claude-opus-6", "opus"),
        ("claude-haiku", "claude"),
        ("gpt-5", "gpt"),
        ("gpt-55", "any"),
        ("a-x", "set"),
        ("CLAUDE-haiku", "any"),
        ("", "any"),
        ("*", "any"),
        ("claude-*", "claude"),
    ],
)
def test_the_exact_name_first_then_the_longest_pattern(model: str, found: str):
    for table in (TABLE, dict(reversed(TABLE.items()))):
        assert Routes(table).find(model).upstream == found


def test_an_unknown_model_is_told_what_is_known():
    routes = Routes({"fast": target("a"), "claude-*": target("b"), "big": target("c")})
    with pytest.raises(UnknownModel) as raised:
        routes.find("slow")
    assert str(raised.value) == "There is no model `slow` here. Known: big, fast."
    assert (raised.value.param, raised.value.status, raised.value.code) == ("model", 404, "model_not_found")


def test_nothing_at_all_is_known():
    with pytest.raises(UnknownModel, match="none by name"):
        Routes({}).find("m")


def test_what_a_table_says_of_itself():
    routes = Routes(TABLE)
    assert routes.names == ["claude-opus-5"]
    assert {each.upstream for each in routes.open_targets} == {"any", "claude", "opus", "gpt", "set"}
    assert [is_pattern(name) for name in ("a", "a*", "a?", "[a]")] == [False, True, True, True]
