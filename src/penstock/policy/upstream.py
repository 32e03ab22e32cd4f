"""The leaf of every stack: one attempt at one target.

A `Call` with a target goes in; the stream of its reply comes out, once its first content is in hand. The request is
executed once. Status comes before parsing: an answer that is not 2xx is a typed error, never a stream. Leaving the
context closes the upstream, or gives its connection back when the reply was read to its end.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from penstock.canon.errors import PenstockError
from penstock.canon.wire import ConnectionLost
from penstock.dialects import dialect as dialect_of
from penstock.framing.choose import choose_framing
from penstock.streams.clocks import Clocks
from penstock.streams.handler import Attempt
from penstock.streams.stream import EventStream, Reply

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from penstock.canon.target import Target
    from penstock.canon.wire import HttpRequest, HttpResponse
    from penstock.dialects.base import Decoder, Dialect
    from penstock.framing.base import Framing
    from penstock.streams.clocks import Timeouts
    from penstock.streams.handler import Call, Handler
    from penstock.transport.base import Transport

#: An error's body is kept for the caller and the record; more of it says nothing more.
MAX_ERROR_BODY_BYTES = 64 * 1024


def upstream(transport: Transport, timeouts: Timeouts) -> Handler:
    """The handler that asks `call.target` over `transport`."""

    @asynccontextmanager
    async def handle(call: Call) -> AsyncIterator[EventStream]:
        target = call.target
        assert target is not None, "routing comes before the leaf"
        dialect = dialect_of(target.dialect)
        request = _request(call, dialect, target)
        attempt = Attempt(str(target))
        call.attempts.append(attempt)
        clocks = Clocks(timeouts, now=call.now, began=call.began)
        try:
            response = await clocks.guard(transport.open(request, connect_s=timeouts.connect))
        except PenstockError as error:
            clocks.stop()
            error.target = error.target or attempt.target
            attempt.error = error.kind
            raise
        except BaseException:
            clocks.stop()
            raise
        attempt.status = response.status
        reply = Reply(response, _chooser(response, dialect, target), now=call.now, target=attempt.target, clocks=clocks)
        try:
            try:
                if not 200 <= response.status < 300:
                    body = _masked(await _error_body(response), target)
                    raise dialect.read_error(response.status, response.headers, body, attempt.target)
                await reply.begin(call.narrate, hold=call.may_be_asked_again)
            except PenstockError as error:
                attempt.error = error.kind
                raise
            yield EventStream(
                reply, target=target, dialect=dialect.name, status=response.status, attempt=len(call.attempts)
            )
        finally:
            reply.close()

    return handle


def _request(call: Call, dialect: Dialect, target: Target) -> HttpRequest:
    if call.dialect is dialect and call.head is not None:
        return dialect.forward_request(call.head, target, call.headers)
    return dialect.build_request(call.request, target)


def _chooser(response: HttpResponse, dialect: Dialect, target: Target) -> Callable[[bytes], tuple[Framing, Decoder]]:
    def choose(first: bytes) -> tuple[Framing, Decoder]:
        framing = choose_framing(response.headers.get("content-type"), first)
        return framing, dialect.decoder(document=framing.name == "document", provider=target.upstream)

    return choose


async def _error_body(response: HttpResponse) -> bytes:
    pieces: list[bytes] = []
    size = 0
    try:
        while size < MAX_ERROR_BODY_BYTES and (data := await response.read()):
            pieces.append(data)
            size += len(data)
    except ConnectionLost:
        pass  # what came of it is still the best account of what went wrong
    response.release()
    return b"".join(pieces)[:MAX_ERROR_BODY_BYTES]


def _masked(body: bytes, target: Target) -> bytes:
    """Some servers repeat the key that they refuse."""
    return body.replace(target.key.reveal().encode(), b"***") if target.key else body
