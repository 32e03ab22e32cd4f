"""Our request → a Gemini body. Unset fields are not sent; the model and the verb are in the path.

What this wire cannot express and what would change the meaning raises `Unsupported`; what is harmless is left out and
named. Gemini fetches no address but Google's own, so that an image or a file must come as bytes.
"""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Any

import msgspec

from penstock.canon.errors import InvalidRequest, Unsupported
from penstock.canon.events import Reasoning, Refusal, Text, ToolCall
from penstock.canon.request import Audio, ChatRequest, ContentPart, File, Image, Message, ToolChoice, ToolResult
from penstock.dialects.base import call_names, foreign_extras
from penstock.dialects.gemini.wire import OWN, call_args, is_fetched
from penstock.dialects.mapping import without_none

if TYPE_CHECKING:
    from penstock.canon.target import Target

MAX_STOP_SEQUENCES = 5

#: Google's own word for a call that another model made: newer models refuse one without any signature.
FOREIGN_CALL = "skip_thought_signature_validator"

#: effort → thinking budget in tokens (no standard says it; 24576 is the most that all models take)
BUDGETS = {"none": 0, "minimal": 1024, "low": 4096, "medium": 8192, "high": 16384, "xhigh": 24576, "max": 24576}

#: effort → level, for the models that have levels. They always think, if little.
LEVELS = {
    "none": "MINIMAL",
    "minimal": "MINIMAL",
    "low": "LOW",
    "medium": "MEDIUM",
    "high": "HIGH",
    "xhigh": "XHIGH",
    "max": "XHIGH",
}
_HAS_LEVELS = re.compile(r"gemini-([3-9]|\d\d)")

_MODES = {"auto": "AUTO", "any": "ANY", "none": "NONE", "tool": "ANY"}


def build_body(request: ChatRequest, target: Target) -> tuple[bytes, tuple[str, ...]]:
    """The body, and the names of what it leaves out."""
    dropped = ["user"] if request.user is not None else []
    if request.parallel_tool_calls is False:
        dropped.append("parallel_tool_calls")
    if any(tool.strict for tool in request.tools):
        dropped.append("strict")
    # Vertex knows calls by their names and their order alone.
    turns = _Turns(call_names(request), dropped, with_ids=target.profile != "vertex")
    for message in request.messages:
        turns.add(message)
    body: dict[str, Any] = {"contents": turns.finished()}
    if turns.system and not body["contents"]:  # this wire wants somebody to answer
        body["contents"] = [{"role": "user", "parts": turns.system}]
    elif turns.system:
        body["systemInstruction"] = {"parts": turns.system}
    if request.tools:
        body["tools"] = [{"functionDeclarations": [_declaration(tool) for tool in request.tools]}]
        if request.tool_choice is not None:
            body["toolConfig"] = {"functionCallingConfig": _calling(request.tool_choice)}
    body["generationConfig"] = _generation(request, target)
    for path, value in request.extras.get(OWN, {}).items():
        group, _, name = path.rpartition(".")
        (body.setdefault(group, {}) if group else body)[name] = value
    dropped += foreign_extras(request, OWN)
    body = {name: value for name, value in body.items() if value or name == "contents"}
    return msgspec.json.encode(body), tuple(dict.fromkeys(dropped))


def _declaration(tool: Any) -> dict[str, Any]:
    return without_none(name=tool.name, description=tool.description, parametersJsonSchema=tool.parameters)


def _calling(choice: ToolChoice) -> dict[str, Any]:
    return without_none(mode=_MODES[choice.mode], allowedFunctionNames=[choice.name] if choice.name else None)


def _generation(request: ChatRequest, target: Target) -> dict[str, Any]:
    if len(request.stop) > MAX_STOP_SEQUENCES:
        raise Unsupported(
            f"Gemini takes at most {MAX_STOP_SEQUENCES} stop sequences, not {len(request.stop)}.",
            param="stop",
            fix="Send fewer.",
        )
    output = request.output
    return without_none(
        temperature=request.temperature,
        topP=request.top_p,
        topK=request.top_k,
        maxOutputTokens=request.max_tokens,
        stopSequences=list(request.stop) or None,
        seed=request.seed,
        presencePenalty=request.presence_penalty,
        frequencyPenalty=request.frequency_penalty,
        responseMimeType="application/json" if output is not None else None,
        responseJsonSchema=output.schema if output is not None else None,
        thinkingConfig=_thinking(request, target),
    )


def _thinking(request: ChatRequest, target: Target) -> dict[str, Any] | None:
    """Who asks for a thought is told of it, as everywhere else."""
    effort, budget = request.reasoning_effort, request.reasoning_budget
    if budget is None and effort is None:
        return None
    if budget is None and effort is not None:
        if _HAS_LEVELS.search(target.model or request.model):
            level = LEVELS.get(effort, "MEDIUM")
            return {"thinkingLevel": level} | ({} if effort == "none" else {"includeThoughts": True})
        budget = BUDGETS.get(effort, BUDGETS["medium"])
    return {"thinkingBudget": budget} | ({"includeThoughts": True} if budget else {})


