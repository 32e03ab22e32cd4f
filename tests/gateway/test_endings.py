"""Every way in which a stream can end, for the four pairs of client and upstream dialect, through the real gateway."""

from __future__ import annotations

import json
import socket
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.gateway import frames
from tests.gateway.conftest import KEY, PATHS, Answer, model_for, request_body

if TYPE_CHECKING:
    from tests.gateway.conftest import Bench
    from tests.scripted_upstream import Exchange

pytestmark = pytest.mark.process

DIALECTS = ("openai-chat", "anthropic-messages")
pairs = pytest.mark.parametrize(
    ("client", "upstream"), [(client, upstream) for client in DIALECTS for upstream in DIALECTS]
)
clients = pytest.mark.parametrize("client", DIALECTS)


def answering(*pieces: bytes, then: str = "end") -> Any:
    def script(exchange: Exchange) -> None:
        exchange.begin()
        for piece in pieces:
            exchange.chunk(piece)
        if then == "end":
            exchange.end()
        elif then == "reset":
            exchange.reset()
        elif then == "close":
            exchange.connection.close()
        elif then == "hang":
            exchange.wait_until_closed()

    return script


# --- complete -------------------------------------------------------------------------------------------------------


@pairs
def test_c3_a_stream_arrives_whole_and_in_order(bench: Bench, client: str, upstream: str) -> None:
    data = frames.whole(upstream, "one ", "two ", "three")
    for size in (1, 7, len(data)):
        bench.upstream.script = answering(*[data[at : at + size] for at in range(0, len(data), size)])
        answer = bench.ask(client, upstream)
        seen = frames.Seen(client, answer.body)
        assert (answer.status, seen.text, seen.is_terminated, seen.error) == (200, "one two three", True, None)


@pairs
def test_c6_one_record_with_the_usage_that_came_after_the_finish(bench: Bench, client: str, upstream: str) -> None:
    bench.upstream.script = answering(frames.whole(upstream, "one"))
    record = bench.record(bench.ask(client, upstream))
    assert (record["outcome"], record["finish_reason"], record["attempts"]) == ("complete", "stop", 1)
    assert (record["prompt_tokens"], record["completion_tokens"], record["usage_source"]) == (5, 3, "reported")
    assert (record["dialect_in"], record["dialect_out"]) == (client, upstream)
    assert (record["generation_tps"], record["context_total"], record["cost"]) == (None, None, None)


@pairs
def test_c1_a_request_runs_upstream_once_whatever_its_ending(bench: Bench, client: str, upstream: str) -> None:
    endings = [
        answering(frames.whole(upstream, "one")),
        answering(frames.opening(upstream), frames.text(upstream, "one"), then="reset"),
        answering(frames.error(upstream)),
        lambda exchange: exchange.send(b"HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n"),
    ]
    for number, script in enumerate(endings, 1):
        bench.upstream.script = script
        bench.ask(client, upstream)
        assert len(bench.upstream.executions) == number


@pairs
def test_c2_each_frame_reaches_the_client_before_the_next_is_sent(bench: Bench, client: str, upstream: str) -> None:
    go_on = threading.Semaphore(0)

    def script(exchange: Exchange) -> None:
        exchange.begin()
        exchange.chunk(frames.opening(upstream))
        for word in ("one ", "two ", "three"):
            assert go_on.acquire(timeout=10)
            exchange.chunk(frames.text(upstream, word))
        exchange.chunk(frames.finish(upstream) + frames.terminator(upstream))
        exchange.end()

    bench.upstream.script = script
    connection = bench.connect()
    connection.request("POST", PATHS[client], request_body(client, model_for(upstream), stream=True))
    answer = connection.getresponse()  # the headers left with the first event
    for word in (b"one ", b"two ", b"three"):
        go_on.release()
        while word not in (line := answer.readline()):
            assert line, f"{word!r} never came"
    answer.read()
    connection.close()


# --- not complete ---------------------------------------------------------------------------------------------------


def broken(upstream: str) -> dict[str, tuple[Any, str, str]]:
    """name → (script, outcome on the record, error type there)."""
    begun = (frames.opening(upstream), frames.text(upstream, "one "), frames.text(upstream, "two"))
    half = frames.text(upstream, "lost")[:-9]
    return {
        "reset": (answering(*begun, then="reset"), "truncated", "truncated"),
        "closed without a last chunk": (answering(*begun, then="close"), "truncated", "truncated"),
        "clean end without a terminal": (answering(*begun), "truncated", "truncated"),
        "cut inside a frame": (answering(*begun, half), "truncated", "truncated"),
        "error in band": (answering(*begun, frames.error(upstream)), "upstream_error", "streamed_error"),
        "error and then a terminator": (
            answering(*begun, frames.error(upstream) + frames.terminator(upstream)),
            "upstream_error",
            "streamed_error",
        ),
        "no JSON": (answering(*begun, b"data: {nonsense\n\n"), "upstream_error", "malformed_frame"),
    }


