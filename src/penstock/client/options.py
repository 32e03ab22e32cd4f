"""What a call may be told besides its model and its messages, and the words that nobody knows.

`Options` types the keyword arguments of every call, so that a type checker knows them too.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, TypedDict, cast

from penstock.canon.errors import InvalidRequest
from penstock.canon.events import Event
from penstock.canon.request import Tool
from penstock.catalogue.provider import nearest
from penstock.client.functions import FunctionTool

AnyTool = Tool | FunctionTool[..., Any] | Callable[..., Any] | Mapping[str, Any]


class Options(TypedDict, total=False):
    """Every one may be left out, and is then not sent; None leaves it out as well."""

    #: where, in which dialect, with which key
    base_url: str | None
    dialect: str | None
    key: str | None
    #: what the model is told before the conversation
    system: str | None
    max_tokens: int | None
    temperature: float | None
    top_p: float | None
    top_k: int | None
    stop: str | Sequence[str] | None
    seed: int | None
    presence_penalty: float | None
    frequency_penalty: float | None
    #: functions, `penstock.Tool`, or dicts as OpenAI's or Anthropic's API takes them
    tools: Sequence[AnyTool] | None
    #: `auto`, `any` (one must be called), `none`, or the name of the one that must be
    tool_choice: str | None
    parallel_tool_calls: bool | None
    #: how hard to think: `none minimal low medium high xhigh max`, or in tokens
    reasoning_effort: str | None
    reasoning_budget: int | None
    #: what the reply's text must be: a type, or a JSON Schema as a dict
    schema: Any
    #: who the caller's user is, as the provider may want to know
    user: str | None
    #: further members of the request's body, by dialect
    extra: Mapping[str, Mapping[str, Any]] | None


class ToolOptions(Options, total=False):
    """What `run_tools` takes besides: see there."""

    max_rounds: int
    timeout: float | None
    tool_timeout: float | None
    concurrency: int
    heartbeat: float
    on_event: Callable[[Event], None] | None


class EmbedOptions(TypedDict, total=False):
    """What `embed` may be told besides its model and its texts."""

    base_url: str | None
    dialect: str | None
    key: str | None
    #: how many numbers a vector has, where the model can have fewer
    dimensions: int | None
    #: texts in one request, for servers whose limit nobody knows
    batch_size: int | None
    #: requests at once
    concurrency: int | None
    user: str | None
    #: further members of the request's body, by dialect
    extra: Mapping[str, Mapping[str, Any]] | None


_KNOWN = frozenset(Options.__annotations__)
_KNOWN_TO_EMBED = frozenset(EmbedOptions.__annotations__)


def known_options(given: Mapping[str, Any], *more: str) -> Options:
    """The options that say something. Raises `InvalidRequest` for a word that is none, with the nearest that is."""
    return cast("Options", _checked(given, _KNOWN, more))


def known_embed_options(given: Mapping[str, Any]) -> EmbedOptions:
    """The same for `embed`."""
    return cast("EmbedOptions", _checked(given, _KNOWN_TO_EMBED))


def check_names(given: Iterable[str], known: Collection[str], others: Sequence[str] = ()) -> None:
    """Raise `InvalidRequest` for a word that is none of the known, with the nearest of them and of `others`."""
    for name in given:
        if name not in known:
            raise InvalidRequest(f"There is no option `{name}`.", param=name, fix=nearest(name, [*known, *others]))


def _checked(given: Mapping[str, Any], known: frozenset[str], more: Sequence[str] = ()) -> dict[str, Any]:
    check_names(given, known, more)
    return {name: value for name, value in given.items() if value is not None}
