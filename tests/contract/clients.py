"""Every form in which clients speak to a gateway: what they send, and what they make of the answer.

Read by hand and strictly: nothing of the package's own reads here, so that no decoder forgives what an encoder did. A
reader raises AssertionError, or a KeyError, for what its dialect does not allow. An error is `{"message": …}` with
whatever else the dialect says of it.
"""

from __future__ import annotations

import json
import re
from typing import ClassVar
from urllib.parse import quote

from tests.wires import CHAT, JSON, MESSAGES, Said, sse_frames

Frames = list[tuple[str | None, str | None]]


class Client:
    """One form. `words`: our reason → its own. `heartbeat` is empty where the form has none."""

    name: ClassVar[str]
    dialect: ClassVar[str]
    stream_type: ClassVar[str] = "text/event-stream"
    words: ClassVar[dict[str, str]] = {"stop": "stop", "tool_calls": "tool_calls"}
    heartbeat: ClassVar[bytes] = b": keep-alive\n\n"
    #: where its replies name the model
    model_key: ClassVar[str] = "model"
    has_calls: ClassVar[bool] = True
    has_thoughts: ClassVar[bool] = True

    def path(self, model: str, stream: bool) -> str:
        raise NotImplementedError

    def body(self, model: str, stream: bool, prompt: str) -> JSON:
        raise NotImplementedError

    def read(self, body: bytes) -> Said:
        raise NotImplementedError

    def read_document(self, body: bytes) -> Said:
        raise NotImplementedError

    def key_headers(self, key: str) -> dict[str, str]:
        return {"authorization": f"Bearer {key}"}

    def __repr__(self) -> str:
        return self.name


def usage_of(said: JSON, prompt: str, completion: str) -> tuple[int, int] | None:
    return (said[prompt], said[completion]) if said else None


# --- OpenAI ---------------------------------------------------------------------------------------------------------


class Chat(Client):
    name = dialect = "openai-chat"

    def path(self, model: str, stream: bool) -> str:
        return "/v1/chat/completions"

    def body(self, model: str, stream: bool, prompt: str) -> JSON:
        return CHAT.request(model, stream=stream, messages=[{"role": "user", "content": prompt}])

    def read(self, body: bytes) -> Said:
        said = CHAT.read(body)
        for _, data in said.frames:
            for choice in data.get("choices", ()) if isinstance(data, dict) else ():
                said.reasoning += choice["delta"].get("reasoning_content") or ""
        return said

    def read_document(self, body: bytes) -> Said:
        return CHAT.read_document(body)


class Completions(Client):
    name = dialect = "openai-completions"
    words: ClassVar = {"stop": "stop", "tool_calls": "stop"}
    has_calls = has_thoughts = False

    def path(self, model: str, stream: bool) -> str:
        return "/v1/completions"

    def body(self, model: str, stream: bool, prompt: str) -> JSON:
        body: JSON = {"model": model, "prompt": prompt, "max_tokens": 100}
        return body | ({"stream": True, "stream_options": {"include_usage": True}} if stream else {})

    def read(self, body: bytes) -> Said:
        said = Said()
        for event, data in sse_frames(body):
            if event == ":":
                said.heartbeats += 1
                continue
            assert event is None
            assert data is not None
            if data == "[DONE]":
                said.terminators += 1
                said.frames.append((None, data))
            else:
                self._chunk(json.loads(data), said)
        return said

    def _chunk(self, chunk: JSON, said: Said) -> None:
        said.frames.append((None, chunk))
        if "error" in chunk:
            said.errors.append(chunk["error"])
            return
        assert chunk["object"] == "text_completion"
        said.models.add(chunk["model"])
        said.usage = usage_of(chunk.get("usage") or {}, "prompt_tokens", "completion_tokens") or said.usage
        for choice in chunk["choices"]:
            said.text += choice["text"]
            said.stops += [choice["finish_reason"]] if choice["finish_reason"] else []

    def read_document(self, body: bytes) -> Said:
        said = Said()
        self._chunk(json.loads(body), said)
        return said


