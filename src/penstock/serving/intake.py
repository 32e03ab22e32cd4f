"""What a client may send over one connection, and how slowly: uvicorn's reading of HTTP/1.1, within bounds.

In: bytes as they come. Out: requests to the application, by uvicorn. What is no HTTP/1.1 that everybody reads alike is
refused with a status and one sentence, and the connection closed; never inside an answer that is under way, which is
finished first. A head, trailers and chunk extensions are at most `MAX_HEAD_BYTES`, and what one read brings beyond. An
upgrade that nobody here speaks is passed over. Trailers are read and forgotten.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Literal

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from msgspec import Struct
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

if TYPE_CHECKING:
    import asyncio

    from uvicorn._types import ASGI3Application
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

#: as our own client allows an upstream (transport/http1.py); nginx allows 32 KiB
MAX_HEAD_BYTES = 64 * 1024
#: Apache allows 100, Node 2,000
MAX_HEADERS = 500
#: whole requests that wait on one connection for the answers before them
MAX_PIPELINED = 16
#: how long, and how much, a client that was refused may go on sending, to nobody
LINGER_S = 0.5
LINGER_BYTES = 4 * 1024 * 1024
#: A body that has not even so much of it to show for its time is no slow network.
MIN_BODY_BYTES = 1024


class ClientLimits(Struct, frozen=True):
    """How slowly a client may send. Seconds; None: no limit."""

    #: a request's head, from its first byte, or from the connection's beginning
    header_s: float | None = 30.0
    #: `MIN_BODY_BYTES` of a body, or its end
    body_s: float | None = 30.0


_LIMITS = ClientLimits()


class _Refused(Exception):
    """Said by a callback of the parser; it arrives as the context of the parser's own error."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence


_TOO_LARGE = (431, f"The request's head is larger than {MAX_HEAD_BYTES} bytes.")


