"""Models and their owners → the lists that clients of each dialect read: `/v1/models`, `/api/tags`. Pure."""

from __future__ import annotations

from typing import Any


def written(owners: dict[str, str]) -> dict[str, Any]:
    """Three shapes in one: each SDK reads its own members and skips the others'."""
    data: list[dict[str, Any]] = [{**_entry(name, owner), **_resource(name)} for name, owner in owners.items()]
    ends = {"first_id": data[0]["id"] if data else None, "last_id": data[-1]["id"] if data else None}
    return {"object": "list", "data": data, "has_more": False, **ends, **_resources(owners)}


def _entry(name: str, owner: str) -> dict[str, Any]:
    """OpenAI's and Anthropic's."""
    return {
        "id": name,
        "object": "model",
        "created": 0,
        "owned_by": owner,
        "type": "model",
        "display_name": name,
        "created_at": "1970-01-01T00:00:00Z",
    }


def _resource(name: str) -> dict[str, Any]:
    """Gemini's."""
    methods = ["generateContent", "streamGenerateContent"]
    return {"name": f"models/{name}", "displayName": name, "supportedGenerationMethods": methods}


def _resources(owners: dict[str, str]) -> dict[str, Any]:
    return {"models": [_resource(name) for name in owners]}


def _tags(owners: dict[str, str]) -> dict[str, Any]:
    """Ollama's. What a file would have (a size, a digest) is empty: there is none here."""
    words = ("parent_model", "format", "family", "parameter_size", "quantization_level")
    details = {**dict.fromkeys(words, ""), "families": []}
    about = {"modified_at": "1970-01-01T00:00:00Z", "size": 0, "digest": "", "details": details}
    return {"models": [{"name": name, "model": name, **about} for name in owners]}


#: dialect → who writes its list; `written` for the others
WRITERS = {"ollama": _tags, "gemini": _resources}
#: dialect → the member that holds the list; `data` in the others
LISTED = {"ollama": "models", "gemini": "models"}
