"""Items of other libraries' streams → the events that they mean.

An item is an object of the OpenAI, Anthropic, LiteLLM, Google or Ollama SDK, a LangChain message chunk, a struct, or a
dict of one of these shapes, or a flat one (`content`, `finish_reason`, `usage`, `tool_calls`, `delta`). The first item
that says what it is chooses the dialect for all; the dialect's own decoder then reads them, so that a chunk means here
what it means on the wire, and only what proves an ending there proves it here. No other library is imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from penstock.canon.errors import InvalidRequest, StreamedError
from penstock.client.langchain_chunks import LangChainChunks, is_message_chunk
from penstock.dialects import dialect
from penstock.framing.base import Frame

if TYPE_CHECKING:
    from penstock.canon.events import Event
    from penstock.dialects.base import Decoder

#: what Anthropic's stream calls its events; its SDK's helper adds others, which repeat what these have said
_ANTHROPIC = frozenset(
    {
        "content_block_delta",
        "content_block_start",
        "content_block_stop",
        "error",
        "message_delta",
        "message_start",
        "message_stop",
        "ping",
    }
)

#: what a flat chunk has at least one of
_FLAT = ("content", "text", "delta", "finish_reason", "tool_calls", "usage")


class Items:
    """Items of one source, in order. `proved` and `done` are the decoder's (`dialects.base.Decoder`)."""

    def __init__(self, provider: str | None) -> None:
        self.dialect: str | None = None
        self._provider = provider
        self._decoder: Decoder | None = None
        self._chunks = LangChainChunks()

    @property
    def proved(self) -> bool:
        return self._decoder is not None and self._decoder.proved

    @property
    def done(self) -> bool:
        return self._decoder is not None and self._decoder.done

    def decode(self, item: object, events: list[Event]) -> None:
        """Append what it means. Raises `InvalidRequest` for what nobody knows, and whatever its decoder raises."""
        fields = self._chunks.chunk(item) if is_message_chunk(item) else _plain(item)
        if fields.get("type") == "chunk" and isinstance(fields.get("chunk"), Mapping):  # the OpenAI SDK's own helper
            fields = fields["chunk"]
        if self._decoder is None:
            self.dialect = _dialect_of(fields, item)
            if self.dialect is None:
                return
            self._decoder = dialect(self.dialect).decoder(document=False, provider=self._provider)
        kind = fields.get("type")
        if self.dialect == "openai-chat":
            if "error" in fields and fields["error"] and "choices" not in fields:
                raise _streamed_error(fields["error"])
            if "choices" not in fields:
                if isinstance(kind, str) and kind not in ("text", "message"):
                    return  # an event of the SDK's helper, which repeats what a chunk has said
                fields = _chat_chunk(fields)
        elif self.dialect == "anthropic-messages" and kind not in _ANTHROPIC:
            return
        data = msgspec.json.encode(fields, enc_hook=str)
        self._decoder.decode(Frame(data, data, kind if isinstance(kind, str) else None), events)

    def close(self, events: list[Event]) -> None:
        """The source has no more. Raises `Truncated` when nothing proved the end."""
        if self._decoder is None:
            self._decoder = dialect("openai-chat").decoder(document=False)
        self._decoder.close(events)


def _plain(item: object) -> Mapping[str, Any]:
    if isinstance(item, Mapping):
        return item
    dump = getattr(item, "model_dump", None)
    if callable(dump):
        fields = dump(mode="json", by_alias=True, exclude_none=True, warnings=False)
    else:
        try:
            fields = msgspec.to_builtins(item)
        except TypeError:
            fields = getattr(item, "__dict__", None)
    if not isinstance(fields, Mapping):
        raise _unknown(item)
    return fields


def _dialect_of(fields: Mapping[str, Any], item: object) -> str | None:
    """By what it has; None for one that says nothing yet."""
    kind = fields.get("type")
    if "choices" in fields:
        return "openai-chat"
    if isinstance(kind, str):
        if kind.startswith("response."):
            return "openai-responses"
        if kind in _ANTHROPIC and kind != "error":
            return None if kind == "ping" else "anthropic-messages"
    if "candidates" in fields or "usageMetadata" in fields:
        return "gemini"
    if "done" in fields and ("message" in fields or "response" in fields):
        return "ollama"
    if fields.get("error") or any(fields.get(name) is not None for name in _FLAT):
        return "openai-chat"
    if not fields:
        return None
    raise _unknown(item)


def _chat_chunk(flat: Mapping[str, Any]) -> dict[str, Any]:
    """A flat chunk as OpenAI says it. Its text is `content`, else `text`, else what `delta` has of them."""
    delta = flat.get("delta")
    inner = delta if isinstance(delta, Mapping) else {}
    said = [flat.get("content"), flat.get("text"), inner.get("content"), inner.get("text"), delta]
    text = next((each for each in said if isinstance(each, str)), None)
    thought = next(
        (each for name in ("reasoning_content", "reasoning") if (each := inner.get(name) or flat.get(name))), None
    )
    message = {
        "content": text,
        "reasoning_content": thought if isinstance(thought, str) else None,
        "tool_calls": _tool_calls(flat.get("tool_calls") or inner.get("tool_calls")),
    }
    choice = {"index": 0, "delta": message, "finish_reason": flat.get("finish_reason")}
    return {"id": flat.get("id"), "model": flat.get("model"), "choices": [choice], "usage": flat.get("usage")}


def _tool_calls(given: Any) -> list[dict[str, Any]] | None:
    if not isinstance(given, list | tuple) or not given:
        return None
    calls: list[dict[str, Any]] = []
    for number, call in enumerate(given):
        fields = _plain(call)
        function = fields.get("function")
        if not isinstance(function, Mapping):  # ours: `name` and `raw`; others: `name` and `arguments` or `args`
            arguments = next(
                (fields[name] for name in ("raw", "arguments", "args") if fields.get(name) is not None), ""
            )
            function = {
                "name": fields.get("name"),
                "arguments": arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode(),
            }
        calls.append({"index": fields.get("index", number), "id": fields.get("id"), "function": dict(function)})
    return calls


def _streamed_error(error: Any) -> StreamedError:
    if not isinstance(error, Mapping):
        return StreamedError(str(error), raw=error)
    return StreamedError(
        str(error.get("message") or "The source sent an error."),
        type=_word(error.get("type")),
        code=_word(error.get("code")),
        raw=dict(error),
    )


def _word(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _unknown(item: object) -> InvalidRequest:
    if isinstance(item, str):
        fix = "Text alone cannot say that it is whole: give {'content': text}, and a finish_reason with the last."
    elif isinstance(item, bytes | bytearray):
        fix = "Recorded bytes are read by penstock.replay."
    else:
        fix = "Give chunks of an SDK, or dicts with content, finish_reason, usage, tool_calls or delta."
    keys = f" with {', '.join(sorted(map(str, item))[:6])}" if isinstance(item, Mapping) else ""
    return InvalidRequest(f"A {type(item).__name__}{keys} is no chunk that is known.", fix=fix)
