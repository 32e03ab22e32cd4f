"""Embeddings in the dialects that have them: one module each, with the same functions.

Towards an upstream: `build_request`, `read_answer`. Towards a client: `parse_request`, `write_response`, and
`forward_request` for an upstream that speaks the client's own dialect. An answer comes as the events of a reply whose
one part is `Custom("embeddings", …)`, so that it is routed, timed and recorded as replies are. Pure.
"""

from __future__ import annotations

import base64
import binascii
import sys
from array import array
from functools import cache
from importlib import import_module
from math import isfinite
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

import msgspec

from penstock.canon.embedding import Embeddings
from penstock.canon.errors import (
    InvalidRequest,
    NotAStream,
    ProtocolError,
    StreamedError,
    Truncated,
    Unsupported,
    UpstreamError,
)
from penstock.canon.events import BlockEnd, BlockStart, Custom, Finish, Start, UsageUpdate
from penstock.dialects import dialect as dialect_of
from penstock.dialects.base import JSON_ERRORS, Mark, is_cut, load_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from penstock.canon.embedding import EmbedRequest
    from penstock.canon.errors import StatusError
    from penstock.canon.events import Event
    from penstock.canon.target import Target
    from penstock.canon.usage import Usage
    from penstock.canon.wire import HttpRequest
    from penstock.framing.base import Frame

T = TypeVar("T")

#: dialect → module
EMBEDDINGS = {
    "cohere": "penstock.dialects.cohere.embed",
    "gemini": "penstock.dialects.gemini.embed",
    "ollama": "penstock.dialects.ollama.embed",
    "openai-chat": "penstock.dialects.openai_chat.embed",
    "openai-completions": "penstock.dialects.openai_chat.embed",
    "openai-responses": "penstock.dialects.openai_chat.embed",
}

#: texts in one request, as the dialect's own provider limits them: OpenAI 2,048, Cohere 96, Gemini 100 (2026-11).
#: Ollama has no limit; one request of this size is long enough for whoever waits.
MOST_TEXTS = {
    "cohere": 96,
    "gemini": 100,
    "ollama": 512,
    "openai-chat": 2048,
    "openai-completions": 2048,
    "openai-responses": 2048,
}

#: the kind of the part that embeddings are
KIND = "embeddings"


class Answer(msgspec.Struct, frozen=True):
    """What an upstream said. Vectors are JSON still, in the order of the texts: a relay need not look at numbers."""

    vectors: Sequence[msgspec.Raw]
    model: str | None = None
    usage: Usage | None = None

    def embeddings(self) -> Embeddings:
        """Raises `ProtocolError` for a vector that is none."""
        return Embeddings(tuple(_vector(raw) for raw in self.vectors), self.model, self.usage)


class UpstreamEmbedding(Protocol):
    def build_request(self, request: EmbedRequest, target: Target) -> HttpRequest: ...

    def read_answer(self, body: bytes) -> Answer:
        """Raises `ProtocolError` for what is none, `Truncated` for what was cut."""
        ...


class ClientEmbedding(UpstreamEmbedding, Protocol):
    def parse_request(self, body: bytes) -> EmbedRequest: ...

    def forward_request(self, body: bytes, request: EmbedRequest, target: Target) -> HttpRequest: ...

    def write_response(self, found: Embeddings, request: EmbedRequest, *, model: str | None) -> bytes: ...


@cache
def _module(name: str) -> Any:
    return import_module(EMBEDDINGS[name])


def embedding(name: str) -> UpstreamEmbedding:
    """The embeddings of that dialect. Raises `Unsupported` for one that has none."""
    if name not in EMBEDDINGS:
        raise Unsupported(
            f"This model's dialect ({name}) has no embeddings.", param="model", fix="Ask a model that makes embeddings."
        )
    return cast("UpstreamEmbedding", _module(name))


def client_embedding(name: str) -> ClientEmbedding:
    """For the dialects whose clients ask for embeddings here: `openai-chat` and `ollama`."""
    return cast("ClientEmbedding", _module(name))


