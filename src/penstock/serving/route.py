"""One route per client dialect: parse, call, relay.

The request is read at its top level and handed to the handler stack; what comes back is relayed as a stream or
gathered into one document, in the client's dialect. Until the status is sent a failure is a status (C9); after that it
is said in the stream, in the dialect, with no terminator behind it (C4). A client that leaves cancels everything (C7).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from penstock.canon.errors import Cancelled, PenstockError, RequestError, StatusError
from penstock.canon.response import Fold
from penstock.serving.asgi import (
    KEY,
    ClientGone,
    ClientHeaders,
    read_body,
    refuse,
    request_id_of,
    respond,
    retry_after,
    turn_away,
)
from penstock.serving.connection import connection_of
from penstock.serving.downstream import SYNTHETIC, Downstream
from penstock.serving.running import reason_of, running_of
from penstock.serving.writers import Translated, Verbatim, rename_model
from penstock.streams.handler import Call
from penstock.telemetry.record import word

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from penstock.dialects.base import Dialect, Encoder
    from penstock.serving.asgi import Header, Receive, Route, Scope, Send
    from penstock.serving.connection import Connection
    from penstock.streams.handler import Handler
    from penstock.streams.stream import EventStream

#: that one answer names of what it was asked without
MAX_NAMES = 32


def chat_route(
    dialect: Dialect, handler: Handler, *, max_body_bytes: int, heartbeat_s: float | None, strict: bool = False
) -> Route:
    """The ASGI callable that answers `dialect`'s requests by `handler`."""

    async def route(scope: Scope, receive: Receive, send: Send) -> None:
        request_id = request_id_of(scope)
        try:
            body = await read_body(scope, receive, max_body_bytes)
            head = dialect.read_head(body, _path(scope))
        except ClientGone:
            return
        except RequestError as error:
            await turn_away(scope, send, error, dialect, request_id)
            return
        call = Call(
            request_id=request_id,
            model=head.model,
            stream=head.stream,
            dialect=dialect,
            head=head,
            body=body,
            headers=ClientHeaders(scope["headers"]),
            route=scope["path"],
            strict=strict,
            key=scope.get(KEY),
        )
        exchange = _stream if head.stream else _document
        await unless_gone(call, exchange(call, dialect, handler, scope, send, heartbeat_s), scope, receive)

    return route


def _path(scope: Scope) -> str:
    """Path and query as they were sent: some dialects say the model there."""
    raw = scope.get("raw_path") or scope["path"].encode()
    query: bytes = scope["query_string"]
    return str((raw + b"?" + query if query else raw).decode("latin-1"))


async def unless_gone(
    call: Call, exchange: Coroutine[Any, Any, None], scope: Scope, receive: Receive, *, is_stopped: bool = True
) -> None:
    """Run the exchange; when the client leaves, cancel it at once and end quietly.

    `is_stopped`: a server that ends stops it. False where what it waits for is stopped, and so ends it.
    """
    task = asyncio.current_task()
    assert task is not None
    gone = False

    def has_gone() -> None:
        nonlocal gone
        if not call.sent.is_whole:  # a server says "disconnect" after a whole answer, too
            gone = True
            call.sent.is_cut = connection is not None and connection.is_cut
            task.cancel()

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        has_gone()

    connection = connection_of(scope)
    running = running_of(scope) if is_stopped else None
    if running is not None:
        running.add(call, task)
    watcher: asyncio.Task[None] | None = None
    if connection is not None:
        connection.when_gone(has_gone)
    else:
        watcher = asyncio.get_running_loop().create_task(watch())
    try:
        await exchange
    except asyncio.CancelledError:
        if not gone:
            raise
        task.uncancel()
    finally:
        if running is not None:
            running.discard(call)
        if connection is not None:
            connection.when_gone(None)
        if watcher is not None:
            watcher.cancel()


async def _stream(
    call: Call, dialect: Dialect, handler: Handler, scope: Scope, send: Send, heartbeat_s: float | None
) -> None:
    down = Downstream(
        send,
        call,
        content_type=dialect.stream_type,
        heartbeat=dialect.heartbeat,
        heartbeat_s=heartbeat_s,
        connection=connection_of(scope),
    )
    try:
        async with handler(call) as stream:
            alias = alias_of(call, stream)
            writer = _writer(call, dialect, stream, alias)
            down.add_headers(answer_headers(call, stream))
            try:
                last = b""
                write = writer.write
                async for batch in stream:
                    data = write(batch)
                    if batch.is_last:
                        last = data  # leaves with the end of the body, in one write
                    elif data and not down.write_now(data, batch.at):
                        await down.write(data)
                if not stream.is_complete:
                    raise Cancelled("The stream was cancelled.")
                await down.end(last + writer.end())
            except (PenstockError, asyncio.CancelledError) as raised:
                error = reason_of(call, raised)
                await down.end(writer.failed(error, _encoder(call, dialect, alias)))
    except (PenstockError, asyncio.CancelledError) as raised:
        error = reason_of(call, raised)
        down.stop()
        if down.started:
            await down.end(_encoder(call, dialect, None).error(error))
        else:
            await refuse_call(call, dialect, send, error)
    finally:
        down.stop()


