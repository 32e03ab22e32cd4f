"""What a dialect is: one object per wire language, both directions. Pure: bytes and values in, bytes and values out.

Towards an upstream: `build_request`, `decoder`, `read_error`. Towards a client: `read_head` or `parse_request`,
`encoder`, `write_document`, `write_error`, and `forward_request` for an upstream that speaks the client's own dialect.
A dialect holds no state; decoders and encoders hold one stream's. Whatever a caller sent that is wrong raises a
`RequestError` with the field's path.
"""

from __future__ import annotations

import json
import math
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

import msgspec

from penstock.canon.errors import InvalidRequest, PenstockError, StatusError
from penstock.canon.events import ToolCall

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from penstock.canon.embedding import EmbedRequest
    from penstock.canon.events import Event
    from penstock.canon.request import ChatRequest
    from penstock.canon.response import Response
    from penstock.canon.target import Target
    from penstock.canon.wire import HttpRequest
    from penstock.framing.base import Frame

T = TypeVar("T")

#: What decoding JSON raises: text that is none, bytes that are no UTF-8, nesting deeper than the stack.
JSON_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Mark(Enum):
    """What a relay must know of a frame besides its bytes. Most frames have no mark."""

    USAGE = "usage"  # carries usage and nothing else: kept from a client that did not ask
    TERMINATOR = "terminator"  # the dialect's last word: passed once, on a proved ending
    ERROR = "error"  # the provider's own error: passed, and nothing after it
    AFTER = "after"  # came after the end: dropped
    NAMELESS = "nameless"  # an event whose name is in its data alone, where clients go by names: it is given its name


class RequestHead(msgspec.Struct, frozen=True):
    """What a request says at its top level: enough to choose a target and to forward the rest unread.

    `path` is the URL's path and query where they say part of it, as Gemini's do; otherwise empty.
    """

    model: str
    stream: bool
    include_usage: bool
    body: bytes
    path: str = ""

    @property
    def fields(self) -> dict[str, msgspec.Raw]:
        """The body's own top-level members, each still JSON text."""
        return _fields.decode(self.body)


_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_members = msgspec.json.Decoder(dict[str, Any])


class Decoder(Protocol):
    """Frames of one reply → events. `proved`: the provider's own terminal was seen, so the reply is complete.
    `done`: nothing more that counts can come."""

    proved: bool
    done: bool

    def decode(self, frame: Frame, events: list[Event]) -> Mark | None:
        """Append this frame's events. Raises `StreamedError` or `MalformedFrame`; events appended before stay true."""
        ...

    def close(self, events: list[Event]) -> None:
        """The bytes have ended: append what was held back, `Finish` last. Raises `Truncated` when nothing proved it."""
        ...


class Encoder(Protocol):
    """Events of one reply → bytes on a client's wire. `error` is the in-stream form; nothing may follow it."""

    def encode(self, events: Iterable[Event]) -> bytes: ...

    def error(self, error: PenstockError) -> bytes: ...


@runtime_checkable
class Resumable(Protocol):
    """An encoder to which it matters what stands before its words: a bracket in an array, a number that was counted."""

    def resume(self, last: bytes) -> None:
        """Something of the stream was written already, by somebody else; `last` is its last payload."""
        ...


class Reader(Protocol):
    """Reads what an upstream answers. `streams_as` is the framing of its streams, by the framing's name."""

    name: str
    streams_as: str

    def decoder(self, *, document: bool, provider: str | None = None, profile: str | None = None) -> Decoder: ...

    def read_error(self, status: int, headers: Mapping[str, str], body: bytes, target: str) -> StatusError: ...


class UpstreamDialect(Reader, Protocol):
    """Towards an upstream."""

    def build_request(self, request: ChatRequest, target: Target) -> HttpRequest:
        """Raises `Unsupported` for what would change the meaning; `dropped` names the harmless rest."""
        ...


class Dialect(UpstreamDialect, Protocol):
    """Towards a client as well. One dialect may be several objects where its streams have several forms."""

    #: the content type of its streams
    stream_type: str
    #: what a client sees while nothing happens, and the word that ends a complete stream (empty: none)
    heartbeat: bytes
    terminator: bytes
    #: the member that names the model in a reply
    model_key: str
    #: the kinds of server whose own stream in this dialect leaves out what its clients need
    mended_profiles: frozenset[str]

    def forward_request(self, head: RequestHead, target: Target, headers: Mapping[str, str]) -> HttpRequest: ...

    def read_head(self, body: bytes, path: str = "") -> RequestHead: ...

    def parse_request(self, body: bytes, path: str = "") -> ChatRequest: ...

    def encoder(self, *, model: str | None, include_usage: bool, request_id: str, created: int) -> Encoder: ...

    def write_document(self, response: Response, *, model: str | None, request_id: str, created: int) -> bytes: ...

    def write_error(self, error: PenstockError, request_id: str | None) -> bytes: ...