class Responses(Client):
    name = dialect = "openai-responses"
    words: ClassVar = {"stop": "completed", "tool_calls": "completed"}

    def path(self, model: str, stream: bool) -> str:
        return "/v1/responses"

    def body(self, model: str, stream: bool, prompt: str) -> JSON:
        body: JSON = {"model": model, "input": prompt, "max_output_tokens": 100}
        return body | ({"stream": True} if stream else {})

    def read(self, body: bytes) -> Said:
        said, numbers, opened, done = Said(), [], {}, []
        for event, data in sse_frames(body):
            if event == ":":
                said.heartbeats += 1
                continue
            assert data is not None
            found = json.loads(data)
            assert found["type"] == event
            numbers.append(found["sequence_number"])
            said.frames.append((event, found))
            match event:
                case "response.output_text.delta":
                    said.text += found["delta"]
                case "response.reasoning_summary_text.delta" | "response.reasoning_text.delta":
                    said.reasoning += found["delta"]
                case "response.output_item.added":
                    opened[found["output_index"]] = found["item"]["type"]
                case "response.output_item.done":
                    assert opened.pop(found["output_index"]) == found["item"]["type"]
                    done.append(found["item"])
                case "response.completed" | "response.incomplete":
                    assert not opened, "an item was never done"
                    assert found["response"]["output"] == done
                    said.terminators += 1
                    self._whole(found["response"], said, is_stream=True)
                case "response.failed":
                    said.errors.append(found["response"]["error"])
                case "error":
                    said.errors.append(found)
        assert numbers[0] == 0
        assert numbers == sorted(set(numbers)), "sequence numbers rise"
        return said

    def _whole(self, response: JSON, said: Said, *, is_stream: bool = False) -> None:
        said.models.add(response["model"])
        said.stops.append(response["status"])
        said.usage = usage_of(response["usage"] or {}, "input_tokens", "output_tokens")
        for item in response["output"]:
            match item["type"]:
                case "function_call":
                    said.calls.append((item["name"], item["arguments"]))
                case "message" if not is_stream:
                    said.text += "".join(part["text"] for part in item["content"])
                case "reasoning" if not is_stream:
                    said.reasoning += "".join(part["text"] for part in item["summary"])

    def read_document(self, body: bytes) -> Said:
        found, said = json.loads(body), Said()
        if found.get("error"):
            return Said(errors=[found["error"]])
        assert found["object"] == "response"
        self._whole(found, said)
        return said


# --- Anthropic ------------------------------------------------------------------------------------------------------


class Messages(Client):
    name = dialect = "anthropic-messages"
    words: ClassVar = {"stop": "end_turn", "tool_calls": "tool_use"}
    heartbeat = b'event: ping\ndata: {"type": "ping"}\n\n'

    def path(self, model: str, stream: bool) -> str:
        return "/v1/messages"

    def body(self, model: str, stream: bool, prompt: str) -> JSON:
        return MESSAGES.request(model, stream=stream, messages=[{"role": "user", "content": prompt}])

    def read(self, body: bytes) -> Said:
        said = MESSAGES.read(body)
        deltas = [data["delta"] for name, data in said.frames if name == "content_block_delta"]
        said.reasoning = "".join(delta["thinking"] for delta in deltas if delta["type"] == "thinking_delta")
        return said

    def read_document(self, body: bytes) -> Said:
        return MESSAGES.read_document(body)

    def key_headers(self, key: str) -> dict[str, str]:
        return {"x-api-key": key}


# --- Gemini ---------------------------------------------------------------------------------------------------------


