"""A reply that breaks after content, taken up by the gateway's own layer where a client asks for it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

import penstock
from penstock.testing import Call, Reply, Turns, Upstream
from tests.client.simulated import MODEL, TEXT, client_of

if TYPE_CHECKING:
    from collections.abc import Iterator

CUT = Reply(text=TEXT, faults=("cut-after-2",))


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream(Turns(CUT, Reply(text=TEXT))) as upstream:
        yield upstream


def target(upstream: Upstream, name: str = "sim", **more: Any) -> penstock.Target:
    return penstock.Target(name, upstream.url, "openai-chat", "m", **more)


def test_c9_a_whole_reply_is_said_again_and_is_all_of_the_response(upstream: Upstream) -> None:
    with client_of(upstream, recovery="restart").stream(MODEL, "Hi") as stream:
        events = list(stream)
    (mark,) = [k for k, event in enumerate(events) if isinstance(event, penstock.Progress)]
    said = [
        "".join(each.text for each in part if isinstance(each, penstock.Delta))
        for part in (events[:mark], events[mark:])
    ]
    assert said == ["one two", TEXT]
    assert events[mark] == penstock.Progress("recovered", message="restart at sim:m after truncated")
    response = stream.response
    assert (response.text, response.outcome, response.attempts) == (TEXT, "complete", 2)


def test_c9_a_text_is_gone_on_with_where_it_was_cut(upstream: Upstream) -> None:
    upstream.script = Turns(CUT, Reply(text=" three four five six"))
    client = penstock.Client(recovery="continue")
    with client.stream(target(upstream, profile="llamacpp"), "Hi") as stream:
        assert "".join(stream.text) == TEXT
    assert (stream.response.text, stream.response.attempts) == (TEXT, 2)
    assert json.loads(upstream.seen[1].body)["messages"][-1] == {"role": "assistant", "content": "one two"}


def test_c9_the_next_model_goes_on(upstream: Upstream) -> None:
    upstream.says(CUT)
    with Upstream(Reply(text=TEXT)) as other:
        client = penstock.Client(upstreams={"sim": upstream.url, "other": other.url}, recovery="restart")
        upstream.script = Turns(CUT, Reply(faults=("status-503",)))
        response = client.generate([MODEL, "other:m"], "Hi")
    assert (response.text, response.attempts, len(upstream.seen), len(other.seen)) == (TEXT, 3, 2, 1)


@pytest.mark.parametrize(
    ("recovery", "reply"),
    [
        ("off", CUT),
        ("continue", CUT),  # a server that is not known to go on with its own words is not asked to
        ("restart", Reply(text=(), calls=(Call("look", {"at": "the sea"}),), faults=("cut-after-1",))),
    ],
)
def test_c9_what_cannot_be_taken_up_is_raised_as_it_was(recovery: Any, reply: Reply, upstream: Upstream) -> None:
    upstream.says(reply)
    with pytest.raises(penstock.Truncated) as caught:
        client_of(upstream, recovery=recovery).generate(MODEL, "Hi")
    assert caught.value.partial is not None
    assert (caught.value.partial.outcome, len(upstream.seen)) == ("truncated", 1)


def test_a_value_that_was_begun_twice_is_the_second(upstream: Upstream) -> None:
    upstream.script = Turns(Reply(text=('{"a":', "[1,"), faults=("cut-after-2",)), Reply(text=('{"a":', "[2]}")))
    response = client_of(upstream, recovery="restart").generate(MODEL, "Hi", schema=dict[str, list[int]])
    assert response.parsed == {"a": [2]}


async def test_cancelling_after_the_seam_ends_the_attempt_that_is_open(upstream: Upstream) -> None:
    upstream.script = Turns(CUT, Reply(text=TEXT, faults=("stall-after-2",)))
    async with client_of(upstream, recovery="restart").astream(MODEL, "Hi") as stream:
        heard = 0
        async for event in stream:
            heard += isinstance(event, penstock.Delta)
            if heard == 4:
                stream.cancel()
    assert (stream.response.outcome, stream.response.text) == ("cancelled", "one two")
    assert upstream.seen[1].wait_over().closed_at is not None


def test_a_word_that_is_none_names_the_nearest() -> None:
    wrong: Any = "contniue"
    with pytest.raises(penstock.ConfigError, match=r"There is no recovery `contniue`\. Did you mean `continue`\?"):
        penstock.Client(recovery=wrong)
