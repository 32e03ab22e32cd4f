"""YAML and environment in, a configuration out, or one sentence that says what is wrong and where."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args, get_type_hints

import msgspec
import pytest

from penstock.canon.errors import ConfigError
from penstock.canon.key import Key
from penstock.config import model
from penstock.config.load import NOT_KEYS, check, destinations, load, parse_duration, parse_size, read
from penstock.config.model import Config, Duration, Size, Upstream

if TYPE_CHECKING:
    from pathlib import Path

LOCAL = {"upstreams": {"local": {"url": "http://127.0.0.1:8080/v1"}}}
KEY = "sk-live-1234567890"


def written(folder: Path, text: str) -> Path:
    path = folder / "penstock.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def refused(given: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as raised:
        check(given, "penstock.yaml")
    said = str(raised.value)
    assert "\n" not in said
    assert said.endswith((".", "?"))
    assert said.startswith("In penstock.yaml, ")
    return said.removeprefix("In penstock.yaml, ")


def plain(value: Any) -> Any:
    """As YAML would hold it."""
    if isinstance(value, msgspec.Struct):
        return {name: plain(getattr(value, name)) for name in value.__struct_fields__}
    return float(value) if isinstance(value, Duration) else int(value) if isinstance(value, Size) else value


def leaves(struct: msgspec.Struct, path: str = "") -> dict[str, Any]:
    """Every key that has a value of its own, with that value."""
    found: dict[str, Any] = {}
    for name in struct.__struct_fields__:
        value = getattr(struct, name)
        found |= leaves(value, f"{path}{name}.") if isinstance(value, msgspec.Struct) else {path + name: plain(value)}
    return found


# --- defaults --------------------------------------------------------------------------------------------------------


def test_no_file_and_no_environment_are_all_defaults():
    assert load(None, {}) == Config()


def test_the_defaults():
    assert leaves(Config()) == {
        "server.host": "127.0.0.1",
        "server.port": 8066,
        "server.workers": 1,
        "server.drain": 30,
        "server.max_body": 100 * 1024 * 1024,
        "server.header_timeout": 30,
        "server.body_timeout": 30,
        "server.keys": (),
        "server.keys_file": None,
        "server.cors_origins": (),
        "server.hosts": (),
        "providers": None,
        "upstreams": {},
        "models": {},
        "timeouts.connect": 5,
        "timeouts.first_content": 120,
        "timeouts.idle": 60,
        "timeouts.silence": 60,
        "timeouts.total": None,
        "timeouts.write": 60,
        "timeouts.document": 600,
        "retry.attempts": 3,
        "retry.backoff": 0.5,
        "retry.max_backoff": 8,
        "retry.max_retry_after": 30,
        "breaker.failures": 5,
        "breaker.cooldown": 30,
        "recovery.mode": "off",
        "strict": False,
        "limits.concurrency": None,
        "limits.queue": 0,
        "limits.queue_wait": 30,
        "limits.max_reply": 256 * 1024 * 1024,
        "limits.per_key.concurrency": None,
        "limits.per_key.requests_per_minute": None,
        "limits.per_key.tokens_per_minute": None,
        "heartbeat.interval": 15,
        "streaming.force_non_streaming": False,
        "streaming.capability_ttl": 300,
        "streaming.fallback": True,
        "telemetry.log.format": "pretty",
        "telemetry.log.debug": False,
        "telemetry.prometheus.enabled": True,
        "telemetry.store.path": "penstock.db",
        "telemetry.store.keep": 30 * 86400,
        "telemetry.influxdb.url": None,
        "telemetry.influxdb.version": 2,
        "telemetry.influxdb.org": None,
        "telemetry.influxdb.bucket": None,
        "telemetry.influxdb.database": None,
        "telemetry.influxdb.token_env": "INFLUX_TOKEN",
        "telemetry.influxdb.precision": "ns",
        "telemetry.influxdb.spool": "penstock-influxdb",
        "telemetry.influxdb.spool_size": 64 << 20,
        "telemetry.opentelemetry.endpoint": None,
        "telemetry.opentelemetry.protocol": "http",
        "telemetry.opentelemetry.content": False,
    }


def test_every_default_can_be_written_down_and_loaded(tmp_path: Path):
    assert check(plain(Config())) == Config()
    path = written(tmp_path, msgspec.yaml.encode(plain(Config())).decode())
    assert load(path, {}) == Config()


@pytest.mark.parametrize("key", leaves(Config()))
def test_every_key_can_be_set_and_is_heard(key: str, tmp_path: Path):
    (tmp_path / "providers.toml").write_text("")
    value: Any = {
        "providers": str(tmp_path / "providers.toml"),
        "upstreams": LOCAL["upstreams"],
        "models": {"*": "local"},
        "server.workers": 2,
        "server.drain": 10,
        "server.max_body": "1MiB",
        "limits.max_reply": "1MiB",
        "server.port": 9000,
        "strict": True,
        "limits.concurrency": 4,
        "limits.queue": 9,
        "limits.per_key.concurrency": 2,
        "limits.per_key.requests_per_minute": 60,
        "limits.per_key.tokens_per_minute": 90_000,
        "streaming.force_non_streaming": True,
        "streaming.fallback": False,
        "telemetry.log.format": "json",
        "telemetry.log.debug": True,
        "telemetry.prometheus.enabled": False,
        "telemetry.store.path": "other.db",
        "server.host": "127.0.0.2",
        "server.keys": ({"name": "a", "env": "KEY_A"},),
        "server.keys_file": "keys.json",
        "server.cors_origins": ("https://app.example.com",),
        "server.hosts": ("penstock.lan",),
        "retry.attempts": 7,
        "breaker.failures": 7,
        "recovery.mode": "restart",
        "telemetry.influxdb.url": "http://127.0.0.1:8086",
        "telemetry.influxdb.version": 3,
        "telemetry.influxdb.org": "home",
        "telemetry.influxdb.bucket": "llm",
        "telemetry.influxdb.database": "llm",
        "telemetry.influxdb.token_env": "TOKEN",
        "telemetry.influxdb.precision": "ms",
        "telemetry.influxdb.spool": None,
        "telemetry.influxdb.spool_size": "1MiB",
        "telemetry.opentelemetry.endpoint": "http://127.0.0.1:4318",
        "telemetry.opentelemetry.protocol": "grpc",
        "telemetry.opentelemetry.content": True,
    }.get(key, "7s")
    *steps, last = key.split(".")
    given: dict[str, Any] = {}
    place = given
    for step in steps:
        place = place.setdefault(step, {})
    place[last] = value
    if key == "models":
        given |= LOCAL
    if key == "telemetry.influxdb.url":
        place["bucket"] = "llm"
    config: Any = check(given)
    assert config != check(LOCAL if key == "models" else {})
    for step in key.split("."):
        config = getattr(config, step)
    expected = {"7s": 7.0, "1MiB": 1 << 20}.get(value) if isinstance(value, str) else value
    if key == "server.keys":
        assert config == (Key(name="a", env="KEY_A"),)
    elif key != "upstreams":
        assert config == (expected if expected is not None else value)


def structs() -> list[type[msgspec.Struct]]:
    found = [each for each in vars(model).values() if isinstance(each, type) and issubclass(each, msgspec.Struct)]
    return [each for each in found if each is not msgspec.Struct]


def test_every_section_says_what_it_is_and_refuses_what_it_does_not_know():
    for struct in structs():
        assert struct.__doc__, struct
        assert struct.__struct_config__.forbid_unknown_fields, struct
        assert struct.__struct_config__.frozen, struct


# --- what is wrong, and where ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"servers": {}}, "there is no key `servers`. Did you mean `server`?"),
        ({"server": {"prot": 1}}, "there is no key `server.prot`. Did you mean `port`?"),
        ({"telemetry": {"log": {"fromat": 1}}}, "there is no key `telemetry.log.fromat`. Did you mean `format`?"),
        ({"timeouts": {"first_contnet": 1}}, "there is no key `timeouts.first_contnet`. Did you mean `first_content`?"),
        (
            {"upstreams": {"local": {"url": "http://x", "dialekt": "y"}}},
            "there is no key `upstreams.local.dialekt`. Did you mean `dialect`?",
        ),
        ({"heartbeat": {"zzz": 1}}, "there is no key `heartbeat.zzz`. Known: interval."),
        ({1: 2}, "there is no key `1`."),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest(given: dict[str, Any], said: str):
    assert refused(given).startswith(said)


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"server": {"port": "high"}}, "server.port"),
        ({"server": {"port": 8066.5}}, "server.port"),
        ({"server": {"port": True}}, "server.port"),
        ({"server": {"host": 1}}, "server.host"),
        ({"server": []}, "server"),
        ({"server": None}, "server"),
        ({"server": {"max_body": "big"}}, "server.max_body"),
        ({"server": {"max_body": True}}, "server.max_body"),
        ({"server": {"max_body": -1}}, "server.max_body"),
        ({"server": {"max_body": 1.5}}, "server.max_body"),
        ({"server": {"max_body": None}}, "server.max_body"),
        ({"timeouts": {"idle": "soon"}}, "timeouts.idle"),
        ({"timeouts": {"idle": "5 parsecs"}}, "timeouts.idle"),
        ({"timeouts": {"idle": -1}}, "timeouts.idle"),
        ({"timeouts": {"idle": 0}}, "timeouts.idle"),
        ({"timeouts": {"idle": "0s"}}, "timeouts.idle"),
        ({"timeouts": {"idle": float("nan")}}, "timeouts.idle"),
        ({"timeouts": {"idle": float("inf")}}, "timeouts.idle"),
        ({"timeouts": {"idle": True}}, "timeouts.idle"),
        ({"timeouts": {"idle": []}}, "timeouts.idle"),
        ({"heartbeat": {"interval": 0}}, "heartbeat.interval"),
        ({"telemetry": {"log": {"format": "xml"}}}, "telemetry.log.format"),
        ({"telemetry": {"store": {"keep": None}}}, "telemetry.store.keep"),
        ({"upstreams": {"local": {}}}, "upstreams.local"),
        ({"upstreams": {"local": "http://x"}}, "upstreams.local"),
        ({"upstreams": {"local": {"url": 5}}}, "upstreams.local.url"),
        ({"upstreams": {"local": {"url": "http://x", "headers": {"a": 1}}}}, "upstreams.local.headers.a"),
        ({"upstreams": []}, "upstreams"),
        ({**LOCAL, "models": {"m": 5}}, "models.m"),
        ({**LOCAL, "models": {"m": None}}, "models.m"),
    ],
)
def test_a_value_of_a_wrong_type_is_one_sentence_with_its_key(given: dict[str, Any], key: str):
    assert refused(given).startswith(f"{key}: ")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"upstreams": {"a": {"url": "http://x", "dialect": "openai"}}},
            "upstreams.a.dialect: there is no dialect `openai`. Did you mean `openai-chat`?",
        ),
        (
            {"upstreams": {"a": {"url": "localhost:8080"}}},
            "upstreams.a.url: `localhost:8080` is no http:// or https:// URL.",
        ),
        ({"upstreams": {"a": {"url": ""}}}, "upstreams.a.url: `` is no http:// or https:// URL."),
        ({**LOCAL, "models": {"m": "locl:x"}}, "models.m: there is no upstream `locl`. Did you mean `local`?"),
        ({"models": {"m": "x"}}, "models.m: there is no upstream `x`. None is configured."),
    ],
)
def test_what_does_not_fit_together_is_said(given: dict[str, Any], said: str):
    assert refused(given) == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("server: [", "is not YAML"),
        ("- a\n- b", "holds no mapping"),
        ("just words", "holds no mapping"),
    ],
)
def test_a_file_that_is_no_configuration(tmp_path: Path, text: str, said: str):
    with pytest.raises(ConfigError, match=said) as raised:
        load(written(tmp_path, text), {})
    assert "\n" not in str(raised.value)


def test_a_file_that_is_not_there(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"Cannot read .*nothing\.yaml: No such file"):
        load(tmp_path / "nothing.yaml", {})


def test_a_file_that_is_no_text(tmp_path: Path):
    path = tmp_path / "penstock.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="is not YAML"):
        load(path, {})


def test_an_empty_file_is_all_defaults(tmp_path: Path):
    assert load(written(tmp_path, ""), {}) == load(written(tmp_path, "# nothing\n"), {}) == Config()


# --- durations and sizes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500ms", 0.5), ("5s", 5), ("2m", 120), ("1h", 3600), ("30d", 30 * 86400), ("7", 7), ("1.5 s", 1.5), (" 5s ", 5)],
)
def test_durations(text: str, seconds: float):
    assert parse_duration(text) == seconds
    assert check({"timeouts": {"idle": text}}).timeouts.idle == seconds


@pytest.mark.parametrize("text", ["", "s", "5 m s", "-5s", "5S", "1e3", "five", "5s6"])
def test_what_is_no_duration(text: str):
    with pytest.raises(ValueError, match="is no duration"):
        parse_duration(text)


@pytest.mark.parametrize(("given", "seconds"), [(5, 5.0), (0.25, 0.25), (None, None)])
def test_a_duration_may_be_a_number_or_nothing(given: Any, seconds: float | None):
    assert check({"timeouts": {"idle": given}}).timeouts.idle == seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        ("512B", 512),
        ("512KiB", 512 << 10),
        ("100MiB", 100 << 20),
        ("1GiB", 1 << 30),
        ("2kB", 2000),
        ("2 MB", 2 * 10**6),
    ],
)
def test_sizes(text: str, size: int):
    assert parse_size(text) == size
    assert check({"server": {"max_body": text}}).server.max_body == size


@pytest.mark.parametrize("text", ["", "MiB", "1.5MiB", "-1", "1 KB iB", "1k"])
def test_what_is_no_size(text: str):
    with pytest.raises(ValueError, match="is no size"):
        parse_size(text)


def test_defaults_have_the_type_of_what_is_loaded():
    for struct in structs():
        if struct in (Upstream, Key) or struct.__struct_fields__ == ():
            continue
        for field in msgspec.structs.fields(struct):
            kinds = get_args(get_type_hints(struct)[field.name]) or (get_type_hints(struct)[field.name],)
            value = field.default
            if value is not None and (Duration in kinds or Size in kinds):
                assert type(value) in kinds, field.name


# --- the environment -------------------------------------------------------------------------------------------------


def test_the_environment_is_laid_over_the_file(tmp_path: Path):
    path = written(tmp_path, "server: {port: 1, host: '::1'}\ntimeouts: {idle: 5s}\n")
    environ = {"PENSTOCK_SERVER__PORT": "9000", "PENSTOCK_TIMEOUTS__TOTAL": "2m", "HOME": "/x", "PENSTOCK": "no"}
    config = load(path, environ)
    assert (config.server.port, config.server.host) == (9000, "::1")
    assert (config.timeouts.idle, config.timeouts.total) == (Duration(5), Duration(120))


def test_the_environment_alone():
    environ = {
        "PENSTOCK_UPSTREAMS__LOCAL__URL": "http://127.0.0.1:8080/v1",
        "PENSTOCK_MODELS__FAST": "local:qwen3",
        "PENSTOCK_TELEMETRY__STORE__PATH": "null",
        "PENSTOCK_TELEMETRY__LOG__FORMAT": "off",
        "PENSTOCK_HEARTBEAT": "{interval: 1s}",
    }
    config = load(None, environ)
    assert config.upstreams["local"].url == "http://127.0.0.1:8080/v1"
    assert config.models == {"fast": "local:qwen3"}
    assert config.telemetry.store.path is None
    assert config.telemetry.log.format == "off"
    assert config.heartbeat.interval == Duration(1)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("PENSTOCK_SERVER__PROT", "1", "there is no key `server.prot`. Did you mean `port`?"),
        ("PENSTOCK_SERVER__PORT", "x", "server.port: "),
        ("PENSTOCK_SERVER__PORT__X", "1", "server.port"),
        ("PENSTOCK_SERVER__PORT", "[", "PENSTOCK_SERVER__PORT is not a YAML value"),
    ],
)
def test_a_mistake_in_the_environment(tmp_path: Path, name: str, value: str, said: str):
    path = written(tmp_path, "server: {port: 1}")
    with pytest.raises(ConfigError) as raised:
        load(path, {name: value})
    assert said in str(raised.value) or name in str(raised.value)
    assert "\n" not in str(raised.value)


def test_names_that_are_no_keys_are_left_alone():
    assert read(None, dict.fromkeys(NOT_KEYS, "1")) == {}
    assert read(None, {"PENSTOCK_": "1", "XPENSTOCK_A": "1"}) == {}


def test_the_file_itself_is_not_changed_by_the_environment(tmp_path: Path):
    path = written(tmp_path, "server: {port: 1}")
    load(path, {"PENSTOCK_SERVER__PORT": "2"})
    assert load(path, {}).server.port == 1


# --- targets and keys ------------------------------------------------------------------------------------------------


def test_models_lead_to_targets():
    given = {
        "upstreams": {
            "local": {"url": "http://127.0.0.1:8080/v1", "profile": "llamacpp", "headers": {"x-a": "1"}},
            "claude": {"url": "https://api.anthropic.com/v1", "dialect": "anthropic-messages", "key_env": "A_KEY"},
        },
        "models": {"fast": "local:qwen3", "claude-*": "claude"},
    }
    table = destinations(check(given), {"A_KEY": KEY})
    fast, claude = table["fast"].first, table["claude-*"].first
    assert (fast.upstream, fast.model, fast.profile, fast.key, fast.headers) == (
        "local",
        "qwen3",
        "llamacpp",
        None,
        (("x-a", "1"),),
    )
    assert (claude.model, claude.dialect) == (None, "anthropic-messages")
    assert claude.key is not None
    assert claude.key.reveal() == KEY


def test_an_upstreams_model_may_have_colons():
    assert destinations(check({**LOCAL, "models": {"m": "local:qwen3:8b"}}), {})["m"].first.model == "qwen3:8b"


def test_the_only_upstream_takes_every_model_where_none_is_named():
    assert list(destinations(check(LOCAL), {})) == ["*"]
    two = {"upstreams": {**LOCAL["upstreams"], "other": {"url": "http://x"}}}
    assert destinations(check(two), {}) == {}
    assert destinations(check({}), {}) == {}


@pytest.mark.parametrize("environ", [{}, {"A_KEY": ""}])
def test_a_missing_key_names_its_variable(environ: dict[str, str]):
    config = check({"upstreams": {"a": {"url": "http://x", "key_env": "A_KEY"}}})
    with pytest.raises(ConfigError) as raised:
        destinations(config, environ)
    assert str(raised.value) == "The key of upstream `a` is not set. Put it in the variable A_KEY."


def test_c13_a_configuration_prints_no_key():
    upstream = {"url": "http://x", "key_env": "A_KEY", "headers": {"x-api-key": KEY}}
    config = check({"upstreams": {"a": upstream}})
    table = destinations(config, {"A_KEY": KEY})
    for shown in (repr(config), str(config), repr(config.upstreams), f"{config.upstreams['a']}", repr(table)):
        assert KEY not in shown
    assert "x-api-key" in repr(config)
    assert table["*"].first.headers == (("x-api-key", KEY),)


def test_c13_a_mistake_in_a_header_is_not_quoted():
    said = refused({"upstreams": {"a": {"url": "http://x", "headers": [KEY]}}})
    assert KEY not in said


@pytest.mark.parametrize(
    "url", ["http://user:hunter2@127.0.0.1:9/v1", "https://hunter2@host/v1", "ftp://u:hunter2@h/v1"]
)
def test_c13_a_password_in_a_url_is_refused_and_not_repeated(url: str):
    with pytest.raises(ConfigError, match="holds a user name or password") as caught:
        check({"upstreams": {"u": {"url": url}}})
    assert "hunter2" not in str(caught.value)


def test_an_at_sign_in_a_path_is_no_password():
    assert check({"upstreams": {"u": {"url": "http://host/a@b/v1"}}}).upstreams["u"].url == "http://host/a@b/v1"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"url": "http://h:8086"}, "version 2 needs a bucket"),
        ({"url": "http://h:8086", "version": 1, "bucket": "b"}, "version 1 needs a database"),
        ({"url": "http://me:secret@h", "bucket": "b"}, "holds a user name or password"),
        ({"url": "influx:8086", "bucket": "b"}, "no http:// or https:// URL"),
        ({"url": "http://h:8086", "buckt": "b"}, "Did you mean `bucket`?"),
    ],
)
def test_what_is_wrong_with_influxdb_is_said(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check({"telemetry": {"influxdb": given}})
    assert said in str(caught.value)
    assert "secret" not in str(caught.value)
