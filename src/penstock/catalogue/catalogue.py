"""The catalogue: Penstock's own `providers.toml`, and the user's file laid over it.

An entry of the user's with an id that exists is merged into it field by field (a table within, such as `cost`, entry by
entry); another id is a new provider. Read when first asked for, and again only when the user's file has changed.
"""

from __future__ import annotations

import tomllib
from functools import cache, lru_cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.canon.errors import ConfigError
from penstock.catalogue.provider import Provider, nearest, provider

if TYPE_CHECKING:
    from collections.abc import Mapping

#: names the user's file, instead of the one at its usual place
VARIABLE = "PENSTOCK_PROVIDERS"


def catalogue(overlay: str | Path | None = None) -> Mapping[str, Provider]:
    """id → provider: the built-in ones, with those of the file `overlay` on top."""
    if overlay is None:
        return _built_in()
    path = Path(overlay).expanduser()
    try:
        told = path.stat()
    except OSError as error:
        raise ConfigError(f"Cannot read {path}: {error.strerror or error}.", fix=f"Check {VARIABLE}.") from error
    return _laid_over(path, told.st_mtime_ns, told.st_size)


def users_file(environ: Mapping[str, str]) -> Path | None:
    """The file that PENSTOCK_PROVIDERS names; else `penstock/providers.toml` in the user's configuration, if there."""
    if named := environ.get(VARIABLE):
        return Path(named)
    if not (base := environ.get("XDG_CONFIG_HOME")):
        if not (home := environ.get("HOME")):
            return None
        base = f"{home}/.config"
    path = Path(base) / "penstock" / "providers.toml"
    return path if path.is_file() else None


def find(name: str, providers: Mapping[str, Provider]) -> Provider:
    found = providers.get(name)
    if found is None:
        raise ConfigError(f"There is no provider `{name}`.", fix=nearest(name, providers))
    return found


@cache
def _raw() -> dict[str, Any]:
    return tomllib.loads((files(__package__) / "providers.toml").read_text(encoding="utf-8"))


@cache
def _built_in() -> dict[str, Provider]:
    return {id_: provider(id_, fields, "providers.toml") for id_, fields in _raw().items()}


@lru_cache(maxsize=8)
def _laid_over(path: Path, _changed_ns: int, _size: int) -> dict[str, Provider]:
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"Cannot read {path}: {error.strerror or error}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {' '.join(str(error).split()).rstrip('.')}.") from error
    merged = dict(_built_in())
    for id_, fields in given.items():
        known = _raw().get(id_)
        merged[id_] = provider(id_, fields if known is None else laid_over(known, fields), str(path))
    return merged


def laid_over(below: Mapping[str, Any], above: Any) -> Any:
    """Field by field; a table within, entry by entry."""
    if not isinstance(above, dict):
        return above
    merged = {**below, **above}
    for key, value in above.items():
        if isinstance(value, dict) and isinstance(below.get(key), dict):
            merged[key] = {**below[key], **value}
    return merged
