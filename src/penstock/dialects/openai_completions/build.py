"""Our request → a completion body. A conversation is no prompt: only what one user says once can be completed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from penstock.canon.errors import Unsupported
from penstock.canon.events import Text
from penstock.dialects.base import foreign_extras
from penstock.dialects.openai_chat.profiles import profile_of

if TYPE_CHECKING:
    from penstock.canon.request import ChatRequest
    from penstock.canon.target import Target

_UNKNOWN = ("reasoning_effort", "reasoning_budget", "parallel_tool_calls")


def build_body(request: ChatRequest, target: Target) -> tuple[bytes, tuple[str, ...]]:
    """The body, and the names of what it leaves out."""
    profile = profile_of(target.profile)
    if request.tools or request.output is not None:
        raise Unsupported(
            "A model that completes text takes no tools and no output format.",
            param="tools" if request.tools else "response_format",
            fix="Ask it by openai-chat.",
        )
    parts = request.messages[0].parts if len(request.messages) == 1 and request.messages[0].role == "user" else ()
    texts = [part.text for part in parts if isinstance(part, Text)]
    if not parts or len(texts) != len(parts):
        raise Unsupported(
            "A model that completes text takes one user message of text.",
            param="messages",
            fix="Ask it by openai-chat.",
        )
    dropped = [name for name in _UNKNOWN if getattr(request, name) is not None]
    body: dict[str, Any] = {"model": target.model or request.model, "prompt": "".join(texts)}
    if request.stream:
        body["stream"] = True
        if profile.stream_options:
            body["stream_options"] = {"include_usage": True}
    simple = {
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "top_k": request.top_k if profile.top_k else None,
        "stop": list(request.stop) or None,
        "seed": request.seed,
        "presence_penalty": request.presence_penalty,
        "frequency_penalty": request.frequency_penalty,
        "user": request.user,
    }
    if request.top_k is not None and not profile.top_k:
        dropped.append("top_k")
    body.update({key: value for key, value in simple.items() if value is not None})
    body.update(request.extras.get("openai-completions", {}))
    dropped += foreign_extras(request, "openai-completions")
    return msgspec.json.encode(body), tuple(dict.fromkeys(dropped))
