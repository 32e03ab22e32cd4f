"""YAML and environment → `Config`; every mistake is one `ConfigError` with the key, and the nearest one that exists.

`PENSTOCK_SERVER__PORT=9000` sets `server.port`: two underscores are a step down. Only this module and the command line
read the environment.
"""

from __future__ import annotations

import difflib
import ipaddress
import math
import os
import re
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

import msgspec
import yaml
from msgspec.structs import asdict

from penstock.canon.errors import ConfigError
from penstock.canon.key import Moment
from penstock.canon.model import of_model
from penstock.canon.target import Target
from penstock.catalogue.catalogue import catalogue, laid_over, users_file
from penstock.catalogue.provider import check_auth, check_url, filled, find_key, is_local, key_fix
from penstock.catalogue.provider import nearest as _nearest_provider
from penstock.config.keys import check_keys, parse_moment, resolved
from penstock.config.model import Config, Duration, InfluxDB, Size, Upstream
from penstock.config.models import check_models, destination
from penstock.dialects import DIALECTS
from penstock.policy.recovery import goes_on

if TYPE_CHECKING:
    from collections.abc import Mapping

    from penstock.canon.key import Key
    from penstock.canon.price import Price
    from penstock.catalogue.provider import Provider
    from penstock.policy.routing import Destination

PREFIX = "PENSTOCK_"

#: what an upstream takes from its provider
_TAKEN = (
    "url",
    "dialect",
    "profile",
    "key_env",
    "auth",
    "headers",
    "placeholders",
    "models_path",
    "cost",
    "capabilities",
)

