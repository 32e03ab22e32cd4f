"""A request for a server that is known not to take all of its dialect; and what a refusal tells of that.

In: the `HttpRequest` that a dialect built, and names of what its target lacks. Out: the request that says it in another
way, or leaves it out by name. A name is that of the body's member (`max_tokens`, `temperature`), of a role (`system`,
`developer`), or `stream` (a reply that streams) and `document` (one that does not). Only what changes no meaning is
left out: a model without `tools` is a typed error. A refusal is read by its status, its code and its param, never by
its words. Pure.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from msgspec.structs import replace

from penstock.canon.errors import StatusError, StreamedError, Unsupported
from penstock.dialects.base import JSON_ERRORS
from penstock.dialects.gemini.path import canonical_path

if TYPE_CHECKING:
    from penstock.canon.wire import HttpRequest
    from penstock.dialects.base import Dialect, RequestHead

#: what every dialect can lack: a reply as a stream, a reply as one document
STREAM, DOCUMENT = "stream", "document"
#: streams, but not when it is given tools
TOOL_STREAM = "tool_stream"

ROLES = ("system", "developer")

#: the server does not know the member …
_MEMBER_CODES = frozenset({"unsupported_parameter", "unknown_parameter", "extra_forbidden"})
#: … or takes it with its own default alone. OpenAI's reasoning models say so of their sampling (2026-11).
_VALUE_CODES = _MEMBER_CODES | {"unsupported_value"}


class _Row(NamedTuple):
    """`codes`: which refusals that name the member tell that it is lacked; None: any does."""

    codes: frozenset[str] | None = _MEMBER_CODES
    #: says the same; None: it is left out
    instead: str | None = None
    #: cannot be left out
    is_needed: bool = False


_KNOBS: dict[str, _Row] = {
    "stream_options": _Row(codes=None),  # it has one value, so that no refusal can be of the value
    **dict.fromkeys(("temperature", "top_p", "presence_penalty", "frequency_penalty"), _Row(codes=_VALUE_CODES)),
    **dict.fromkeys(
        (
            "metadata", "min_p", "parallel_tool_calls", "prompt_cache_key", "prompt_cache_retention",
            "reasoning_effort", "repetition_penalty", "safety_identifier", "seed", "top_k", "user", "verbosity",
        ),
        _Row(),
    ),
}  # fmt: skip

_CHAT = {
    **_KNOBS,
    "max_tokens": _Row(instead="max_completion_tokens"),
    "max_completion_tokens": _Row(instead="max_tokens"),
    "tools": _Row(is_needed=True),
}

#: dialect → the members that its servers may lack
_TABLES: dict[str, dict[str, _Row]] = {
    "openai-chat": _CHAT,
    "openai-completions": _KNOBS,
    "openai-responses": {**_KNOBS, "tools": _Row(is_needed=True)},
}

#: every name that a fact can have
NAMES = frozenset({STREAM, DOCUMENT, TOOL_STREAM, *ROLES, *_CHAT})

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_messages = msgspec.json.Decoder(list[dict[str, Any]])
_ROLE_PARAM = re.compile(r"messages(?:\[(\d+)\]|\.(\d+))\.role")


# --- asking ----------------------------------------------------------------------------------------------------------


def asking(head: RequestHead, dialect: Dialect, *, stream: bool) -> RequestHead:
    """The head of the same request that asks for a stream, or for none."""
    if dialect.name == "gemini":
        return replace(head, stream=stream, path=canonical_path(head.model, stream, dialect.streams_as == "sse"))
    fields = head.fields
    fields["stream"] = msgspec.Raw(b"true" if stream else b"false")
    if not stream:
        fields.pop("stream_options", None)  # some refuse it where there is no stream
    return replace(head, stream=stream, include_usage=head.include_usage and stream, body=msgspec.json.encode(fields))


def adapted(
    dialect: str, request: HttpRequest, lacks: frozenset[str], *, strict: bool = False, asked_usage: bool = True
) -> HttpRequest:
    """The request without what its target lacks; the same object where that changes nothing.

    `strict`: what would be left out stays, for its server to refuse. `asked_usage`: `stream_options` are the client's
    own, and not ours. Raises `Unsupported` for what cannot be left out.
    """
    table = _TABLES.get(dialect)
    if table is None or not request.body.startswith(b"{"):
        return request
    fields = _fields.decode(request.body)
    written: dict[str, msgspec.Raw] = {}
    left_out: list[str] = []
    for name, value in fields.items():
        row = table.get(name)
        if row is None or name not in lacks:
            written[name] = value
        elif row.is_needed:
            raise Unsupported(f"This model takes no `{name}`.", param=name, fix="Ask another model, or leave them out.")
        elif row.instead is not None:
            if row.instead in lacks:
                written[name] = value  # a limit that has no name there is for its server to refuse
            elif row.instead not in fields:
                written[row.instead] = value
        elif name == "stream_options" and not asked_usage:
            pass
        elif strict:
            written[name] = value
        else:
            left_out.append(name)
    said_anew = dialect == "openai-chat" and not lacks.isdisjoint(ROLES) and _with_roles(written, lacks)
    if not said_anew and written.keys() == fields.keys():
        return request
    return replace(request, body=msgspec.json.encode(written), dropped=(*request.dropped, *left_out))


def _with_roles(fields: dict[str, msgspec.Raw], lacks: frozenset[str]) -> bool:
    """Words of a role that the server does not know, in the other's name; where it knows neither, in the user's.

    False: there are none.
    """
    said = next((role for role in ROLES if role not in lacks), None)
    try:
        messages = _messages.decode(fields.get("messages", b"[]"))
    except JSON_ERRORS:
        return False  # its server will say what is wrong with them
    if not any(message.get("role") in ROLES and message["role"] in lacks for message in messages):
        return False
    written: list[dict[str, Any]] = []
    folded: dict[str, Any] | None = None  # what begins the user's next turn
    for message in messages:
        is_said_anew = message.get("role") in ROLES and message["role"] in lacks
        if is_said_anew and said is not None:
            written.append({**message, "role": said})
        elif is_said_anew:
            turn = {"role": "user", "content": message.get("content")}
            folded = turn if folded is None else _joined(folded, turn)
        elif folded is not None:
            written += (_joined(folded, message),) if message.get("role") == "user" else (folded, message)
            folded = None
        else:
            written.append(message)
    if folded is not None:
        written.append(folded)
    fields["messages"] = msgspec.Raw(msgspec.json.encode(written))
    return True


def _joined(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    one, two = first.get("content"), second.get("content")
    if isinstance(one, str) and isinstance(two, str):
        return {**second, "content": f"{one}\n\n{two}"}
    return {**second, "content": [*_parts(one), *_parts(two)]}


def _parts(content: Any) -> list[Any]:
    if isinstance(content, list):
        return content
    return [] if content is None else [{"type": "text", "text": content}]


# --- learning --------------------------------------------------------------------------------------------------------


def lacked(dialect: str, request: HttpRequest, error: StatusError | StreamedError, *, asked_stream: bool) -> str | None:
    """What this refusal of `request` says that its server lacks; None where it says nothing of the kind."""
    if error.status not in (400, 422) or error.param is None:
        return None
    table = _TABLES.get(dialect)
    if table is None:
        return None
    code = str(error.code) if error.code is not None else None
    if error.param == STREAM:
        return STREAM if asked_stream else DOCUMENT
    if dialect == "openai-chat" and code in _VALUE_CODES and (found := _ROLE_PARAM.fullmatch(error.param)):
        return _role(request, int(found[1] or found[2]))
    name = error.param.partition(".")[0].partition("[")[0]
    row = table.get(name)
    if row is None or (name != error.param and row.codes is not None):
        return None  # something within it is refused, and not all of it
    return name if row.codes is None or code in row.codes else None


def _role(request: HttpRequest, number: int) -> str | None:
    try:
        messages = _messages.decode(_fields.decode(request.body).get("messages", b"[]"))
    except JSON_ERRORS:
        return None
    role = messages[number].get("role") if number < len(messages) else None
    return role if role in ROLES else None


def has_tools(head: RequestHead) -> bool:
    """Whether a request in any of the clients' dialects gives tools."""
    given = head.fields.get("tools")
    return given is not None and bytes(given) not in (b"[]", b"null")
