"""Where a provider's key comes from when a program passes none: the environment, a `.env` file, the system's keyring.

In that order; the first that has one of the provider's variables wins. A `.env` file gives keys, and what fills the
provider's URL beside them; a key of the environment is never sent to a URL that a file has filled in. The keyring is
asked where the extra `keyring` is installed: its service is `penstock`, its user name the variable.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.canon.errors import ConfigError
from penstock.canon.target import Secret
from penstock.catalogue.provider import find_key, key_fix

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from penstock.catalogue.provider import Provider

ENV_FILE = ".env"
SERVICE = "penstock"


def found_key(
    entry: Provider, environ: Mapping[str, str], env_file: str | Path | None
) -> tuple[Secret | None, str | None, Mapping[str, str]]:
    """The key, where it goes, and the variables that fill the provider's URL."""
    key, auth = find_key(entry.key_env, entry.auth, environ)
    if key is not None or entry.auth == "none":
        return key, auth, environ
    beside = {**read_env_file(env_file), **environ}
    key, auth = find_key(entry.key_env, entry.auth, beside)
    if key is not None:
        return key, auth, beside
    if (said := _from_keyring(entry.key_env)) is not None:
        return Secret(said), "bearer" if entry.auth == "sigv4" else entry.auth, environ
    return None, auth, environ


def no_key(entry: Provider, env_file: str | Path | None) -> ConfigError:
    """What to raise where there is none: the variable that would hold it is named."""
    places = f" (in the environment or in {env_file})" if env_file is not None else ""
    return ConfigError(
        f"There is no key for {entry.id}.", fix=f"Set {key_fix(entry.key_env, entry.auth)}{places}, or pass key=."
    )


def read_env_file(path: str | Path | None) -> Mapping[str, str]:
    """What the file says; nothing where there is none. Read again only when it has changed."""
    if path is None:
        return {}
    file = Path(path)
    try:
        told = file.stat()
    except OSError:
        return {}
    if not file.is_file():
        return {}
    return _read(file.absolute(), told.st_mtime_ns, told.st_size)


@lru_cache(maxsize=8)
def _read(path: Path, _changed_ns: int, _size: int) -> Mapping[str, str]:
    from dotenv import dotenv_values  # 10 ms, for programs that have such a file

    try:
        return {name: value for name, value in dotenv_values(path, interpolate=False).items() if value}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"Cannot read {path}: {error.__class__.__name__}.", fix="Write NAME=value lines.") from None


def _from_keyring(variables: Iterable[str]) -> str | None:
    """The only place that knows of the keyring; without the extra there is none to ask."""
    if find_spec("keyring") is None:
        return None
    import keyring
    from keyring.errors import KeyringError

    try:
        return next((said for name in variables if (said := keyring.get_password(SERVICE, name))), None)
    except KeyringError:  # locked, or none on this machine
        return None
