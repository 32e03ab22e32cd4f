"""Whatever the gateway has no route for, passed to an upstream as it came, and its answer as it comes back.

`/upstreams/NAME/…` is any path of the upstream NAME; where one upstream answers for every name (the only one, or the
one of `"*"`), paths that nobody knows here are its own: llama.cpp's `/props`, `/slots`, `/tokenize`. The path is put
after the upstream's URL without its version (`/v1`), so it is written with it. Only configured upstreams are asked, and
no path leads out of one: dot segments are refused, however they are spelt.

Bodies are streamed both ways and not looked into. Not passed on: what belongs to one connection, cookies, and the
client's own keys; the upstream gets its key. An answer of an error has that key masked. What ends before its end is cut
off for the client, too, because there is no dialect to say it in. Each is a record, whose model is empty.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote_to_bytes, urlencode, urlsplit

from penstock.canon.errors import (
    ConfigError,
    ConnectError,
    Forbidden,
    InvalidRequest,
    PenstockError,
    ProtocolError,
    RequestError,
    TimedOut,
    TooLarge,
    Truncated,
    UnknownRoute,
    Unsupported,
)
from penstock.canon.wire import ConnectionLost, HttpRequest
from penstock.config.load import destinations, upstream_target
from penstock.dialects.base import key_headers
from penstock.dialects.listing import LISTINGS
from penstock.policy.client_key import with_clients_key
from penstock.policy.upstream import masked
from penstock.serving.asgi import KEY, ClientGone, ClientHeaders, header, refuse, request_id_of, turn_away
from penstock.serving.connection import connection_of
from penstock.serving.paths import dialect_of_path
from penstock.serving.route import unless_gone
from penstock.serving.running import reason_of
from penstock.streams.handler import Attempt, Call
from penstock.telemetry.record import CallRecord, Outcome

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from penstock.canon.target import Target
    from penstock.canon.wire import HttpResponse
    from penstock.config.model import Config
    from penstock.serving.asgi import Header, Receive, Scope, Send
    from penstock.streams.handler import Layer
    from penstock.telemetry.recorder import InFlight
    from penstock.transport.base import Transport

BELOW = "/upstreams/"

#: of the gateway itself: never an upstream's by the short way
OWN = ("/upstreams", "/metrics", "/ready", "/health", "/dashboard", "/api/records", "/api/capabilities")

#: what belongs to one connection (RFC 9110, 7.6.1), or is ours to say
_HOP = frozenset(
    ("connection", "keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization", "te", "trailer",
     "transfer-encoding", "upgrade", "host", "content-length", "expect")
)  # fmt: skip
#: and what is one client's own
_PRIVATE = frozenset(("authorization", "x-api-key", "x-goog-api-key", "api-key", "cookie", "x-request-id"))
_NOT_BACK = _HOP - {"content-length"} | {"set-cookie", "date", "x-request-id"}

_VERSION = re.compile(r"/v\d+[a-z0-9]*/?$")
_CONTROL = re.compile(rb"[\x00-\x20\x7f]")

#: of an error's body, where a key may be repeated
MASKED_BYTES = 64 * 1024


class Passthrough:
    """`route` takes every request that no other route does. `layers` are those that limit calls, which look at nothing
    of a stream."""

    def __init__(
        self,
        config: Config,
        transport: Transport,
        *,
        publish: Callable[[CallRecord], None],
        in_flight: InFlight,
        layers: tuple[Layer, ...] = (),
    ) -> None:
        self._transport = transport
        self._publish = publish
        self._in_flight = in_flight
        self._max_body_bytes = config.server.max_body
        self._connect_s = config.timeouts.connect
        self._first_s = config.timeouts.first_content
        self._silence_s = config.timeouts.silence
        self._targets = {name: _target(config, name) for name in config.upstreams}
        everything = destinations(config).get("*")
        names = {target.upstream for target in everything.targets} if everything is not None else set()
        self._default = names.pop() if len(names) == 1 else None
        handler: Any = self._open
        for layer in reversed(layers):
            handler = layer(handler)
        self._handler: Callable[[Call], AbstractAsyncContextManager[_Opening]] = handler

    def takes(self, path: str) -> bool:
        """Whether there is an upstream whose path this is."""
        if path.startswith(BELOW):
            return True
        return self._default is not None and path != "/" and not path.startswith(OWN)

    async def route(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = request_id_of(scope)
        dialect = dialect_of_path(scope["path"])
        try:
            target, url = self._place(scope)
            if target.forward_auth:
                target = with_clients_key(target, ClientHeaders(scope["headers"]), target.dialect, scope.get(KEY))
            _check_key(scope)
            length = _length(scope)
            if length is not None and length > self._max_body_bytes:
                raise _too_large(self._max_body_bytes)
        except PenstockError as error:
            await turn_away(scope, send, error, dialect, request_id)
            return
        call = Call(
            request_id=request_id, model="", stream=False, route=scope["path"], target=target, key=scope.get(KEY)
        )
        request = HttpRequest(scope["method"], url, tuple(_sent_headers(scope, target)))
        if _has_body(scope):
            request = HttpRequest(
                request.method,
                url,
                request.headers,
                upload=_pieces(receive, self._max_body_bytes),
                upload_length=length,
            )
        await unless_gone(call, self._exchange(call, request, scope, send), scope, receive)

    # --- whom, and where ---

    def _place(self, scope: Scope) -> tuple[Target, str]:
        """The upstream, and the URL there."""
        raw: bytes = scope.get("raw_path") or scope["path"].encode()
        path = raw.decode("latin-1")
        name = self._default
        if path.startswith(BELOW):
            named, _, rest = path.removeprefix(BELOW).partition("/")
            name, path = unquote_to_bytes(named).decode("utf-8", "replace"), f"/{rest}"
        if name is None or name not in self._targets:
            known = ", ".join(sorted(self._targets)) or "none"
            raise UnknownRoute(f"There is no upstream `{(name or '')[:64]}`.", param="path", fix=f"Known: {known}.")
        target = self._targets[name]
        if isinstance(target, ConfigError):
            raise target
        if target.auth == "sigv4":
            raise Unsupported(f"Requests to {name} are signed, which nothing that is passed on can be.", param="path")
        _check_path(path.encode("latin-1"))
        parts = urlsplit(target.url)
        root = f"{parts.scheme}://{parts.netloc}{_VERSION.sub('', parts.path.rstrip('/'))}"
        query = _query(scope["query_string"])
        return target, f"{root}{path}{'?' + query if query else ''}"

    # --- the exchange ---

    async def _exchange(self, call: Call, request: HttpRequest, scope: Scope, send: Send) -> None:
        self._in_flight.count += 1
        seen = _Seen(call, self._in_flight.count)
        try:
            await self._relayed(call, request, scope, send, seen)
        except BaseException as error:
            seen.failed(error)
            raise
        finally:
            self._in_flight.count -= 1
            self._publish(seen.record())

    async def _relayed(self, call: Call, request: HttpRequest, scope: Scope, send: Send, seen: _Seen) -> None:
        has_begun = False
        try:
            async with self._handler(call) as opening:
                try:
                    response = await self._answered(opening, request, call)
                    first = await self._first(response, call.target)
                    seen.answered(response)
                    has_begun = True
                    call.http_status = response.status
                    await send(
                        {
                            "type": "http.response.start",
                            "status": response.status,
                            "headers": _answer_headers(response, call),
                        }
                    )
                    data = first
                    while data:
                        call.sent.bytes_out += len(data)
                        await send({"type": "http.response.body", "body": data, "more_body": True})
                        data = await self._read(response)
                    opening.is_whole = True
                finally:
                    opening.close()
                seen.completed()
                call.sent.is_whole = True
                await send({"type": "http.response.body", "body": b""})
        except (PenstockError, asyncio.CancelledError) as raised:
            error = reason_of(call, raised)
            seen.failed(error)
            if has_begun:
                connection = connection_of(scope)
                if connection is not None:
                    connection.cut()
            else:
                call.http_status = error.status
                call.sent.is_whole = True
                await refuse(send, error, dialect_of_path(scope["path"]), call.request_id)

    async def _answered(self, opening: _Opening, request: HttpRequest, call: Call) -> HttpResponse:
        attempt = Attempt(str(call.target))
        call.attempts.append(attempt)
        try:
            async with asyncio.timeout(self._first_s) as clock:
                response = await self._transport.open(request, connect_s=self._connect_s)
        except TimeoutError:
            if clock.expired() and self._first_s is not None:
                raise TimedOut("first_content", self._first_s, target=attempt.target) from None
            raise
        except ConnectError as error:
            if isinstance(error.__cause__, RequestError):  # the body that was on its way broke a limit of ours
                raise error.__cause__ from None
            raise
        opening.response = response
        attempt.status = response.status
        if not 200 <= response.status <= 599:
            raise ProtocolError(f"The upstream answered {response.status}, which is no status.", target=attempt.target)
        return response

    async def _first(self, response: HttpResponse, target: Target | None) -> bytes:
        """What the answer's head leaves with; of an error as much as may repeat the upstream's key, which is masked."""
        if response.status < 400 or target is None or target.key is None:
            return await self._read(response)
        data = b""
        while len(data) < MASKED_BYTES and (more := await self._read(response)):
            data += more
        return masked(data, target)

    async def _read(self, response: HttpResponse) -> bytes:
        try:
            async with asyncio.timeout(self._silence_s) as clock:
                return await response.read()
        except ConnectionLost as error:
            raise Truncated("The upstream closed the connection before its answer's end.") from error
        except TimeoutError:
            if clock.expired() and self._silence_s is not None:
                raise TimedOut("silence", self._silence_s) from None
            raise

    def _open(self, call: Call) -> _Opening:
        return _Opening()


class _Opening:
    """The innermost of the layers: holds the response while they hold their places."""

    def __init__(self) -> None:
        self.response: HttpResponse | None = None
        self.is_whole = False

    async def __aenter__(self) -> _Opening:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the connection back after a whole body, else close it: what is left nobody reads."""
        if self.response is not None and self.is_whole:
            self.response.release()
        elif self.response is not None:
            self.response.abort()


