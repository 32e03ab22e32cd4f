"""Where a server tells how large its context is, and how what it answers is read. Pure.

llama.cpp tells it at `/props`, per slot; where that is refused, at `/slots` and in its list of models. Others tell it
in their lists alone. A server that nobody knows to tell it is not asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from msgspec import Struct

from penstock.canon.usage import whole
from penstock.canon.wire import HttpRequest
from penstock.dialects.base import key_headers
from penstock.dialects.listing import LISTINGS

if TYPE_CHECKING:
    from collections.abc import Callable

    from penstock.canon.target import Target

#: whatever the model's name: a server of one model
ANY = ""

#: by profile, those of OpenAI's dialect whose lists say it (2026-11)
_LISTED = frozenset({"vllm", "sglang", "openrouter", "groq", "mistral"})


class Place(Struct, frozen=True):
    """A request, and what its answer's JSON says: tokens by model, or `ANY`; nothing of what it does not say."""

    request: HttpRequest
    read: Callable[[Any], dict[str, int]]


def places(target: Target, model: str) -> list[Place]:
    """In the order in which to ask; the first that says something of the model is believed."""
    if target.profile == "llamacpp":
        return [
            _own(target, "/props", _of_props),
            *([_own(target, f"/props?{urlencode({'model': model})}", _of_props, model)] if model else []),
            _own(target, "/slots", _of_slots),
            _list(target),
        ]
    return [_list(target)] if target.profile in _LISTED and target.dialect == "openai-chat" else []


def _own(target: Target, path: str, read: Callable[[Any], int | None], model: str = ANY) -> Place:
    base = target.url.rstrip("/").removesuffix("/v1")
    headers = {
        "accept": "application/json",
        **dict(key_headers(target, "bearer")),
        **{name.lower(): value for name, value in target.headers},
    }

    def found(answer: Any) -> dict[str, int]:
        tokens = read(answer)
        return {model: tokens} if tokens else {}

    return Place(HttpRequest("GET", base + path, tuple(headers.items())), found)


def _of_props(answer: Any) -> int | None:
    settings = answer.get("default_generation_settings") if isinstance(answer, dict) else None
    return whole(settings.get("n_ctx")) if isinstance(settings, dict) else None


def _of_slots(answer: Any) -> int | None:
    """Of the smallest slot: nobody knows which a call gets."""
    slots = answer if isinstance(answer, list) else []
    sizes = [tokens for slot in slots if isinstance(slot, dict) and (tokens := whole(slot.get("n_ctx")))]
    return min(sizes) if sizes else None


def _list(target: Target) -> Place:
    listing = LISTINGS["openai-chat"]

    def found(answer: Any) -> dict[str, int]:
        models, _ = listing.read(answer) or ([], None)
        told = {}
        for model in models:
            meta = model.raw.get("meta")  # llama.cpp's; its `n_ctx_train` is what it was trained for, not what it has
            tokens = model.context or (whole(meta.get("n_ctx")) if isinstance(meta, dict) else None)
            if tokens:
                told[model.id] = tokens
        return told

    return Place(listing.request(target), found)
