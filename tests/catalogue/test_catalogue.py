"""The catalogue: every entry is whole, a user's file is laid over it, a mistake is one sentence with its place."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

import penstock
from penstock.canon.errors import ConfigError
from penstock.canon.price import Price
from penstock.catalogue.catalogue import catalogue, users_file
from penstock.catalogue.provider import DIALECT_NAMES, Provider, filled, find_key
from penstock.client.target import find_target, price
from penstock.dialects import DIALECTS
from penstock.dialects.listing import LISTINGS

if TYPE_CHECKING:
    from pathlib import Path

ENTRIES = list(catalogue().values())
EVERY = pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.id)
KEY = "sk-catalogue-93ab07"


def own(folder: Path, text: str) -> Path:
    path = folder / "providers.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_there_are_many_and_each_is_there_once() -> None:
    assert len(ENTRIES) >= 80
    assert len({entry.id for entry in ENTRIES}) == len(ENTRIES)
    assert len({entry.name for entry in ENTRIES}) == len(ENTRIES)


@EVERY
def test_each_is_whole(entry: Provider) -> None:
    assert entry.dialect in DIALECT_NAMES
    assert ":" not in entry.id, "a spec is parted there"
    parts = urlsplit(entry.url)
    assert parts.scheme == ("http" if entry.is_local else "https")
    assert not entry.url.endswith("/")
    assert set(re.findall(r"\{(\w+)\}", entry.url)) == set(entry.placeholders)
    assert entry.key_env or entry.is_local, "somebody must be paid"
    assert (entry.auth == "none") == (entry.key_env == ())
    assert entry.docs is not None or entry.id.startswith("penstock")
    assert entry.docs is None or entry.docs.startswith("https://")


def test_every_dialect_that_is_spoken_is_known() -> None:
    assert set(DIALECTS) <= set(DIALECT_NAMES)


@EVERY
def test_each_can_be_called_when_its_variables_are_set(entry: Provider) -> None:
    if entry.dialect not in DIALECTS:
        pytest.skip(f"{entry.dialect} is not spoken yet")
    environ = dict.fromkeys([*entry.key_env[:1]], KEY) | dict.fromkeys(entry.placeholders.values(), "here-1")
    target = find_target(f"{entry.id}:m", upstreams={}, environ=environ)
    assert (target.upstream, target.model, target.dialect, target.profile) == (
        entry.id, "m", entry.dialect, entry.profile,
    )  # fmt: skip
    assert "{" not in target.url
    assert (target.key is not None) == bool(entry.key_env)
    assert target.auth != "none"
    assert entry.dialect in LISTINGS or entry.dialect == "bedrock"


@EVERY
def test_each_names_what_is_missing(entry: Provider) -> None:
    if entry.is_local:
        target = find_target(f"{entry.id}:m", upstreams={}, environ={})
        assert target.key is None
        return
    environ = dict.fromkeys(entry.placeholders.values(), "here-1")
    with pytest.raises(ConfigError) as raised:
        find_target(f"{entry.id}:m", upstreams={}, environ=environ)
    for variable in entry.key_env:
        assert variable in str(raised.value)
    for variable in entry.placeholders.values():
        given = {name: value for name, value in environ.items() if name != variable}
        with pytest.raises(ConfigError, match=f"Set {variable}, or give the whole url"):
            find_target(f"{entry.id}:m", upstreams={}, environ=given)


def test_every_profile_is_one_that_the_dialect_knows() -> None:
    profiles = pytest.importorskip("penstock.dialects.openai_chat.profiles").PROFILES
    named = {entry.profile for entry in ENTRIES if entry.profile and entry.dialect == "openai-chat"}
    assert named <= set(profiles)


# --- what a call needs -----------------------------------------------------------------------------------------------


def test_the_first_key_that_is_set_is_used() -> None:
    names = ("A_KEY", "B_KEY")
    assert find_key(names, None, {}) == (None, None)
    found, auth = find_key(names, "api-key", {"A_KEY": "", "B_KEY": "b"})
    assert found is not None
    assert (found.reveal(), auth) == ("b", "api-key")


def test_c13_where_there_is_no_key_none_is_sent() -> None:
    assert find_key(("A_KEY",), "none", {"A_KEY": KEY}) == (None, None)


def test_an_entry_knows_its_own_url() -> None:
    azure = catalogue()["azure"]
    assert azure.is_at("https://mine.openai.azure.com/openai/v1")
    assert not azure.is_at("https://mine.openai.azure.com/openai/v2")
    assert not azure.is_at("https://a/b.openai.azure.com/openai/v1")
    assert catalogue()["openai"].is_at("https://api.openai.com/v1")


def test_aws_signs_where_no_token_is_set() -> None:
    pair = {"AWS_REGION": "eu-west-1", "AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "secret"}
    target = find_target("bedrock:m", upstreams={}, environ=pair)
    assert target.key is not None
    assert (target.url, target.auth) == ("https://bedrock-runtime.eu-west-1.amazonaws.com", "sigv4")
    assert target.key.reveal() == "AKID:secret"
    token = find_target("bedrock:m", upstreams={}, environ={**pair, "AWS_BEARER_TOKEN_BEDROCK": "t"})
    assert token.key is not None
    assert (token.key.reveal(), token.auth) == ("t", "bearer")
    with pytest.raises(ConfigError, match="AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
        find_target("bedrock:m", upstreams={}, environ={"AWS_REGION": "eu-west-1"})


@pytest.mark.parametrize("said", ["evil.com/x", "a@b", "a b", "a#", "a?"])
def test_c13_a_placeholder_cannot_lead_a_key_elsewhere(said: str) -> None:
    with pytest.raises(ConfigError, match="RES cannot stand in the url of `azure`"):
        filled("https://{resource}.openai.azure.com", {"resource": "RES"}, {"RES": said}, "`azure`")


def test_a_name_that_nobody_has_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"There is no provider `grok`\. Did you mean `groq`\?"):
        find_target("grok:m", upstreams={}, environ={})


def test_a_key_that_is_passed_goes_to_the_providers_place() -> None:
    assert find_target("sarvam:m", upstreams={}, key="k", environ={}).auth == "api-subscription-key"
    assert find_target("ollama:m", upstreams={}, key="k", environ={}).auth is None


# --- a user's file ---------------------------------------------------------------------------------------------------


def test_an_entry_with_a_known_id_is_merged_field_by_field(tmp_path: Path) -> None:
    file = own(
        tmp_path,
        '[anthropic]\nurl = "https://eu.example.com/v1"\nkey_env = "EU_KEY"\n'
        '[anthropic.cost]\n"claude-x*" = { input = 1.0, output = 2.0 }\n',
    )
    before, after = catalogue()["anthropic"], catalogue(file)["anthropic"]
    assert (after.url, after.key_env) == ("https://eu.example.com/v1", ("EU_KEY",))
    assert (after.name, after.profile, after.docs) == (before.name, before.profile, before.docs)
    assert after.cost == before.cost | {"claude-x*": Price(1.0, 2.0)}
    assert before.cost
    assert catalogue()["anthropic"] == before


def test_a_new_id_is_a_new_provider(tmp_path: Path) -> None:
    file = own(tmp_path, '[mine]\nname = "Mine"\nurl = "https://models.example.com/v1"\n')
    assert catalogue(file)["mine"].dialect == "openai-chat"
    assert len(catalogue(file)) == len(ENTRIES) + 1


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    assert catalogue(own(tmp_path, '[mine]\nname = "Mine"\nurl = "https://a.example"\n'))["mine"].name == "Mine"
    assert catalogue(own(tmp_path, '[mine]\nname = "Changed"\nurl = "https://a.example"\n'))["mine"].name == "Changed"


def test_where_the_users_file_is(tmp_path: Path) -> None:
    assert users_file({}) is None
    assert users_file({"HOME": str(tmp_path)}) is None
    folder = tmp_path / ".config" / "penstock"
    folder.mkdir(parents=True)
    path = own(folder, "")
    assert users_file({"HOME": str(tmp_path)}) == path
    assert users_file({"HOME": "/nowhere", "XDG_CONFIG_HOME": str(tmp_path / ".config")}) == path
    assert str(users_file({"HOME": str(tmp_path), "PENSTOCK_PROVIDERS": "other.toml"})) == "other.toml"


WHOLE = '[mine]\nname = "Mine"\nurl = "https://a.example"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (WHOLE + 'keyenv = "X"\n', "mine.keyenv: there is no such field. Did you mean `key_env`?"),
        (
            WHOLE + "[mine.cost]\nm = { inputs = 1.0 }\n",
            "mine.cost.m.inputs: there is no such field. Did you mean `input`?",
        ),
        (WHOLE + "capabilities = { stram = true }\n", "mine.capabilities.stram: there is no such field. Did you"),
        (WHOLE + 'dialect = "openai"\n', "mine.dialect: there is no dialect `openai`. Did you mean `openai-chat`?"),
        (WHOLE + '[mine.models]\nm = { dialect = "gemni" }\n', "mine.models.m.dialect: there is no dialect `gemni`."),
        (WHOLE + "[mine.models]\nm = { image = true }\n", "mine.models.m.image: there is no such field. Did you mean"),
        (WHOLE + "auth = 5\n", "mine.auth: Expected `str | null`, got `int`."),
        (WHOLE + 'auth = "x key"\n', "mine.auth: `x key` is no header's name."),
        (WHOLE + 'auth = "sigv4"\n', "mine.auth: only the dialect bedrock signs."),
        (WHOLE + "[mine.cost]\nm = { input = -1.0 }\n", "mine.cost"),
        (WHOLE + "[mine.cost]\nm = { input = nan }\n", "mine.cost"),
        (WHOLE + 'key_env = ["A B"]\n', "mine.key_env"),
        (WHOLE + 'id = "other"\n', "mine.id: an entry's id is its table's name. Leave it out."),
        ('[mine]\nurl = "https://a.example"\n', "mine: Object missing required field `name`."),
        ('[mine]\nname = "M"\nurl = "a.example"\n', "mine.url: `a.example` is no http:// or https:// URL."),
        ('[mine]\nname = "M"\nurl = "https://{x}.example"\n', "mine.url: nothing says what `{x}` is. Name its"),
        ('[mine]\nname = "M"\nurl = "https://u:hunter2@h"\n', "mine.url holds a user name or password."),
        ("mine = 5\n", "`mine` is no table. Write [mine]"),
        ('["a:b"]\nname = "M"\nurl = "https://a.example"\n', "a:b.id: Expected `str` matching regex"),
    ],
)
def test_a_mistake_names_file_entry_and_field(tmp_path: Path, text: str, said: str) -> None:
    file = own(tmp_path, text)
    with pytest.raises(ConfigError) as raised:
        catalogue(file)
    assert str(raised.value).startswith(f"In {file}")
    assert said in str(raised.value)
    assert "hunter2" not in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("text", "said"), [("[", "is not TOML"), ("\udcff", "is not TOML")])
def test_a_file_that_is_none(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "providers.toml"
    file.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ConfigError, match=said):
        catalogue(file)
    with pytest.raises(ConfigError, match=r"Cannot read .*nothing\.toml: No such file.*PENSTOCK_PROVIDERS"):
        catalogue(tmp_path / "nothing.toml")


# --- the library's own -----------------------------------------------------------------------------------------------


def test_providers_is_public(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_PROVIDERS", str(own(tmp_path, WHOLE)))
    assert "mine" in {entry.id for entry in penstock.providers()}


def test_a_price_is_that_of_the_providers_own_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PENSTOCK_PROVIDERS", raising=False)
    environ = {"ANTHROPIC_API_KEY": KEY}
    target = find_target("anthropic:claude-haiku-4-5", upstreams={}, environ=environ)
    found = price(target, "claude-haiku-4-5")
    assert found is not None
    assert found.input == 1.0
    assert price(target, "a-model-of-tomorrow") is None
    elsewhere = find_target(
        "anthropic:claude-haiku-4-5", upstreams={}, base_url="http://127.0.0.1:1/v1", environ=environ
    )
    assert price(elsewhere, "claude-haiku-4-5") is None


def test_c13_an_entry_prints_no_header() -> None:
    assert KEY not in repr(Provider("a", "A", "https://a.example", headers={"x-key": KEY}))
