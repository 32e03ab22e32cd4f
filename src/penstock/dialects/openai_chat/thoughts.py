"""What proves a thought, in OpenRouter's form: the one that chat clients know and send back.

A chat message has one text for all its thoughts. So that several come back as several, each detail that we write says
how many characters of that text are its own (`chars`); details without it are OpenRouter's, and stay as they are.
"""

from __future__ import annotations

from typing import Any

from penstock.canon.events import Reasoning

#: dialect → the word for its signatures
FORMATS = {
    "anthropic-messages": "anthropic-claude-v1",
    "bedrock": "amazon-bedrock-v1",
    "gemini": "google-gemini-v1",
    "openai-responses": "openai-responses-v1",
}
_OWNERS = {format_: dialect for dialect, format_ in FORMATS.items()}


def written_details(part: Reasoning) -> list[Any]:
    """The details of one thought whose words are said elsewhere."""
    if part.details:
        return list(part.details)
    about: dict[str, Any] = {"format": FORMATS[part.signed_by]} if part.signed_by in FORMATS else {}
    own = {"chars": len(part.text)} if about else {}
    if part.redacted is not None:
        return [{"type": "reasoning.encrypted", "data": part.redacted, **about, **own}]
    if part.signature:
        return [{"type": "reasoning.text", "text": "", "signature": part.signature, **about, **own}]
    return []


def read_thoughts(text: str, details: list[Any]) -> list[Reasoning]:
    """The thoughts that a message of a client's holds."""
    own = [detail for detail in details if _is_ours(detail)]
    if not own:
        return [Reasoning(text, details=tuple(details))] if text or details else []
    thoughts: list[Reasoning] = []
    at = 0
    for detail in own:
        end = at + detail["chars"]
        owner = _OWNERS[detail["format"]]
        if isinstance(data := detail.get("data"), str):
            thoughts.append(Reasoning(text[at:end], redacted=data, signed_by=owner))
        else:
            signature = detail.get("signature")
            signature = signature if isinstance(signature, str) else None
            thoughts.append(Reasoning(text[at:end], signature, signed_by=owner))
        at = end
    if at < len(text):
        thoughts.append(Reasoning(text[at:]))
    return thoughts


def _is_ours(detail: Any) -> bool:
    return (
        isinstance(detail, dict)
        and type(detail.get("chars")) is int
        and detail["chars"] >= 0
        and detail.get("format") in _OWNERS
    )
