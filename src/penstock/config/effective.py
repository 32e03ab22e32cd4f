"""What the configuration comes to: every key with its value, and where the value is from.

Sources, the strongest first: a variable of the environment, the file, what the catalogue knows of an upstream's
provider, the default. What may be a secret is `***`: the values of headers, and keys, of which only the variable and
whether it is set are told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct, UnsetType

from penstock.catalogue.provider import find_key
from penstock.config.load import check, read, variables
from penstock.config.schema import written

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from penstock.config.model import Config, Upstream

HIDDEN = "***"

#: fields whose value, or whose mapping's values, may be secrets
_SECRETS = frozenset({"headers", "sha256"})


class Setting(Struct, frozen=True):
    """`key` is the path of the value, step by step; `source` a variable, a file, `catalogue: NAME`, or `default`."""

    key: tuple[str, ...]
    value: Any
    source: str

    @property
    def path(self) -> str:
        return ".".join(self.key)


def effective(path: str | Path | None, environ: Mapping[str, str]) -> list[Setting]:
    """Every value of the configuration that this file and this environment make, in the order of its shape."""
    given = read(path, environ)
    config = check(given, str(path) if path is not None else "the environment", environ)
    in_file = read(path, {}) if path is not None else {}
    said_by = {steps: name for name, steps in variables(environ)}

    def source(key: tuple[str, ...]) -> str:
        for length in range(len(key), 0, -1):
            if key[:length] in said_by:
                return said_by[key[:length]]
        if _has(in_file, key):
            return str(path)
        upstream = config.upstreams.get(key[1]) if key[0] == "upstreams" and len(key) > 2 else None
        if upstream is not None and upstream.provider is not None and not _is_default(upstream, key[2]):
            return f"catalogue: {upstream.provider}"
        return "default"

    found = [Setting(key, value, source(key)) for key, value in _leaves(config, ())]
    for name, upstream in config.upstreams.items():
        key = _key(name, upstream, environ)
        if key is not None:
            at = next(i for i in range(len(found), 0, -1) if found[i - 1].key[:2] == ("upstreams", name))
            found.insert(at, key)
    return found


def differences(old: Config, new: Config) -> list[str]:
    """The paths of the values that are not the same in both, in the order of the shape."""
    before, after = dict(_leaves(old, (), plain=True)), dict(_leaves(new, (), plain=True))
    both = {**before, **after}
    missing = object()
    return [".".join(key) for key in both if before.get(key, missing) != after.get(key, missing)]


def _key(name: str, upstream: Upstream, environ: Mapping[str, str]) -> Setting | None:
    """No key of the file: whether the upstream's own key is set, and by which variable."""
    variables = upstream.key_variables
    if not variables:
        return None
    held = next((variable for variable in variables if environ.get(variable)), None)
    found = held is not None or find_key(variables, upstream.auth, environ)[0] is not None
    return Setting(
        ("upstreams", name, "(key)"), HIDDEN if found else None, held or ("environment" if found else "not set")
    )


def _leaves(struct: Struct, key: tuple[str, ...], *, plain: bool = False) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every value with its path. `plain`: as it is, secrets and all; else as it may be shown."""
    for field in msgspec.structs.fields(struct):
        value, at = getattr(struct, field.name), (*key, field.encode_name)
        if isinstance(value, Struct):
            yield from _leaves(value, at, plain=plain)
        elif isinstance(value, dict) and value:
            for name, entry in value.items():
                if isinstance(entry, Struct):
                    yield from _leaves(entry, (*at, str(name)), plain=plain)
                else:
                    yield (*at, str(name)), entry if plain else _told(field.name, entry)
        elif not isinstance(value, UnsetType):
            yield at, value if plain else _told(field.name, value)


def _told(name: str, value: Any) -> Any:
    return HIDDEN if name in _SECRETS and value else _shown(written(value))


def _shown(value: Any) -> Any:
    """Secrets within it hidden, however deep."""
    if isinstance(value, list):
        return [_shown(entry) for entry in value]
    if isinstance(value, dict):
        return {key: HIDDEN if key in _SECRETS and entry else _shown(entry) for key, entry in value.items()}
    return value


def _has(given: Any, key: tuple[str, ...]) -> bool:
    for step in key:
        if not isinstance(given, dict):
            return True  # a list, or a value in the place of a section: all of it was said here
        named = next((name for name in given if str(name) == step), None)
        if named is None:
            return False
        given = given[named]
    return True


def _is_default(struct: Struct, name: str) -> bool:
    field = next(field for field in msgspec.structs.fields(struct) if field.encode_name == name)
    if field.default_factory is not msgspec.NODEFAULT:
        return bool(getattr(struct, field.name) == field.default_factory())
    return bool(getattr(struct, field.name) == field.default)
