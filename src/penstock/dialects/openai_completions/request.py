"""Completion requests from a client: read at the top level, forwarded, parsed whole.

For a model that chats, the prompt is what the user says. What only a model that completes can do (`suffix`, `echo`,
several prompts, tokens) raises `Unsupported` when the request must be translated.
"""

from __future__ import annotations

from typing import Any

import msgspec

from penstock.canon.errors import InvalidRequest, Unsupported
from penstock.canon.request import ChatRequest, Message
from penstock.dialects.base import RequestHead, decode_body, load_extras


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class _Request(msgspec.Struct):
    model: str
    prompt: str | list[Any] | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    n: int | None = None
    best_of: int | None = None
    echo: bool | None = None
    suffix: str | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    user: str | None = None


_request = msgspec.json.Decoder(_Request)
_KNOWN = frozenset(_Request.__struct_fields__)


def read_head(body: bytes, path: str = "") -> RequestHead:
    given = decode_body(_request, body)
    options = given.stream_options
    return RequestHead(given.model, bool(given.stream), bool(options and options.include_usage), body)


def parse_request(body: bytes, path: str = "") -> ChatRequest:
    given = decode_body(_request, body)
    for name, asked in (
        ("n", (given.n or 1) > 1),
        ("best_of", (given.best_of or 1) > 1),
        ("echo", given.echo),
        ("suffix", given.suffix),
    ):
        if asked:
            raise Unsupported(
                f"`{name}` cannot be translated to this model's dialect.", param=name, fix="Leave it out."
            )
    extras = {key: value for key, value in load_extras(body).items() if key not in _KNOWN and value is not None}
    return ChatRequest(
        model=given.model,
        messages=(Message.of("user", _prompt(given.prompt)),),
        stream=bool(given.stream),
        include_usage=bool(given.stream_options and given.stream_options.include_usage),
        max_tokens=given.max_tokens,
        temperature=given.temperature,
        top_p=given.top_p,
        top_k=given.top_k,
        stop=(given.stop,) if isinstance(given.stop, str) else tuple(given.stop or ()),
        seed=given.seed,
        presence_penalty=given.presence_penalty,
        frequency_penalty=given.frequency_penalty,
        user=given.user,
        extras={"openai-completions": extras} if extras else {},
    )


def _prompt(given: str | list[Any] | None) -> str:
    if isinstance(given, list) and len(given) == 1:
        given = given[0]
    if isinstance(given, str) and given:
        return given
    if not given:
        raise InvalidRequest("`prompt` is empty.", param="prompt", fix="Send some text.")
    raise Unsupported(
        "Several prompts, or tokens, cannot be translated to this model's dialect.",
        param="prompt",
        fix="Send one text.",
    )
