"""The client's own key, for an upstream that is marked to get it (`forward_auth`) in place of ours.

It goes into the header that it came in where client and upstream speak one dialect, and else to where the upstream's
dialect has its key. The key that opened this gateway is none of the upstream's business: it is never taken for one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from penstock.canon.key import digest
from penstock.canon.target import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

    from penstock.canon.key import Key
    from penstock.canon.target import Target

#: where clients of any dialect put their keys; a `?key=` has been made the last of these
PLACES = ("authorization", "x-api-key", "x-goog-api-key")


def with_clients_key(target: Target, headers: Mapping[str, str], dialect: str | None, opened_by: Key | None) -> Target:
    """The target with the key that a client of `dialect` gave for it, or with none when it gave none."""
    for place in PLACES:
        word, auth = headers.get(place), place
        if place == "authorization" and word is not None:
            scheme, _, token = word.partition(" ")
            word, auth = (token.strip(), "bearer") if scheme.lower() == "bearer" else (None, auth)
        if not word or (opened_by is not None and digest(word) == opened_by.sha256):
            continue
        return replace(target, key=Secret(word), auth=target.auth or (auth if dialect == target.dialect else None))
    return replace(target, key=None)