class EmbeddingReader:
    """Reads the answer to one question of `asked` texts, in the dialect `name`.

    `whole`: its part holds `Embeddings`. Otherwise the vectors are counted and not read, and it holds None.
    """

    streams_as = "sse"  # it never streams: one object is a document

    def __init__(self, name: str, asked: int, *, whole: bool) -> None:
        self.name = name
        self._asked = asked
        self._whole = whole

    def decoder(self, *, document: bool, provider: str | None = None, profile: str | None = None) -> EmbeddingDecoder:
        return EmbeddingDecoder(embedding(self.name), self._asked, provider, whole=self._whole)

    def read_error(self, status: int, headers: Mapping[str, str], body: bytes, target: str) -> StatusError:
        return dialect_of(self.name).read_error(status, headers, body, target)


class EmbeddingDecoder:
    """The one document of an answer."""

    def __init__(self, module: UpstreamEmbedding, asked: int, provider: str | None, *, whole: bool) -> None:
        self.proved = False
        self.done = False
        self._module = module
        self._asked = asked
        self._provider = provider
        self._whole = whole
        self._usage: Usage | None = None

    def decode(self, frame: Frame, events: list[Event]) -> Mark | None:
        if self.done:
            return Mark.AFTER
        if frame.data is None:
            return None
        answer = self._module.read_answer(frame.data)
        if len(answer.vectors) != self._asked:
            raise ProtocolError(f"The upstream gave {len(answer.vectors)} embeddings for {self._asked} texts.")
        found = answer.embeddings() if self._whole else None
        events += (Start(answer.model, self._provider), BlockStart(0, "custom", None, KIND))
        events.append(BlockEnd(0, Custom(KIND, found)))
        if answer.usage is not None:
            self._usage = answer.usage
            events.append(UsageUpdate(answer.usage))
        self.proved = self.done = True
        return None

    def close(self, events: list[Event]) -> None:
        if not self.proved:
            raise Truncated("The reply ended before it had told an embedding.")
        events.append(Finish("stop", None, self._usage))


# --- what the modules share -----------------------------------------------------------------------------------------


def texts(given: Any, field: str) -> tuple[str, ...]:
    """One text, or several. Token numbers are another model's own."""
    listed = [given] if isinstance(given, str) else given
    if not isinstance(listed, list) or not listed:
        raise InvalidRequest(f"`{field}` is empty.", param=field, fix="Send a text, or a list of texts.")
    if not all(isinstance(text, str) for text in listed):
        raise InvalidRequest(f"`{field}` must be text.", param=field, fix="Send texts; tokens are a model's own.")
    return tuple(listed)


def read_as(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """The answer in its shape."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise no_embeddings(body, f": {str(error).rstrip('.')}") from None
    except JSON_ERRORS as error:
        is_in_number = body.startswith(b"{") and not body.endswith(b"}")
        if is_in_number or is_cut(body, error):
            raise Truncated("The reply ended inside its JSON.") from None
        raise NotAStream("The upstream's reply is not JSON.", fix="Check the upstream's url.") from None


def no_embeddings(body: bytes, why: str = "") -> UpstreamError:
    """What to raise for JSON that holds none. Some servers say an error with 200."""
    found = load_json(body)
    said = found.get("error") if isinstance(found, dict) else None
    if not said:
        return ProtocolError(f"The upstream's reply holds no embeddings{why}.")
    message = said.get("message") if isinstance(said, dict) else said
    words = message if isinstance(message, str) else "The upstream reported an error in its reply."
    return StreamedError(words, raw=said)


_numbers = msgspec.json.Decoder(tuple[float, ...]).decode
_packed = msgspec.json.Decoder(str).decode


def _vector(raw: msgspec.Raw) -> tuple[float, ...]:
    """A list of numbers, or base64 of 32-bit floats."""
    text = bytes(raw)
    try:
        return unpacked(_packed(text)) if text.startswith(b'"') else _numbers(text)
    except (*JSON_ERRORS, binascii.Error, ValueError) as error:
        raise ProtocolError(f"The upstream's reply holds an embedding that is none: {error}.") from None


def unpacked(word: str) -> tuple[float, ...]:
    numbers = array("f", base64.b64decode(word, validate=True))
    if sys.byteorder == "big":
        numbers.byteswap()
    if not isfinite(sum(numbers)):
        raise ValueError("a number in it is not finite")
    return tuple(numbers)


def packed(vector: Sequence[float]) -> str:
    numbers = array("f", vector)
    if sys.byteorder == "big":
        numbers.byteswap()
    return base64.b64encode(numbers.tobytes()).decode()