class Intake(HttpToolsProtocol):
    def __init__(self, *args: Any, limits: ClientLimits = _LIMITS, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._limits = limits
        self._is_deaf = False  # what still comes is neither read nor answered
        self._running: RequestResponseCycle | None = None  # the one that is being answered
        #: since the last byte of a body, or the last end of a message
        self._fruitless_bytes = 0
        #: what the client has begun and not finished
        self._owed: Literal["head", "body"] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._body_bytes = 0  # since the timer was set

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect("head")

    def connection_lost(self, exc: Exception | None) -> None:
        self._expect(None)
        running = self._running
        if running is not None and not running.response_complete:
            running.disconnected = True  # uvicorn tells the last that was asked, which may wait behind this one
            running.message_event.set()
        super().connection_lost(exc)
        self._running = None

    # --- reading ----------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._is_deaf:
            self._fruitless_bytes += len(data)
            if self._fruitless_bytes > LINGER_BYTES:
                self.transport.close()
            return
        self._unset_keepalive_if_required()
        self._fruitless_bytes += len(data)
        self._parse(data)
        if self._fruitless_bytes > MAX_HEAD_BYTES and not self._is_deaf:
            self._refuse(*_TOO_LARGE)
        cycle = self.cycle
        owed: Literal["head", "body"] | None = None
        if cycle is None or cycle.response_complete:
            owed = "head"
        elif cycle.more_body:
            owed = "body"
        if owed is not self._owed and not self._is_deaf:
            self._expect(owed)

    def _parse(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except HttpParserUpgrade as upgrade:
            self._pass_over_upgrade(data[upgrade.args[0] :])
        except HttpParserError as error:
            said = error.__context__
            if isinstance(said, _Refused):
                self._refuse(said.status, said.sentence)
            elif self._fruitless_bytes > MAX_HEAD_BYTES:  # whatever stands behind, which may have come with its end
                self._refuse(*_TOO_LARGE)
            else:
                self._refuse(400, "This is no valid HTTP/1.1 request.")

    def on_headers_complete(self) -> None:
        parser, headers = self.parser, self.headers
        version = parser.get_http_version()
        if version not in ("1.1", "1.0"):
            raise _Refused(505, "HTTP/1.1 is spoken here.")
        if len(headers) > MAX_HEADERS:
            raise _Refused(431, f"The request has more than {MAX_HEADERS} headers.")
        # Of what has come, some may be a body's, or another request's.
        if self._fruitless_bytes > MAX_HEAD_BYTES and self._head_bytes() > MAX_HEAD_BYTES:
            raise _Refused(*_TOO_LARGE)
        names = [name for name, _ in headers]
        hosts = names.count(b"host")
        if hosts > 1 or (version == "1.1" and not hosts):
            raise _Refused(400, "A request needs one Host, and no more.")
        if b"transfer-encoding" in names and dict(headers)[b"transfer-encoding"].strip().lower() != b"chunked":
            raise _Refused(501, "The transfer coding is not known here; chunked is.")
        if parser.should_upgrade():
            if parser.get_method() == b"CONNECT":
                raise _Refused(405, "This is no proxy.")
            return
        if len(self.pipeline) >= MAX_PIPELINED:
            raise _Refused(429, f"More than {MAX_PIPELINED} requests wait on this connection.")
        super().on_headers_complete()
        self.headers = []  # for trailers, which say nothing of a request that has been let in
        if self.pipeline:
            self.flow.resume_reading()  # else nobody would see the client leave

    def _head_bytes(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def on_body(self, body: bytes) -> None:
        self._fruitless_bytes = 0
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        self._fruitless_bytes = 0
        super().on_message_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _pass_over_upgrade(self, rest: bytes) -> None:
        """The request is what it would be without (RFC 9110, 7.8). The parser skips its body, so it is read again.

        Java's HttpClient offers h2c with the first request of a connection, POST or not.
        """
        lines = [b"%b %b HTTP/1.1" % (self.parser.get_method(), self.url)]
        lines += [b"%b: %b" % header for header in self.headers if header[0] != b"upgrade"]
        self.parser = HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._parse(b"\r\n".join([*lines, b"", rest]))

    # --- refusing ---------------------------------------------------------------------------------------------------

    def _refuse(self, status: int, sentence: str) -> None:
        """Say so and close. What was asked before is answered first, and nothing is said into an answer."""
        self._is_deaf = True
        self._expect(None)
        running, last = self._running, self.cycle
        if running is not None and not running.response_complete:
            if last is running and running.more_body and not running.response_started:
                running.disconnected = True  # it is this one's body: whoever reads it shall read no more
                running.message_event.set()
            else:
                if last is not running and last.more_body:
                    self.pipeline.popleft()
                last = self.pipeline[0][0] if self.pipeline else running
                last.keep_alive = last.more_body = False
                last.message_event.set()
                return
        said = sentence.encode()
        self.transport.write(
            b"HTTP/1.1 %d %b\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\n"
            b"connection: close\r\n\r\n%b" % (status, HTTPStatus(status).phrase.encode(), len(said), said)
        )
        # A socket that is closed with bytes unread is reset, and who was still writing never reads why.
        self.transport.write_eof()
        self._timer = self.loop.call_later(LINGER_S, self.transport.close)

    def _expect(self, owed: Literal["head", "body"] | None) -> None:
        """Give the client its time for this, from now on."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._owed = owed
        limit_s = {"head": self._limits.header_s, "body": self._limits.body_s, None: None}[owed]
        if limit_s is not None:
            self._body_bytes = 0
            self._timer = self.loop.call_later(limit_s, self._is_late)

    def _is_late(self) -> None:
        self._timer = None
        if self._owed == "body" and (self.flow.read_paused or self._body_bytes >= MIN_BODY_BYTES):
            self._expect("body")
        elif self._fruitless_bytes or self._owed == "body":
            self._refuse(408, f"The request's {self._owed} took too long.")
        else:  # it has never asked for anything
            self.transport.close()
