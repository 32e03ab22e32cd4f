"""Gemini's paths: the model and what to do with it, on either side of us.

A client's key may be in the query (`?key=`): nothing of a query is kept but `alt`.
"""

from __future__ import annotations

from urllib.parse import parse_qs, quote, unquote

from penstock.canon.errors import InvalidRequest, UnknownRoute

GENERATE = "generateContent"
STREAM = "streamGenerateContent"

#: other kinds of model that have names of their own
_KINDS = ("tunedModels/",)


def resource(model: str) -> str:
    """A model's name as an URL has it. A name may have slashes, and may be the resource's own."""
    name = model.removeprefix("models/")
    for kind in _KINDS:
        if name.startswith(kind):
            return kind + quote(name.removeprefix(kind), safe="")
    return "models/" + quote(name, safe="")


def read_path(path: str) -> tuple[str, bool, bool]:
    """Model, whether it is to stream, and whether as SSE, of `/v1beta/models/{model}:{verb}?alt=sse`."""
    said = unquote(path.partition("?")[0])
    name, _, verb = said.rpartition(":")
    if verb not in (GENERATE, STREAM):
        raise UnknownRoute(
            "The path does not say what to do with the model.",
            fix=f"End it with :{GENERATE} or :{STREAM}.",
        )
    for kind in _KINDS:
        if f"/{kind}" in name:
            return kind + name.partition(f"/{kind}")[2], verb == STREAM, is_sse(path)
    model = name.partition("/models/")[2].removeprefix("models/")
    if not model:
        raise InvalidRequest("The path names no model.", param="model", fix=f"Ask for /v1beta/models/{{model}}:{verb}.")
    return model, verb == STREAM, is_sse(path)


def is_sse(path: str) -> bool:
    return "sse" in parse_qs(path.partition("?")[2]).get("alt", ())


def canonical_path(model: str, stream: bool, sse: bool) -> str:
    """What a head keeps of a path: all that is forwarded, and no secret."""
    action = (f"{STREAM}?alt=sse" if sse else STREAM) if stream else GENERATE
    return f"/{resource(model)}:{action}"


def action_of(path: str) -> str:
    """Verb and query of a canonical path."""
    return path.rpartition(":")[2]
