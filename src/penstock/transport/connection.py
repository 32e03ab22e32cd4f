"""One HTTP/1.1 connection.

In: one request's bytes at a time, already encoded. Out: an `Http1Response`, fed by the loop's `data_received` through
llhttp (httptools). There is no task here and no lock; everything happens in the loop's thread.

A connection serves one response at a time. It goes back to its owner the moment the body is whole, read or not, and
only if nothing can be wrong with it: the answer allows it, the request was written whole, no byte came that was not
asked for. In every other case the socket is closed. What is held for a reader who does not read is bounded: above
`high_water_bytes` reading from the socket stops, so that TCP slows the upstream down.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import ssl
import struct
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser
from msgspec import Struct

from penstock.canon.errors import ConnectError, ProtocolError
from penstock.transport.response import RELEASED, Http1Response
from penstock.transport.upload import Upload

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from penstock.transport.origin import Origin

_BODYLESS = frozenset((204, 304))

#: `struct tcp_info` of Linux up to and with `tcpi_bytes_acked` (include/uapi/linux/tcp.h; since 4.1).
_TCP_INFO_BYTES = 128
_BYTES_ACKED = struct.Struct("=Q")


class Bounds(Struct, frozen=True):
    """What one connection may hold, and how far it goes to save itself for the next request."""

    header_bytes: int = 64 * 1024
    high_water_bytes: int = 128 * 1024
    drain_bytes: int = 64 * 1024
    drain_s: float = 0.25
    stale_s: float = 1.0


class Owner(Protocol):
    """Who lends a connection out, and is told when it is free again or gone."""

    def put_back(self, connection: Http1Connection) -> None: ...

    def discard(self, connection: Http1Connection) -> None: ...


class StaleConnection(Exception):
    """The upstream had closed a kept connection before the request reached it. Safe to send again, elsewhere."""


class _Unasked(Exception):
    """The upstream began an answer that nobody asked for."""


class _HeadTooLarge(Exception):
    """The head, or the trailers, are over the limit."""


def _lower(name: bytes) -> str:
    return name.decode("latin-1").lower()


# Upstreams send the same few names again and again. Long ones come from nobody's API and shall not fill it.
_lower_known = lru_cache(maxsize=512)(_lower)


def _closes_unsaid(response: Http1Response) -> bool:
    """llama-server closes the connection after a stream, and says that it will keep it (seen 2026-11).

    The close is 0.1 ms behind the last chunk. A request in between is lost, and nobody could tell that from one that
    was executed: with four clients that ask again at once, that was one in fifteen.
    """
    headers = response.headers
    return headers.get("server") == "llama.cpp" and "content-length" not in headers


class Http1Connection(asyncio.Protocol):
    """`send` a request, and nothing else before its response is over. Parser callbacks are the `on_…` methods."""

    __slots__ = (
        "_acknowledged_before",
        "_drain_timer",
        "_drained_bytes",
        "_fruitless_bytes",
        "_head_bytes",
        "_is_encrypted",
        "_is_full",
        "_is_unseen",
        "_keep_alive",
        "_owner",
        "_parser",
        "_paused",
        "_pieces",
        "_poll",
        "_response",
        "_sent_at",
        "_socket",
        "_transport",
        "_upload",
        "_written_bytes",
        "bounds",
        "idle_since",
        "is_closed",
        "loop",
        "on_body",
        "origin",
        "requests",
        "unread_bytes",
    )

    def __init__(
        self, origin: Origin, owner: Owner, *, loop: asyncio.AbstractEventLoop, bounds: Bounds | None = None
    ) -> None:
        self.origin = origin
        self.loop = loop
        self.bounds = bounds or Bounds()
        self.is_closed = False
        self.requests = 0
        self.idle_since = 0.0
        self.unread_bytes = 0
        self._owner = owner
        self._transport: asyncio.Transport | None = None
        self._response: Http1Response | None = None
        self._drain_timer: asyncio.TimerHandle | None = None
        self._drained_bytes = 0
        self._head_bytes = 0
        self._fruitless_bytes = 0
        self._keep_alive = False
        self._paused = False
        self._sent_at = 0.0
        self._socket: socket.socket | None = None
        self._poll: select.poll | None = None
        self._acknowledged_before = 0
        self._is_unseen = False
        self._is_encrypted = False
        self._written_bytes = 0
        self._upload: Upload | None = None
        self._is_full = False  # the socket takes no more
        self._pieces: list[bytes] = []
        # The parser calls this for every piece of a body; a bound builtin spares the frame of a method of ours.
        self.on_body = self._pieces.append
        self._parser: HttpResponseParser | None = None

    def __repr__(self) -> str:
        if self.is_closed:
            state = "CLOSED"
        elif self._transport is None:
            state = "CONNECTING"
        elif self._response is None:
            state = "IDLE"
        else:
            state = "ACTIVE" if self._drain_timer is None else "DRAINING"
        return f"<Http1Connection {self.origin} {state}, {self.requests} request{'' if self.requests == 1 else 's'}>"

    # --- what the owner of a connection does with it -----------------------------------------------------------------

    def is_quiet(self) -> bool:
        """Nothing has arrived that the loop has not read yet: no close, and no answer that nobody asked for.

        Either would make it a poor place for a request. It is a system call, half a microsecond.
        """
        return self._poll is None or not self._poll.poll(0)

    def send(self, request: bytes, *, is_head: bool = False) -> Http1Response:
        """Write a whole request; `is_head` says that its answer has no body, whatever its headers say."""
        response = Http1Response(self, self._pieces, is_head=is_head)
        self.requests += 1
        self._response = response
        self._head_bytes = self._fruitless_bytes = self._drained_bytes = 0
        self._keep_alive = False
        self._sent_at = self.loop.time()
        if self._is_encrypted:
            self._acknowledged_before = self._acknowledged_bytes() or 0
        else:  # what we wrote is what is acknowledged, and the SYN; asking would be a system call per request
            self._acknowledged_before = self._written_bytes + 1
            self._written_bytes += len(request)
        if self.is_closed or self._transport is None:
            self._lose(self._no_answer())
        else:
            self._transport.write(request)
        return response

    def upload(self, pieces: AsyncIterator[bytes], length: int | None) -> None:
        """Send the body of the request whose head has just been sent, while its answer is open."""
        self._upload = Upload(pieces, length, self._write_on, self._upload_failed, is_full=self._is_full)

    def _write_on(self, data: bytes) -> None:
        if self._transport is not None and not self.is_closed:
            self._written_bytes += len(data)
            self._transport.write(data)

    def _upload_failed(self, error: Exception) -> None:
        self.close("The request's body broke off.", error)

    def pause_writing(self) -> None:
        self._is_full = True
        if self._upload is not None:
            self._upload.pause()

    def resume_writing(self) -> None:
        self._is_full = False
        if self._upload is not None:
            self._upload.resume()

    def close(self, why: str = "The connection was closed.", cause: BaseException | None = None) -> None:
        """Close the socket now; a response that was still open is lost, for this reason."""
        if not self.is_closed:
            self.is_closed = True
            if self._transport is not None:
                self._transport.abort()
        self._lose(why, cause)

    def drain(self) -> None:
        """Go on without a reader, within bounds, for the sake of the next request."""
        response = self._response
        # A body that ends with the connection leaves nothing to save; before the head nobody knows.
        if response is None or not response.status or response.until_eof:
            self.close(RELEASED)
            return
        self._drain_timer = self.loop.call_later(self.bounds.drain_s, self.close, RELEASED)
        self._discard_pieces()
        self.was_read()

    def was_read(self) -> None:
        """Nothing is held any more: the socket may bring the next."""
        self.unread_bytes = 0
        if self._paused:
            self._paused = False
            if self._transport is not None and not self.is_closed:
                self._transport.resume_reading()

    # --- what the loop tells ---------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self._parser = HttpResponseParser(self)
        # Nagle against delayed ACK would hold the last segment of a request back by 40 ms.
        sock = self._socket = transport.get_extra_info("socket")
        self._is_encrypted = transport.get_extra_info("ssl_object") is not None
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if hasattr(select, "poll"):  # not on Windows
                self._poll = select.poll()
                self._poll.register(sock.fileno(), select.POLLIN)

    def data_received(self, data: bytes) -> None:
        response = self._response
        if response is None:
            self.close()  # Idle: whatever these bytes are, nobody asked for them.
            return
        try:
            self._parser.feed_data(data)  # type: ignore[union-attr]
        except (HttpParserError, HttpParserUpgrade) as error:
            self._parser_failed(response, error)
            return
        if response.is_whole:
            self._finish(response)
            return
        if self._pieces:
            self._fruitless_bytes = 0
        elif not self._has_borne_fruit(response, len(data)):
            return
        waiter = response.waiter
        if waiter is None:
            self._hold(len(data))
            return
        response.waiter = None
        if not waiter.done():  # done: the reader was cancelled
            waiter.set_result(None)

    def eof_received(self) -> None:
        response = self._response
        if response is not None and response.status and response.until_eof and self._was_ended_by_upstream():
            response.is_whole = True
            self._finish(response)
        else:
            # Not left to the loop, which would first wait until the rest of the request is written.
            acknowledged = self._acknowledged_bytes()
            self._is_unseen = acknowledged is not None and acknowledged <= self._acknowledged_before
            self._vanish(None)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._vanish(exc)
        self._owner.discard(self)
        self._transport = None
        self._socket = self._poll = None
        self._parser = None  # it refers back to us

    # --- what the parser tells ---------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._response is None or self._response.is_whole:
            raise _Unasked

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value) + 4
        if self._head_bytes > self.bounds.header_bytes:
            raise _HeadTooLarge
        response = self._response
        assert response is not None
        if response.status:
            return  # a trailer; nobody we call says anything in one
        key = _lower_known(name) if len(name) <= 64 else _lower(name)
        text, headers = value.decode("latin-1"), response.headers
        headers[key] = f"{headers[key]}, {text}" if key in headers else text

    def on_headers_complete(self) -> None:
        response = self._response
        assert response is not None
        assert self._parser is not None
        status = self._parser.get_status_code()
        if status < 200:
            response.headers.clear()  # 100 Continue, 103 Early Hints: the answer is still to come
            return
        headers = response.headers
        response.status = status
        if response.is_head:
            self._keep_alive = self._parser.should_keep_alive()
            response.is_whole = True
        elif status not in _BODYLESS:
            chunked = "chunked" in headers.get("transfer-encoding", "").lower()
            response.until_eof = not chunked and "content-length" not in headers

    def on_message_complete(self) -> None:
        response = self._response
        assert response is not None
        assert self._parser is not None
        if response.status and not response.is_whole:
            self._keep_alive = self._parser.should_keep_alive() and not _closes_unsaid(response)
            response.is_whole = True

    # --- how a response ends -----------------------------------------------------------------------------------------

    def _finish(self, response: Http1Response, *, clean: bool = True) -> None:
        """The body is whole: part from the response, and be free for another or be closed."""
        transport = self._transport
        assert transport is not None
        clean = clean and (self._upload is None or self._upload.is_over)
        if response.is_head:
            # The parser was never told that no body comes; so a new one, and any byte of one is too much.
            clean = clean and not self._pieces
            self._pieces.clear()
            self._parser = HttpResponseParser(self)
        self._part(response)
        if clean and self._keep_alive and not self.is_closed and not transport.get_write_buffer_size():
            if self.unread_bytes:
                self.was_read()
            self._owner.put_back(self)
        else:
            self.close()

    def _lose(self, why: str, cause: BaseException | None = None) -> None:
        """Part from a response that will not be whole. What had arrived stays readable."""
        response = self._response
        if response is None:
            return
        if not response.is_ended:
            response.lost = why
            response.cause = cause if response.status else self._before_the_head(why, cause)
        self._part(response)

    def _was_ended_by_upstream(self) -> bool:
        """Under TLS only `close_notify` proves it; a bare FIN can come from anybody, and asyncio tells both alike."""
        tls = None if self._transport is None else self._transport.get_extra_info("ssl_object")
        if tls is None:
            return True
        try:
            return not tls.read(1)
        except ssl.SSLZeroReturnError:
            return True
        except ssl.SSLError:
            return False

    def _part(self, response: Http1Response) -> None:
        if not response.is_ended:
            response.pieces = self._pieces.copy()
            response.connection = None
        self._pieces.clear()
        self._response = None
        if self._upload is not None:
            self._upload.stop()
            self._upload = None
        if self._drain_timer is not None:
            self._drain_timer.cancel()
            self._drain_timer = None
        response.wake()

    def _vanish(self, exc: BaseException | None) -> None:
        """The upstream closed the connection."""
        response = self._response
        if response is not None and response.status:
            self.close("The upstream closed the connection before the body's end.", exc)
        else:
            self.close(self._no_answer(), exc)

    def _before_the_head(self, why: str, cause: BaseException | None) -> BaseException:
        """What `open` is to raise."""
        if isinstance(cause, ProtocolError):
            return cause
        fix = "See the upstream's own log."
        error = StaleConnection(why) if self._may_be_stale() else ConnectError(why, fix=fix)
        error.__cause__ = cause
        return error

    def _may_be_stale(self) -> bool:
        """Whether the upstream closed a kept connection without having seen the request.

        Its close was on the way when we wrote: it arrives within a round trip, and the request met a closed socket, so
        its kernel never acknowledged a byte of it. Anything else may have been executed, and must not run twice behind
        the caller's back; a reset tells nothing, and is taken for that.
        """
        if self.requests < 2 or self._head_bytes or self._fruitless_bytes or not self._is_unseen:
            return False
        return self.loop.time() - self._sent_at <= self.bounds.stale_s

    def _acknowledged_bytes(self) -> int | None:
        """How many bytes of ours the upstream's kernel has acknowledged; None where the system does not tell."""
        if self._socket is None or not hasattr(socket, "TCP_INFO"):
            return None
        try:
            info = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
        except OSError:
            return None
        if len(info) < _TCP_INFO_BYTES:
            return None
        acknowledged: int = _BYTES_ACKED.unpack_from(info, _TCP_INFO_BYTES - _BYTES_ACKED.size)[0]
        return acknowledged

    def _no_answer(self) -> str:
        if self._head_bytes or self._fruitless_bytes:
            return f"{self.origin.netloc} closed the connection in the middle of its answer's head."
        return f"{self.origin.netloc} closed the connection without an answer."

    def _parser_failed(self, response: Http1Response, error: Exception) -> None:
        if response.is_whole:
            self._finish(response, clean=False)  # the trouble begins after the answer
            return
        if isinstance(error, HttpParserUpgrade):
            why = f"{self.origin.netloc} switched protocols without being asked to."
        elif isinstance(error.__context__, _HeadTooLarge):
            why = self._too_large()
        else:
            why = f"{self.origin.netloc} did not answer in valid HTTP/1.1: {error}."
        self._refuse(response, why, error)

    def _has_borne_fruit(self, response: Http1Response, size: int) -> bool:
        """Whether to wake a reader after a read without a body's byte; bounds heads, trailers and chunk extensions."""
        self._fruitless_bytes += size
        if self._fruitless_bytes > self.bounds.header_bytes:
            self._refuse(response, self._too_large(), None)
            return False
        return bool(response.status)

    def _too_large(self) -> str:
        return f"The head or the trailers of {self.origin.netloc}'s answer exceed {self.bounds.header_bytes} bytes."

    def _refuse(self, response: Http1Response, why: str, cause: BaseException | None) -> None:
        if not response.status:
            error = ProtocolError(why)
            error.__cause__ = cause
            cause = error
        self.close(why, cause)

    def _hold(self, size: int) -> None:
        """Nobody waits for what has arrived. `size` is what the socket brought, framing included: an upper bound."""
        if self._drain_timer is not None:
            self._discard_pieces()
            return
        self.unread_bytes += size
        if self.unread_bytes > self.bounds.high_water_bytes and not self._paused:
            self._paused = True
            self._transport.pause_reading()  # type: ignore[union-attr]

    def _discard_pieces(self) -> None:
        self._drained_bytes += sum(map(len, self._pieces))
        self._pieces.clear()
        if self._drained_bytes > self.bounds.drain_bytes:
            self.close(RELEASED)
