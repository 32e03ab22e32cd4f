"""Who is meant by a model's name, where the key comes from, and what a provider is known not to take."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

import keyring
import keyring.backend
import pytest
from keyring.errors import KeyringLocked

import penstock
from penstock.canon.target import Secret, Target
from penstock.client.target import find_target, known
from penstock.testing import Reply, Upstream

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HERE = {"here": "http://127.0.0.1:8080/v1", "proxy": Target("x", "http://127.0.0.1:1/v1", "gemini", key=Secret("k-p"))}


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream(Reply(text="Hello")) as upstream:
        yield upstream


class Ring(keyring.backend.KeyringBackend):
    priority = 1

    def __init__(self, held: dict[tuple[str, str], str], *, is_locked: bool = False) -> None:
        super().__init__()
        self.held = held
        self.is_locked = is_locked

    def get_password(self, service: str, username: str) -> str | None:
        if self.is_locked:
            raise KeyringLocked("no")
        return self.held.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None: ...
    def delete_password(self, service: str, username: str) -> None: ...


@pytest.fixture(autouse=True)
def ring() -> Iterator[Ring]:
    before = keyring.get_keyring()
    ring = Ring({})
    keyring.set_keyring(ring)
    yield ring
    keyring.set_keyring(before)


def found(spec: Any, **more: Any) -> Target:
    return find_target(spec, **{"upstreams": HERE, "environ": {}, **more})


@pytest.mark.parametrize(
    ("spec", "more", "upstream", "url", "dialect", "model"),
    [
        ("here:m", {}, "here", HERE["here"], "openai-chat", "m"),
        ("here:qwen3:8b", {}, "here", HERE["here"], "openai-chat", "qwen3:8b"),
        ("anthropic:claude-9@here", {}, "here", HERE["here"], "anthropic-messages", "claude-9"),
        ("anthropic:claude-9@proxy", {}, "proxy", "http://127.0.0.1:1/v1", "gemini", "claude-9"),
        ("anthropic:claude-9@here", {"dialect": "ollama"}, "here", HERE["here"], "ollama", "claude-9"),
        ("here:@cf/meta/llama", {}, "here", HERE["here"], "openai-chat", "@cf/meta/llama"),
        ("here:claude@20250514", {}, "here", HERE["here"], "openai-chat", "claude@20250514"),
        ("gpt-9", {"base_url": "http://127.0.0.1:2/v1"}, "local", "http://127.0.0.1:2/v1", "openai-chat", "gpt-9"),
        (Target("mine", "http://127.0.0.1:3", "ollama", "m"), {}, "mine", "http://127.0.0.1:3", "ollama", "m"),
        ("proxy:m", {}, "proxy", "http://127.0.0.1:1/v1", "gemini", "m"),
        ("ollama:any-new-model", {}, "ollama", "http://localhost:11434", "ollama", "any-new-model"),
    ],
)  # fmt: skip
def test_who_is_meant(spec: Any, more: Any, upstream: str, url: str, dialect: str, model: str) -> None:
    target = found(spec, **more)
    assert (target.upstream, target.url, target.dialect, target.model) == (upstream, url, dialect, model)


@pytest.mark.parametrize(
    ("spec", "more", "said"),
    [
        ("gpt-9", {}, "names no model.* or give a base_url"),
        ("", {"base_url": "http://x/v1"}, "names no model"),
        ("anthropic:claude@her", {}, "no upstream `her`. Did you mean `here`"),
        ("anthropc:claude@here", {}, "no provider `anthropc`. Did you mean `anthropic`"),
        ("hre:m", {}, "Did you mean `here`"),
        (Target("mine", "http://127.0.0.1:3", "ollama"), {}, "model="),
        (Target("mine", "http://127.0.0.1:3", "olama", "m"), {}, "Did you mean `ollama`"),
    ],
)
def test_who_is_nobody_is_said_before_anything_is_sent(spec: Any, more: Any, said: str) -> None:
    with pytest.raises(penstock.ConfigError, match=said):
        found(spec, **more)


# --- keys ------------------------------------------------------------------------------------------------------------


def key_of(target: Target) -> str | None:
    return target.key.reveal() if target.key is not None else None


def test_keys_are_looked_for_in_their_order(tmp_path: Path, ring: Ring) -> None:
    env_file = tmp_path / ".env"
    ring.held["penstock", "GROQ_API_KEY"] = "k-ring"
    more: dict[str, Any] = {"env_file": env_file}
    assert key_of(found("groq:m", **more)) == "k-ring"
    env_file.write_text('# keys\nexport GROQ_API_KEY="k-file"\nOTHER=x\n')
    assert key_of(found("groq:m", **more)) == "k-file"
    more["environ"] = {"GROQ_API_KEY": "k-environment"}
    assert key_of(found("groq:m", **more)) == "k-environment"
    more["keys"] = {"groq": "k-client"}
    assert key_of(found("groq:m", **more)) == "k-client"
    assert key_of(found("groq:m", key="k-argument", **more)) == "k-argument"


def test_a_file_that_changes_is_read_again(tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    for key in ("k-1", "k-22"):
        env_file.write_text(f"GROQ_API_KEY={key}")
        assert key_of(found("groq:m", env_file=env_file)) == key


@pytest.mark.parametrize("content", [None, "", "GROQ_API_KEY=\n", "GROQ_API_KEY\n", "OTHER=k"])
@pytest.mark.parametrize("is_locked", [False, True])
def test_a_missing_key_names_its_variable(tmp_path: Path, ring: Ring, content: str | None, is_locked: bool) -> None:
    ring.is_locked = is_locked
    if content is not None:
        (tmp_path / ".env").write_text(content)
    with pytest.raises(penstock.ConfigError, match=r"no key for groq.*Set GROQ_API_KEY .*\.env.*key="):
        found("groq:m", env_file=tmp_path / ".env")


def test_a_file_that_is_no_text_is_said_without_its_content(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"GROQ_API_KEY=\xff\xfesecret")
    with pytest.raises(penstock.ConfigError, match="Cannot read") as caught:
        found("groq:m", env_file=tmp_path / ".env")
    assert "secret" not in str(caught.value)


def test_a_file_fills_a_url_for_its_own_key_alone(tmp_path: Path) -> None:
    """Whoever puts a file into a folder must not learn the key that the environment holds."""
    env_file = tmp_path / ".env"
    azure = known({})["azure"]
    variable = azure.key_env[0]
    env_file.write_text("".join(f"{name}=evil\n" for name in azure.placeholders.values()) + f"{variable}=k-file\n")
    target = found("azure:m", env_file=env_file)
    assert "evil" in target.url
    assert key_of(target) == "k-file"
    with pytest.raises(penstock.ConfigError, match="The url of `azure` needs"):
        found("azure:m", env_file=env_file, environ={variable: "k-environment"})


def test_a_key_is_sent_only_where_it_belongs() -> None:
    environ = {"ANTHROPIC_API_KEY": "k-anthropic"}
    keys = {"anthropic": "k-client", "here": "k-here"}
    assert found("anthropic:m@here", environ=environ).key is None
    assert key_of(found("anthropic:m@here", environ=environ, keys=keys)) == "k-here"
    assert key_of(found("anthropic:m@proxy", environ=environ)) == "k-p"
    assert key_of(found("anthropic:m", environ=environ)) == "k-anthropic"


def test_a_client_finds_the_file_in_its_folder(
    upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "providers.toml").write_text(f'[mine]\nname = "M"\nurl = "{upstream.url}"\nkey_env = "MINE_KEY"\n')
    # not a server of this machine, by its name
    text = (tmp_path / "providers.toml").read_text().replace("127.0.0.1", "localhost.localdomain")
    (tmp_path / "providers.toml").write_text(text)
    monkeypatch.setenv("PENSTOCK_PROVIDERS", str(tmp_path / "providers.toml"))
    monkeypatch.delenv("MINE_KEY", raising=False)
    (tmp_path / ".env").write_text("MINE_KEY=k-mine\n")
    monkeypatch.chdir(tmp_path)
    assert "k-mine" in repr(penstock.Client()._target("mine:m", {}).key.reveal())  # type: ignore[union-attr]
    with pytest.raises(penstock.ConfigError, match="MINE_KEY"):
        penstock.Client(env_file=None).generate("mine:m", "Hi")


# --- a client's own --------------------------------------------------------------------------------------------------


def test_a_clients_defaults_hold_unless_a_call_says_otherwise(upstream: Upstream) -> None:
    client = penstock.Client(upstreams={"here": upstream.url}, defaults={"temperature": 0.5, "max_tokens": 9})
    client.generate("here:m", "Hi", max_tokens=3)
    client.generate("here:m", "Hi", temperature=None)
    sent = [json.loads(seen.body) for seen in upstream.seen]
    assert [(each.get("temperature"), each["max_tokens"]) for each in sent] == [(0.5, 3), (None, 9)]
    with pytest.raises(penstock.InvalidRequest, match="Did you mean `temperature`"):
        penstock.Client(defaults=cast("Any", {"temprature": 1}))


def test_a_target_is_asked_as_it_is(upstream: Upstream) -> None:
    target = Target("mine", upstream.url, "anthropic-messages", "m", Secret("k-own"), headers=(("x-mine", "yes"),))
    assert penstock.generate(target, "Hi").text == "Hello"
    seen = upstream.seen[0]
    assert (seen.headers["x-api-key"], seen.headers["x-mine"]) == ("k-own", "yes")
    assert penstock.generate("claude@proxy", "Hi", base_url=upstream.url).text == "Hello"


# --- what a provider is known not to take ----------------------------------------------------------------------------


@pytest.fixture
def plain(upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "providers.toml"
    capable = "capabilities = { images = false, tools = false }"
    path.write_text(f'[plain]\nname = "Plain"\nurl = "{upstream.url}"\n{capable}\n')
    monkeypatch.setenv("PENSTOCK_PROVIDERS", str(path))


IMAGE = penstock.Image(url="https://example.org/a.png")
CALL = penstock.ToolCall("c", "look", "{}", {})


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        (penstock.Message.of("user", IMAGE), "messages[0]"),
        (
            ["Hi", penstock.Message("assistant", (CALL,)), penstock.ToolResult("c", (penstock.Text("x"), IMAGE))],
            "messages[2]",
        ),
        (
            [
                "Hi",
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x.example/a.png"}}]},
            ],
            "messages[1]",
        ),
    ],
)
def test_an_image_for_models_that_look_at_none(upstream: Upstream, plain: None, messages: Any, param: str) -> None:
    with pytest.raises(penstock.Unsupported, match=r"`m` of Plain looks at no images\. Leave it out") as caught:
        penstock.generate("plain:m", messages)
    assert caught.value.param == param
    with pytest.raises(penstock.Unsupported, match=r"`m` of Plain calls no tools\. Leave them out"):
        penstock.generate("plain:m", "Hi", tools=[penstock.Tool("look")])
    assert upstream.seen == []
    penstock.generate("plain:m", "Hi")
    # another server of that name is not the one that the catalogue knows
    with Upstream() as other:
        penstock.generate("plain:m", penstock.Message.of("user", IMAGE), base_url=other.url)


def test_straico_is_known_to_look_at_no_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRAICO_API_KEY", "k")
    with pytest.raises(penstock.Unsupported, match="`m` of Straico looks at no images"):
        penstock.generate("straico:m", penstock.Message.of("user", IMAGE))


def test_a_model_may_be_known_to_take_less_or_more_than_its_provider(
    upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overlay = tmp_path / "providers.toml"
    overlay.write_text(f"""
