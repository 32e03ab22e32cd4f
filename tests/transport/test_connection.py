"""The connection alone, its bytes fed by hand: every cut, every limit, every way in which an answer can go wrong."""

import asyncio
import gc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.canon.errors import ConnectError, ProtocolError
from penstock.transport.base import ConnectionLost
from penstock.transport.connection import Bounds, Http1Connection
from penstock.transport.origin import Origin
from tests.transport.raw import body_of, chunked

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
LENGTH_5 = HEAD + b"Content-Length: 5\r\n\r\n"


class Wire(asyncio.Transport):
    """The loop's end of a connection."""

    def __init__(self):
        super().__init__()
        self.written = b""
        self.unwritten = 0
        self.flow: list[str] = []
        self.is_aborted = False

    def write(self, data):
        self.written += data

    def get_write_buffer_size(self):
        return self.unwritten

    def pause_reading(self):
        self.flow.append("paused")

    def resume_reading(self):
        self.flow.append("resumed")

    def abort(self):
        self.is_aborted = True


class Line:
    """A connection on a `Wire`, and its owner."""

    def __init__(self, **bounds):
        self.free = []
        self.gone = []
        self.wire = Wire()
        self.connection = Http1Connection(
            Origin("http", "h", 80), self, loop=asyncio.get_running_loop(), bounds=Bounds(**bounds)
        )
        self.connection.connection_made(self.wire)

    def put_back(self, connection):
        self.free.append(connection)

    def discard(self, connection):
        self.gone.append(connection)

    def ask(self, **options):
        return self.connection.send(b"GET / HTTP/1.1\r\n\r\n", **options)

    def answer(self, *pieces):
        """What arrives, as the loop gives it: nothing once the socket is closed."""
        for piece in pieces:
            if not self.wire.is_aborted:
                self.connection.data_received(piece)

    def eof(self):
        self.connection.eof_received()
        self.lost(None)

    def lost(self, error=None):
        self.connection.connection_lost(error)

    @property
    def is_kept(self):
        return bool(self.free) and not self.wire.is_aborted


def cut(data, size):
    return [data[i : i + size] for i in range(0, len(data), size)]