@pairs
@pytest.mark.parametrize("name", list(broken("openai-chat")))
def test_c4_a_broken_stream_ends_in_one_error_and_no_terminator(
    bench: Bench, client: str, upstream: str, name: str
) -> None:
    bench.upstream.script, outcome, error_type = broken(upstream)[name]
    answer = bench.ask(client, upstream)
    seen = frames.Seen(client, answer.body)
    assert answer.status == 200
    assert seen.text == "one two"
    assert seen.error is not None
    assert not seen.is_terminated
    assert seen.finish is None
    record = bench.record(answer)
    assert (record["outcome"], record["error_type"]) == (outcome, error_type)
    if error_type == "streamed_error":
        assert seen.error["message"] == "no more power"


@clients
def test_c4_a_done_without_a_finish_reason_proves_nothing(bench: Bench, client: str) -> None:
    chat = "openai-chat"
    bench.upstream.script = answering(frames.opening(chat), frames.text(chat, "one"), frames.terminator(chat))
    answer = bench.ask(client, chat)
    seen = frames.Seen(client, answer.body)
    assert (seen.text, seen.is_terminated, seen.finish) == ("one", False, None)
    assert seen.error is not None
    assert bench.record(answer)["outcome"] == "truncated"


@clients
def test_c4_a_reset_after_the_finish_is_complete(bench: Bench, client: str) -> None:
    chat = "openai-chat"
    bench.upstream.script = answering(frames.opening(chat), frames.text(chat, "one"), frames.finish(chat), then="reset")
    answer = bench.ask(client, chat)
    seen = frames.Seen(client, answer.body)
    assert (seen.text, seen.is_terminated, seen.error) == ("one", True, None)
    assert bench.record(answer)["outcome"] == "complete"


@pairs
def test_c9_an_error_before_the_stream_is_a_status(bench: Bench, client: str, upstream: str) -> None:
    body = frames.error(upstream).partition(b"data: ")[2].strip()

    def script(exchange: Exchange) -> None:
        head = (
            f"HTTP/1.1 429 Slow down\r\ncontent-type: application/json\r\nretry-after: 7\r\ncontent-length: {len(body)}"
        )
        exchange.send(head.encode() + b"\r\n\r\n" + body)

    bench.upstream.script = script
    answer = bench.ask(client, upstream)
    assert answer.status == 429
    assert answer.headers["retry-after"] == "7"
    assert answer.json["error"]["message"] == "no more power"
    assert ("type" in answer.json) == (client == "anthropic-messages")
    assert bench.record(answer)["http_status"] == 429


@pairs
def test_c9_an_error_as_the_first_frame_is_a_status(bench: Bench, client: str, upstream: str) -> None:
    bench.upstream.script = answering(frames.error(upstream))
    answer = bench.ask(client, upstream)
    assert answer.status >= 500
    assert answer.json["error"]["message"] == "no more power"


@pairs
def test_c9_after_a_heartbeat_an_error_is_told_in_the_stream(impatient: Bench, client: str, upstream: str) -> None:
    impatient.upstream.script = answering(then="hang")
    answer = impatient.ask(client, upstream)
    seen = frames.Seen(client, answer.body)
    assert answer.status == 200
    assert (b": keep-alive" if client == "openai-chat" else b"event: ping") in answer.body
    assert seen.error is not None
    assert not seen.is_terminated


# --- clocks ---------------------------------------------------------------------------------------------------------


def pinging(upstream: str, *first: bytes, seconds: float = 1.2) -> Any:
    def script(exchange: Exchange) -> None:
        exchange.begin()
        for piece in first:
            exchange.chunk(piece)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            exchange.chunk(frames.ping(upstream))
            time.sleep(0.04)
        exchange.wait_until_closed()

    return script


@pairs
def test_c8_pings_satisfy_no_content_clock(impatient: Bench, client: str, upstream: str) -> None:
    impatient.upstream.script = pinging(upstream)
    assert impatient.record(impatient.ask(client, upstream))["error_type"] == "timeout_first_content"
    impatient.upstream.script = pinging(upstream, frames.opening(upstream), frames.text(upstream, "one"))
    answer = impatient.ask(client, upstream)
    record = impatient.record(answer)
    assert (record["outcome"], record["error_type"]) == ("timeout", "timeout_idle")
    assert frames.Seen(client, answer.body).text == "one"


@clients
def test_c8_silence_is_a_clock_of_its_own(impatient: Bench, client: str) -> None:
    chat = "openai-chat"
    impatient.upstream.script = answering(frames.opening(chat), frames.text(chat, "one"), then="hang")
    assert impatient.record(impatient.ask(client, chat))["error_type"] == "timeout_silence"


@clients
def test_c8_the_total_clock_ends_a_stream_that_goes_on(impatient: Bench, client: str) -> None:
    chat = "openai-chat"

    def script(exchange: Exchange) -> None:
        exchange.begin()
        while True:
            exchange.chunk(frames.text(chat, "on "))
            time.sleep(0.05)

    impatient.upstream.script = script
    assert impatient.record(impatient.ask(client, chat))["error_type"] == "timeout_total"


