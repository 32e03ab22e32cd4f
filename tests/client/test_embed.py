"""Embeddings through the library: one text or many, in the provider's own portions, in order, the usage added up."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import penstock
from penstock.canon.embedding import Embeddings, EmbedRequest
from penstock.canon.target import Target
from penstock.canon.usage import Usage
from penstock.client.embed import MAX_BATCH_BYTES, batches, embed_all
from penstock.client.target import most_texts
from penstock.dialects.embedding import EMBEDDINGS, MOST_TEXTS
from penstock.testing import Upstream
from tests.virtual_clock import on_virtual_time

DIALECTS = ["openai-chat", "ollama"]


def at(upstream: Upstream, dialect: str = "openai-chat") -> dict[str, Any]:
    return {"base_url": upstream.url_for(dialect), "dialect": dialect}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_one_text_or_many(dialect: str) -> None:
    with Upstream() as upstream:
        one = penstock.embed("here:m", "Hello world", **at(upstream, dialect))
        many = penstock.embed("here:m", ["Hello world", "Goodbye"], **at(upstream, dialect))
    assert len(one.vectors) == 1
    assert one.vector == pytest.approx(many.vectors[0])
    assert many.vectors[0] != many.vectors[1]
    assert one.usage is not None
    assert (one.usage.input, one.model) == (2, "m")
    with pytest.raises(ValueError, match="too many"):
        assert many.vector


@pytest.mark.parametrize("dialect", DIALECTS)
def test_many_texts_are_asked_for_in_portions_and_come_in_order(dialect: str) -> None:
    texts = [f"text number {k}" for k in range(23)]
    with Upstream() as upstream:
        cut = penstock.embed("here:m", texts, batch_size=5, **at(upstream, dialect))
        assert sorted(len(json.loads(seen.body)["input"]) for seen in upstream.seen) == [3, 5, 5, 5, 5]
        whole = penstock.embed("here:m", texts, **at(upstream, dialect))
        assert len(upstream.seen) == 6
    assert cut.vectors == whole.vectors
    assert cut.usage is not None
    assert whole.usage is not None
    assert cut.usage.input == whole.usage.input == 3 * 23


async def test_for_programs_with_a_loop_and_on_kept_connections() -> None:
    with Upstream() as upstream:
        async with penstock.Client(upstreams={"here": upstream.url}) as client:
            found = await client.aembed("here:m", ["a", "b"], batch_size=1, dimensions=2, user="u")
    assert len(found.vectors) == 2
    assert json.loads(upstream.seen[0].body) | {"input": 0} == {"model": "m", "input": 0, "dimensions": 2, "user": "u"}


def test_what_was_left_out_is_a_warning() -> None:
    with Upstream() as upstream:
        found = penstock.embed("here:m", ["a", "b"], user="u", batch_size=1, **at(upstream, "ollama"))
    assert found.warnings == ("`user` was left out: ollama has no word for it.",)


def test_an_error_is_raised_and_the_key_is_checked_as_for_replies() -> None:
    with Upstream() as upstream, pytest.raises(penstock.StatusError) as caught:
        penstock.embed("here:m", "a", base_url=f"{upstream.root}/nowhere", dialect="cohere")
    assert caught.value.status == 404
    with pytest.raises(penstock.ConfigError, match="Did you mean `openai`"):
        penstock.embed("opena:m", "a")


@pytest.mark.parametrize(
    ("input", "more", "said"),
    [
        ([], {}, r"nothing to embed.*Pass a text"),
        (["a", 3], {}, r"`int` is no text"),
        (["a", ""], {}, r"empty text.*Leave it out"),
        ("a", {"batch_size": 0}, "`batch_size` is 0"),
        ("a", {"dimension": 3}, r"no option `dimension`. Did you mean `dimensions`"),
        ("a", {"concurrency": 0}, "`concurrency` is 0"),
        ("a", {"dialect": "anthropic-messages"}, r"no embeddings.*Ask a model"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_sent(input: Any, more: Any, said: str) -> None:
    with pytest.raises(penstock.RequestError, match=said):
        penstock.embed("here:m", input, base_url="http://127.0.0.1:9/v1", **more)


def test_every_dialects_portion_is_known() -> None:
    assert set(MOST_TEXTS) == set(EMBEDDINGS)


@pytest.mark.parametrize(
    ("upstream", "url", "dialect", "most"),
    [
        ("dashscope", "https://dashscope-intl.aliyuncs.com/compatible-mode/v1", "openai-chat", 10),
        ("dashscope", "http://127.0.0.1:1/v1", "openai-chat", 2048),
        ("cohere", "https://api.cohere.com/v2", "cohere", 96),
        ("gemini", "https://generativelanguage.googleapis.com/v1beta", "gemini", 100),
        ("openai", "https://api.openai.com/v1", "openai-chat", 2048),
    ],
)
def test_a_providers_portion(upstream: str, url: str, dialect: str, most: int) -> None:
    assert most_texts(Target(upstream, url, dialect)) == most


@settings(deadline=None, max_examples=60)
@given(st.lists(st.text(min_size=1), min_size=1), st.integers(1, 9))
def test_portions_hold_every_text_once_and_in_order(texts: list[str], most: int) -> None:
    cut = batches(texts, most)
    assert [text for batch in cut for text in batch] == texts
    assert all(0 < len(batch) <= most for batch in cut)


def test_portions_have_a_size_in_bytes_as_well() -> None:
    half, long = "é" * (MAX_BATCH_BYTES // 4), "x" * (2 * MAX_BATCH_BYTES)
    assert [len(batch) for batch in batches([half, half, half, long, "a", "b"], 100)] == [2, 1, 1, 2]


# --- on virtual time -------------------------------------------------------------------------------------------------

REQUEST = EmbedRequest("m", tuple("abcdefgh"))


@on_virtual_time
async def test_no_more_at_once_than_may_and_in_order_whoever_is_first() -> None:
    running = most = 0

    async def ask(request: EmbedRequest) -> Embeddings:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(10 - ord(request.inputs[0]) % 10)
        running -= 1
        return Embeddings(tuple((float(ord(text)),) for text in request.inputs), "m", Usage(input=1, total=1))

    found = await embed_all(ask, REQUEST, most=1, concurrency=3)
    assert most == 3
    assert [vector[0] for vector in found.vectors] == [float(ord(text)) for text in REQUEST.inputs]
    assert found.usage == Usage(input=8, total=8)


@on_virtual_time
async def test_usage_that_one_did_not_report_is_no_total() -> None:
    async def ask(request: EmbedRequest) -> Embeddings:
        return Embeddings(((1.0,),), "m", None if request.inputs == ("c",) else Usage(input=1))

    assert (await embed_all(ask, REQUEST, most=1, concurrency=3)).usage is None


@on_virtual_time
async def test_the_first_failure_ends_the_others() -> None:
    ended: list[str] = []

    async def ask(request: EmbedRequest) -> Embeddings:
        if request.inputs == ("b",):
            await asyncio.sleep(1)
            raise penstock.ConnectError("gone")
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            ended.append(request.inputs[0])
            raise
        raise AssertionError

    with pytest.raises(penstock.ConnectError):
        await embed_all(ask, REQUEST, most=1, concurrency=3)
    assert ended == ["a", "c"]
    assert len(asyncio.all_tasks()) == 1
