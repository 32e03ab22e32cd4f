"""LangChain's message chunks → chunks as OpenAI says them. By their fields; LangChain is not imported.

`content` is a text or a list of blocks, `tool_call_chunks` are fragments of calls, `usage_metadata` is to be added up
(each chunk has its part), the reason to stop is in `response_metadata` under its provider's name for it. LangChain's
own `chunk_position="last"` comes after every iteration that did not raise, so it proves nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Anthropic's, Google's and Ollama's words, as LangChain passes them on, by OpenAI's
_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "STOP": "stop",
    "max_tokens": "length",
    "MAX_TOKENS": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
    "SAFETY": "content_filter",
}

_COUNTS = {"input_tokens": "prompt_tokens", "output_tokens": "completion_tokens", "total_tokens": "total_tokens"}


def is_message_chunk(item: object) -> bool:
    return hasattr(item, "response_metadata") and hasattr(item, "content")


class LangChainChunks:
    """One stream's; it adds the usage up."""

    def __init__(self) -> None:
        self._usage: dict[str, Any] = {}

    def chunk(self, item: Any) -> dict[str, Any]:
        about: Mapping[str, Any] = item.response_metadata or {}
        reason = about.get("finish_reason") or about.get("stop_reason") or about.get("done_reason")
        text, thought = _said(item.content)
        thought = thought or (getattr(item, "additional_kwargs", None) or {}).get("reasoning_content")
        calls = [
            {
                "index": call.get("index") if isinstance(call.get("index"), int) else number,
                "id": call.get("id"),
                "function": {"name": call.get("name"), "arguments": call.get("args") or ""},
            }
            for number, call in enumerate(getattr(item, "tool_call_chunks", None) or ())
        ]
        choice = {
            "index": 0,
            "delta": {"content": text, "reasoning_content": thought, "tool_calls": calls or None},
            "finish_reason": _REASONS.get(reason, reason) if isinstance(reason, str) else None,
        }
        reported = getattr(item, "usage_metadata", None)
        return {
            "id": getattr(item, "id", None),
            "model": about.get("model_name") or about.get("model"),
            "choices": [choice],
            "usage": self._added(reported) if reported else None,
        }

    def _added(self, reported: Mapping[str, Any]) -> dict[str, Any]:
        usage = self._usage
        for name, as_openai in _COUNTS.items():
            if isinstance(reported.get(name), int):
                usage[as_openai] = usage.get(as_openai, 0) + reported[name]
        for name, kind, group, as_openai in (
            ("input_token_details", "cache_read", "prompt_tokens_details", "cached_tokens"),
            ("output_token_details", "reasoning", "completion_tokens_details", "reasoning_tokens"),
        ):
            count = (reported.get(name) or {}).get(kind)
            if isinstance(count, int):
                held = usage.setdefault(group, {})
                held[as_openai] = held.get(as_openai, 0) + count
        return usage


def _said(content: Any) -> tuple[str | None, str | None]:
    """The text and the thoughts of it."""
    if isinstance(content, str):
        return content, None
    text, thoughts = [], []
    for block in content if isinstance(content, list) else ():
        if isinstance(block, str):
            text.append(block)
        elif isinstance(block, Mapping):
            if block.get("type") in ("text", "text_delta"):
                text.append(block.get("text") or "")
            elif block.get("type") in ("thinking", "reasoning"):
                thoughts.append(block.get("thinking") or block.get("reasoning") or "")
    return "".join(text), "".join(thoughts) or None
