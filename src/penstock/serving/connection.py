"""uvicorn's HTTP/1.1 connection, with three things that ASGI has no word for.

A head and its first body leave in one write, and so does a whole answer; body bytes leave without a coroutine while the
client keeps up; and who asks is called when the client has gone, without a task that waits for it. Each is worth up to
a tenth of what a request or a frame costs here (docs/decisions/0012). Under another server `connection_of` is None, and
plain ASGI does the same work.

And two bounds that uvicorn does not set. What a client may send is `intake`'s to say. A client that reads nothing, for
`write_s`, of what waits for it, is cut off: it may be slow, but it must go on.
"""

from __future__ import annotations

import contextlib
import re
import sys
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from penstock.serving.intake import Intake

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable

    from penstock.serving.asgi import Header, Scope, Send

_KEY = "penstock.connection"


def connection_of(scope: Scope) -> Connection | None:
    found: Connection | None = scope.get(_KEY)
    return found


#: seconds for which a client may read nothing, where nobody says otherwise
WRITE_S = 60.0

#: a head whose every byte may stand there, but for the ends of its lines
_CLEAN = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")

#: how often it is looked whether a client reads on, in the time that it has
_LOOKS = 4


class Connection(Intake):
    #: None: no limit
    write_s: float | None = WRITE_S

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._gone: Callable[[], None] | None = None
        self._is_lost = False
        self._corked: _Corked | None = None
        #: the client read nothing for too long, and was cut off
        self.is_cut = False
        self._unread_bytes = 0
        self._read_at = 0.0
        self._looking: asyncio.TimerHandle | None = None
        #: since when nothing has been asked that is not answered; None: something has, or nothing ever
        self._idle_since: float | None = None
        self._until_idle: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._corked = _Corked(transport)
        super().connection_made(self._corked)  # type: ignore[arg-type]

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_lost = True
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None
        if self._until_idle is not None:
            self._until_idle.cancel()
            self._until_idle = None
        super().connection_lost(exc)
        self._corked = None
        if self._gone is not None:
            gone, self._gone = self._gone, None
            gone()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope[_KEY] = self  # type: ignore[literal-required]

    # --- a client that does not read ----------------------------------------------------------------------------------

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._read_at = self.loop.time()

    # --- a client that asks no more -----------------------------------------------------------------------------------
    # uvicorn sets a timer with each answer and takes it back with each request. One that looks at the time will do.

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        else:
            self._idle_since = self.loop.time()
            if self._until_idle is None:
                self._until_idle = self.loop.call_later(self.timeout_keep_alive, self._is_idle)
        self._watch()

    def _unset_keepalive_if_required(self) -> None:
        self._idle_since = None

    def _is_idle(self) -> None:
        self._until_idle = None
        if self._idle_since is None:
            return
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left > 0.001:
            self._until_idle = self.loop.call_later(left, self._is_idle)
        else:
            self.timeout_keep_alive_handler()

    def _watch(self) -> None:
        """From when something waits for the client until nothing does any more."""
        if self._looking is None and self.write_s is not None and self.transport.get_write_buffer_size():
            self._unread_bytes = self._unread()
            self._read_at = self.loop.time()
            self._looking = self.loop.call_later(self.write_s / _LOOKS, self._look)

    def _look(self) -> None:
        self._looking = None
        if self.write_s is None or not self.transport.get_write_buffer_size():
            return
        now, unread = self.loop.time(), self._unread()
        is_settled = self.flow.write_paused or self.cycle is None or self.cycle.response_complete
        if unread < self._unread_bytes or not is_settled:  # where more may have been written, less would be chance
            self._read_at = now
        elif now - self._read_at >= self.write_s:
            self.is_cut = True
            self.transport.abort()
            return
        self._unread_bytes = unread
        self._looking = self.loop.call_later(self.write_s / _LOOKS, self._look)

    def _unread(self) -> int:
        """Bytes that the client has not taken: ours, and the kernel's, which takes more from us in large steps only."""
        held = self.transport.get_write_buffer_size()
        with contextlib.suppress(ImportError, OSError, ValueError):  # not every system tells; then the steps are larger
            import fcntl
            import termios

            queued, found = bytearray(4), self.transport.get_extra_info("socket")
            if found is not None:
                fcntl.ioctl(found.fileno(), termios.TIOCOUTQ, queued)
                held += int.from_bytes(queued, sys.byteorder)
        return held

    # --- what the application asks of it ----------------------------------------------------------------------------

    def when_gone(self, gone: Callable[[], None] | None) -> None:
        """Call this, once, when the client has gone; None takes it back."""
        if gone is not None and self._is_lost:
            gone()
        else:
            self._gone = gone

    async def drained(self) -> None:
        """Return when the client has read all but a little, or has gone."""
        if self.flow.write_paused:
            await self.flow.drain()

    def cut(self) -> None:
        """Close it in the middle of an answer, which cannot be ended truly in any other way."""
        self.cycle.disconnected = True
        self.transport.close()

    def write_whole(self, send: Send, status: int, headers: Iterable[Header], body: bytes) -> bool:
        """An answer, its length among its headers, in one write. False: `send` can do it, or says why not.

        It must be uvicorn's own: whoever stands between may have something to add.
        """
        cycle = self._running
        own: object = getattr(send, "__self__", None)
        if cycle is None or own is not cycle:
            return False
        if cycle.response_started or cycle.disconnected or self.flow.write_paused:
            return False
        if not cycle.keep_alive or cycle.scope["method"] == "HEAD":
            return False
        lines = [b"%b: %b" % header for header in (*cycle.default_headers, *headers)]
        if not _CLEAN.fullmatch(b"".join(lines)):
            return False
        cycle.response_started = cycle.response_complete = True
        cycle.waiting_for_100_continue = False
        self.transport.write(b"%b%b\r\n\r\n%b" % (STATUS_LINE[status], b"\r\n".join(lines), body))
        cycle.message_event.set()
        cycle.on_response()
        return True

    def hold_head(self) -> None:
        """The next write is a head: it leaves with the one after it."""
        if self._corked is not None:
            self._corked.is_holding = True

    def write_chunk(self, data: bytes) -> bool:
        """One chunk of a chunked body, now. False when the client does not keep up: then ASGI's `send` must wait."""
        corked = self._corked
        if self.flow.write_paused:
            return False
        if corked is not None:
            write = corked.write if corked.held else corked.transport.write
            write(b"%x\r\n%b\r\n" % (len(data), data))
        return True


class _Corked:
    """A transport that can hold one write back until the next."""

    __slots__ = ("held", "is_holding", "transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self.held = b""
        self.is_holding = False

    def write(self, data: bytes) -> None:
        if self.is_holding:
            self.is_holding = False
            self.held = data
            return
        if self.held:
            data = self.held + data
            self.held = b""
        self.transport.write(data)

    def close(self) -> None:
        if self.held:
            self.transport.write(self.held)
            self.held = b""
        self.transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transport, name)
