"""The gateway's own keys: from the configuration and its environment, and in a file that `penstock keys` writes.

A key itself is seen twice: when it is made, and when its variable is read. Everything after that has its SHA-256. The
file is JSON, written whole and atomically, for its owner alone to read (0600); writers take turns.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
import sys
import tempfile
from contextlib import contextmanager
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from penstock.canon.errors import ConfigError
from penstock.canon.key import Key, Moment, digest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

#: how keys begin that are made here, so that scanners of leaked secrets can know them
PREFIX = "pnsk_"

#: A shorter one could be guessed, whatever it is made of.
MIN_KEY_CHARS = 16

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


class _File(msgspec.Struct, forbid_unknown_fields=True):
    keys: tuple[Key, ...] = ()


def new_key() -> str:
    """256 random bits, in characters that need no quoting anywhere."""
    return PREFIX + secrets.token_urlsafe(32)


def parse_moment(value: str | date) -> Moment:
    """A day (its beginning), or a day and a time; UTC unless it says otherwise."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise ValueError(f"`{value}` is no moment; write 2027-01-31 or 2027-01-31T18:00:00Z") from None
    if not isinstance(value, datetime):
        value = datetime.combine(value, time())
    return Moment((value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp())


def written_moment(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def check_keys(keys: Sequence[Key], where: str) -> None:
    """Each has a name of its own, and is known by exactly one of its hash and its variable."""
    seen: set[str] = set()
    for number, key in enumerate(keys):
        at = f"In {where}, keys[{number}]"
        if not _NAME.fullmatch(key.name):
            raise ConfigError(
                f"{at}.name: `{key.name}` is no name for a key.", fix="Use letters, digits and . _ @ -, at most 64."
            )
        if key.name in seen:
            raise ConfigError(f"{at}.name: there are two keys `{key.name}`.", fix="Give each a name of its own.")
        seen.add(key.name)
        if (key.env is None) == (key.sha256 is None):
            raise ConfigError(
                f"{at}: `{key.name}` needs either `env` or `sha256`.",
                fix="Name the variable that holds the key, or let `penstock keys new` make one.",
            )
        if key.sha256 is not None and not _DIGEST.fullmatch(key.sha256):
            raise ConfigError(f"{at}.sha256: that is no SHA-256.", fix="It has 64 hexadecimal digits, in lower case.")


def resolved(keys: Sequence[Key], environ: Mapping[str, str]) -> list[Key]:
    """The keys by their hashes. Raises `ConfigError` for a variable that is not set, or holds too little."""
    found = []
    for key in keys:
        if key.env is not None:
            held = environ.get(key.env, "")
            if not held:
                raise ConfigError(f"The gateway key `{key.name}` is not set.", fix=f"Put it in the variable {key.env}.")
            if len(held) < MIN_KEY_CHARS:
                raise ConfigError(
                    f"The gateway key `{key.name}` in {key.env} is shorter than {MIN_KEY_CHARS} characters.",
                    fix="Let `penstock keys new` make one.",
                )
            key = msgspec.structs.replace(key, env=None, sha256=digest(held))
        found.append(key)
    return found


# --- the file ---------------------------------------------------------------------------------------------------------


def read_keys(path: str | Path) -> tuple[Key, ...]:
    """What the file holds. Raises `ConfigError` when it cannot be read, is wrong, or can be written by others."""
    try:
        with Path(path).open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            raw = file.read()
    except FileNotFoundError:
        raise ConfigError(
            f"There is no keys file {path}.", fix=f"Make it with `penstock keys new NAME --file {path}`."
        ) from None
    except OSError as error:
        raise ConfigError(f"Cannot read the keys file {path}: {error.strerror or error}.") from error
    if sys.platform != "win32" and stat.S_IMODE(mode) & 0o022:
        raise ConfigError(f"Others may write to the keys file {path}.", fix=f"Take it from them: chmod 600 {path}")
    try:
        keys = msgspec.json.decode(raw, type=_File, dec_hook=_moment).keys
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no keys file: {str(error).rstrip('.')}.") from error
    check_keys(keys, str(path))
    return keys


def add_key(path: str | Path, key: Key) -> None:
    """Write it in; the file is made where there is none."""
    with _turn(path):
        keys = read_keys(path) if Path(path).exists() else ()
        if any(known.name == key.name for known in keys):
            raise ConfigError(
                f"There is a key `{key.name}` already.", fix=f"Take another name, or `penstock keys revoke {key.name}`."
            )
        check_keys((*keys, key), str(path))
        _write(path, (*keys, key))


def remove_key(path: str | Path, name: str) -> None:
    with _turn(path):
        keys = read_keys(path)
        left = tuple(key for key in keys if key.name != name)
        if len(left) == len(keys):
            known = ", ".join(sorted(key.name for key in keys)) or "none"
            raise ConfigError(f"There is no key `{name}` in {path}.", fix=f"Known: {known}.")
        _write(path, left)


@contextmanager
def _turn(path: str | Path) -> Iterator[None]:
    """One writer at a time: by a lock on the folder, which leaves nothing behind."""
    if sys.platform == "win32":  # has no such lock
        yield
        return
    try:
        folder = os.open(Path(path).resolve().parent, os.O_RDONLY)
    except OSError as error:
        raise ConfigError(f"Cannot write the keys file {path}: {error.strerror or error}.") from error
    try:
        import fcntl

        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _write(path: str | Path, keys: Sequence[Key]) -> None:
    """The whole file, in one step that a reader sees all of or nothing of. A link stays one."""
    place = Path(path).resolve()
    raw = msgspec.json.format(msgspec.json.encode({"keys": keys}, enc_hook=_written), indent=2) + b"\n"
    try:
        handle, name = tempfile.mkstemp(prefix=f".{place.name}.", dir=place.parent)  # 0600 from the first moment
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(raw)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(place)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ConfigError(f"Cannot write the keys file {path}: {error.strerror or error}.") from error


def _moment(type_: type, value: Any) -> Any:
    if type_ is Moment and isinstance(value, str):
        return parse_moment(value)
    raise ValueError("a moment is written 2027-01-31 or 2027-01-31T18:00:00Z")


def _written(value: Any) -> Any:
    if isinstance(value, Moment):
        return written_moment(value)
    raise NotImplementedError(type(value))
