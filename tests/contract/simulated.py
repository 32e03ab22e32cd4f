"""A gateway before the simulator, with an upstream of each client dialect: any form, any upstream, any fault.

Which upstream answers, what it says and what it does wrong all stand in the model's name, with a number that no other
request has; so requests may run side by side, and each is found again at the simulator and on the record.
"""

from __future__ import annotations

import itertools
import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from penstock.testing import Call, Counts, Pace, Reply, Script, Upstream, When
from tests.contract.clients import CLIENTS, Client, Completions
from tests.gateways import Asked, Gateway, until
from tests.wires import Said

if TYPE_CHECKING:
    from collections.abc import Callable

    from penstock.testing import Seen

UPSTREAMS = (
    "openai-chat",
    "openai-completions",
    "openai-responses",
    "anthropic-messages",
    "gemini",
    "ollama",
)

#: how an upstream of the dialect sends an error inside a stream
ERROR_FAULTS = {
    "openai-chat": "error-openai",
    "openai-completions": "error-openai",
    "openai-responses": "error-responses",
    "anthropic-messages": "error-anthropic",
    "gemini": "error-gemini",
    "ollama": "error-ollama",
}

TEXTS = ("Žluť", "oučký ", "кінь 🐎", '"\\n"', "\n\ndata: [DONE]\n\n", " ", "漢字 ", "🏳️‍🌈")
TEXT = "".join(TEXTS)
THOUGHT = "Let me see. "
ARGUMENTS = {"ä": "🐎é", "b": [1, 2.5]}
USAGE = (19, 12)
WORDS = ("One ", "two ", "three ", "four")
PACE_S = 0.12

_USAGE = Counts(*USAGE)

#: what is said, by a word in the model's name
SCRIPT = Script(
    (
        Reply(TEXTS, when=When("*~text~*"), usage=_USAGE),
        Reply(TEXTS, reasoning=THOUGHT, when=When("*~thought~*"), usage=_USAGE),
        Reply(TEXTS, calls=(Call("look", ARGUMENTS),), when=When("*~call~*"), usage=_USAGE),
        Reply(WORDS, when=When("*~slow~*"), usage=_USAGE, pace=Pace(fixed=PACE_S)),
        Reply(WORDS * 20, when=When("*~long~*"), usage=_USAGE, pace=Pace(fixed=0.05)),
        Reply(WORDS, when=When("*"), usage=_USAGE),
    )
)


class Pair(NamedTuple):
    """Who asks in which form, and who answers in which dialect."""

    client: Client
    upstream: str

    @property
    def is_same(self) -> bool:
        """Whether frames pass as they are."""
        return self.client.dialect == self.upstream

    def can(self, kind: str) -> bool:
        """Whether both ends have a place for it."""
        if kind == "call":
            return self.client.has_calls and self.upstream != Completions.dialect
        if kind == "thought":
            return self.client.has_thoughts and self.upstream != Completions.dialect
        return True

    def __str__(self) -> str:
        return f"{self.client.name} from {self.upstream}"


ALL_PAIRS = [Pair(client, upstream) for client in CLIENTS for upstream in UPSTREAMS]
each_pair_of_all = pytest.mark.parametrize("pair", ALL_PAIRS, ids=map(str, ALL_PAIRS))
each_form = pytest.mark.parametrize("client", CLIENTS, ids=map(str, CLIENTS))


def simulators_config(simulator: Upstream, **more: Any) -> dict[str, Any]:
    """An upstream per dialect, each with a key; `gemini~…` is passed on to `gemini` as it is, and so on, `alias-gemini`
    is called `real` there."""
    upstreams = {name: {"url": simulator.url_for(name), "dialect": name, "key_env": "CHAT_KEY"} for name in UPSTREAMS}
    models = {f"{name}~*": name for name in UPSTREAMS} | {f"alias-{name}": f"{name}:real" for name in UPSTREAMS}
    return {"upstreams": upstreams, "models": models, "retry": {"attempts": 1}, **more}


@dataclass(frozen=True)
class Told:
    """A whole answer, and what it was asked as."""

    asked: Asked
    client: Client
    model: str
    is_stream: bool
    body: bytes
    took_s: float

    @property
    def status(self) -> int:
        return self.asked.status

    @cached_property
    def said(self) -> Said:
        """As the client's dialect has it; raises when it has not."""
        return (self.client.read if self.is_stream else self.client.read_document)(self.body)


