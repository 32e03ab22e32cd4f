"""The judge as a client: it asks in one dialect, over connections of its own, and says what it heard.

It asks plainly: a short prompt that nobody else sends, so that whoever is asked behind the endpoint can be counted.
"""

from __future__ import annotations

import asyncio
import time
from itertools import count
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from penstock.canon.errors import PenstockError
from penstock.canon.request import ChatRequest, Message, Tool
from penstock.canon.target import Target
from penstock.testing.judge.heard import Heard, listen
from penstock.transport.http1 import Http1Transport

if TYPE_CHECKING:
    from collections.abc import Mapping

    from penstock.canon.target import Secret
    from penstock.canon.wire import HttpRequest, HttpResponse
    from penstock.dialects.base import Dialect

LOOK = Tool(
    "look",
    "Look at a place.",
    {"type": "object", "properties": {"at": {"type": "string"}}, "required": ["at"]},
)


class Question(Struct, frozen=True):
    """`marker` stands in the prompt, and in no other question."""

    marker: str
    request: HttpRequest


class Client:
    """`url` is the base URL that an SDK of the dialect is given. `model` may hold `{model}` for the name asked for."""

    def __init__(
        self,
        url: str,
        dialect: Dialect,
        *,
        model: str = "{model}",
        key: Secret | None = None,
        headers: tuple[tuple[str, str], ...] = (),
        patience_s: float = 10.0,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.dialect = dialect
        self.target = Target("the endpoint", url, dialect.name, key=key, headers=headers)
        self.patience_s = patience_s
        self.asked = 0
        self._model = model
        self._environ = environ
        self._transport = Http1Transport(environ=environ)
        self._numbers = count(1)

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._transport.aclose()

    @property
    def kept_connections(self) -> int:
        """Connections that the other side lets us use again."""
        return self._transport.idle_connections

    def question(
        self,
        model: str,
        *,
        stream: bool = True,
        prompt: str = "Count from one to twenty in words.",
        max_tokens: int = 200,
        tools: bool = False,
    ) -> Question:
        marker = f"penstock-check-{next(self._numbers)}."
        request = ChatRequest(
            self._model.replace("{model}", model),
            (Message.of("user", f"{prompt} ({marker})"),),
            stream=stream,
            include_usage=stream,
            max_tokens=max_tokens,
            tools=(LOOK,) if tools else (),
        )
        return Question(marker, self.dialect.build_request(request, self.target))

    async def open(self, question: Question) -> HttpResponse:
        """Raises what the transport raises."""
        self.asked += 1
        return await self._transport.open(question.request, connect_s=self.patience_s)

    async def hear(
        self, question: Question, *, leave_after: int | None = None, patience_s: float | None = None
    ) -> Heard:
        """Ask, and hear all of the answer. A connection that is lost before an answer is an ending as well."""
        began = time.monotonic()
        patience_s = patience_s or self.patience_s
        try:
            async with asyncio.timeout(patience_s):  # wait_for would swallow a cancellation, in Python 3.11
                response = await self.open(question)
        except TimeoutError:
            return Heard(began, ended="open", ended_at=time.monotonic())
        except PenstockError as error:
            return Heard(began, malformed=error, ended="cut", ended_at=time.monotonic())
        left_s = max(0.1, began + patience_s - time.monotonic())
        return await listen(response, self.dialect, asked_at=began, patience_s=left_s, leave_after=leave_after)

    async def get(self, path: str) -> int:
        """The status of another path of the same server; 0 where it gave none."""
        url = self.target.url.split("/", 3)
        request = replace(self.question("any").request, method="GET", url="/".join(url[:3]) + path, body=b"")
        try:
            async with asyncio.timeout(self.patience_s):
                response = await self._transport.open(request, connect_s=2.0)
        except (PenstockError, TimeoutError):
            return 0
        response.abort()
        return response.status
