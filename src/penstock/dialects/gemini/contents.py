"""A client's `contents` → our messages.

Tool results come before what else a user's turn says. A model's turn may come in pieces, as it was streamed (Google's
SDK keeps its history so): they are put together, a thought and the proof that came after it with them. A call or a
result without an id gets one: results answer the calls of their name in order. Pure; raises `InvalidRequest` or
`Unsupported` with the part's path.
"""

from __future__ import annotations

from typing import Any

import msgspec

from penstock.canon.errors import InvalidRequest, Unsupported
from penstock.canon.events import Reasoning, Text, ToolCall
from penstock.canon.request import Audio, ContentPart, File, Image, Message, ToolResult
from penstock.dialects.gemini.wire import is_own_file, read_signature

_AUDIO_FORMATS = {"mpeg": "mp3", "mp3": "mp3", "x-wav": "wav", "wave": "wav", "wav": "wav"}


class _Blob(msgspec.Struct, rename="camel"):
    mime_type: str
    data: str
    display_name: str | None = None


class _FileData(msgspec.Struct, rename="camel"):
    file_uri: str
    mime_type: str | None = None
    display_name: str | None = None


class _Call(msgspec.Struct):
    name: str
    id: str | None = None
    args: dict[str, Any] | None = None


class _Media(msgspec.Struct, rename="camel"):
    inline_data: _Blob | None = None
    file_data: _FileData | None = None


class _Response(msgspec.Struct):
    name: str
    response: dict[str, Any] | None = None
    id: str | None = None
    parts: list[_Media] | None = None


class GivenPart(msgspec.Struct, rename="camel"):
    text: str | None = None
    thought: bool | None = None
    thought_signature: str | None = None
    inline_data: _Blob | None = None
    file_data: _FileData | None = None
    function_call: _Call | None = None
    function_response: _Response | None = None
    executable_code: dict[str, Any] | None = None
    code_execution_result: dict[str, Any] | None = None
    video_metadata: dict[str, Any] | None = None


class GivenContent(msgspec.Struct):
    parts: list[GivenPart] = []
    role: str | None = None


def system_texts(given: GivenContent | str | None) -> list[str]:
    if isinstance(given, str):
        return [given] if given else []
    texts = []
    for k, part in enumerate(given.parts if given is not None else ()):
        if part.text is None:
            raise Unsupported("A system instruction is text.", param=f"systemInstruction.parts[{k}]")
        if part.text:
            texts.append(part.text)
    return texts


