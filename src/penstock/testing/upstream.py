"""An upstream on a real socket that speaks every client dialect, says what a script says, and misbehaves on purpose.

    with Upstream(Reply(text="Hello", faults=("cut-after-2",))) as upstream:
        ask(upstream.url)                      # ends in /v1; `root` is the server itself
    assert upstream.seen[0].closed_at is not None

It listens on 127.0.0.1 in a thread with a loop of its own, so that a test may block. Faults come from the script, from
the request's header `x-penstock-fault`, or from the model's name (`fault:cut-after-3`), several joined by `+`; so any
gateway in between can be tested. It counts what it saw, and never stops by itself.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from itertools import count, cycle
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

import msgspec
from msgspec.structs import replace

from penstock.canon.embedding import Embeddings
from penstock.canon.errors import ConfigError, InvalidRequest, PenstockError, UnknownRoute
from penstock.canon.usage import Usage
from penstock.dialects import client_dialect, gemini, ollama
from penstock.dialects.embedding import client_embedding
from penstock.testing.faults import Fault, parse_fault
from penstock.testing.plan import Piece, document_plan, stream_plan
from penstock.testing.script import Reply, Script, Turns
from penstock.testing.server import Exchanged, Seen, Server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from penstock.dialects.base import Dialect
    from penstock.testing.plan import Plan

FAULT_HEADER = "x-penstock-fault"


class Upstream(Server):
    """`script` says who is answered how; a single `Reply` answers everybody, `Turns` each request with the next.

    `seed` makes its chances the same.
    """

    def __init__(self, script: Script | Turns | Reply | None = None, *, port: int = 0, seed: int = 0) -> None:
        super().__init__(port=port)
        self.script: Script | Turns = Script()
        if script is not None:
            self.says(script)
        self._rng = random.Random(seed)
        self._numbers = count(1)

    def url_for(self, dialect: str) -> str:
        """The base URL that an upstream of this dialect is configured with."""
        return {"gemini": f"{self.root}/v1beta", "ollama": self.root}.get(dialect, self.url)

    def says(self, script: Script | Turns | Reply) -> None:
        """From now on, this."""
        self.script = Script((script,)) if isinstance(script, Reply) else script

    async def answer(self, seen: Seen, exchanged: Exchanged) -> None:
        """Answer one request. A server that says something else overrides this."""
        if seen.method != "POST":
            await exchanged.say(200, "application/json", _MODELS)
            return
        if (client := _embeds_at(seen.path)) is not None:
            await exchanged.say(*_embedded(client, seen))
            return
        try:
            plan = self._plan(seen)
        except PenstockError as error:
            dialect = client_dialect(seen.dialect or "openai-chat")
            said = InvalidRequest(error.message, fix=error.fix) if isinstance(error, ConfigError) else error
            body = dialect.write_error(said, None)
            await exchanged.say(getattr(said, "status", 400), "application/json", body)
            return
        if plan.refuses_s:
            await self.refuse_for(plan.refuses_s)
        await _play(plan, exchanged)

    def _plan(self, seen: Seen) -> Plan:
        """What to write. Raises a `PenstockError` that is answered in the dialect of the path."""
        dialect, head_path = _spoken_at(seen.path)
        seen.dialect = dialect.name
        head = dialect.read_head(seen.body, head_path)
        seen.model = head.model
        reply = self.script.find(head.model, dialect.name)
        faults = [*reply.parsed_faults(), *_asked_faults(seen, head.model)]
        seen.faults = tuple(fault.name for fault in faults)
        request_id = f"sim_{next(self._numbers)}"
        events = reply.events(head.model, request_id)
        is_stream = head.stream
        if any(fault.name == "json" for fault in faults):
            is_stream = False
        elif any(fault.name == "sse" for fault in faults):
            is_stream = True
        plan = (stream_plan if is_stream else document_plan)(dialect, head, events, request_id=request_id)
        plan = replace(plan, pieces=tuple(self._paced(reply, plan.pieces)))
        for fault in faults:
            plan = fault.apply(plan, dialect)
        return plan

    def _paced(self, reply: Reply, pieces: tuple[Piece, ...]) -> Iterator[Piece]:
        pauses = reply.pace.pauses(self._rng)
        for piece in pieces:
            yield replace(piece, after_s=next(pauses)) if piece.kind == "content" else piece


async def _play(plan: Plan, exchanged: Exchanged) -> None:
    await _pause(plan.before_s)
    if plan.has_head:
        await exchanged.begin(plan.status, {"content-type": plan.content_type, **dict(plan.headers)})
        content = [piece for piece in plan.pieces if piece.kind == "content"]
        again = cycle(content) if plan.repeats and content else iter(())
        for pieces in (plan.pieces, again):
            for piece in pieces:
                await _pause(piece.after_s)
                await exchanged.write(piece.data, is_content=piece.kind == "content")
                if not exchanged.is_open:
                    return
    await exchanged.end(plan.end)


async def _pause(seconds: float) -> None:
    if seconds > 0:
        await asyncio.sleep(seconds)


def _asked_faults(seen: Seen, model: str) -> list[Fault]:
    asked = [seen.headers.get(FAULT_HEADER, "")]
    if "fault:" in model:  # behind whatever a gateway has put before it
        asked.append(model.partition("fault:")[2])
    return [parse_fault(each) for text in asked for each in text.replace(",", "+").split("+") if each.strip()]


_PATHS = {
    "/chat/completions": "openai-chat",
    "/completions": "openai-completions",
    "/responses": "openai-responses",
    "/messages": "anthropic-messages",
}


def _spoken_at(path: str) -> tuple[Dialect, str]:
    """The dialect of a path, and what of the path its request needs."""
    plain, _, query = path.partition("?")
    if plain.endswith("/api/chat"):
        return ollama.DIALECT, ""
    if plain.endswith("/api/generate"):
        return ollama.GENERATE, ""
    if ":generateContent" in plain or ":streamGenerateContent" in plain:
        return (gemini.DIALECT if parse_qs(query).get("alt") == ["sse"] else gemini.ARRAY), path
    name = next((name for end, name in _PATHS.items() if plain.endswith(end)), None)
    if name is None:
        raise UnknownRoute(f"The simulator has no {plain}.", param="path", fix=f"It has {', '.join(_PATHS)}.")
    return client_dialect(name), ""


def _embeds_at(path: str) -> str | None:
    """The dialect of a path that asks for embeddings."""
    plain = path.partition("?")[0]
    return next((name for end, name in _EMBEDDINGS.items() if plain.endswith(end)), None)


_EMBEDDINGS = {"/embeddings": "openai-chat", "/api/embed": "ollama"}


def _embedded(name: str, seen: Seen) -> tuple[int, str, bytes]:
    """A vector of four numbers for each text, always the same for the same text."""
    own = client_embedding(name)
    seen.dialect = name
    try:
        request = own.parse_request(seen.body)
    except PenstockError as error:
        return getattr(error, "status", 400), "application/json", client_dialect(name).write_error(error, None)
    seen.model = request.model
    vectors = tuple(_vector(text) for text in request.inputs)
    words = sum(len(text.split()) for text in request.inputs)
    found = Embeddings(vectors, request.model, Usage(input=words, total=words))
    return 200, "application/json", own.write_response(found, request, model=request.model)


def _vector(text: str) -> tuple[float, ...]:
    return tuple(byte / 256 for byte in hashlib.sha256(text.encode()).digest()[:4])


_MODELS = msgspec.json.encode(
    {
        "object": "list",
        "data": [{"id": "simulated", "object": "model", "created": 0, "owned_by": "penstock"}],
        "models": [{"name": "simulated", "model": "simulated"}],
    }
)
