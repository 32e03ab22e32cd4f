"""`POST {base}/messages/count_tokens`: how many tokens a request would be, told by whoever would read it.

`DIALECT` is the client's side, and that of upstreams which have the same path: Anthropic's own, and llama.cpp's server.
`counter` gives what asks any other: Google's `:countTokens`, OpenAI's `/responses/input_tokens`. A count comes as the
events of a reply that says nothing, so that it is routed, timed and recorded as replies are; it stands in what `Finish`
tells beside its reason, because nothing was used. Nothing is estimated: an upstream that cannot count is `Unsupported`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from penstock.canon.errors import NotAStream, Truncated, Unsupported
from penstock.canon.events import Finish, Start
from penstock.canon.usage import whole
from penstock.canon.wire import HttpRequest
from penstock.dialects import dialect as dialect_of
from penstock.dialects.anthropic_messages import AnthropicMessages, request
from penstock.dialects.anthropic_messages.errors import streamed_error
from penstock.dialects.base import Mark, endpoint, load_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from penstock.canon.errors import StatusError
    from penstock.canon.events import Event
    from penstock.canon.request import ChatRequest
    from penstock.canon.response import Response
    from penstock.canon.target import Target
    from penstock.dialects.base import UpstreamDialect
    from penstock.framing.base import Frame

#: where a count stands in the metadata of `Finish`
COUNT = "input_tokens"


class CountDecoder:
    """The one document of an answer. `member` holds the count."""

    def __init__(self, member: str, provider: str | None) -> None:
        self.proved = False
        self.done = False
        self._member = member
        self._provider = provider
        self._count: int | None = None

    def decode(self, frame: Frame, events: list[Event]) -> Mark | None:
        if self.done:
            return Mark.AFTER
        found = load_json(frame.data or b"")
        if found is None:
            return None  # cut, or nothing: `close` says so
        if isinstance(found, dict) and found.get("error"):
            raise streamed_error(found)
        count = whole(found.get(self._member)) if isinstance(found, dict) else None
        if count is None:
            raise NotAStream("The reply is JSON, but no count of tokens.", fix="Check the upstream's URL.")
        self._count = count
        events.append(Start(None, self._provider))
        self.proved = self.done = True
        return None

    def close(self, events: list[Event]) -> None:
        if not self.proved:
            raise Truncated("The reply ended before it had told a count.")
        events.append(Finish("stop", metadata={COUNT: self._count}))


class CountTokens(AnthropicMessages):
    path = "/messages/count_tokens"

    read_head = staticmethod(request.read_count_head)
    parse_request = staticmethod(request.parse_count)

    @staticmethod
    def decoder(*, document: bool, provider: str | None = None, profile: str | None = None) -> CountDecoder:
        return CountDecoder("input_tokens", provider)

    @staticmethod
    def write_document(response: Response, *, model: str | None, request_id: str, created: int = 0) -> bytes:
        return msgspec.json.encode({"input_tokens": response.metadata[COUNT]})


DIALECT = CountTokens()


class _Counter:
    """Asks an upstream of another dialect: its own request for a reply, made one for a count by `asked`."""

    def __init__(
        self, name: str, member: str, asked: Callable[[str, dict[str, Any], Target], tuple[str, dict[str, Any]]]
    ) -> None:
        self.name = name
        self.streams_as = "sse"  # it never streams: one object is a document
        self._member = member
        self._asked = asked

    def build_request(self, request: ChatRequest, target: Target) -> HttpRequest:
        reply = dialect_of(self.name).build_request(request, target)
        url, body = self._asked(reply.url, msgspec.json.decode(reply.body), target)
        return HttpRequest("POST", url, reply.headers, msgspec.json.encode(body))

    def decoder(self, *, document: bool, provider: str | None = None, profile: str | None = None) -> CountDecoder:
        return CountDecoder(self._member, provider)

    def read_error(self, status: int, headers: Mapping[str, str], body: bytes, target: str) -> StatusError:
        return dialect_of(self.name).read_error(status, headers, body, target)


def _of_gemini(url: str, body: dict[str, Any], target: Target) -> tuple[str, dict[str, Any]]:
    model = url.rpartition(":")[0]
    name = model.removeprefix(endpoint(target, "/"))
    # Only inside a whole request are the system's words and the tools counted, too.
    return f"{model}:countTokens", {"generateContentRequest": {"model": name, **body}}


#: what of a request OpenAI takes for counting
_COUNTED = ("model", "input", "instructions", "tools", "tool_choice", "parallel_tool_calls", "reasoning", "text")


def _of_responses(url: str, body: dict[str, Any], target: Target) -> tuple[str, dict[str, Any]]:
    return f"{url}/input_tokens", {name: body[name] for name in _COUNTED if name in body}


_COUNTERS: dict[str, UpstreamDialect] = {
    "anthropic-messages": DIALECT,
    "gemini": _Counter("gemini", "totalTokens", _of_gemini),
    "openai-responses": _Counter("openai-responses", "input_tokens", _of_responses),
}


def counter(target: Target) -> UpstreamDialect:
    """What asks this target for a count. Raises `Unsupported` where nothing can."""
    found = _COUNTERS.get("anthropic-messages" if target.profile == "llamacpp" else target.dialect)
    if found is None:
        raise Unsupported(
            f"The model's upstream cannot count tokens: its dialect ({target.dialect}) has no request for that.",
            param="model",
            fix="Send the request itself; its reply says what it used.",
        )
    return found
