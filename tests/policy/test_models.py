"""An upstream's list of models: each dialect's own place, key, pages and names; bounded; errors as a call has them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.canon.errors import ConnectError, KeyRejected, PenstockError, ProtocolError, TimedOut, Unsupported
from penstock.canon.target import Secret, Target
from penstock.dialects import DIALECTS
from penstock.dialects.listing import LISTINGS
from penstock.policy import models as module
from penstock.policy.models import ask_models
from penstock.transport.memory import Break, Hang, MemoryTransport, Reply

KEY = "sk-list-11aa22"
BEARER = ("authorization", f"Bearer {KEY}")


def target(dialect: str, url: str = "http://up/v1") -> Target:
    return Target("up", url, dialect, key=Secret(KEY))


def answer(value: Any, status: int = 200) -> Reply:
    return Reply(status=status, headers={"content-type": "application/json"}, chunks=[json.dumps(value).encode()])


async def asked(dialect: str, url: str, *replies: Reply, **options: Any) -> tuple[list[str], MemoryTransport]:
    transport = MemoryTransport(list(replies))
    found = await ask_models(target(dialect, url), transport, **options)
    return [model.id for model in found], transport


@pytest.mark.parametrize(
    ("dialect", "url", "place", "header", "value"),
    [
        ("openai-chat", "http://up/v1/", "http://up/v1/models", BEARER, {"data": [{"id": "m"}]}),
        ("openai-responses", "http://up/v1", "http://up/v1/models", BEARER, [{"id": "m"}]),
        (
            "anthropic-messages", "http://up/v1", "http://up/v1/models?limit=1000", ("x-api-key", KEY),
            {"data": [{"id": "m"}], "has_more": False, "last_id": "m"},
        ),
        (
            "gemini", "http://up/v1beta", "http://up/v1beta/models?pageSize=1000", ("x-goog-api-key", KEY),
            {"models": [{"name": "models/m"}]},
        ),
        ("ollama", "http://up", "http://up/api/tags", BEARER, {"models": [{"name": "m"}]}),
        ("ollama", "http://up/v1", "http://up/api/tags", BEARER, {"models": [{"model": "m"}]}),
        (
            "cohere", "http://up/v2", "http://up/v1/models?page_size=1000", BEARER,
            {"models": [{"name": "m"}]},
        ),
        ("straico", "http://up/v2", "http://up/v2/models", BEARER, {"data": [{"id": "m"}]}),
        (
            "straico", "http://up/v1", "http://up/v1/models", BEARER,
            {"data": {"chat": [{"model": "m"}]}, "success": True},
        ),
    ],
)  # fmt: skip
async def test_each_dialect_asks_in_its_own_way(
    dialect: str, url: str, place: str, header: tuple[str, str], value: Any
) -> None:
    names, transport = await asked(dialect, url, answer(value))
    assert names == ["m"]
    (request,) = transport.requests
    assert (request.method, request.url) == ("GET", place)
    assert header in request.headers


def test_every_dialect_lists_its_models_or_is_known_not_to() -> None:
    assert set(DIALECTS) - set(LISTINGS) == {"bedrock"}


@pytest.mark.parametrize(
    ("dialect", "first", "second", "query"),
    [
        (
            "anthropic-messages",
            {"data": [{"id": "a"}], "has_more": True, "last_id": "a"},
            {"data": [{"id": "b"}, {"id": "a"}], "has_more": False, "last_id": "a"},
            "after_id=a",
        ),
        (
            "gemini",
            {"models": [{"name": "models/a"}], "nextPageToken": "t&1"},
            {"models": [{"name": "models/b"}]},
            "pageToken=t%261",
        ),
        (
            "cohere",
            {"models": [{"name": "a"}], "next_page_token": "2"},
            {"models": [{"name": "b"}], "next_page_token": ""},
            "page_token=2",
        ),
    ],
)
async def test_pages_follow_one_another(dialect: str, first: Any, second: Any, query: str) -> None:
    names, transport = await asked(dialect, "http://up/v1", answer(first), answer(second))
    assert names == ["a", "b"]
    assert transport.requests[1].url.endswith(query)


async def test_c11_pages_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PAGES", 3)
    pages = [answer({"models": [{"name": f"models/{i}"}], "nextPageToken": str(i)}) for i in range(5)]
    names, transport = await asked("gemini", "http://up", *pages)
    assert (names, len(transport.requests)) == (["0", "1", "2"], 3)


async def test_c11_a_cursor_that_turns_in_a_circle_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    pages = [answer({"models": [{"name": "models/a"}], "nextPageToken": "same"})] * 5
    names, transport = await asked("gemini", "http://up", *pages)
    assert (names, len(transport.requests)) == (["a"], 2)


async def test_c11_a_page_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PAGE_BYTES", 100)
    with pytest.raises(PenstockError, match="longer than"):
        await asked("openai-chat", "http://up", answer({"data": [{"id": "x" * 200}]}))


async def test_what_is_told_of_a_model_is_kept() -> None:
    entry = {"id": "m", "display_name": "M", "owned_by": "us", "max_input_tokens": 1000, "max_tokens": 50, "new": 1}
    (model,) = await ask_models(target("openai-chat"), MemoryTransport(answer({"data": [entry]})))
    assert (model.id, model.name, model.owned_by, model.context, model.output, model.raw) == (
        "m", "M", "us", 1000, 50, entry,
    )  # fmt: skip


async def test_a_list_of_its_own_place_is_asked_there() -> None:
    for path, place in (("https://else/where", "https://else/where"), ("/catalog", "http://up/v1/catalog")):
        _, transport = await asked("openai-chat", "http://up/v1", answer([{"id": "m"}]), path=path)
        assert transport.requests[0].url == place


async def test_a_refusal_is_the_error_that_a_call_would_get() -> None:
    refused = answer({"error": {"message": f"bad key {KEY}", "code": "invalid_api_key"}}, 401)
    with pytest.raises(KeyRejected) as raised:
        await asked("openai-chat", "http://up/v1", refused)
    assert raised.value.target == "up"
    assert KEY not in str(raised.value)
    assert KEY.encode() not in raised.value.body


@pytest.mark.parametrize("value", [{}, {"data": 5}, {"object": "list"}, "text", None])
async def test_what_is_no_list_is_said(value: Any) -> None:
    with pytest.raises(ProtocolError, match="no list of models"):
        await asked("openai-chat", "http://up/v1", answer(value))


async def test_a_connection_that_breaks_inside_the_list_is_said() -> None:
    with pytest.raises(ConnectError, match="closed the connection inside its list"):
        await asked("openai-chat", "http://up", Reply(chunks=[b'{"data":[', Break()]))


async def test_c8_an_upstream_that_never_answers_is_left() -> None:
    with pytest.raises(TimedOut) as raised:
        await asked("openai-chat", "http://up", Reply(chunks=[Hang()]), timeout_s=0.01)
    assert raised.value.clock == "total"


async def test_bedrock_lists_none() -> None:
    with pytest.raises(Unsupported, match="lists no models"):
        await asked("bedrock", "http://up")


MEMBERS = ["data", "models", "id", "name", "model", "nextPageToken", "has_more", "last_id", "context_length"]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from(MEMBERS), inner, max_size=5,
    ),
    max_leaves=20,
)  # fmt: skip


@given(value=json_values, dialect=st.sampled_from(sorted(LISTINGS)))
def test_no_answer_is_too_strange_to_be_read(value: Any, dialect: str) -> None:
    page = LISTINGS[dialect].read(value)
    if page is not None:
        models, cursor = page
        assert all(model.id for model in models if model.raw.get("id") or model.raw.get("name") != "models/")
        assert cursor is None or isinstance(cursor, str)