def call_names(request: ChatRequest) -> dict[str, str]:
    """Call id → tool, for wires whose results must name it and for clients that did not."""
    parts = [part for message in request.messages for part in message.parts]
    return {part.id: part.name for part in parts if isinstance(part, ToolCall)}


def decode_body(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """Decode a caller's JSON, or say in one sentence what is wrong with it and where."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$")
        path = path.removeprefix("[...]`")  # a member that has no name for msgspec
        raise InvalidRequest(
            f"{message.rstrip('.')}{f' at `{field}`' if (field := path.rstrip('`').lstrip('.')) else ''}.",
            param=field or _missing_field(message),
        ) from error
    except JSON_ERRORS as error:
        if "truncated" in str(error) and not is_cut(body, error):
            raise InvalidRequest(
                "The body holds text that is no Unicode (half of a surrogate pair).", fix="Send whole characters."
            ) from error
        said = str(error).partition(": ")[2] or str(error)
        raise InvalidRequest(f"The body is not valid JSON: {said.rstrip('.')}.") from error


def _missing_field(message: str) -> str | None:
    parts = message.split("`")
    return parts[1] if message.startswith("Object missing required field") and len(parts) > 1 else None


def endpoint(target: Target, path: str) -> str:
    return target.url.rstrip("/") + path


def key_headers(target: Target, own: str = "bearer") -> tuple[tuple[str, str], ...]:
    """The target's key in its header; `own` is the dialect's way, which the target's `auth` may overrule."""
    if target.key is None:
        return ()
    place = target.auth or own
    if place == "bearer":
        return (("authorization", f"Bearer {target.key.reveal()}"),)
    return ((place.lower(), target.key.reveal()),)


def foreign_extras(request: ChatRequest | EmbedRequest, own: str) -> list[str]:
    """What the client's dialect said that has no name in ours and none in the upstream's: nothing is sent for it."""
    return [field for dialect, fields in request.extras.items() if dialect != own for field in fields]


def finished_call(id_: str, name: str, raw: str, *, server: bool = False, signature: str | None = None) -> ToolCall:
    """A call whose argument text is whole: parsed once, never repaired."""
    if not raw.strip():
        return ToolCall(id_, name, raw, {}, None, server, signature)
    try:
        arguments = msgspec.json.decode(raw)
    except JSON_ERRORS as error:
        return ToolCall(id_, name, raw, None, f"the arguments are not valid JSON: {error}", server, signature)
    if not isinstance(arguments, dict):
        return ToolCall(id_, name, raw, None, "the arguments are JSON, but not an object", server, signature)
    return ToolCall(id_, name, raw, arguments, None, server, signature)


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """How long the upstream asks us to wait: `retry-after-ms`, or `retry-after` in seconds or as a date.

    A date is read by the upstream's own clock, which its answer's `date` shows; without one it says nothing.
    """
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            asked = float(headers[name]) / unit
        except (KeyError, ValueError):
            continue
        if math.isfinite(asked):
            return max(asked, 0.0)
    until, now = headers.get("retry-after"), headers.get("date")
    return _between_s(now, until) if until is not None and now is not None else None


#: the longest form of a date in HTTP (RFC 9110, 5.6.7) has 33 characters
_MAX_DATE_CHARS = 40


def _between_s(now: str, until: str) -> float | None:
    if len(now) > _MAX_DATE_CHARS or len(until) > _MAX_DATE_CHARS:
        return None
    from email.utils import parsedate_to_datetime  # seldom needed, and slow to load

    try:
        return max((parsedate_to_datetime(until) - parsedate_to_datetime(now)).total_seconds(), 0.0)
    except (TypeError, ValueError, OverflowError):
        return None


def load_json(body: bytes) -> Any:
    """The body as plain values, or None when it is not JSON."""
    try:
        return msgspec.json.decode(body)
    except JSON_ERRORS:
        return None


def load_extras(body: bytes) -> dict[str, Any]:
    """A request's members as plain values. What a struct passed over may still be no text, or no number."""
    return decode_body(_members, body)


def is_cut(data: bytes, error: Exception) -> bool:
    """Whether this is JSON that ended too early. (msgspec says so of half a surrogate pair as well.)"""
    return "truncated" in str(error) and repaired(data) is None


def repaired(data: bytes) -> bytes | None:
    """JSON whose strings are no Unicode, with U+FFFD where they are none; None when it is wrong in another way.

    Servers that cut text by bytes send half a character, those in JavaScript half a surrogate pair.
    """
    try:
        text = json.dumps(json.loads(data.decode(errors="replace")), ensure_ascii=False)
    except (ValueError, RecursionError):
        return None
    fixed = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode()
    return None if fixed == data else fixed
