"""Thoughts between tags in an answer: told apart however the text is cut, and nothing lost."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from penstock.canon.events import Reasoning, Text
from penstock.dialects.openai_chat.think import ThinkScanner
from penstock.testing.replay import Recording, check_events, replayed

_texts = st.lists(
    st.sampled_from(["<think>", "</think>", "<", "</", "think>", "</thi", "nk>", "a", "\n", " ", "é😀", "<think"]),
    max_size=12,
).map("".join)


def scanned(pieces: list[str], *, begun: bool = False) -> tuple[str, str]:
    """The thought and the text, and no thought after a text."""
    scanner = ThinkScanner(begun=begun)
    said = [each for piece in pieces for each in scanner.feed(piece)] + scanner.close()
    kinds = [kind for kind, _ in said]
    assert kinds == sorted(kinds), "reasoning comes before text"
    assert all(piece for _, piece in said)
    return tuple("".join(p for kind, p in said if kind == wanted) for wanted in ("reasoning", "text"))  # type: ignore[return-value]


def cut(text: str, ends: list[int]) -> list[str]:
    edges = [0, *sorted(end % (len(text) + 1) for end in ends), len(text)]
    return [text[begin:end] for begin, end in pairwise(edges)]


@given(_texts, st.lists(st.integers(0, 99), max_size=5), st.booleans())
@example("<think>a</think>b", [3, 10, 12], False)
def test_pathology_42_every_cut_says_the_same(text: str, ends: list[int], begun: bool):
    assert scanned(cut(text, ends), begun=begun) == scanned([text], begun=begun)
    assert scanned(list(text), begun=begun) == scanned([text], begun=begun)


@given(_texts, st.booleans())
def test_only_the_tags_are_gone(text: str, begun: bool):
    thought, said = scanned([text], begun=begun)
    is_opened = text.lstrip().startswith("<think>")
    rest = text.lstrip().removeprefix("<think>") if is_opened else text
    if not is_opened and not begun:
        assert (thought, said) == ("", text)
    else:
        assert (thought, said) == (rest.partition("</think>")[0], rest.partition("</think>")[2])


def test_a_plain_answer_is_passed_at_once():
    scanner = ThinkScanner()
    assert scanner.feed("Hello") == [("text", "Hello")]
    assert scanner.is_over
    scanner = ThinkScanner()
    assert scanner.feed("<th") == []
    assert scanner.feed("e") == [("text", "<the")]


def test_only_what_may_become_a_tag_is_held_back():
    scanner = ThinkScanner()
    assert scanner.feed("<think>Let me</thi") == [("reasoning", "Let me")]
    assert scanner.feed("s is no tag") == [("reasoning", "</this is no tag")]
    assert scanner.feed("</think>Hi <think>") == [("text", "Hi <think>")]


def streamed(pieces: list[str], profile: str | None) -> tuple[object, ...]:
    chunks = [{"id": "c", "model": "m", "choices": [{"index": 0, "delta": {"content": piece}}]} for piece in pieces]
    chunks.append({"id": "c", "model": "m", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    data = b"".join(f"data: {json.dumps(chunk)}\n\n".encode() for chunk in chunks)
    driven = replayed("openai-chat", Recording("tags", data, "text/event-stream", profile=profile))
    check_events(driven.events, complete=True)
    return driven.response.parts


@pytest.mark.parametrize(
    ("pieces", "profile", "parts"),
    [
        (["<thi", "nk>Hm", "</th", "ink>", "Hi"], "vllm", (Reasoning("Hm"), Text("Hi"))),
        (["<think>Hm</think>Hi"], None, (Text("<think>Hm</think>Hi"),)),
        (["Hm</think>", "Hi"], "think-begun", (Reasoning("Hm"), Text("Hi"))),
        (["<think>Hm"], "vllm", (Reasoning("Hm"),)),
        (["Hi", " <think>x</think>"], "vllm", (Text("Hi <think>x</think>"),)),
        (["<"], "vllm", (Text("<"),)),
    ],
)
def test_the_decoder_tells_them_apart_where_the_profile_asks(
    pieces: list[str], profile: str | None, parts: tuple[object, ...]
):
    """Quirk: `<think>` inline in content (groq, together, azure-deepseek)."""
    assert streamed(pieces, profile) == parts