#: names under PENSTOCK_ that are not configuration keys
NOT_KEYS = frozenset({"PENSTOCK_AGENTS", "PENSTOCK_CLIENTS", "PENSTOCK_RECORD", "PENSTOCK_REQUIRE_SERVERS"})

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?")
_SECONDS = {"ms": 0.001, "s": 1.0, None: 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s?#@]+|\*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SIZE = re.compile(r"(\d+)\s*(B|KiB|MiB|GiB|kB|MB|GB)?")
_BYTES = {None: 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "kB": 10**3, "MB": 10**6, "GB": 10**9}


class _Yaml(yaml.SafeLoader):
    """With YAML 1.2's truth values: `off`, `no` and `on` are words (`telemetry.log.format: off`)."""


_BOOL = "tag:yaml.org,2002:bool"
_Yaml.yaml_implicit_resolvers = {
    first: [row for row in rows if row[0] != _BOOL] for first, rows in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Yaml.add_implicit_resolver(_BOOL, re.compile(r"true|True|TRUE|false|False|FALSE"), list("tTfF"))


def _yaml(text: str) -> Any:
    return yaml.load(text, _Yaml)


def load(path: str | Path | None = None, environ: Mapping[str, str] | None = None) -> Config:
    """The configuration in `path` (none: all defaults), with what the environment says on top."""
    return check(read(path, environ), str(path) if path is not None else "the environment", environ)


def read(path: str | Path | None = None, environ: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What the file and the environment say, unchecked."""
    given: Any = {}
    if path is not None:
        try:
            given = _yaml(Path(path).read_text(encoding="utf-8")) or {}
        except OSError as error:
            raise ConfigError(f"Cannot read {path}: {error.strerror or error}.", fix="Check --config.") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} is not YAML: {_one_line(error)}.") from error
        if not isinstance(given, dict):
            raise ConfigError(f"{path} holds no mapping of keys.", fix="Begin with `upstreams:`.")
    _overlay(given, os.environ if environ is None else environ)
    found: dict[str, Any] = given
    return found


def check(given: dict[str, Any], where: str = "the configuration", environ: Mapping[str, str] | None = None) -> Config:
    """Plain values → `Config`, or the one sentence that says what is wrong with them.

    The environment says where the user's file of providers is.
    """
    _known_keys(given, Config, where, "")
    given = _from_catalogue(given, where, os.environ if environ is None else environ)
    try:
        config = msgspec.convert(given, Config, dec_hook=_special)
    except msgspec.ValidationError as error:
        message, _, at = str(error).partition(" - at `")
        at = at.replace("key` in `", "").rstrip("`").removeprefix("$").removeprefix(".")
        raise ConfigError(f"In {where}, {_named(given, at) or 'the top level'}: {_plain(message)}.") from error
    for name, upstream in config.upstreams.items():
        if upstream.dialect not in DIALECTS:
            raise ConfigError(
                f"In {where}, upstreams.{name}.dialect: there is no dialect `{upstream.dialect}`.",
                fix=_nearest(upstream.dialect, list(DIALECTS)),
            )
        if not all(map(_VARIABLE.fullmatch, upstream.key_variables)):
            raise ConfigError(  # without repeating it: it may be the key itself
                f"In {where}, upstreams.{name}.key_env: that is no variable's name.",
                fix="Put the key into a variable, and name that here.",
            )
        check_url(upstream.url, upstream.placeholders, f"{where}, upstreams.{name}")
        check_auth(upstream.auth, upstream.dialect, f"{where}, upstreams.{name}")
        if upstream.forward_auth and upstream.auth in ("none", "sigv4"):
            raise ConfigError(
                f"In {where}, upstreams.{name}: with auth: {upstream.auth} there is no place for a client's key.",
                fix="Leave out forward_auth, or auth.",
            )
    check_keys(config.server.keys, f"{where}, server")
    _check_influxdb(config.telemetry.influxdb, f"{where}, telemetry.influxdb")
    for origin in config.server.cors_origins:
        if not _ORIGIN.fullmatch(origin):
            raise ConfigError(
                f"In {where}, server.cors_origins: `{origin}` is no origin.",
                fix="Write scheme, host and port alone: https://app.example.com",
            )
    check_reach(config, where)
    if config.streaming.force_non_streaming and not config.streaming.fallback:
        raise ConfigError(
            f"In {where}, streaming: without fallback, force_non_streaming leaves no streams at all.",
            fix="Set streaming.fallback to true.",
        )
    check_models(config, where)
    return config


def check_reach(config: Config, where: str) -> None:
    """Whom others can reach has keys."""
    if not is_loopback(config.server.host) and not config.server.keys and config.server.keys_file is None:
        raise ConfigError(
            f"In {where}, server.host: at {config.server.host} others can reach the gateway, and there are no keys.",
            fix="Make one with `penstock keys new NAME` and name its file in server.keys_file, or listen on 127.0.0.1.",
        )


def destinations(config: Config, environ: Mapping[str, str] | None = None) -> dict[str, Destination]:
    """The table of models: where each leads, targets with their keys. A missing key names its variable."""
    environ = os.environ if environ is None else environ
    # Without a table of models, whatever a client names goes to the only upstream there is.
    models = config.models or ({"*": next(iter(config.upstreams))} if len(config.upstreams) == 1 else {})
    return {model: destination(given, lambda spec: _target(config, spec, environ)) for model, given in models.items()}


def _target(config: Config, spec: str, environ: Mapping[str, str]) -> Target:
    name, _, upstream_model = spec.partition(":")
    upstream = config.upstreams[name]
    forward = upstream.forward_auth  # the client's own key then, and none of ours
    key, auth = find_key(() if forward else upstream.key_variables, upstream.auth, environ)
    if key is None and not forward and not _goes_without_key(upstream):
        raise ConfigError(
            f"The key of upstream `{name}` is not set.",
            fix=f"Put it in the variable {key_fix(upstream.key_variables, upstream.auth)}.",
        )
    return Target(
        upstream=name,
        url=filled(upstream.url, upstream.placeholders, environ, f"upstream `{name}`"),
        dialect=upstream.dialect,
        model=upstream_model or None,
        key=key,
        profile=upstream.profile,
        headers=tuple(upstream.headers.items()),
        auth=auth,
        forward_auth=forward,
    )


def gateway_keys(config: Config, environ: Mapping[str, str] | None = None) -> list[Key]:
    """The gateway's own keys that the configuration names, by their hashes."""
    return resolved(config.server.keys, os.environ if environ is None else environ)


def influxdb_token(config: Config, environ: Mapping[str, str] | None = None) -> str | None:
    """None where the variable is not set: an InfluxDB of one's own may want none."""
    return (os.environ if environ is None else environ).get(config.telemetry.influxdb.token_env) or None


def semantic_conventions(environ: Mapping[str, str] | None = None) -> str | None:
    """Which names OpenTelemetry's user has asked for, by its own variable."""
    return (os.environ if environ is None else environ).get("OTEL_SEMCONV_STABILITY_OPT_IN")


def _check_influxdb(influxdb: InfluxDB, where: str) -> None:
    if influxdb.url is None:
        return
    needed = "bucket" if influxdb.version == 2 else "database"
    if not getattr(influxdb, needed):
        raise ConfigError(
            f"In {where}: version {influxdb.version} needs a {needed}.", fix=f"Name it: {needed}: penstock"
        )
    check_url(influxdb.url, {}, where)


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine can reach it. Another name than `localhost` may be anywhere."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def upstream_target(config: Config, name: str, environ: Mapping[str, str] | None = None) -> Target:
    """One upstream's target, its model left open."""
    if name not in config.upstreams:
        raise ConfigError(f"There is no upstream `{name}`.", fix=_nearest(name, list(config.upstreams)))
    alone = msgspec.structs.replace(config, upstreams={name: config.upstreams[name]}, models={"*": name})
    return destinations(alone, environ)["*"].first


def stated_capabilities(config: Config) -> dict[str, dict[str, bool]]:
    """What the configuration says of its upstreams, and the catalogue through it: upstream → name → whether."""
    return {
        name: {word: value for word, value in asdict(upstream.capabilities).items() if value is not None}
        for name, upstream in config.upstreams.items()
    }


def continues(config: Config, target: Target) -> bool:
    """Whether a target goes on with a reply whose beginning it is given: as its owner says, or as its kind does."""
    upstream = config.upstreams.get(target.upstream)
    said = upstream.capabilities.prefill if upstream is not None else None
    return goes_on(target) if said is None else said


def price(config: Config, target: Target, model: str) -> Price | None:
    """What a model's tokens cost at a target of this configuration; None where nobody said."""
    upstream = config.upstreams.get(target.upstream)
    return of_model(model, upstream.cost) if upstream is not None else None


def _goes_without_key(upstream: Upstream) -> bool:
    """None was named, or a provider on this machine names one that it may have."""
    return (
        not upstream.key_variables
        or upstream.auth == "none"
        or (upstream.provider is not None and is_local(upstream.url))
    )


def _from_catalogue(given: dict[str, Any], where: str, environ: Mapping[str, str]) -> dict[str, Any]:
    """`given` with what the catalogue knows of each upstream's provider; what is said here wins."""
    upstreams, named = given.get("upstreams"), given.get("providers")
    asked = isinstance(upstreams, dict) and any(isinstance(it, dict) and "provider" in it for it in upstreams.values())
    if not asked and not isinstance(named, str):
        return given
    table = catalogue(named if isinstance(named, str) else users_file(environ))
    merged = dict(upstreams) if isinstance(upstreams, dict) else {}
    for name, entry in merged.items():
        provider = entry.get("provider") if isinstance(entry, dict) else None
        if not isinstance(provider, str):
            continue
        if provider not in table:
            raise ConfigError(
                f"In {where}, upstreams.{name}.provider: there is no provider `{provider}`.",
                fix=_nearest_provider(provider, table),
            )
        merged[name] = laid_over(_known_of(table[provider], entry), entry)
    return {**given, "upstreams": merged} if merged else given


def _known_of(provider: Provider, entry: dict[str, Any]) -> dict[str, Any]:
    """What an upstream takes from its provider. At another dialect its profile and the key's place mean nothing, and at
    another URL the place of its list."""
    known = {name: msgspec.to_builtins(getattr(provider, name)) for name in _TAKEN}
    if "url" in entry:
        known["models_path"] = None
    if entry.get("dialect", provider.dialect) != provider.dialect:
        known |= {"profile": None, "auth": None, "capabilities": {}}
    return known


def parse_duration(text: str) -> Duration:
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"`{text}` is no duration; write 500ms, 5s, 2m, 1h or 30d")
    return Duration(float(found[1]) * _SECONDS[found[2]])


def parse_size(text: str) -> Size:
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"`{text}` is no size; write 512KiB or 100MiB")
    return Size(int(found[1]) * _BYTES[found[2]])


def _special(type_: type, value: Any) -> Any:
    if type_ is Duration and isinstance(value, str | int | float) and not isinstance(value, bool):
        duration = parse_duration(value) if isinstance(value, str) else Duration(value)
        if not 0 < duration < math.inf:
            raise ValueError(f"`{value}` is no duration; write 500ms, 5s, 2m, 1h or 30d")
        return duration
    if type_ is Size and isinstance(value, str | int) and not isinstance(value, bool):
        size = parse_size(value) if isinstance(value, str) else Size(value)
        if size < 0:
            raise ValueError(f"`{value}` is no size; write 512KiB or 100MiB")
        return size
    if type_ is Moment and isinstance(value, str | date):
        return parse_moment(value)
    raise ValueError(f"`{value}` does not belong here")


def _named(given: Any, at: str) -> str:
    """The path with the names that msgspec writes as `[...]`: of each mapping, the entry that fails on its own."""
    steps: list[str] = []
    head, elided, rest = at.partition("[...]")
    while elided:
        steps += filter(None, head.split("."))
        section = {steps[0]: given[steps[0]]}
        given = next(alone for key in _mapping(given, steps) if not _fits(alone := _only(section, steps, key)))
        steps.append(next(iter(_mapping(given, steps))))
        head, elided, rest = rest.partition("[...]")
    return ".".join([*steps, *filter(None, head.split("."))])


def _mapping(given: Any, steps: list[str]) -> dict[str, Any]:
    for step in steps:
        given = given[step]
    found: dict[str, Any] = given
    return found


def _only(given: dict[str, Any], steps: list[str], key: str) -> dict[str, Any]:
    """`given` with nothing but `key` in the mapping that `steps` lead to."""
    if not steps:
        return {key: given[key]}
    return {**given, steps[0]: _only(given[steps[0]], steps[1:], key)}


def _fits(given: dict[str, Any]) -> bool:
    try:
        msgspec.convert(given, Config, dec_hook=_special)
    except msgspec.ValidationError:
        return False
    return True


def variables(environ: Mapping[str, str]) -> list[tuple[str, tuple[str, ...]]]:
    """The variables that say a key, in the order of their names, each with the steps to its key."""
    names = [name for name in sorted(environ) if name.startswith(PREFIX) and name not in NOT_KEYS and name != PREFIX]
    return [(name, tuple(name[len(PREFIX) :].lower().split("__"))) for name in names]


def _overlay(given: dict[str, Any], environ: Mapping[str, str]) -> None:
    for name, (*steps, last) in variables(environ):
        place = given
        for step in steps:
            inner = place.setdefault(step, {})
            if not isinstance(inner, dict):
                raise ConfigError(f"{name} names a key below `{step}`, which holds a value.")
            place = inner
        try:
            place[last] = _yaml(environ[name])
        except yaml.YAMLError as error:
            raise ConfigError(f"{name} is not a YAML value: {_one_line(error)}.") from error


def _known_keys(given: dict[str, Any], struct: type[msgspec.Struct], where: str, path: str) -> None:
    """Refuse unknown keys with the nearest known one, which msgspec's own refusal does not name."""
    hints = get_type_hints(struct)
    for key, value in given.items():
        at = f"{path}{key}"
        if key not in hints:
            raise ConfigError(f"In {where}, there is no key `{at}`.", fix=_nearest(str(key), list(hints)))
        candidates = (hints[key], *get_args(hints[key]))
        inner = next((t for t in candidates if isinstance(t, type) and issubclass(t, msgspec.Struct)), None)
        if inner is None:
            continue
        if isinstance(value, list):
            for number, entry in enumerate(value):
                if isinstance(entry, dict):
                    _known_keys(entry, inner, where, f"{at}[{number}].")
        elif not isinstance(value, dict):
            continue
        elif inner is hints[key]:
            _known_keys(value, inner, where, f"{at}.")
        else:
            for name, entry in value.items():
                if isinstance(entry, dict):
                    _known_keys(entry, inner, where, f"{at}.{name}.")


def _nearest(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    if close:
        return f"Did you mean `{close[0]}`?"
    return f"Known: {', '.join(sorted(known))}." if known else "None is configured."


def _plain(message: str) -> str:
    return message.rstrip(".")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")