class _Seen:
    """What becomes of one exchange, and the record of it. The first word is kept."""

    def __init__(self, call: Call, concurrent: int) -> None:
        self._call = call
        self._concurrent = concurrent
        self._answered_at: float | None = None
        self._ended_at: float | None = None
        self._outcome: Outcome = "cancelled"
        self._error: str | None = "cancelled"
        self._is_stream = False

    def answered(self, response: HttpResponse) -> None:
        self._answered_at = self._call.now()
        self._is_stream = response.headers.get("content-type", "").startswith("text/event-stream")

    def completed(self) -> None:
        self._end("complete", None)

    def failed(self, error: BaseException) -> None:
        outcome: Outcome = "upstream_error"
        if isinstance(error, TimedOut):
            self._end("timeout", f"timeout_{error.clock}")
            return
        if isinstance(error, Truncated):
            outcome = "truncated"
        elif isinstance(error, TooLarge):
            outcome = "capped"
        elif not isinstance(error, PenstockError) or error is self._call.stopped:
            outcome = "cancelled"
        self._end(outcome, error.kind if isinstance(error, PenstockError) else "cancelled")

    def _end(self, outcome: Outcome, error: str | None) -> None:
        if self._ended_at is None:
            self._ended_at = self._call.now()
            self._outcome, self._error = outcome, error

    def record(self) -> CallRecord:
        call, target = self._call, self._call.target
        ended = self._ended_at if self._ended_at is not None else call.now()
        return CallRecord(
            request_id=call.request_id,
            time=call.began_unix,
            dialect_out=target.dialect if target is not None else None,
            route=(call.route or "")[:256],
            model_requested="",
            target=target.upstream if target is not None else None,
            stream=self._is_stream,
            attempts=len(call.attempts),
            outcome=self._outcome,
            error_type=self._error,
            http_status=call.http_status,
            ttfb_ms=(self._answered_at - call.began) * 1e3 if self._answered_at is not None else None,
            duration_ms=(ended - call.began) * 1e3,
            bytes_out=call.sent.bytes_out,
            key_name=call.key.name if call.key is not None else None,
            concurrent=self._concurrent,
            queued_ms=call.queued_s * 1e3 or None,
        )


