"""The simulator: what it says in each dialect, what each fault does, and what it counts."""

from __future__ import annotations

import http.client
import json
import socket
import time
from typing import TYPE_CHECKING, Any

import pytest

import penstock
from penstock.canon.errors import ConfigError, PenstockError
from penstock.dialects import client_dialect, gemini
from penstock.testing import FAULTS, Call, Counts, Pace, Reply, Script, Upstream, When, looks
from penstock.testing.faults import parse_fault
from penstock.testing.plan import Piece, Plan, stream_plan
from penstock.testing.script import read_script, words
from penstock.testing.server import Exchanged, Seen

if TYPE_CHECKING:
    from collections.abc import Iterator

DIALECTS = ("anthropic-messages", "gemini", "ollama", "openai-chat", "openai-completions", "openai-responses")
SHORT = penstock.Timeouts(connect=2, first_content=0.4, idle=0.4, silence=0.4, total=5)

TEXT = "One two three four five six."
WHOLE = Reply(text=TEXT, usage=Counts(9, 6))


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream(WHOLE) as upstream:
        yield upstream


def ask(upstream: Upstream, dialect: str = "openai-chat", model: str = "m", timeouts: Any = SHORT) -> penstock.Response:
    """Through the library; a failure is raised."""
    with penstock.Client(timeouts=timeouts) as client:
        return client.generate(f"sim:{model}", "Hi", base_url=upstream.url_for(dialect), dialect=dialect, key="sk-1")


def outcome(upstream: Upstream, fault: str, dialect: str = "openai-chat") -> str:
    """How a reply with this fault ends for who reads it."""
    try:
        response = ask(upstream, dialect, f"fault:{fault}")
    except PenstockError as error:
        return error.kind
    return response.outcome or "?"


# --- what it says -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_dialect_says_the_script(dialect: str, upstream: Upstream):
    response = ask(upstream, dialect)
    assert (response.text, response.outcome) == (TEXT, "complete")
    assert response.usage is not None
    assert (response.usage.input, response.usage.output) == (9, 6)
    seen = upstream.seen[0].wait_over()
    assert (seen.dialect, seen.model, seen.faults) == (dialect, "m", ())


@pytest.mark.parametrize("dialect", [name for name in DIALECTS if name != "openai-completions"])
def test_thoughts_and_calls(dialect: str, upstream: Upstream):
    upstream.says(Reply(text=(), reasoning="Let me see.", calls=(Call("look", {"at": "sea"}), Call("now"))))
    response = ask(upstream, dialect)
    assert response.reasoning == "Let me see."
    assert [(call.name, call.arguments) for call in response.tool_calls] == [("look", {"at": "sea"}), ("now", {})]