class _Turns:
    """Messages → `system` and alternating turns, each turn's tool results first."""

    def __init__(self, names: dict[str, str], dropped: list[str], *, with_ids: bool) -> None:
        self._names = names
        self._dropped = dropped
        self._with_ids = with_ids
        self.system: list[dict[str, Any]] = []
        self._turns: list[tuple[str, list[dict[str, Any]]]] = []

    def add(self, message: Message) -> None:
        if message.role == "system":
            texts = [part.text for part in message.parts if isinstance(part, Text) and part.text]
            if not self._turns:
                self.system += [{"text": text} for text in texts]
            else:
                # This wire has one place for the system's words; in the middle, the user hands them on, marked.
                self._say("user", [{"text": f"<system>\n{text}\n</system>"} for text in texts])
            return
        parts = [written for part in message.parts for written in self._part(part)]
        if message.name and message.role == "user":
            parts.insert(0, {"text": f"{message.name}:"})
        self._say("model" if message.role == "assistant" else "user", parts)

    def finished(self) -> list[dict[str, Any]]:
        contents = []
        for role, parts in self._turns:
            calls = [part for part in parts if "functionCall" in part]
            if not any("thoughtSignature" in call for call in calls):  # Gemini signs the first of its own
                for call in calls:
                    call["thoughtSignature"] = FOREIGN_CALL
            results = [part for part in parts if "functionResponse" in part]
            rest = [part for part in parts if "functionResponse" not in part]
            contents.append({"role": role, "parts": results + rest})
        return contents

    def _say(self, role: str, parts: list[dict[str, Any]]) -> None:
        if not parts:
            return  # this wire takes no empty content
        if self._turns and self._turns[-1][0] == role:
            self._turns[-1][1].extend(parts)
        else:
            self._turns.append((role, parts))

    def _part(self, part: ContentPart) -> list[dict[str, Any]]:
        match part:
            case Text() | Refusal():
                return [{"text": part.text}] if part.text else []
            case ToolCall():
                # A call that another provider executed has no result here, and means nothing without it.
                return [] if part.server else [self._call(part)]
            case ToolResult():
                return self._result(part)
            case Reasoning():
                if part.signed_by != OWN or not part.signature:
                    self._dropped.append("reasoning")
                    return []
                thought = {"thought": True} if part.text else {}
                return [{**thought, "text": part.text, "thoughtSignature": part.signature}]
            case Image():
                if part.detail not in (None, "auto"):
                    self._dropped.append("image_url.detail")
                return [_media(part, "image", "image/png")]
            case Audio():
                return [_blob(part.data, f"audio/{part.format}")]
            case File():
                return [_file(part)]
        raise AssertionError(part)

    def _call(self, call: ToolCall) -> dict[str, Any]:
        written: dict[str, Any] = {"name": call.name, "args": call_args(call)}
        if self._with_ids and call.id:
            written["id"] = call.id
        return {"functionCall": written} | ({"thoughtSignature": call.signature} if call.signature else {})

    def _result(self, result: ToolResult) -> list[dict[str, Any]]:
        """The result, and after it whatever of it is no text: older models take no media inside one."""
        name = result.name or self._names.get(result.id)
        if not name:
            raise InvalidRequest(
                f"The tool result `{result.id}` answers no call of this conversation.",
                param="messages",
                fix="Send the message with the call as well.",
            )
        said = "\n".join(part.text for part in result.parts if isinstance(part, Text))
        written: dict[str, Any] = {"name": name, "response": {"error" if result.is_error else "output": said}}
        if self._with_ids and result.id:
            written["id"] = result.id
        media = [each for part in result.parts if not isinstance(part, Text) for each in self._part(part)]
        return [{"functionResponse": written}, *media]


def _file(file: File) -> dict[str, Any]:
    if file.text is not None:
        return _blob(base64.b64encode(file.text.encode()).decode(), file.media_type or "text/plain")
    if file.data is not None or file.url is not None:
        return _media(file, "file", "application/pdf")
    if file.file_id is not None and is_fetched(file.file_id):
        return {"fileData": without_none(mimeType=file.media_type, fileUri=file.file_id)}
    raise Unsupported("A file is known only to the provider that it was given to.", fix="Send the file's bytes.")


def _media(given: Image | File, what: str, default: str) -> dict[str, Any]:
    """Bytes, or an address that Google reads."""
    url = given.url or ""
    if given.data is not None:
        if not given.data.startswith("data:"):
            return _blob(given.data, given.media_type or default)
        url = given.data
    if url.startswith("data:"):
        head, _, rest = url.partition(",")
        return _blob(rest, head[5:].partition(";")[0] or given.media_type or default)
    if is_fetched(url):
        return {"fileData": without_none(mimeType=given.media_type, fileUri=url)}
    raise Unsupported(f"Gemini does not fetch the {what} at an address.", param="messages", fix="Send its bytes.")


def _blob(data: str, media_type: str) -> dict[str, Any]:
    return {"inlineData": {"mimeType": media_type, "data": data}}