async def _document(
    call: Call, dialect: Dialect, handler: Handler, scope: Scope, send: Send, heartbeat_s: float | None
) -> None:
    del heartbeat_s  # there is nothing to write one into
    try:
        async with handler(call) as stream:
            alias = alias_of(call, stream)
            if stream.is_document and stream.dialect == dialect.name:
                body = b"".join([batch.raw async for batch in stream])
                if alias is not None:
                    body = rename_model(body, alias, dialect.model_key)
            else:
                folding = Fold()
                async for batch in stream:
                    folding.feed(batch.events)
                created = int(call.began_unix)
                body = dialect.write_document(
                    folding.response(), model=alias, request_id=call.request_id, created=created
                )
            if not stream.is_complete:
                raise Cancelled("The reply was cancelled.")
            headers = [(b"x-request-id", call.request_id.encode()), *answer_headers(call, stream)]
            call.http_status = 200
            call.sent.bytes_out += len(body)
            call.sent.is_whole = True
            await send_document(send, body, headers, connection_of(scope))
    except (PenstockError, asyncio.CancelledError) as raised:
        await refuse_call(call, dialect, send, reason_of(call, raised))


async def send_document(send: Send, body: bytes, headers: list[Header], connection: Connection | None) -> None:
    """The whole answer. Returns when its client has read it, so that whoever reads slowly holds his place."""
    await respond(send, 200, body, headers, connection=connection)
    if connection is not None:
        await connection.drained()


def _writer(call: Call, dialect: Dialect, stream: EventStream, alias: str | None) -> Verbatim | Translated:
    if stream.dialect == dialect.name and stream.framing == dialect.streams_as and not _is_mended(dialect, stream):
        assert call.head is not None
        return Verbatim(stream, dialect, keep_usage=call.head.include_usage, alias=alias)
    return Translated(_encoder(call, dialect, alias), has_comments=dialect.streams_as == "sse")


def _is_mended(dialect: Dialect, stream: EventStream) -> bool:
    """Some servers leave out what strict clients of their own dialect need: their streams are written anew."""
    return stream.target.profile in dialect.mended_profiles


def _encoder(call: Call, dialect: Dialect, alias: str | None) -> Encoder:
    assert call.head is not None
    return dialect.encoder(
        model=alias,
        include_usage=call.head.include_usage,
        request_id=call.request_id,
        created=int(call.began_unix),
    )


def alias_of(call: Call, stream: EventStream) -> str | None:
    """The name that the client knows the model by, where it is not the upstream's own."""
    return call.model if stream.target.model not in (None, call.model) else None


def answer_headers(call: Call, stream: EventStream) -> list[Header]:
    headers = _asked_headers(str(stream.target), call)
    if call.stream and stream.is_document:
        headers.append(SYNTHETIC)
    if call.queued_s:
        headers.append((b"x-penstock-queued-ms", b"%d" % (call.queued_s * 1e3)))
    if call.dropped:
        headers.append((b"x-penstock-dropped", _names(call.dropped)))
    return headers


def _asked_headers(target: str, call: Call) -> list[Header]:
    """Who was asked last, and how often somebody was."""
    return [(b"x-penstock-target", target.encode()), (b"x-penstock-attempts", b"%d" % len(call.attempts))]


def _names(dropped: tuple[str, ...]) -> bytes:
    """They come from clients: each as one word that a header can hold, and so many that it can hold them."""
    named = [word(name) for name in dropped[:MAX_NAMES]]
    more = [f"and {len(dropped) - MAX_NAMES} more"] if len(dropped) > MAX_NAMES else []
    return ", ".join([*named, *more]).encode("ascii", "replace")


async def refuse_call(call: Call, dialect: Dialect, send: Send, error: PenstockError) -> None:
    """The failure as a status. An upstream that speaks the client's dialect has already said it best."""
    call.sent.is_whole = True
    asked = _asked_headers(call.attempts[-1].target, call) if call.attempts else []
    # With several targets it need not be the last one's failure that is told.
    candidates = call.targets or ((call.target,) if call.target is not None else ())
    same_dialect = any(target.dialect == dialect.name for target in candidates if str(target) == error.target)
    if same_dialect and isinstance(error, StatusError) and error.body.lstrip().startswith(b"{"):
        headers = [(b"x-request-id", call.request_id.encode()), *asked]
        if error.retry_after_s is not None:
            headers.append(retry_after(error.retry_after_s))
        await respond(send, error.status, error.body, headers)
        return
    await refuse(send, error, dialect, call.request_id, asked)
