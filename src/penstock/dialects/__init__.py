"""L2: frames ⇄ events, one package per wire language, both directions.

`DIALECTS` names them all; a dialect is imported when it is first used.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from penstock.dialects.base import Dialect, UpstreamDialect

#: name → package that holds its `DIALECT`
DIALECTS = {
    "anthropic-messages": "penstock.dialects.anthropic_messages",
    "bedrock": "penstock.dialects.bedrock",
    "cohere": "penstock.dialects.cohere",
    "gemini": "penstock.dialects.gemini",
    "ollama": "penstock.dialects.ollama",
    "openai-chat": "penstock.dialects.openai_chat",
    "openai-completions": "penstock.dialects.openai_completions",
    "openai-responses": "penstock.dialects.openai_responses",
    "straico": "penstock.dialects.straico",
}


#: the dialects that clients speak to us as well
CLIENT_DIALECTS = frozenset(
    {"anthropic-messages", "gemini", "ollama", "openai-chat", "openai-completions", "openai-responses"}
)

#: the dialects that have no streams
DOCUMENT_DIALECTS = frozenset({"straico"})


@cache
def dialect(name: str) -> UpstreamDialect:
    """The dialect of that name, which must be one of `DIALECTS`."""
    return cast("UpstreamDialect", import_module(DIALECTS[name]).DIALECT)


def client_dialect(name: str) -> Dialect:
    """The dialect of that name, which must be one of `CLIENT_DIALECTS`."""
    assert name in CLIENT_DIALECTS, name
    return cast("Dialect", dialect(name))