class Bench:
    """One gateway, and the simulator behind it. Any method may be called from several threads."""

    _numbers = itertools.count()

    def __init__(self, simulator: Upstream, gateway: Gateway) -> None:
        self.simulator = simulator
        self.gateway = gateway

    def model(self, upstream: str, faults: str = "", kind: str = "words") -> str:
        return f"{upstream}~{kind}~{next(self._numbers)}~" + (f"fault:{faults}" if faults else "")

    def ask(
        self,
        pair: Pair,
        model: str,
        *,
        stream: bool = True,
        headers: dict[str, str] | None = None,
        prompt: str = "Tell me",
    ) -> Asked:
        """Sent, and not yet read."""
        client = pair.client
        body = json.dumps(client.body(model, stream, prompt)).encode()
        return self.gateway.send("POST", client.path(model, stream), body, headers)

    def tell(self, pair: Pair, faults: str = "", kind: str = "words", *, stream: bool = True, **more: Any) -> Told:
        """Asked, and read to the end, which must be one that HTTP allows."""
        model, began = self.model(pair.upstream, faults, kind), time.monotonic()
        asked = self.ask(pair, model, stream=stream, **more)
        body = asked.body()
        took_s = time.monotonic() - began
        is_stream = stream and asked.status == 200
        assert not is_stream or asked.headers["content-type"].split(";")[0] == pair.client.stream_type
        return Told(asked, pair.client, model, is_stream, body, took_s)

    def seen(self, model: str) -> list[Seen]:
        """What came to the simulator for this model: one, where C1 is kept."""
        return [seen for seen in tuple(self.simulator.seen) if seen.model == model]

    def the_one(self, model: str) -> Seen:
        """The one execution; it may be on its way."""
        return self.wait_seen(model).wait_over()

    def wait_seen(self, model: str) -> Seen:
        (seen,) = until(lambda: self.seen(model), "the execution")
        found: Seen = seen
        return found

    def record(self, model: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.gateway.running.wait_for_line(re.escape(_requested(model))))
        return found

    def records(self, model: str) -> int:
        """How many there are by now."""
        return sum(_requested(model) in line for line in tuple(self.gateway.running.lines))


def _requested(model: str) -> str:
    return f'"model_requested":"{model}"'


def check_whole(pair: Pair, told: Told, kind: str = "words", *, usage: tuple[int, int] | None = USAGE) -> None:
    """All that was said, once and in order, and one ending."""
    said = told.said
    assert told.status == 200, told.body
    assert said.text == ("".join(WORDS) if kind == "words" else TEXT)
    assert said.errors == []
    assert said.stops == [pair.client.words["tool_calls" if kind == "call" else "stop"]]
    assert said.reasoning == (THOUGHT if kind == "thought" else "")
    assert [(name, json.loads(raw)) for name, raw in said.calls] == ([("look", ARGUMENTS)] if kind == "call" else [])
    assert said.usage == usage


def check_failed(said: Said, text: str | None = None) -> str:
    """One error as the last word, and nothing that looks like an end. Its message."""
    assert (said.terminators, said.stops) == (0, [])
    (error,) = said.errors
    assert "rror" in json.dumps(said.frames[-1][1]), f"the error is not the last word: {said.frames[-1]}"
    assert error["message"]
    if text is not None:
        assert said.text == text
    return str(error["message"])


def at_once(check: Callable[[Pair], None], client: Client | None = None, *, is_timed: bool = False) -> None:
    """The check of every pair, or of a client's, side by side, for checks that wait: be it for a record, which is
    written some 50 ms after its stream. Raises one AssertionError with all that failed.

    `is_timed`: a busy machine can make a check fail that measures time. What failed is tried once more, in smaller
    company; what is broken fails again.
    """
    pairs = [pair for pair in ALL_PAIRS if client in (None, pair.client)]
    failures = _failures(check, pairs, len(pairs))
    if failures and is_timed:
        failures = _failures(check, list(failures), 6)
    said = "\n".join(f"{pair}: {failure}" for pair, failure in failures.items())
    assert not failures, f"{len(failures)} of {len(pairs)} pairs:\n{said}"


def _failures(check: Callable[[Pair], None], pairs: list[Pair], threads: int) -> dict[Pair, str]:
    with ThreadPoolExecutor(threads) as pool:
        found = dict(zip(pairs, pool.map(lambda pair: _failure(check, pair), pairs), strict=True))
    return {pair: failure for pair, failure in found.items() if failure is not None}


def _failure(check: Callable[[Pair], None], pair: Pair) -> str | None:
    try:
        check(pair)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None
