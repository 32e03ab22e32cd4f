"""Embeddings of any number of texts: cut into requests that the provider takes, asked a few at a time, in order again.

The first request that fails ends the others, and its error is raised. Each is a call of its own to hooks and records.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from msgspec.structs import replace

from penstock.canon.embedding import Embeddings
from penstock.canon.errors import Cancelled, InvalidRequest
from penstock.canon.events import BlockEnd, Custom
from penstock.canon.usage import added
from penstock.client.left_out import warnings_of
from penstock.client.stream import AsyncStream

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from penstock.canon.embedding import EmbedRequest
    from penstock.client.session import Observers
    from penstock.streams.handler import Call, Handler

#: OpenAI takes 300,000 tokens in one request (2026-11). A token has a byte at least, and in running text two or more.
MAX_BATCH_BYTES = 600_000


def read_texts(given: str | Sequence[str]) -> tuple[str, ...]:
    listed = (given,) if isinstance(given, str) else tuple(given)
    if not listed:
        raise InvalidRequest("There is nothing to embed.", param="input", fix="Pass a text, or a list of texts.")
    for k, text in enumerate(listed):
        if not isinstance(text, str):
            raise InvalidRequest(
                f"A `{type(text).__name__}` is no text.", param=f"input[{k}]", fix="Pass a text, or a list of texts."
            )
        if not text:
            raise InvalidRequest("An empty text has no embedding.", param=f"input[{k}]", fix="Leave it out.")
    return listed


def batches(texts: Sequence[str], most: int) -> list[tuple[str, ...]]:
    """The texts in order, at most `most` and `MAX_BATCH_BYTES` at once; a text that is longer goes alone."""
    cut: list[tuple[str, ...]] = []
    begin = size = 0
    for k, text in enumerate(texts):
        length = len(text.encode(errors="surrogatepass"))
        if k > begin and (k - begin == most or size + length > MAX_BATCH_BYTES):
            cut.append(tuple(texts[begin:k]))
            begin, size = k, 0
        size += length
    return [*cut, tuple(texts[begin:])]


async def ask_once(handler: Handler, call: Call, request: EmbedRequest, observers: Observers) -> Embeddings:
    """One request's answer, with its cost where the price is known."""
    found: Embeddings | None = None
    async with AsyncStream(handler, call, observers=observers, request=request) as stream:
        async for event in stream:
            if isinstance(event, BlockEnd) and isinstance(event.part, Custom):
                found = event.part.raw
    if found is None:
        raise Cancelled("The request was cancelled.")
    return replace(found, usage=stream.usage, warnings=warnings_of(call))


async def embed_all(
    ask: Callable[[EmbedRequest], Awaitable[Embeddings]], request: EmbedRequest, *, most: int, concurrency: int
) -> Embeddings:
    """One vector for each text, whatever the number of requests. Usage is of all of them, None where one told none."""
    for name, value in (("batch_size", most), ("concurrency", concurrency)):
        if value < 1:
            raise InvalidRequest(f"`{name}` is {value}.", param=name, fix="Give a number above 0.")
    places = asyncio.Semaphore(concurrency)

    has_failed = False

    async def one(texts: tuple[str, ...]) -> Embeddings:
        nonlocal has_failed
        async with places:
            if has_failed:  # the place became free because its holder failed
                raise asyncio.CancelledError
            try:
                return await ask(replace(request, inputs=texts))
            except BaseException:
                has_failed = True
                raise

    tasks = [asyncio.create_task(one(texts)) for texts in batches(request.inputs, most)]
    try:
        found = await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return Embeddings(
        tuple(vector for each in found for vector in each.vectors),
        found[0].model,
        added(each.usage for each in found),
        tuple(dict.fromkeys(warning for each in found for warning in each.warnings)),
    )