# --- what is passed on, and what is not -------------------------------------------------------------------------------


def _target(config: Config, name: str) -> Target | ConfigError:
    """An upstream that nobody names may lack its key: that is told to who asks it."""
    try:
        return upstream_target(config, name)
    except ConfigError as error:
        return error


def _check_path(raw: bytes) -> None:
    """No segment that a server may take for the folder above, spelt out, escaped once, or escaped twice."""
    spelt = raw
    for _ in range(3):
        if (
            _CONTROL.search(spelt)
            or b"\\" in spelt
            or {b".", b".."} & {it.partition(b";")[0] for it in spelt.split(b"/")}
        ):
            raise InvalidRequest(
                "A path that is passed on has no dot segments and no control characters.", param="path"
            )
        spelt = unquote_to_bytes(spelt)


def _check_key(scope: Scope) -> None:
    """What is passed on may ask for any model."""
    key = scope.get(KEY)
    if key is not None and "*" not in key.models:
        raise Forbidden(
            f"The key `{key.name}` may ask for certain models only, which nobody can tell of what is passed on.",
            fix="Ask by a route of the gateway's own, or give the key all models.",
        )


def _query(raw: bytes) -> str:
    """As it came, but for a key, which is the client's own."""
    text = raw.decode("latin-1")
    if "key=" not in text:
        return text
    pairs = parse_qsl(text, keep_blank_values=True)
    return text if all(name != "key" for name, _ in pairs) else urlencode([it for it in pairs if it[0] != "key"])


