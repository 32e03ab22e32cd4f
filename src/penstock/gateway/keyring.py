"""The keys that open this gateway: those of its configuration, and those of its file, read again when it has changed.

A key that a client gives is found by its SHA-256. The file is looked at when somebody asks, at most once a second; one
that cannot be read leaves the keys as they were, and says so once.
"""

from __future__ import annotations

import hmac
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from penstock.canon.errors import ConfigError, Forbidden, InvalidRequest, Unauthenticated
from penstock.canon.key import digest
from penstock.config.keys import check_keys, read_keys

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from penstock.canon.key import Key
    from penstock.dialects.base import RequestHead
    from penstock.streams.handler import Call, Handler
    from penstock.streams.stream import EventStream

_log = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0


class Keyring:
    """`configured` are keys by their hashes. Raises `ConfigError` when the file cannot be read to begin with."""

    def __init__(
        self,
        configured: Sequence[Key],
        path: str | None = None,
        *,
        now: Callable[[], float] = time.monotonic,
        unix_now: Callable[[], float] = time.time,
    ) -> None:
        self._configured = tuple(configured)
        self._path = Path(path) if path is not None else None
        self._now = now
        self._unix_now = unix_now
        self._by_hash: dict[str, Key] = {}
        self._look_at = now() + LOOK_EVERY_S
        self._seen = self._state()
        self._take(read_keys(self._path) if self._path is not None else ())

    def find(self, given: Sequence[str]) -> Key:
        """The key that one of these is. Raises `Unauthenticated` where none is, or it has expired."""
        if self._path is not None and self._now() >= self._look_at:
            self._look()
        if not given:
            raise Unauthenticated(
                "This gateway asks for a key, and none came.", fix="Send it as `Authorization: Bearer …`."
            )
        for word in given:
            hashed = digest(word)
            key = self._by_hash.get(hashed)
            if key is not None and key.sha256 is not None and hmac.compare_digest(hashed, key.sha256):
                if key.expires is not None and self._unix_now() >= key.expires:
                    raise Unauthenticated(f"The key `{key.name}` has expired.", fix="Ask for a new one.")
                return key
        raise Unauthenticated("This gateway does not know the key that came.", fix="Check it, or ask for a new one.")

    def _look(self) -> None:
        assert self._path is not None
        self._look_at = self._now() + LOOK_EVERY_S
        state = self._state()
        if state == self._seen:
            return
        self._seen = state
        try:
            self._take(read_keys(self._path))
        except ConfigError as error:
            _log.warning("The keys stay as they were: %s", error)

    def _take(self, more: Sequence[Key]) -> None:
        keys = (*self._configured, *more)
        check_keys(keys, str(self._path))
        self._by_hash = {key.sha256: key for key in keys if key.sha256 is not None}

    def _state(self) -> tuple[int, ...] | None:
        """What tells that the file is another: it is written anew as a whole."""
        if self._path is None:
            return None
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def __repr__(self) -> str:
        return f"<Keyring of {len(self._by_hash)}>"


def allowed(inner: Handler) -> Handler:
    """A layer: a call whose key may not ask for its model is refused."""

    def handle(call: Call) -> AbstractAsyncContextManager[EventStream]:
        key = call.key
        if key is not None and not key.may_ask_for(call.model):
            raise Forbidden(
                f"The key `{key.name}` may not ask for `{call.model}`.",
                param="model",
                fix=f"It may ask for: {', '.join(key.models) or 'nothing'}.",
            )
        if key is not None and "*" not in key.models and call.head is not None:
            call.head = _naming_one(call.head)
        return inner(call)

    return handle


def _naming_one(head: RequestHead) -> RequestHead:
    """The request without a second `model`. One that is forwarded as it came could name another to its upstream.

    JSON leaves open which of two counts; we go by the last. Servers in Go take `Model` for it as well.
    """
    if head.path:  # the model is there
        return head
    fields = head.fields
    if any(name != "model" and name.lower() == "model" for name in fields):
        raise InvalidRequest("The request names its model more than once.", param="model", fix="Name it once.")
    return replace(head, body=msgspec.json.encode(fields))
