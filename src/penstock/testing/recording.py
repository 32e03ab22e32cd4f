"""A cassette: a folder of plain files that holds what an upstream was asked and what it answered, read by read.

    0001.json       method, path, headers; status, headers, when each read came and where it ended, how it all ended
    0001.request    the request's body, byte for byte
    0001.response   the response's body, byte for byte

No secret is in it: keys in headers and in the query are `***`, and so is a key that a body repeats. Requests are found
again by method, path and body (JSON by what it says, whatever its order and spaces).
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from msgspec import Struct

from penstock.canon.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MASK = "***"

_SECRET_HEADERS = frozenset(
    {
        "api-key",
        "api-subscription-key",
        "authorization",
        "cookie",
        "openai-organization",
        "openai-project",
        "proxy-authorization",
        "set-cookie",
        "x-amz-security-token",
        "x-api-key",
        "x-goog-api-key",
    }
)
_SECRET_QUERY = re.compile(r"(?<=[?&])(key|api_key|api-key|access_token)=[^&]*")


class Asked(Struct, frozen=True):
    method: str
    path: str
    headers: dict[str, str] = {}


class Answered(Struct, frozen=True):
    """`reads` are the network's: milliseconds since the request was sent, and how much of the body had come by then."""

    status: int
    headers: dict[str, str] = {}
    reads: tuple[tuple[float, int], ...] = ()
    end: Literal["clean", "cut", "cancelled"] = "clean"


class Exchange(Struct, frozen=True):
    """`request_body` and `response_body` are files of their own."""

    asked: Asked
    answered: Answered
    request_body: bytes = b""
    response_body: bytes = b""

    @property
    def key(self) -> tuple[str, str, str]:
        return request_key(self.asked.method, self.asked.path, self.request_body)


class _File(Struct):
    request: Asked
    response: Answered


def request_key(method: str, path: str, body: bytes) -> tuple[str, str, str]:
    """What makes two requests the same."""
    try:
        said = json.dumps(json.loads(body), sort_keys=True, ensure_ascii=False)
    except ValueError:
        said = body.decode("latin-1")
    return method, masked_path(path), said


def masked_path(path: str) -> str:
    return _SECRET_QUERY.sub(lambda found: f"{found[1]}={MASK}", path)


def masked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: MASK if name in _SECRET_HEADERS else value for name, value in headers.items()}


def secrets_of(headers: Mapping[str, str], path: str) -> list[bytes]:
    """The keys themselves, to be taken out of bodies that repeat them."""
    told = [value.rpartition(" ")[2] for name, value in headers.items() if name in _SECRET_HEADERS]
    told += [found.group(0).partition("=")[2] for found in _SECRET_QUERY.finditer(path)]
    return [value.encode() for value in told if len(value) >= 8]


class Cassette:
    """The exchanges of one folder, in the order of their numbers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self) -> list[Exchange]:
        """Raises `ConfigError` where there is no cassette, or a file of it cannot be read."""
        paths = sorted(self.folder.glob("[0-9]*.json"))
        if not paths:
            raise ConfigError(f"There is no cassette in {self.folder}.", fix="Record one with `penstock record`.")
        return [self._read(path) for path in paths]

    def _read(self, path: Path) -> Exchange:
        try:
            about = msgspec.json.decode(path.read_bytes(), type=_File)
            bodies = [path.with_suffix(end).read_bytes() for end in (".request", ".response")]
        except (OSError, msgspec.DecodeError) as error:
            raise ConfigError(f"{path} cannot be read: {error}.", fix="Record it again.") from error
        return Exchange(about.request, about.response, *bodies)

    def add(self, exchange: Exchange, secrets: list[bytes]) -> Path:
        """Write one more. `secrets` are taken out of it; `reads` stay true, because a mask is as long as its secret."""
        self.folder.mkdir(parents=True, exist_ok=True)
        number = len(list(self.folder.glob("[0-9]*.json"))) + 1
        path = self.folder / f"{number:04d}.json"
        asked, answered = exchange.asked, exchange.answered
        safe: dict[str, Any] = {
            "request": Asked(asked.method, masked_path(asked.path), masked_headers(asked.headers)),
            "response": Answered(answered.status, masked_headers(answered.headers), answered.reads, answered.end),
        }
        path.with_suffix(".request").write_bytes(_masked(exchange.request_body, secrets))
        path.with_suffix(".response").write_bytes(_masked(exchange.response_body, secrets))
        path.write_bytes(msgspec.json.format(msgspec.json.encode(safe), indent=1) + b"\n")
        return path


def _masked(body: bytes, secrets: list[bytes]) -> bytes:
    for secret in secrets:
        body = body.replace(secret, b"*" * len(secret))
    return body
