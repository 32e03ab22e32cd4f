"""Signatures that travel through a client of another dialect, and come home.

A provider's signature means something to that provider alone. A client of another dialect keeps it for us in the field
that its own dialect has for one, marked with its owner; when it comes back, the mark says whose it is. A Gemini call's
signature travels in the call's id, which every client sends back as it was. OpenRouter's `reasoning_details` are a
list: packed into one word, it travels as a signature does. Pure; nothing is stored.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

import msgspec

_MARK = "penstock."
_ID_MARK = "__sig__"


def marked(signature: str, signed_by: str | None, own: str) -> str:
    """What to write in `own`'s field for signatures: its own as they are, another's with its owner's name."""
    return signature if signed_by in (None, own) else f"{_MARK}{signed_by}.{signature}"


def unmarked(signature: str, own: str) -> tuple[str, str]:
    """The signature, and the dialect that it belongs to."""
    if signature.startswith(_MARK):
        owner, _, rest = signature.removeprefix(_MARK).partition(".")
        if rest:
            return rest, owner
    return signature, own


def signed_id(id_: str, signature: str | None) -> str:
    """An id of letters, digits, `_` and `-` that holds a call's signature."""
    if not signature:
        return id_
    return f"{id_}{_ID_MARK}{base64.urlsafe_b64encode(signature.encode()).decode().rstrip('=')}"


def split_id(id_: str) -> tuple[str, str | None]:
    """A call's id and the signature in it; an id without one, or with something else there, as it is."""
    plain, mark, held = id_.partition(_ID_MARK)
    if not mark:
        return id_, None
    try:
        return plain, base64.b64decode(held + "=" * (-len(held) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return id_, None


def packed(details: tuple[Any, ...]) -> str:
    """A thought's details as one word of letters, digits, `_` and `-`."""
    return base64.urlsafe_b64encode(msgspec.json.encode(details)).decode().rstrip("=")


def unpacked(word: str) -> tuple[Any, ...] | None:
    """The details that were packed into this word; None when it holds none."""
    try:
        found = msgspec.json.decode(base64.b64decode(word + "=" * (-len(word) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError):
        return None
    return tuple(found) if isinstance(found, list) else None
