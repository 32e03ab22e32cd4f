"""What several wires say in one way, and the tables that no standard gives: for builders and parsers. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from penstock.canon.request import ChatRequest, Image
    from penstock.dialects.base import RequestHead

#: effort → thinking budget in tokens
BUDGETS = {"none": 0, "minimal": 1024, "low": 4096, "medium": 8192, "high": 16384, "xhigh": 32768, "max": 32768}

_EFFORTS = ((0, "none"), (1024, "minimal"), (4096, "low"), (8192, "medium"))


def budget_of(request: ChatRequest, budgets: dict[str, int] = BUDGETS) -> int | None:
    """How much may be thought, in tokens; None where nobody said. A word that nobody knows is taken for `medium`."""
    if request.reasoning_budget is not None or request.reasoning_effort is None:
        return request.reasoning_budget
    return budgets.get(request.reasoning_effort, budgets["medium"])


def effort_of(request: ChatRequest) -> str | None:
    """How hard to think, in a word; None where nobody said."""
    budget = request.reasoning_budget
    if request.reasoning_effort is not None or budget is None:
        return request.reasoning_effort
    return next((word for limit, word in _EFFORTS if budget <= limit), "high")


def without_none(**fields: Any) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if value is not None}


def split_data_url(url: str) -> tuple[str, str] | None:
    """Media type and base64 of a `data:` URL; None for any other."""
    if not url.startswith("data:"):
        return None
    head, _, data = url.partition(",")
    return head[5:].partition(";")[0], data


def image_bytes(image: Image) -> tuple[str, str] | None:
    """Media type and base64 of an image that is at hand; None for one that is elsewhere."""
    if image.data is not None:
        return image.media_type or "image/png", image.data
    found = split_data_url(image.url or "")
    return None if found is None else (found[0] or "image/png", found[1])


def image_url(image: Image) -> str:
    """The image's URL, or its bytes as one."""
    return image.url or f"data:{image.media_type or 'image/png'};base64,{image.data}"


def renamed_body(head: RequestHead, model: str | None) -> bytes:
    """The caller's own bytes; only `model` is ours to change, where it is mapped."""
    if model is None or model == head.model:
        return head.body
    return msgspec.json.encode({**head.fields, "model": msgspec.Raw(msgspec.json.encode(model))})
