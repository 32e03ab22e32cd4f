"""An engine without a model: it speaks the `openai-chat` dialect on a real socket and says what its tokens are.

A token is a few bytes, never whole words, and may be a part of a character: what it streams must hold back what is not
yet a character, or may yet become a stop string. It obeys `engine_checks`, as the real one does.
"""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

from tests.upstreams import Answer, Gate, Upstream, document, sse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.upstreams import Exchange

STORY = "Once upon a time a drop of water — in the sea 海 — counted to ten: one, two, three, four."
WORDS = STORY.split()


def tokens_of(asked: Any) -> list[bytes]:
    """What it will say, as tokens of three bytes."""
    schema = asked.get("response_format", {}).get("json_schema", {}).get("schema")
    if schema is not None:
        text = json.dumps(instance(schema), ensure_ascii=False)
    elif asked.get("temperature", 1) == 0:
        text = STORY
    else:
        text = " ".join(random.Random(asked.get("seed")).sample(WORDS, len(WORDS)))
    raw = text.encode()
    return [raw[at : at + 3] for at in range(0, len(raw), 3)]


def instance(schema: Any) -> Any:
    if "enum" in schema:
        return schema["enum"][0]
    if schema.get("type") == "object":
        return {name: instance(schema["properties"][name]) for name in schema.get("required", schema["properties"])}
    return {"string": "drop", "integer": 3}[schema["type"]]


def pieces(tokens: list[bytes], stops: list[str]) -> Iterator[tuple[str, int]]:
    """Text to send, and how many tokens it took, up to a stop string; nothing of one is ever sent."""
    raw, sent, used = b"", 0, 0
    for number, token in enumerate(tokens, 1):
        raw += token
        text = raw.decode("utf-8", "ignore")
        ends = [text.index(stop) for stop in stops if stop in text]
        if ends:
            yield text[sent : min(ends)], number
            return
        held = max((k for stop in stops for k in range(1, len(stop)) if text.endswith(stop[:k])), default=0)
        whole = len(text) - held
        if whole > sent:
            yield text[sent:whole], number
            sent = whole
        used = number
    yield raw.decode("utf-8", "ignore")[sent:], used


class ScriptedEngine:
    """`url` is its base. `gate`, where there is one, stands after the first piece of every stream."""

    def __init__(self) -> None:
        self.upstream = Upstream()
        self.upstream.answers(self._answer)
        self.url = self.upstream.url("")
        self.gate: Gate | None = None

    def close(self) -> None:
        self.upstream.close()

    def is_idle(self) -> bool:
        return all(exchange.over.is_set() for exchange in self.upstream.exchanges if "chat" in exchange.path)

    def made(self) -> int:
        """In frames, which have a piece each."""
        return sum(exchange.written for exchange in self.upstream.exchanges) // 160

    def _answer(self, exchange: Exchange) -> Answer:
        asked = json.loads(exchange.body or b"{}")
        if exchange.path == "/v1/embeddings":
            return document(json.dumps(embeddings(asked)).encode())
        if exchange.path != "/v1/chat/completions":
            return document(b'{"error":{"message":"not here"}}', status=404)
        return self._stream(asked) if asked.get("stream") else document(json.dumps(whole(asked)).encode())

    def _stream(self, asked: Any) -> Answer:
        reply = whole(asked)
        choice, usage = reply["choices"][0], reply["usage"]
        message = choice["message"]
        deltas: list[Any] = [{"role": "assistant", "content": None}]
        if "tool_calls" in message:
            call = message["tool_calls"][0]
            name, raw = call["function"]["name"], call["function"]["arguments"]
            deltas.append({"tool_calls": [{**call, "index": 0, "function": {"name": name, "arguments": ""}}]})
            deltas += [{"tool_calls": [{"index": 0, "function": {"arguments": it}}]} for it in (raw[:5], raw[5:])]
        else:
            said = pieces(tokens_of(asked)[: asked.get("max_tokens")], stops_of(asked))
            deltas += [{"content": text} for text, _ in said if text]
        frames: list[Any] = [frame([{"index": 0, "delta": delta, "finish_reason": None}]) for delta in deltas]
        if asked.get("ignore_eos"):
            frames[2:] = [part for _ in range(8000) for part in (frames[1], 0.001)]
        frames.append(frame([{"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}]))
        if (asked.get("stream_options") or {}).get("include_usage"):
            frames.append(frame([], usage=usage))
        return sse(*frames, b"data: [DONE]\n\n")


def stops_of(asked: Any) -> list[str]:
    stop = asked.get("stop") or []
    return [stop] if isinstance(stop, str) else stop


def whole(asked: Any) -> Any:
    """The reply as a document."""
    tokens = tokens_of(asked)
    limit = asked.get("max_tokens") or len(tokens)
    said = list(pieces(tokens[:limit], stops_of(asked)))
    used, is_cut = said[-1][1], len(tokens) > limit
    text = "".join(text for text, _ in said)
    message: dict[str, Any] = {"role": "assistant", "content": text}
    finish = "length" if is_cut and used == limit else "stop"
    if asked.get("tool_choice") == "required":
        function = asked["tools"][0]["function"]
        arguments = json.dumps(instance(function["parameters"]))
        called = {"id": "call_1", "type": "function", "function": {"name": function["name"], "arguments": arguments}}
        message, finish = {"role": "assistant", "content": None, "tool_calls": [called]}, "tool_calls"
    choice = {"index": 0, "message": message, "finish_reason": finish}
    if asked.get("logprobs"):
        choice["logprobs"] = {"content": [likely(token, asked.get("top_logprobs", 0)) for token in tokens[:used]]}
    usage = {"prompt_tokens": 9, "completion_tokens": used, "total_tokens": 9 + used}
    return {**HEAD, "object": "chat.completion", "choices": [choice], "usage": usage}


def likely(token: bytes, top: int) -> Any:
    it = {"token": token.decode("utf-8", "replace"), "bytes": list(token), "logprob": -0.1}
    others = [{"token": str(k), "bytes": list(str(k).encode()), "logprob": -2.0 - k} for k in range(top - 1)]
    return {**it, "top_logprobs": [it, *others][:top]}


HEAD = {"id": "chatcmpl-1", "created": 7, "model": "scripted"}


def frame(choices: list[Any], **more: Any) -> bytes:
    body = {**HEAD, "object": "chat.completion.chunk", "choices": choices, **more}
    return b"data: " + json.dumps(body, ensure_ascii=False).encode() + b"\n\n"


def embeddings(asked: Any) -> Any:
    """A direction for each text, of length one."""
    texts = [asked["input"]] if isinstance(asked["input"], str) else asked["input"]
    data = []
    for index, text in enumerate(texts):
        given = random.Random(text)
        raw = [given.uniform(-1, 1) for _ in range(16)]
        size = sum(it * it for it in raw) ** 0.5
        data.append({"object": "embedding", "index": index, "embedding": [it / size for it in raw]})
    used = sum(len(text.split()) for text in texts)
    usage = {"prompt_tokens": used, "total_tokens": used}
    return {"object": "list", "model": "scripted", "data": data, "usage": usage}