def post(upstream: Upstream, path: str, body: Any, **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", upstream.port, timeout=5)
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request("POST", path, json.dumps(body), given)
    answer = connection.getresponse()
    found = answer.status, answer.read()
    connection.close()
    return found


ASKED = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


def test_documents_and_other_answers(upstream: Upstream):
    status, body = post(upstream, "/v1/chat/completions", ASKED)
    assert (status, json.loads(body)["choices"][0]["message"]["content"]) == (200, TEXT)
    assert post(upstream, "/v1/chat/completions", {"model": "m"})[0] == 400
    assert post(upstream, "/v1/nothing", ASKED)[0] == 404
    status, body = post(upstream, "/v1/chat/completions", ASKED, x_penstock_fault="cut-aftr")
    assert status == 400
    assert "Did you mean `cut-after`?" in json.loads(body)["error"]["message"]
    connection = http.client.HTTPConnection("127.0.0.1", upstream.port, timeout=5)
    connection.request("GET", "/v1/models")
    assert json.loads(connection.getresponse().read())["data"]
    connection.close()


def test_faults_by_header_and_joined(upstream: Upstream):
    status, body = post(
        upstream, "/v1/chat/completions", {**ASKED, "stream": True}, x_penstock_fault="crlf+no-done, bom"
    )
    assert status == 200
    assert body.startswith(b"\xef\xbb\xbfdata: ")
    assert b"\r\n\r\n" in body
    assert b"[DONE]" not in body
    assert upstream.seen[-1].faults == ("crlf", "no-done", "bom")


def test_the_first_reply_that_fits_answers():
    script = Script(
        (Reply(text="a", when=When(model="x*")), Reply(text="b", when=When(dialect="ollama")), Reply(text="c"))
    )
    with Upstream(script) as upstream:
        assert ask(upstream, model="xy").text == "a"
        assert ask(upstream, "ollama").text == "b"
        assert ask(upstream).text == "c"


# --- what goes wrong --------------------------------------------------------------------------------------------------

#: fault → how a stream of OpenAI's dialect ends for who reads it
OUTCOMES = {
    "refuse-10": "connect",
    "reset": "connect",
    "no-answer": "connect",
    "silent": "timeout",
    "slow-head-50": "complete",
    "status-429": "rate_limited",
    "status-503": "overloaded",
    "html": "not_a_stream",
    "json": "complete",
    "cut-after-3": "truncated",
    "reset-after-3": "truncated",
    "end-after-3": "truncated",
    "cut-bytes-300": "truncated",
    "reset-bytes-300": "truncated",
    "cut-inside-2": "truncated",
    "stall-before-content": "timeout",
    "stall-after-2": "timeout",
    "stay-open": "complete",
    "no-done": "complete",
    "no-finish": "truncated",
    "double-done": "complete",
    "late-done-50": "complete",
    "glued-done": "complete",
    "garbage": "complete",
    "usage-first": "complete",
    "usage-last": "complete",
    "usage-every": "complete",
    "usage-never": "complete",
    "error-openai-2": "upstream_error",
    "error-openrouter-2": "upstream_error",
    "error-groq-2": "upstream_error",
    "error-vllm-2": "upstream_error",
    "pings": "timeout",
    "giant": "complete",
    "crlf": "complete",
    "cr": "complete",
    "bom": "complete",
    "no-space": "complete",
    "multi-line": "complete",
    "bytewise": "complete",
    "one-write": "complete",
    "gzip": "complete",
    "plain-type": "complete",
    "no-index": "complete",
    "no-role": "complete",
    "no-model": "complete",
    "no-id": "complete",
    "unknown-fields": "complete",
}

#: what our errors are called, by the outcomes above
KINDS = {"upstream_error": {"streamed_error", "upstream_error"}}


@pytest.mark.parametrize("fault", OUTCOMES)
def test_each_fault_ends_as_it_should(fault: str, upstream: Upstream):
    expected = OUTCOMES[fault]
    found = outcome(upstream, fault)
    assert found in KINDS.get(expected, {expected}), found


def test_every_fault_is_tried_here_or_below():
    tried = {parse_fault(name).name for name in OUTCOMES}
    apart = {"sse", "endless", "bad-arguments", "error-anthropic", "error-responses", "error-gemini", "error-ollama"}
    assert set(FAULTS) == tried | apart


#: with what a careless change of bytes would break: line ends and delimiters inside the text, a colon with its space
ODD_TEXT = ("data: [DONE]\n\n", 'a, "b": {c}, ', 'five\\\\", ', "\u2028", "event: ping\n", "ü🙂")


LOOKS = ("no-space", "multi-line", "bytewise", "unknown-fields", "gzip")
LOOKS_OF_SSE = ("crlf", "cr", "bom")


@pytest.mark.parametrize(
    ("dialect", "look"),
    [(dialect, look) for dialect in DIALECTS for look in (*LOOKS, *(LOOKS_OF_SSE if dialect != "ollama" else ()))],
)
def test_looks_change_nothing_of_what_is_said(dialect: str, look: str, upstream: Upstream):
    upstream.says(Reply(text=ODD_TEXT, usage=Counts(9, 6)))
    response = ask(upstream, dialect, f"fault:{look}")
    assert (response.text, response.outcome) == ("".join(ODD_TEXT), "complete")


@pytest.mark.parametrize("number", [0, 1, 2])
def test_an_error_in_a_json_array_is_one_of_its_elements(number: int):
    head = gemini.ARRAY.read_head(b'{"contents":[{"parts":[{"text":"Hi"}]}]}', "/v1beta/models/m:streamGenerateContent")
    plan = stream_plan(gemini.ARRAY, head, Reply(text=("a", "b")).events("m", "r"), request_id="r")
    *said, error = json.loads(parse_fault(f"error-gemini-{number}").apply(plan, gemini.ARRAY).body)
    assert (len(said), error["error"]["code"]) == (number, 503)


def test_bytes_apart_keep_the_pauses_of_their_pieces():
    plan = Plan((Piece(b"ab", "content", 0.5), Piece(b"c", "content", 0.25)), "text/event-stream")
    cut = looks.bytewise(plan, 0, client_dialect("openai-chat"))
    assert cut.pieces == (Piece(b"a", "content", 0.5), Piece(b"b", "content"), Piece(b"c", "content", 0.25))


@pytest.mark.parametrize("dialect", DIALECTS)
def test_usage_that_nobody_tells(dialect: str, upstream: Upstream):
    response = ask(upstream, dialect, "fault:usage-never")
    assert (response.text, response.outcome) == (TEXT, "complete")
    assert response.usage is None or (response.usage.input, response.usage.output) == (None, None)


@pytest.mark.parametrize(
    ("dialect", "fault"),
    [
        ("anthropic-messages", "error-anthropic"),
        ("openai-responses", "error-responses"),
        ("gemini", "error-gemini"),
        ("ollama", "error-ollama"),
    ],
)
def test_errors_of_other_dialects(dialect: str, fault: str, upstream: Upstream):
    assert outcome(upstream, fault, dialect) in KINDS["upstream_error"]


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("fault", ["cut-after-2", "reset-after-2", "end-after-2", "cut-inside-2"])
def test_c4_a_cut_is_a_cut_in_every_dialect(dialect: str, fault: str, upstream: Upstream):
    assert outcome(upstream, fault, dialect) == "truncated"


@pytest.mark.parametrize("dialect", ["openai-chat", "anthropic-messages", "openai-responses"])
def test_arguments_that_are_no_json(dialect: str, upstream: Upstream):
    upstream.says(Reply(text="x", calls=(Call("look", {"at": "sea"}),)))
    (call,) = ask(upstream, dialect, "fault:bad-arguments").tool_calls
    assert call.arguments is None
    assert call.error is not None


def test_a_stream_though_nobody_asked_for_one(upstream: Upstream):
    status, body = post(upstream, "/v1/chat/completions", ASKED, x_penstock_fault="sse")
    assert (status, body[:6]) == (200, b"data: ")


@pytest.mark.parametrize("position", ["first", "last", "every", "never"])
def test_where_usage_stands(position: str, upstream: Upstream):
    body = {**ASKED, "stream": True, "stream_options": {"include_usage": True}}
    _, data = post(upstream, "/v1/chat/completions", body, x_penstock_fault=f"usage-{position}")
    chunks = [json.loads(line[6:]) for line in data.splitlines() if line.startswith(b"data: {")]
    told = [bool(chunk.get("usage")) for chunk in chunks]
    expected = {
        "first": [True] + [False] * (len(told) - 1),
        "last": [False] * (len(told) - 1) + [True],
        "every": [True] * len(told),
        "never": [False] * len(told),
    }
    assert told == expected[position]


def test_while_it_refuses_nobody_listens(upstream: Upstream):
    for _ in range(2):
        with upstream.refusing(), pytest.raises(penstock.ConnectError, match="Nothing listens"):
            ask(upstream)
        assert ask(upstream).text == TEXT
    assert len(upstream.seen) == 2


def test_it_refuses_for_a_while_and_listens_again(upstream: Upstream):
    with socket.create_connection(("127.0.0.1", upstream.port)) as idle:
        began = time.monotonic()
        assert outcome(upstream, "refuse-300") == "connect"
        with pytest.raises(penstock.ConnectError, match="Nothing listens"):
            ask(upstream)
        with pytest.raises(ConnectionResetError):
            idle.recv(1)
        while True:
            try:
                assert ask(upstream).text == TEXT
                break
            except penstock.ConnectError:
                assert time.monotonic() < began + 10
                time.sleep(0.02)
        assert time.monotonic() - began >= 0.3


# --- what it counts ---------------------------------------------------------------------------------------------------


def test_c7_who_leaves_is_seen_and_what_was_written_then(upstream: Upstream):
    with socket.create_connection(("127.0.0.1", upstream.port)) as client:
        body = json.dumps({**ASKED, "model": "fault:endless", "stream": True}).encode()
        client.sendall(b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        assert client.recv(100)
    left_at = time.monotonic()
    seen = upstream.wait_for().wait_over()
    assert seen.closed_at is not None
    assert seen.closed_at - left_at < 10
    assert seen.written_bytes > 0


def test_c11_who_does_not_read_is_seen(upstream: Upstream):
    with socket.create_connection(("127.0.0.1", upstream.port)) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        body = json.dumps({**ASKED, "model": "fault:endless", "stream": True}).encode()
        client.sendall(b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        seen = upstream.wait_for()
        held = -1
        while held != seen.written_bytes:
            held = seen.written_bytes
            time.sleep(0.05)
        while client.recv(1 << 16) and seen.written_bytes == held:
            pass
        assert seen.blocked_s > 0.01


def test_c1_executions_by_key(upstream: Upstream):
    for key in ("a", "b", "a"):
        post(upstream, "/v1/chat/completions", ASKED, idempotency_key=key)
    assert upstream.executions() == {"a": 2, "b": 1}


def test_waiting_for_what_does_not_come(upstream: Upstream):
    with pytest.raises(TimeoutError, match="0 requests came, not 1"):
        upstream.wait_for(timeout_s=0.01)


# --- scripts ----------------------------------------------------------------------------------------------------------


class Broken(Upstream):
    """Its connection breaks in mid-answer, and it writes on until it is told."""

    async def answer(self, seen: Seen, exchanged: Exchanged) -> None:
        await exchanged.begin(200, {})
        exchanged._connection.abort()
        while exchanged.is_open:
            await exchanged.write(b"x")


def test_an_endless_reply_ends_with_its_connection():
    with Broken() as upstream:
        with pytest.raises(PenstockError):
            ask(upstream)
        assert upstream.wait_for().wait_over().closed_at is not None


def test_a_script_in_yaml():
    script = read_script(
        """
replies:
  - when: {model: "weather*"}
    text: ["It is ", "sunny."]
    calls: [{name: look, arguments: {at: sea}}]
    usage: {input: 9, output: 4}
    pace: {fixed: 20ms}
    faults: [cut-after-2]
  - text: Hello
"""
    )
    first, second = script.replies
    assert (first.text, first.faults, first.usage) == (("It is ", "sunny."), ("cut-after-2",), Counts(9, 4))
    assert script.find("weather-1", "ollama") is first
    assert script.find("m", "ollama") is second


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "replies:\n  - text: Hi\n    faults: [crlf, cut-aftr-3]\n",
            "line 3: There is no fault `cut-aftr-3`. Did you mean `cut-after`?",
        ),
        ("replies:\n  - faults: [crlf-3]\n", "line 2: The fault `crlf` takes no number."),
        ("replies:\n  - txt: Hi\n", "did you mean `text`?"),
        ("replies: 7\n", "Expected `array`"),
        ("replies: [\n", "is not YAML"),
        ("replies:\n  - pace: {fixed: soon}\n", "`soon` is no duration"),
    ],
)
def test_what_is_wrong_with_a_script_is_said(text: str, said: str):
    with pytest.raises(ConfigError) as caught:
        read_script(text)
    assert said in str(caught.value)


def test_a_text_is_cut_into_words():
    for text in (TEXT, " a  b\n", "", "one"):
        assert "".join(words(text)) == text


def test_paces():
    import random

    def first(pace: Pace) -> list[float]:
        pauses = pace.pauses(random.Random(1))
        return [next(pauses) for _ in range(4)]

    assert first(Pace(fixed="20ms")) == [0.02] * 4
    assert first(Pace(recorded=(0.1, 0.2))) == [0.1, 0.2, 0.1, 0.2]
    assert all(0.01 <= pause <= 0.03 for pause in first(Pace(fixed=0.02, jitter=0.01)))
    assert len(set(first(Pace(lognormal="20ms")))) == 4
    assert first(Pace(lognormal="20ms")) == first(Pace(lognormal="20ms")), "the same seed, the same chances"