class Gemini(Client):
    name = dialect = "gemini"
    words: ClassVar = {"stop": "STOP", "tool_calls": "STOP"}
    heartbeat = b"\n"
    model_key = "modelVersion"

    def path(self, model: str, stream: bool) -> str:
        return f"/v1beta/models/{quote(model, safe='')}:" + (
            "streamGenerateContent?alt=sse" if stream else "generateContent"
        )

    def body(self, model: str, stream: bool, prompt: str) -> JSON:
        return {
            "contents": [{"role": "user", "parts": [{"text": prompt}]}],
            "generationConfig": {"maxOutputTokens": 100},
        }

    def read(self, body: bytes) -> Said:
        said = Said()
        text = body.decode().replace("\r\n", "\n")  # as Google itself sends
        assert text.endswith("\n\n")
        said.heartbeats = re.sub("data: .*\n\n", "", text).count("\n")
        for line in text.split("\n"):
            if line.startswith("data: "):
                self._chunk(json.loads(line.removeprefix("data: ")), said)
        return said

    def _chunk(self, chunk: JSON, said: Said) -> None:
        said.frames.append((None, chunk))
        if "error" in chunk:
            said.errors.append(chunk["error"])
            return
        said.models.add(chunk["modelVersion"])
        usage = chunk.get("usageMetadata") or {}
        said.usage = usage_of(usage, "promptTokenCount", "candidatesTokenCount") or said.usage
        for candidate in chunk["candidates"]:
            for part in candidate["content"]["parts"]:
                if "functionCall" in part:
                    said.calls.append((part["functionCall"]["name"], json.dumps(part["functionCall"]["args"])))
                elif part.get("thought"):
                    said.reasoning += part["text"]
                else:
                    said.text += part["text"]
            if reason := candidate.get("finishReason"):
                said.stops.append(reason)
                said.terminators += 1

    def read_document(self, body: bytes) -> Said:
        said = Said()
        self._chunk(json.loads(body), said)
        return said

    def key_headers(self, key: str) -> dict[str, str]:
        return {"x-goog-api-key": key}


class GeminiArray(Gemini):
    """Who does not ask for `alt=sse` gets the elements of one array, which only a whole reply closes."""

    name = "gemini (array)"
    stream_type = "application/json"

    def path(self, model: str, stream: bool) -> str:
        return super().path(model, stream).removesuffix("?alt=sse")

    def read(self, body: bytes) -> Said:
        said, text, at = Said(), body.decode(), 0
        decode = json.JSONDecoder().raw_decode
        said.heartbeats = len(text) - len(text.lstrip("\n"))
        while at < len(text):
            if text[at] in "[,]\n ":
                at += 1
                continue
            chunk, at = decode(text, at)
            self._chunk(chunk, said)
        is_closed = text.rstrip().endswith("]")
        assert (said.terminators == 1) == is_closed, "the array is closed by a whole reply alone"
        if is_closed:
            assert len(json.loads(text)) == len(said.frames)
        return said


# --- Ollama ---------------------------------------------------------------------------------------------------------


class Ollama(Client):
    name = dialect = "ollama"
    stream_type = "application/x-ndjson"
    words: ClassVar = {"stop": "stop", "tool_calls": "stop"}
    heartbeat = b""

    def path(self, model: str, stream: bool) -> str:
        return "/api/chat"

    def body(self, model: str, stream: bool, prompt: str) -> JSON:
        return {"model": model, "messages": [{"role": "user", "content": prompt}], "stream": stream}

    def read(self, body: bytes) -> Said:
        said = Said()
        assert body.endswith(b"\n")
        for line in filter(None, body.splitlines()):
            self._line(json.loads(line), said)
        return said

    def _said(self, line: JSON) -> JSON:
        return dict(line["message"])

    def _line(self, line: JSON, said: Said) -> None:
        said.frames.append((None, line))
        if "error" in line:
            said.errors.append({"message": line["error"]})
            return
        said.models.add(line["model"])
        message = self._said(line)
        said.text += message["content"]
        said.reasoning += message.get("thinking", "")
        for call in message.get("tool_calls", ()):
            said.calls.append((call["function"]["name"], json.dumps(call["function"]["arguments"])))
        if line["done"]:
            said.stops.append(line["done_reason"])
            said.terminators += 1
            if "eval_count" in line:
                said.usage = (line["prompt_eval_count"], line["eval_count"])

    def read_document(self, body: bytes) -> Said:
        said = Said()
        self._line(json.loads(body), said)
        return said


class OllamaGenerate(Ollama):
    name = "ollama (generate)"
    has_calls = False

    def path(self, model: str, stream: bool) -> str:
        return "/api/generate"

    def body(self, model: str, stream: bool, prompt: str) -> JSON:
        return {"model": model, "prompt": prompt, "stream": stream}

    def _said(self, line: JSON) -> JSON:
        return {**line, "content": line["response"]}


CLIENTS: tuple[Client, ...] = (
    Chat(),
    Completions(),
    Responses(),
    Messages(),
    Gemini(),
    GeminiArray(),
    Ollama(),
    OllamaGenerate(),
)
