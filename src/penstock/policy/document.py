"""One question with one answer that does not stream: asked once, its status checked, its body bounded.

For what is beside a chat (embeddings, token counts). Raises the upstream's own error, typed.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from penstock.canon.errors import FrameTooLarge, TimedOut, Truncated
from penstock.canon.wire import ConnectionLost
from penstock.streams.inflate import inflated

if TYPE_CHECKING:
    from penstock.canon.target import Target
    from penstock.canon.wire import HttpRequest
    from penstock.dialects.base import UpstreamDialect
    from penstock.streams.clocks import Timeouts
    from penstock.transport.base import Transport

#: 2,048 vectors of 3,072 numbers, as JSON
MAX_BODY_BYTES = 256 * 1024 * 1024


async def fetch_document(
    transport: Transport, request: HttpRequest, target: Target, dialect: UpstreamDialect, timeouts: Timeouts
) -> bytes:
    """The body of a 2xx answer."""
    try:
        async with asyncio.timeout(timeouts.first_content):
            status, headers, body = await _fetched(transport, request, target, timeouts)
    except TimeoutError:
        raise TimedOut("first_content", timeouts.first_content or 0.0, target=str(target)) from None
    if not 200 <= status < 300:
        error = dialect.read_error(status, headers, _masked(body, target), str(target))
        error.target = str(target)
        raise error
    return body


async def _fetched(
    transport: Transport, request: HttpRequest, target: Target, timeouts: Timeouts
) -> tuple[int, dict[str, str], bytes]:
    response = await transport.open(request, connect_s=timeouts.connect)
    pieces: list[bytes] = []
    size = 0
    try:
        response = inflated(response)
        while data := await response.read():
            pieces.append(data)
            size += len(data)
            if size > MAX_BODY_BYTES:
                raise FrameTooLarge(f"The reply is larger than {MAX_BODY_BYTES} bytes.", target=str(target))
        response.release()
    except ConnectionLost as error:
        raise Truncated("The upstream closed the connection inside its reply.", target=str(target)) from error
    finally:
        response.abort()
    return response.status, dict(response.headers), b"".join(pieces)


def _masked(body: bytes, target: Target) -> bytes:
    """Some servers repeat the key that they refuse."""
    return body.replace(target.key.reveal().encode(), b"***") if target.key else body
