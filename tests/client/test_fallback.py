"""A list of models: the gateway's own layers, for a program that has no gateway."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

import penstock
from penstock.canon.target import Secret
from penstock.testing import Call, Reply, Turns, Upstream

if TYPE_CHECKING:
    from collections.abc import Iterator

BOTH = ["first:a", "second:b"]


@pytest.fixture
def first() -> Iterator[Upstream]:
    with Upstream(Reply(text="Of the first.")) as upstream:
        yield upstream


@pytest.fixture
def second() -> Iterator[Upstream]:
    with Upstream(Reply(text="Of the second.")) as upstream:
        yield upstream


@pytest.fixture
def client(first: Upstream, second: Upstream) -> penstock.Client:
    return penstock.Client(upstreams={"first": first.url, "second": second.url_for("anthropic-messages")})


def asked(upstream: Upstream) -> list[str]:
    return [json.loads(seen.body)["model"] for seen in upstream.seen]


@pytest.mark.parametrize("fault", ["status-503", "status-401", "status-404", "reset", "cut-after-0", "empty"])
def test_c9_the_next_model_is_asked_where_the_first_cannot_be_had(
    fault: str, client: penstock.Client, first: Upstream, second: Upstream
) -> None:
    first.says(Reply(text=() if fault == "empty" else "Hello", faults=() if fault == "empty" else (fault,)))
    in_two_dialects = ["first:a", "anthropic:b@second"]
    with client.stream(in_two_dialects, "Hi") as stream:
        assert "".join(stream.text) == "Of the second."
    assert (stream.response.attempts, asked(first), asked(second)) == (2, ["a"], ["b"])
    assert stream.response.provider == "second"


def test_the_first_that_works_is_the_only_one_asked(client: penstock.Client, first: Upstream, second: Upstream) -> None:
    response = client.generate(BOTH, "Hi")
    assert (response.text, response.attempts, second.seen) == ("Of the first.", 1, [])


def test_c9_nobody_else_is_asked_once_content_has_come(
    client: penstock.Client, first: Upstream, second: Upstream
) -> None:
    first.says(Reply(text="one two three", faults=("cut-after-1",)))
    with pytest.raises(penstock.Truncated) as caught:
        client.generate(BOTH, "Hi")
    assert caught.value.partial is not None
    assert (caught.value.partial.text, second.seen) == ("one", [])


def test_when_none_is_left_every_attempt_is_named(client: penstock.Client, first: Upstream, second: Upstream) -> None:
    first.says(Reply(faults=("status-500",)))
    second.says(Reply(faults=("status-429",)))
    with pytest.raises(penstock.NoTargetLeft) as caught:
        client.generate(BOTH, "Hi")
    assert caught.value.attempts == ("first:a server_fault (500)", "second:b rate_limited (429)")
    assert caught.value.status == 429


def test_what_is_wrong_with_the_request_is_asked_of_nobody_else(
    client: penstock.Client, first: Upstream, second: Upstream
) -> None:
    first.says(Reply(faults=("status-400",)))
    with pytest.raises(penstock.StatusError):
        client.generate(BOTH, "Hi")
    assert second.seen == []


def test_each_is_asked_again_before_the_next(first: Upstream, second: Upstream) -> None:
    first.says(Reply(faults=("status-500",)))
    client = penstock.Client(
        upstreams={"first": first.url, "second": second.url}, retry=penstock.Retry(2, backoff=0.001)
    )
    assert client.generate(BOTH, "Hi").text == "Of the second."
    assert (len(first.seen), len(second.seen)) == (2, 1)


def test_one_that_keeps_failing_is_passed_by_for_a_while(
    client: penstock.Client, first: Upstream, second: Upstream
) -> None:
    first.says(Reply(faults=("status-503",)))
    for _ in range(8):
        assert client.generate(BOTH, "Hi").text == "Of the second."
    assert len(first.seen) == 5  # the breaker's limit


def test_a_clock_before_the_first_content_leads_on(first: Upstream, second: Upstream) -> None:
    first.says(Reply(faults=("silent",)))
    timeouts = penstock.Timeouts(first_content=0.5)
    client = penstock.Client(upstreams={"first": first.url, "second": second.url}, timeouts=timeouts)
    assert client.generate(BOTH, "Hi").text == "Of the second."


async def test_programs_with_a_loop_and_targets_of_their_own(first: Upstream, second: Upstream) -> None:
    first.says(Reply(faults=("reset",)))
    targets = [penstock.Target(name, it.url, "openai-chat", "m") for name, it in (("x", first), ("y", second))]
    async with penstock.astream(targets, "Hi") as stream:
        chunks = [chunk async for chunk in stream.chunks(metadata=True)]
    assert "".join(chunk.content for chunk in chunks) == "Of the second."
    assert {chunk.chunk_metadata.provider for chunk in chunks if chunk.chunk_metadata} == {"y"}


def test_tools_run_with_whichever_answers(client: penstock.Client, first: Upstream, second: Upstream) -> None:
    first.says(Reply(faults=("status-503",)))
    second.says(Turns(Reply(text=(), calls=(Call("now", {}),)), Reply(text="Noon.")))

    def now() -> str:
        """What time it is."""
        return "12:00"

    assert client.run_tools(BOTH, "When?", tools=[now]).response.text == "Noon."
    assert (len(first.seen), len(second.seen)) == (2, 2)


def test_hooks_and_the_record_say_who_was_asked_and_who_answered(first: Upstream, second: Upstream) -> None:
    first.says(Reply(faults=("status-503",)))
    told: list[Any] = []
    hooks = penstock.Hooks(on_request=told.append, on_response=told.append, on_end=told.append)
    client = penstock.Client(upstreams={"first": first.url, "second": second.url}, hooks=hooks)
    client.generate(BOTH, "Hi")
    sent, started, end = told
    assert (sent.target, started.target, started.attempt) == ("first:a", "second:b", 2)
    assert (end.record.model_requested, end.record.target, end.record.attempts) == ("a", "second:b", 2)


def test_one_that_is_known_to_look_at_no_images_is_left_out(
    first: Upstream, second: Upstream, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    overlay = tmp_path / "providers.toml"
    overlay.write_text(
        f'[plain]\nname = "Plain"\nurl = "{first.url}"\nauth = "none"\ncapabilities = {{ images = false }}\n'
    )
    monkeypatch.setenv("PENSTOCK_PROVIDERS", str(overlay))
    message = penstock.Message.of("user", penstock.Image(data="iVBORw==", media_type="image/png"))
    client = penstock.Client(upstreams={"second": second.url})
    assert client.generate(["plain:m", "second:b"], message).text == "Of the second."
    with pytest.raises(penstock.Unsupported, match="no images"):
        client.generate(["plain:m", "plain:n"], message)
    assert first.seen == []


@pytest.mark.parametrize(
    ("model", "options", "said"),
    [
        ([], {}, "There is no model to ask"),
        (["first:a", 7], {}, "A `int` is no model"),
        (["first:a", "secnd:b"], {}, r"There is no provider `secnd`\. Did you mean `second`\?"),
        (["first:a", "second:b"], {"key": "k"}, r"One `key` would be sent to several servers: first, second\. Give"),
        (["first:a", "openai:gpt-9"], {}, "OPENAI_API_KEY"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_sent(
    model: Any, options: Any, said: str, client: penstock.Client, first: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(penstock.ConfigError, match=said):
        client.generate(model, "Hi", **options)
    assert first.seen == []


def test_a_key_of_the_calls_own_may_go_to_several_models_of_one_server(first: Upstream) -> None:
    targets = [penstock.Target("x", first.url, "openai-chat", name, key=Secret("k")) for name in ("a", "b")]
    first.says(Turns(Reply(faults=("status-503",)), Reply(text="b's")))
    assert penstock.generate(targets, "Hi", key="mine").text == "b's"
    assert {dict(seen.headers)["authorization"] for seen in first.seen} == {"Bearer mine"}


def test_embeddings_are_of_one_model(client: penstock.Client) -> None:
    with pytest.raises(penstock.ConfigError, match="Vectors of two models do not compare"):
        client.embed(BOTH, "a")  # type: ignore[arg-type]