ANSWERS = {
    "chunked": (
        CHUNKED + chunked(b"data: a\n\n", b"x", b"data: b\n\n" * 3),
        b"data: a\n\nx" + b"data: b\n\n" * 3,
        True,
    ),
    "trailers": (
        CHUNKED + chunked(b"hello", end=False) + b"0\r\nX-Sum: 1\r\nETag: x\r\n\r\n",
        b"hello",
        True,
    ),
    "extensions": (CHUNKED + b"5;a=b\r\nhello\r\n0;last\r\n\r\n", b"hello", True),
    "chunked by llama-server": (HEAD + b"Server: llama.cpp\r\n" + CHUNKED[len(HEAD) :] + chunked(b"a"), b"a", False),
    "length by llama-server": (HEAD + b"Server: llama.cpp\r\nContent-Length: 5\r\n\r\nhello", b"hello", True),
    "length": (LENGTH_5 + b"hello", b"hello", True),
    "length 0": (HEAD + b"Content-Length: 0\r\n\r\n", b"", True),
    "until eof": (HEAD + b"\r\nhello", b"hello", False),
    "until eof, empty": (HEAD + b"\r\n", b"", False),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", b"", True),
    "304": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", b"", True),
    "continue": (b"HTTP/1.1 100 Continue\r\n\r\n" + LENGTH_5 + b"hello", b"hello", True),
    "early hints": (b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" * 2 + LENGTH_5 + b"hello", b"hello", True),
    "close": (HEAD + b"Connection: close\r\nContent-Length: 5\r\n\r\nhello", b"hello", False),
    "http/1.0": (b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"hello", False),
    "http/1.0 kept": (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello", b"hello", True),
    "upgrade offered": (
        HEAD + b"Upgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: 5\r\n\r\nhello",
        b"hello",
        True,
    ),
}


async def play(name, pieces):
    _, body, is_kept = ANSWERS[name]
    line = Line()
    response = line.ask()
    line.answer(*pieces)
    await response.begun()
    assert "link" not in response.headers
    if name.startswith("until eof"):
        line.eof()
    assert await body_of(response) == body
    assert await response.read() == b""
    assert line.is_kept == is_kept
    assert line.wire.is_aborted != is_kept
    response.release()
    response.abort()


@pytest.mark.parametrize("name", ANSWERS)
async def test_c3_every_size_of_read_gives_the_same_body(name):
    wire = ANSWERS[name][0]
    for size in range(1, len(wire) + 1):
        await play(name, cut(wire, size))


@settings(max_examples=60, deadline=None)
@given(data=st.data(), name=st.sampled_from(sorted(ANSWERS)))
def test_c3_any_cut_gives_the_same_body(data, name):
    wire = ANSWERS[name][0]
    ends = sorted(data.draw(st.sets(st.integers(1, len(wire) - 1), max_size=8)))
    pieces = [wire[a:b] for a, b in zip([0, *ends], [*ends, len(wire)], strict=True)]
    asyncio.run(play(name, pieces))


@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_head_has_no_body_whatever_it_says(size):
    line = Line()
    for extra in (b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Content-Length: 0\r\n"):
        response = line.ask(is_head=True)
        line.answer(*cut(HEAD + extra + b"\r\n", size))
        await response.begun()
        assert await response.read() == b""
        assert line.is_kept
    response = line.ask()
    line.answer(LENGTH_5 + b"hello")
    assert await body_of(response) == b"hello"


async def test_head_with_a_body_is_not_kept():
    line = Line()
    response = line.ask(is_head=True)
    line.answer(LENGTH_5 + b"hello")
    await response.begun()
    assert await response.read() == b""
    assert line.wire.is_aborted


async def test_headers_are_lower_case_and_joined():
    line = Line()
    response = line.ask()
    line.answer(b"HTTP/1.1 200 OK\r\nX-A: 1\r\nx-a: 2\r\nX-Empty:\r\nX-B: \xe4\r\n\r\n")
    await response.begun()
    assert response.headers == {"x-a": "1, 2", "x-empty": "", "x-b": "ä"}


async def test_read_gives_all_that_arrived_at_once():
    line = Line()
    response = line.ask()
    line.answer(CHUNKED, chunked(b"a", b"b", end=False), chunked(b"c", end=False))
    assert await response.read() == b"abc"
    reader = asyncio.create_task(response.read())
    await asyncio.sleep(0)
    line.answer(b"1\r\n", b"d", b"\r\n1\r\ne\r\n")
    assert await reader == b"de"


async def test_two_readers_at_a_time_are_a_mistake():
    line = Line()
    response = line.ask()
    line.answer(CHUNKED)
    reader = asyncio.create_task(response.read())
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError):
        await response.read()
    reader.cancel()
    await asyncio.gather(reader, return_exceptions=True)
    line.answer(chunked(b"a"))
    assert await body_of(response) == b"a"


# --- the end of a connection -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", [CHUNKED + b"5\r\nhel", LENGTH_5 + b"hel", CHUNKED + b"3\r\nhel\r\n"])
@pytest.mark.parametrize("how", ["eof", "reset"])
async def test_c4_a_cut_body_is_never_an_end(head, how):
    line = Line()
    response = line.ask()
    line.answer(head)
    line.eof() if how == "eof" else line.lost(ConnectionResetError())
    assert await response.read() == b"hel"
    for _ in range(2):
        with pytest.raises(ConnectionLost):
            await response.read()
    assert line.gone == [line.connection]
    assert not line.free


async def test_c4_a_reset_is_not_the_end_of_a_body_until_eof():
    line = Line()
    response = line.ask()
    line.answer(HEAD + b"\r\nhel")
    line.lost(ConnectionResetError())
    assert await response.read() == b"hel"
    with pytest.raises(ConnectionLost) as caught:
        await response.read()
    assert isinstance(caught.value.__cause__, ConnectionResetError)


async def test_a_fresh_connection_without_an_answer():
    line = Line()
    response = line.ask()
    line.eof()
    with pytest.raises(ConnectError, match=r"h:80 closed the connection without an answer\."):
        await response.begun()


async def test_a_head_cut_in_the_middle():
    line = Line()
    response = line.ask()
    line.answer(b"HTTP/1.1 200 OK\r\nContent-")
    line.eof()
    with pytest.raises(ConnectError, match="in the middle of its answer's head"):
        await response.begun()


async def test_c1_a_kept_connection_that_resets_may_have_seen_the_request():
    line = Line()
    line.ask()
    line.answer(LENGTH_5 + b"hello")
    response = line.ask()
    line.lost(ConnectionResetError())
    with pytest.raises(ConnectError):
        await response.begun()


@pytest.mark.parametrize("byte", [b"H", b"HTTP/1.1 100 Continue\r\n\r\n"])
async def test_c1_not_stale_once_a_byte_of_the_answer_came(byte):
    line = Line()
    line.ask()
    line.answer(LENGTH_5 + b"hello")
    response = line.ask()
    line.answer(byte)
    line.eof()
    with pytest.raises(ConnectError):
        await response.begun()


async def test_c1_not_stale_when_the_upstream_had_time_to_work():
    line = Line(stale_s=0.0)
    line.ask()
    line.answer(LENGTH_5 + b"hello")
    response = line.ask()
    await asyncio.sleep(0.003)
    line.eof()
    with pytest.raises(ConnectError):
        await response.begun()


# --- answers that are not HTTP, or too much of it --------------------------------------------------------------------


@pytest.mark.parametrize(
    "wire",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 1\n\na",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nframes",
    ],
)
async def test_what_is_not_an_answer_is_a_protocol_error(wire):
    line = Line()
    response = line.ask()
    line.answer(wire)
    with pytest.raises(ProtocolError, match="h:80"):
        await response.begun()
    assert line.wire.is_aborted
    assert not line.free


async def test_malformed_in_the_body_is_a_lost_connection():
    line = Line()
    response = line.ask()
    line.answer(CHUNKED + b"1\r\na\r\n", b"zz\r\n")
    assert await response.read() == b"a"
    with pytest.raises(ConnectionLost, match=r"HTTP/1\.1") as caught:
        await response.read()
    assert caught.value.__cause__ is not None
    assert line.wire.is_aborted


@pytest.mark.parametrize("size", [100, 1_000_000])
@pytest.mark.parametrize("flood", [b"x: " + b"a" * 3000, b"x: y\r\n" * 400, b"HTTP/1.1 100 Continue\r\n\r\n" * 100])
async def test_c11_a_head_has_a_limit(flood, size):
    line = Line(header_bytes=2000)
    response = line.ask()
    line.answer(*cut((b"" if flood.startswith(b"HTTP") else b"HTTP/1.1 200 OK\r\n") + flood, size))
    if flood.startswith(b"HTTP") and size > 2000:
        line.answer(b"H")
    with pytest.raises(ProtocolError, match="2000 bytes"):
        await response.begun()
    assert line.wire.is_aborted


@pytest.mark.parametrize("flood", [b"0\r\nx: " + b"a" * 3000, b"0\r\n" + b"x: y\r\n" * 400, b"5;" + b"a" * 3000])
async def test_c11_trailers_and_extensions_have_a_limit(flood):
    line = Line(header_bytes=2000)
    response = line.ask()
    line.answer(CHUNKED + chunked(b"a", end=False))
    assert await response.read() == b"a"
    line.answer(*cut(flood, 100))
    with pytest.raises(ConnectionLost, match="2000 bytes"):
        await response.read()
    assert line.wire.is_aborted


async def test_c11_a_long_stream_in_tiny_reads_is_within_limits():
    line = Line(header_bytes=200)
    response = line.ask()
    line.answer(CHUNKED)
    for _ in range(500):
        line.answer(b"1\r\n", b"a", b"\r\n")
        assert await response.read() == b"a"


# --- connections that are not kept -----------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [b"HTTP/1.1 200 OK\r\n\r\n", LENGTH_5 + b"other", b"garbage"])
async def test_bytes_after_the_answer_are_neither_read_nor_kept(more):
    line = Line()
    response = line.ask()
    line.answer(LENGTH_5 + b"hello" + more)
    assert await body_of(response) == b"hello"
    assert line.wire.is_aborted
    assert not line.free


async def test_bytes_on_an_idle_connection_close_it():
    line = Line()
    response = line.ask()
    line.answer(LENGTH_5 + b"hello")
    assert line.is_kept
    line.answer(LENGTH_5 + b"other")
    assert line.wire.is_aborted
    assert line.connection.is_closed
    assert await body_of(response) == b"hello"


async def test_an_answer_before_the_request_was_written_is_whole_but_not_kept():
    line = Line()
    line.wire.unwritten = 1000
    response = line.ask()
    line.answer(LENGTH_5 + b"hello")
    assert await body_of(response) == b"hello"
    assert line.wire.is_aborted


# --- a reader who does not read --------------------------------------------------------------------------------------


async def test_c11_reading_stops_above_the_mark_and_goes_on_after_a_read():
    line = Line(high_water_bytes=len(CHUNKED) + 100)
    response = line.ask()
    line.answer(CHUNKED, *[chunked(b"a" * 20, end=False)] * 3)
    assert line.wire.flow == []
    line.answer(chunked(b"a" * 20, end=False))
    assert line.wire.flow == ["paused"]
    assert await response.read() == b"a" * 80
    assert line.wire.flow == ["paused", "resumed"]


async def test_c11_a_reader_who_waits_is_never_paused():
    line = Line(high_water_bytes=100)
    response = line.ask()
    line.answer(CHUNKED)
    for _ in range(3):
        reader = asyncio.create_task(response.read())
        await asyncio.sleep(0)
        line.answer(chunked(b"a" * 1000, end=False))
        assert line.wire.flow == []
        assert len(await reader) == 1000


async def test_a_paused_connection_is_kept_reading():
    line = Line(high_water_bytes=10)
    response = line.ask()
    line.answer(CHUNKED + chunked(b"a" * 20, end=False))
    assert line.wire.flow == ["paused"]
    line.answer(b"0\r\n\r\n")  # in flight already when the loop was told to stop
    assert line.is_kept
    assert line.wire.flow == ["paused", "resumed"]
    assert await body_of(response) == b"a" * 20


# --- release and abort -----------------------------------------------------------------------------------------------


async def test_release_drains_the_rest_and_keeps_the_connection():
    line = Line()
    response = line.ask()
    line.answer(CHUNKED + chunked(b"[DONE]", end=False))
    assert await response.read() == b"[DONE]"
    response.release()
    assert not line.free
    assert repr(line.connection) == "<Http1Connection http://h:80 DRAINING, 1 request>"
    line.answer(chunked(b"more"))
    assert line.is_kept
    with pytest.raises(ConnectionLost, match="released"):
        await response.read()
    second = line.ask()
    line.answer(LENGTH_5 + b"hello")
    assert await body_of(second) == b"hello"


async def test_release_drains_no_more_than_it_may():
    line = Line(drain_bytes=100)
    response = line.ask()
    line.answer(CHUNKED)
    response.release()
    line.answer(chunked(b"a" * 60, end=False))
    assert not line.wire.is_aborted
    line.answer(chunked(b"a" * 60, end=False))
    assert line.wire.is_aborted


async def test_release_counts_what_was_held_and_resumes():
    line = Line(drain_bytes=100, high_water_bytes=50)
    response = line.ask()
    line.answer(CHUNKED + chunked(b"a" * 90, end=False))
    assert line.wire.flow == ["paused"]
    response.release()
    assert line.wire.flow == ["paused", "resumed"]
    assert not line.wire.is_aborted
    line.answer(chunked(b"a" * 20))
    assert line.is_kept, "the last read ends the body, and is bounded itself"


async def test_release_drains_no_longer_than_it_may():
    line = Line(drain_s=0.005)
    response = line.ask()
    line.answer(CHUNKED)
    response.release()
    await asyncio.sleep(0.015)
    assert line.wire.is_aborted


@pytest.mark.parametrize("wire", [b"", b"HTTP/1.1 200 OK\r\n", HEAD + b"\r\nhello"])
async def test_release_closes_what_cannot_be_drained(wire):
    line = Line()
    response = line.ask()
    line.answer(wire)
    response.release()
    assert line.wire.is_aborted


async def test_release_of_a_whole_body_forgets_it():
    line = Line()
    response = line.ask()
    line.answer(LENGTH_5 + b"hello")
    response.release()
    assert line.is_kept
    with pytest.raises(ConnectionLost, match="released"):
        await response.read()


@pytest.mark.parametrize("ending", ["abort", "release"])
async def test_c7_ending_wakes_the_reader(ending):
    line = Line()
    response = line.ask()
    line.answer(CHUNKED)
    reader = asyncio.create_task(response.read())
    await asyncio.sleep(0)
    getattr(response, ending)()
    with pytest.raises(ConnectionLost):
        await reader
    assert line.wire.is_aborted == (ending == "abort")
    line.lost()


async def test_c7_abort_closes_at_once_and_any_number_of_times():
    line = Line()
    response = line.ask()
    line.answer(CHUNKED + chunked(b"hello", end=False))
    response.abort()
    assert line.wire.is_aborted
    response.abort()
    response.release()
    line.lost()
    with pytest.raises(ConnectionLost, match="aborted"):
        await response.read()


async def test_c13_abort_of_a_whole_body_leaves_the_next_request_alone():
    line = Line()
    first = line.ask()
    line.answer(LENGTH_5 + b"hello")
    second = line.ask()
    first.abort()
    first.release()
    line.answer(LENGTH_5 + b"other")
    assert await body_of(second) == b"other"
    with pytest.raises(ConnectionLost):
        await first.read()


async def test_repr_shows_the_state():
    line = Line()
    connection = line.connection
    assert repr(Http1Connection(Origin("http", "::1", 1), line, loop=connection.loop)) == (
        "<Http1Connection http://[::1]:1 CONNECTING, 0 requests>"
    )
    assert repr(connection) == "<Http1Connection http://h:80 IDLE, 0 requests>"
    response = line.ask()
    assert repr(connection) == "<Http1Connection http://h:80 ACTIVE, 1 request>"
    assert repr(response) == "<Http1Response no head yet, 0 bytes held, open>"
    line.answer(LENGTH_5 + b"hello")
    assert repr(response) == "<Http1Response 200, 5 bytes held, whole>"
    line.eof()
    assert repr(connection) == "<Http1Connection http://h:80 CLOSED, 1 request>"


async def test_c13_a_closed_connection_is_freed_without_the_collector():
    line = Line()
    line.ask()
    line.answer(LENGTH_5 + b"hello")
    line.eof()
    gc.disable()
    try:
        referrers = [r for r in gc.get_referrers(line.connection) if type(r).__name__ == "HttpResponseParser"]
        assert not referrers
    finally:
        gc.enable()
