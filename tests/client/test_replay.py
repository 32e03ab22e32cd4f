"""`replay`, and what needs no network: model specs, options, lazy import, threads."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import penstock
from penstock.dialects import CLIENT_DIALECTS
from penstock.testing.checks import written
from penstock.testing.samples import AWKWARD, SAMPLES

if TYPE_CHECKING:
    from collections.abc import Callable

STREAM = (
    b'data: {"id":"c1","model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n'
    b'data: {"id":"c1","model":"m","choices":[{"index":0,"delta":{"content":"Hel"}}]}\n\n'
    b'data: {"id":"c1","model":"m","choices":[{"index":0,"delta":{"content":"lo"}}]}\n\n'
    b'data: {"id":"c1","model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    b'data: {"id":"c1","model":"m","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}\n\n'
    b"data: [DONE]\n\n"
)


def replayed(data: bytes = STREAM, **options: object) -> penstock.Stream:
    return penstock.replay(data, dialect="openai-chat", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("sizes", [None, 1, 2, 7, 64, [10, 20, 200], []])
def test_c3_the_events_are_the_same_for_every_cut(sizes: object) -> None:
    assert list(replayed(sizes=sizes)) == list(replayed())


def test_replay_gives_the_whole_response() -> None:
    response = replayed(sizes=5).response
    assert response.text == "Hello"
    assert response.outcome == "complete"
    assert response.usage is not None
    assert (response.usage.input, response.usage.output, response.usage.total) == (3, 2, 5)
    assert (response.model, response.response_id) == ("m", "c1")


def test_replay_of_a_document() -> None:
    body = b'{"id":"c1","model":"m","choices":[{"message":{"content":"Hi"},"finish_reason":"stop"}]}'
    assert replayed(body, sizes=9).response.text == "Hi"


@pytest.mark.parametrize("view", ["events", "text", "response"])
def test_c4_every_view_raises_what_iterating_raises(view: str) -> None:
    cut = replayed(STREAM[: STREAM.index(b'"finish_reason":"stop"')])
    read: dict[str, Callable[[], object]] = {
        "events": lambda: list(cut),
        "text": lambda: list(cut.text),
        "response": lambda: cut.response,
    }
    with pytest.raises(penstock.Truncated) as caught:
        read[view]()
    assert caught.value.partial is not None
    assert caught.value.partial.text == "Hello"
    assert caught.value.partial.outcome == "truncated"


def test_c4_no_prefix_before_the_terminal_is_complete() -> None:
    end = STREAM.index(b"\n\n", STREAM.index(b'"finish_reason":"stop"'))
    for size in range(1, end, 11):
        with pytest.raises(penstock.UpstreamError):
            list(replayed(STREAM[:size]))


def test_an_error_in_the_stream_keeps_the_providers_words() -> None:
    data = (
        STREAM[: STREAM.index(b"data: ", 200)]
        + b'data: {"error":{"message":"busy","type":"overloaded","code":"x"}}\n\n'
    )
    with pytest.raises(penstock.StreamedError) as caught:
        list(replayed(data))
    assert (str(caught.value), caught.value.type, caught.value.code) == ("busy", "overloaded", "x")


def test_an_unknown_dialect_names_the_nearest() -> None:
    with pytest.raises(penstock.ConfigError, match="Did you mean `openai-chat`"):
        penstock.replay(b"", dialect="openai-chatt")


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("gpt-5.6", "Write provider:model"),
        ("opena:gpt", "Did you mean `openai`"),
        (":x", "Write provider:model"),
        ("openai:", "Write provider:model"),
    ],
)
def test_a_wrong_spec_is_refused_before_anything_is_sent(spec: str, said: str) -> None:
    with pytest.raises(penstock.ConfigError, match=said):
        penstock.stream(spec, "Hello")


def test_a_missing_key_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    with pytest.raises(penstock.ConfigError, match="ANTHROPIC_API_KEY"):
        penstock.generate("anthropic:claude", "Hello")


def test_no_messages_are_refused() -> None:
    with pytest.raises(penstock.RequestError, match="no messages"):
        penstock.stream("a:b", [], base_url="http://127.0.0.1:9/v1")


def python(code: str) -> str:
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    return ended.stdout.strip()


@pytest.mark.process
def test_importing_costs_no_thread_and_none_of_the_rest() -> None:
    code = (
        "import sys, threading, penstock\n"
        "heavy = {'asyncio', 'uvicorn', 'httptools', 'typer', 'rich', 'sqlite3', 'ssl', 'uvloop'} & set(sys.modules)\n"
        "print(threading.active_count(), sorted(heavy), 'Client' in dir(penstock))"
    )
    assert python(code) == "1 [] True"


@pytest.mark.process
def test_c13_no_thread_is_left_at_exit() -> None:
    code = f"import penstock\ndata = {STREAM!r}\nprint(penstock.replay(data, dialect='openai-chat').response.text)"
    assert python(code) == "Hello"


def test_every_public_name_exists() -> None:
    assert penstock.__all__ == sorted(penstock._NAMES)
    for name in penstock.__all__:
        assert getattr(penstock, name) is not None
    with pytest.raises(AttributeError):
        penstock.nothing_of_the_kind  # noqa: B018


@pytest.mark.parametrize("dialect", sorted(CLIENT_DIALECTS))
@pytest.mark.parametrize("sizes", [None, 1, 7])
def test_c3_replay_reads_every_dialect(dialect: str, sizes: int | None) -> None:
    data = written(dialect, SAMPLES["awkward text"])
    assert penstock.replay(data, dialect=dialect, sizes=sizes).response.text == AWKWARD