def _sent_headers(scope: Scope, target: Target) -> list[tuple[str, str]]:
    named = {it.strip().lower() for it in (header(scope, b"connection") or "").split(",")}
    ours = dict(key_headers(target, LISTINGS[target.dialect].own_auth if target.dialect in LISTINGS else "bearer"))
    ours |= {name.lower(): value for name, value in target.headers}
    given = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
    left_out = _HOP | _PRIVATE | named | set(ours)
    return [*((name, value) for name, value in given if name not in left_out), *ours.items()]


def _answer_headers(response: HttpResponse, call: Call) -> list[Header]:
    named = {it.strip().lower() for it in response.headers.get("connection", "").split(",")}
    # A masked error has another length, and a 304 tells that of what it does not send.
    left_out = (
        _NOT_BACK | named | ({"content-length"} if response.status in (204, 304) or response.status >= 400 else set())
    )
    headers = [(name, value) for name, value in response.headers.items() if name not in left_out]
    if "x-request-id" in response.headers:
        headers.append(("x-upstream-request-id", response.headers["x-request-id"]))
    headers += [("x-request-id", call.request_id), ("x-penstock-target", str(call.target))]
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]


def _length(scope: Scope) -> int | None:
    said = header(scope, b"content-length")
    return int(said) if said is not None and said.isdigit() else None


def _has_body(scope: Scope) -> bool:
    return (_length(scope) or 0) > 0 or header(scope, b"transfer-encoding") is not None


async def _pieces(receive: Receive, max_bytes: int) -> AsyncIterator[bytes]:
    size, more = 0, True
    while more:
        message: Any = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        data: bytes = message.get("body", b"")
        size += len(data)
        if size > max_bytes:
            raise _too_large(max_bytes)
        more = message.get("more_body", False)
        if data:
            yield data


def _too_large(max_bytes: int) -> RequestError:
    return TooLarge(f"The request's body is larger than {max_bytes} bytes.", fix="Send less, or raise server.max_body.")