class Contents:
    """Turns in order; `messages` are ours so far."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self._waiting: list[ToolCall] = []  # calls without a result
        self._calls = 0

    def add(self, content: GivenContent, path: str) -> None:
        role = content.role or "user"
        if role not in ("user", "model", "function", "tool"):
            raise InvalidRequest(f"Unknown role `{role}`.", param=f"{path}.role", fix="Use user or model.")
        results: list[ContentPart] = []
        rest: list[ContentPart] = []
        if role == "model" and self.messages and self.messages[-1].role == "assistant":
            rest += self.messages.pop().parts
        for k, part in enumerate(content.parts):
            if part.function_response is not None:
                results.append(self._result(part.function_response))
                continue
            for said in self._parts(part, f"{path}.parts[{k}]"):
                if role != "model" or not _goes_on(rest, said, is_thought=bool(part.thought)):
                    rest.append(said)
        if results:
            self.messages.append(Message("tool", tuple(results)))
        if rest or not results:
            self.messages.append(Message("assistant" if role == "model" else "user", tuple(rest)))

    def _parts(self, part: GivenPart, path: str) -> list[ContentPart]:
        signature = part.thought_signature
        if part.function_call is not None:
            return [self._call(part.function_call, signature)]
        for name, value in (
            ("executableCode", part.executable_code),
            ("codeExecutionResult", part.code_execution_result),
            ("videoMetadata", part.video_metadata),
        ):
            if value is not None:
                raise Unsupported(
                    f"`{name}` cannot be translated to this model's dialect.",
                    param=f"{path}.{name}",
                    fix="Leave it out, or ask a model of Google's.",
                )
        if part.inline_data is not None:
            return [_inline(part.inline_data)]
        if part.file_data is not None:
            return [_file(part.file_data)]
        if part.text is None and not signature:
            raise InvalidRequest("The part has nothing in it that is known.", param=path)
        text = part.text or ""
        if part.thought:
            return [read_signature(signature, text) if signature else Reasoning(text)]
        said: list[ContentPart] = [Text(text)] if text else []
        return [*said, read_signature(signature, "")] if signature else said

    def _call(self, given: _Call, signature: str | None) -> ToolCall:
        id_ = given.id
        if not id_:
            id_, self._calls = f"call_{self._calls}", self._calls + 1
        args = given.args or {}
        call = ToolCall(id_, given.name, msgspec.json.encode(args).decode(), args, signature=signature or None)
        self._waiting.append(call)
        return call

    def _result(self, given: _Response) -> ToolResult:
        response = given.response or {}
        is_error = "error" in response and not response.keys() & {"output", "result"}
        parts: list[Text | Image | Audio | File] = [Text(_said(response, given.name))]
        for media in given.parts or ():
            if media.inline_data is not None:
                parts.append(_inline(media.inline_data))
            elif media.file_data is not None:
                parts.append(_file(media.file_data))
        return ToolResult(self._answered(given), tuple(parts), is_error, given.name)

    def _answered(self, given: _Response) -> str:
        """The id of the call that this is the result of."""
        waiting = self._waiting
        of_id = [call for call in waiting if given.id and call.id == given.id]
        for call in of_id or [call for call in waiting if call.name == given.name]:
            waiting.remove(call)
            return call.id
        if given.id:
            return given.id
        id_, self._calls = f"call_{self._calls}", self._calls + 1
        return id_


def _goes_on(said: list[ContentPart], part: ContentPart, *, is_thought: bool) -> bool:
    """Whether the part is another piece of the last one, which it then is put to."""
    last = said[-1] if said else None
    if isinstance(part, Text) and isinstance(last, Text):
        said[-1] = Text(last.text + part.text)
        return True
    if is_thought and isinstance(part, Reasoning) and isinstance(last, Reasoning):
        if last.signature or last.redacted or part.redacted:
            return False
        said[-1] = Reasoning(last.text + part.text, part.signature, signed_by=part.signed_by)
        return True
    return False


def _said(response: dict[str, Any], tool: str) -> str:
    """A result's words. The members that hold nothing but a result are unpacked."""
    if response.keys() == {"name", "content"} and response["name"] == tool:  # npm's ai (seen 2026-11)
        response = {"output": response["content"]}
    value: Any = response
    if len(response) == 1 and (name := next(iter(response))) in ("output", "result", "error"):
        value = response[name]
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _inline(given: _Blob) -> Image | Audio | File:
    kind, _, subtype = given.mime_type.partition(";")[0].strip().lower().partition("/")
    data = given.data.replace("-", "+").replace("_", "/")  # Google's SDK writes the other alphabet of base64
    data += "=" * (-len(data) % 4)
    if kind == "image":
        return Image(data=data, media_type=given.mime_type)
    if kind == "audio":
        return Audio(data, _AUDIO_FORMATS.get(subtype, subtype))
    return File(data=data, media_type=given.mime_type, name=given.display_name)


def _file(given: _FileData) -> Image | File:
    """A file of Google's own is known to Google alone; anything else is an address."""
    uri, media_type = given.file_uri, given.mime_type
    if is_own_file(uri):
        return File(file_id=uri, media_type=media_type, name=given.display_name)
    if (media_type or "").startswith("image/"):
        return Image(url=uri, media_type=media_type)
    return File(url=uri, media_type=media_type, name=given.display_name)