[mixed]
name = "Mixed"
url = "{upstream.url}"
auth = "none"
capabilities = {{ images = true, tools = false }}

[mixed.models]
"words-*" = {{ images = false }}
"words-and-images" = {{ images = true, tools = true }}
""")
    monkeypatch.setenv("PENSTOCK_PROVIDERS", str(overlay))
    picture = penstock.Message.of("user", IMAGE)
    with pytest.raises(penstock.Unsupported, match="`words-9` of Mixed looks at no images"):
        penstock.generate("mixed:words-9", picture)
    with pytest.raises(penstock.Unsupported, match="`words-9` of Mixed calls no tools"):
        penstock.generate("mixed:words-9", "Hi", tools=[penstock.Tool("look")])
    assert upstream.seen == []
    penstock.generate("mixed:words-and-images", picture, tools=[penstock.Tool("look")])
    penstock.generate("mixed:m", picture)
    assert len(upstream.seen) == 2


@pytest.mark.parametrize("spec", ["openai:o3-mini-2025-01-31", "openai:gpt-3.5-turbo", "groq:openai/gpt-oss-120b"])
def test_models_that_are_known_to_look_at_no_images(spec: str) -> None:
    with pytest.raises(penstock.Unsupported, match="looks at no images"):
        penstock.generate(spec, penstock.Message.of("user", IMAGE), key="k")


@pytest.mark.parametrize(
    ("model", "dialect"),
    [
        ("gpt-5.6", "openai-chat"),
        ("o3-pro", "openai-responses"),
        ("gpt-5-pro-2025-10-06", "openai-responses"),
        ("gpt-5.3-codex", "openai-responses"),
        ("o4-mini-deep-research", "openai-responses"),
    ],
)
def test_a_model_that_is_behind_another_endpoint_is_asked_there(model: str, dialect: str) -> None:
    assert found(f"openai:{model}", key="k").dialect == dialect
    assert found(f"openai:{model}", key="k", dialect="openai-chat").dialect == "openai-chat"  # what is said wins
    assert found(f"openai:{model}", base_url="http://127.0.0.1:1/v1").dialect == "openai-chat"  # another server
