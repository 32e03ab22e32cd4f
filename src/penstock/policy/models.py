"""What models an upstream has: its own list, page after page, in its dialect's way.

One list goes out for one target; bounded in time, pages and bytes. What goes wrong is the error that a call would get.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from penstock.canon.errors import ConnectError, FrameTooLarge, PenstockError, ProtocolError, TimedOut, Unsupported
from penstock.canon.wire import ConnectionLost
from penstock.dialects import dialect as dialect_of
from penstock.dialects.base import load_json
from penstock.dialects.listing import LISTINGS
from penstock.policy.upstream import error_body, masked

if TYPE_CHECKING:
    from penstock.canon.model import Model
    from penstock.canon.target import Target
    from penstock.canon.wire import HttpRequest, HttpResponse
    from penstock.transport.base import Transport

MAX_PAGES = 50
#: OpenRouter's list is the longest known, at less than 2 MB.
MAX_PAGE_BYTES = 16 * 1024 * 1024


async def ask_models(
    target: Target, transport: Transport, *, path: str | None = None, timeout_s: float = 30.0
) -> list[Model]:
    """Its models, as it orders them, each once. `path` is where the list is when it is not at the dialect's place."""
    listing = LISTINGS.get(target.dialect)
    if listing is None:
        raise Unsupported(
            f"{target.upstream} lists no models in its dialect ({target.dialect}).",
            fix="Its documentation names them; `penstock providers` says where that is.",
        )
    found: dict[str, Model] = {}
    cursor: str | None = None
    seen: set[str] = set()
    try:
        async with asyncio.timeout(timeout_s):
            for _ in range(MAX_PAGES):
                answer = await _answer(listing.request(target, cursor, path=path), target, transport)
                page = listing.read(load_json(answer))
                if page is None:
                    raise ProtocolError(
                        f"{target.upstream} answered with no list of models.", fix="Check its url and its dialect."
                    )
                models, cursor = page
                for model in models:
                    found.setdefault(model.id, model)
                if cursor is None or cursor in seen:
                    break
                seen.add(cursor)
    except TimeoutError:
        raise TimedOut("total", timeout_s, target=target.upstream) from None
    except ConnectionLost as error:
        raise ConnectError(f"{target.upstream} closed the connection inside its list of models.") from error
    except PenstockError as error:
        error.target = error.target or target.upstream
        raise
    return list(found.values())


async def _answer(request: HttpRequest, target: Target, transport: Transport) -> bytes:
    response = await transport.open(request, connect_s=5.0)
    try:
        if not 200 <= response.status < 300:
            body = masked(await error_body(response), target)
            raise dialect_of(target.dialect).read_error(response.status, response.headers, body, target.upstream)
        body = await _whole(response)
        response.release()
        return body
    finally:
        response.abort()


async def _whole(response: HttpResponse) -> bytes:
    pieces: list[bytes] = []
    size = 0
    while data := await response.read():
        pieces.append(data)
        size += len(data)
        if size > MAX_PAGE_BYTES:
            raise FrameTooLarge(f"A list of models is longer than {MAX_PAGE_BYTES // 2**20} MiB.")
    return b"".join(pieces)
