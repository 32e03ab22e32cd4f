"""How each dialect lists its models: a page's request, and what an answer says.

`LISTINGS` has a row per dialect. `read` never fails on a field of an unexpected type: an entry without a name is left
out. An answer that is no list at all is None.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from msgspec import Struct

from penstock.canon.model import Model
from penstock.canon.usage import whole
from penstock.canon.wire import HttpRequest
from penstock.dialects.base import key_headers

if TYPE_CHECKING:
    from penstock.canon.target import Target

#: where servers of OpenAI's dialect say how much a model takes and gives (OpenRouter, Groq, vLLM, Mistral; 2026-11)
_CONTEXTS = ("max_input_tokens", "inputTokenLimit", "context_length", "context_window", "max_context_length",
             "max_model_len")  # fmt: skip
_OUTPUTS = ("outputTokenLimit", "max_output_tokens", "max_completion_tokens", "max_tokens")


class Listing(Struct, frozen=True):
    """`mounts` are ends of a base URL above which `path` begins. The list is the member `entries` of the answer, or the
    answer itself; the page after it is asked for by `after`, with what the answer's `cursor` says."""

    path: str
    entries: str = "data"
    mounts: tuple[str, ...] = ()
    own_auth: str = "bearer"
    headers: tuple[tuple[str, str], ...] = ()
    query: tuple[tuple[str, str], ...] = ()
    after: str | None = None
    cursor: str = ""
    #: the member that says whether there is more, where the cursor alone does not
    more: str | None = None

    def request(self, target: Target, cursor: str | None = None, *, path: str | None = None) -> HttpRequest:
        """`path`, where it is given, is the list's own place: below the base, or a whole URL."""
        query = [*self.query, *([(self.after, cursor)] if self.after and cursor else [])]
        url = path if path and "://" in path else _base(target.url, self.mounts) + (path or self.path)
        headers = {
            "accept": "application/json",
            **dict(self.headers),
            **dict(key_headers(target, self.own_auth)),
            **{name.lower(): value for name, value in target.headers},
        }
        return HttpRequest("GET", url + (f"?{urlencode(query)}" if query else ""), tuple(headers.items()))

    def read(self, answer: Any) -> tuple[list[Model], str | None] | None:
        """The page's models, and the cursor of the next page."""
        listed = answer.get(self.entries) if isinstance(answer, dict) else answer
        if isinstance(answer, dict) and isinstance(listed, dict):
            listed = [entry for group in listed.values() if isinstance(group, list) for entry in group]
        if not isinstance(listed, list):
            return None
        models = [model for entry in listed if (model := _model(entry)) is not None]
        cursor = answer.get(self.cursor) if isinstance(answer, dict) and self.after else None
        if not isinstance(cursor, str) or not cursor or (self.more and answer.get(self.more) is not True):
            cursor = None
        return models, cursor


_OPENAI = Listing("/models")

#: dialect → how it lists its models; Bedrock's are listed at another host, and only for a signature
LISTINGS: dict[str, Listing] = {
    "openai-chat": _OPENAI,
    "openai-completions": _OPENAI,
    "openai-responses": _OPENAI,
    "straico": _OPENAI,
    "anthropic-messages": Listing(
        "/models",
        own_auth="x-api-key",
        headers=(("anthropic-version", "2023-06-01"),),
        query=(("limit", "1000"),),
        after="after_id",
        cursor="last_id",
        more="has_more",
    ),
    "gemini": Listing(
        "/models",
        "models",
        own_auth="x-goog-api-key",
        query=(("pageSize", "1000"),),
        after="pageToken",
        cursor="nextPageToken",
    ),
    "ollama": Listing("/api/tags", "models", mounts=("/v1", "/api")),
    "cohere": Listing(
        "/v1/models",
        "models",
        mounts=("/v2", "/v1"),
        query=(("page_size", "1000"),),
        after="page_token",
        cursor="next_page_token",
    ),
}


def _base(url: str, mounts: tuple[str, ...]) -> str:
    url = url.rstrip("/")
    for mount in mounts:
        if url.endswith(mount):
            return url.removesuffix(mount)
    return url


def _model(entry: Any) -> Model | None:
    if not isinstance(entry, dict):
        return None
    id_ = next((said for key in ("id", "name", "model") if isinstance(said := entry.get(key), str) and said), None)
    if id_ is None:
        return None
    name = next(
        (said for key in ("display_name", "displayName", "name") if isinstance(said := entry.get(key), str)), None
    )
    owner = entry.get("owned_by")
    id_ = id_.removeprefix("models/")  # Gemini's are the names of resources
    return Model(
        id_,
        name if name not in (id_, f"models/{id_}") else None,
        owner if isinstance(owner, str) else None,
        _tokens(entry, _CONTEXTS),
        _tokens(entry, _OUTPUTS),
        entry,
    )


def _tokens(entry: dict[str, Any], keys: tuple[str, ...]) -> int | None:
    return next((count for key in keys if (count := whole(entry.get(key)))), None)