# --- the client leaves ----------------------------------------------------------------------------------------------


@pairs
@pytest.mark.parametrize("when", ["before the headers", "in the stream", "without a stream"])
def test_c7_a_client_that_leaves_closes_the_upstream_within_50_ms(
    bench: Bench, client: str, upstream: str, when: str
) -> None:
    closed: list[float] = []
    asked, done = threading.Event(), threading.Event()

    def script(exchange: Exchange) -> None:
        if when == "in the stream":
            exchange.begin()
            exchange.chunk(frames.opening(upstream) + frames.text(upstream, "one"))
        asked.set()
        closed.append(exchange.wait_until_closed())
        done.set()

    bench.upstream.script = script
    took = []
    for _ in range(3):  # a shared machine may be busy once
        asked.clear()
        done.clear()
        connection = bench.connect()
        body = request_body(client, model_for(upstream), stream=when != "without a stream")
        connection.request("POST", PATHS[client], body)
        assert asked.wait(10)
        if when == "in the stream":
            connection.getresponse().readline()
        assert connection.sock is not None
        connection.sock.shutdown(socket.SHUT_RDWR)
        left = time.monotonic()
        connection.close()
        assert done.wait(10)
        took.append(closed[-1] - left)
        if took[-1] < 0.05:
            break
    assert min(took) < 0.05
    bench.gateway.wait_for_line(r'"outcome":"cancelled"')


# --- a reply of the other kind --------------------------------------------------------------------------------------


@pairs
def test_c12_json_for_a_stream_becomes_a_stream(bench: Bench, client: str, upstream: str) -> None:
    body = frames.document(upstream, "all at once")

    def script(exchange: Exchange) -> None:
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        exchange.send(head.encode() + body)

    bench.upstream.script = script
    answer = bench.ask(client, upstream)
    seen = frames.Seen(client, answer.body)
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.headers["x-penstock-synthetic"] == "true"
    assert (seen.text, seen.is_terminated, seen.error) == ("all at once", True, None)
    assert bench.record(answer)["synthetic"] is True


@pairs
def test_c12_a_stream_for_a_document_becomes_a_document(bench: Bench, client: str, upstream: str) -> None:
    bench.upstream.script = answering(frames.whole(upstream, "piece ", "by piece"))
    answer = bench.ask(client, upstream, stream=False)
    assert answer.headers["content-type"] == "application/json"
    reply = answer.json
    said = reply["choices"][0]["message"]["content"] if client == "openai-chat" else reply["content"][0]["text"]
    assert said == "piece by piece"


@clients
def test_a_page_instead_of_a_reply(bench: Bench, client: str) -> None:
    page = b"<html><title>Sign in</title></html>"
    head = f"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {len(page)}\r\n\r\n".encode()
    bench.upstream.script = lambda exchange: exchange.send(head + page)
    answer = bench.ask(client, "openai-chat")
    assert answer.status == 502
    assert "most end in /v1" in answer.json["error"]["message"]


# --- what must not leak ---------------------------------------------------------------------------------------------


def test_c13_no_key_prompt_or_reply_is_printed_or_stored(bench: Bench) -> None:
    echo = json.dumps({"error": {"message": f"bad key {KEY}", "type": "invalid_request_error"}}).encode()
    head = f"HTTP/1.1 401 No\r\ncontent-type: application/json\r\ncontent-length: {len(echo)}\r\n\r\n".encode()
    answers: list[Answer] = []
    for client in DIALECTS:
        for upstream in DIALECTS:
            bench.upstream.script = lambda exchange: exchange.send(head + echo)
            answers.append(bench.ask(client, upstream))
            bench.upstream.script = answering(frames.whole(upstream, "the-reply"))
            answers.append(bench.ask(client, upstream))
    assert all(KEY.encode() not in answer.body for answer in answers)
    assert KEY.encode() in b"".join(bench.upstream.heads)  # it was used
    bench.record(answers[-1])
    printed = "\n".join(bench.gateway.lines)
    for secret in (KEY, "the-prompt", "the-reply"):
        assert secret not in printed


def test_c13_nothing_is_left_open_after_many_streams(bench: Bench) -> None:
    chat = "openai-chat"
    scripts = [
        answering(frames.whole(chat, "one")),
        answering(frames.opening(chat), frames.text(chat, "one"), then="reset"),
        answering(frames.opening(chat), frames.error(chat)),
        lambda exchange: exchange.reset(),
    ]
    folder = Path(f"/proc/{bench.gateway.process.pid}/fd")
    counted = []
    for _ in range(3):
        for number in range(40):
            bench.upstream.script = scripts[number % len(scripts)]
            answer = bench.ask(DIALECTS[number % 2], chat)
        bench.record(answer)
        counted.append(len(list(folder.iterdir())))
    assert counted[-1] <= counted[0] + 2
