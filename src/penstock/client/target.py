"""A model spec → a target: `groq:llama-3.3-70b-versatile`, `local:tiny` with `base_url`, or a client's own upstream.

Providers come from the catalogue. Keys come from an argument, from the client, or from where `keys` finds one; the
environment is read here alone for the library. Whatever is wrong is said before anything is sent, with the
nearest name that exists.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec.structs import replace

from penstock.canon.errors import ConfigError, Unsupported
from penstock.canon.model import of_model
from penstock.canon.request import Image, ToolResult
from penstock.canon.target import Secret, Target
from penstock.catalogue.catalogue import catalogue, users_file
from penstock.catalogue.provider import filled, nearest
from penstock.client.keys import found_key, no_key
from penstock.dialects import DIALECTS
from penstock.dialects.embedding import MOST_TEXTS
from penstock.policy.recovery import goes_on

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from penstock.canon.price import Price
    from penstock.canon.request import ChatRequest
    from penstock.catalogue.provider import Provider


def providers(environ: Mapping[str, str] | None = None) -> list[Provider]:
    """Every provider that is known: Penstock's own, with the user's file laid over them."""
    return list(known(environ).values())


def known(environ: Mapping[str, str] | None = None) -> Mapping[str, Provider]:
    return catalogue(users_file(os.environ if environ is None else environ))


#: whom a call is asked of: one, or several in their order
ModelSpec = str | Target | Sequence[str | Target]


def listed(model: ModelSpec) -> Sequence[str | Target]:
    """Them in their order. Raises `ConfigError` for none."""
    if isinstance(model, str | Target):
        return (model,)
    if not isinstance(model, Sequence) or not model:
        raise ConfigError("There is no model to ask.", fix="Write provider:model, or a list of them.")
    return model


def check_key(targets: Sequence[Target], key: str | None) -> None:
    """A key of the call's own goes to one server. Raises `ConfigError` before another is shown it."""
    if key is not None and len({target.url for target in targets}) > 1:
        names = ", ".join(dict.fromkeys(target.upstream for target in targets))
        raise ConfigError(
            f"One `key` would be sent to several servers: {names}.", fix="Give each its own: Client(keys={…})."
        )


def find_target(
    spec: str | Target,
    *,
    upstreams: Mapping[str, str | Target],
    keys: Mapping[str, str] | None = None,
    base_url: str | None = None,
    dialect: str | None = None,
    key: str | None = None,
    environ: Mapping[str, str] | None = None,
    env_file: str | Path | None = None,
) -> Target:
    """`provider:model`, `provider:model@upstream`, a `Target`, or, with a `base_url`, a model alone.

    `base_url` or an entry of `upstreams` wins over a provider of the same name; then the key is optional, and the
    provider's own is not sent there. `keys` are the client's, by the name of whom is asked.
    """
    if isinstance(spec, Target):
        if not spec.model:
            raise ConfigError("The target names no model.", fix="Give it one: Target(…, model=…).")
        return _given_target(spec, base_url=base_url, dialect=dialect, key=key)
    if not isinstance(spec, str):
        raise ConfigError(f"A `{type(spec).__name__}` is no model.", fix="Write provider:model.")
    name, colon, model = spec.partition(":")
    if base_url is not None and not colon and name:
        name, model = "local", name
    if not name or not model:
        fix = "Write provider:model, as in openai:gpt-5.6, or give a base_url."
        raise ConfigError(f"`{spec}` names no model.", fix=fix)
    model, via = _split_upstream(model, upstreams)
    asked = via or name
    target = find_upstream(
        asked,
        upstreams=upstreams,
        base_url=base_url,
        dialect=dialect,
        key=key or (keys or {}).get(asked),
        environ=environ,
        env_file=env_file,
    )
    if via is not None and not isinstance(upstreams[via], Target):
        entry = known(environ).get(name)
        if entry is None:
            raise _no_provider(name, known(environ))
        # Another server that says it as the provider does: its dialect and its kind, at the upstream's URL.
        target = replace(target, dialect=check_dialect(dialect or entry.dialect), profile=entry.profile)
    if dialect is None and via is None:
        target = _as_the_model_speaks(target, model, known(environ).get(name))
    return replace(target, model=model)


def _as_the_model_speaks(target: Target, model: str, entry: Provider | None) -> Target:
    """Some models of a provider are behind another endpoint than the rest."""
    if entry is None or not entry.is_at(target.url):
        return target
    said = of_model(model, entry.models)
    return replace(target, dialect=said.dialect) if said is not None and said.dialect is not None else target


def _split_upstream(model: str, upstreams: Mapping[str, str | Target]) -> tuple[str, str | None]:
    """The model, and the upstream behind its last `@`; models have one in their names too (`@cf/…`, `…@20250514`)."""
    plain, _, via = model.rpartition("@")
    if not plain or not via:
        return model, None
    if via in upstreams:
        return plain, via
    close = difflib.get_close_matches(via, upstreams, n=1, cutoff=0.75)
    if close:
        raise ConfigError(f"There is no upstream `{via}`.", fix=f"Did you mean `{close[0]}`?")
    return model, None


def _given_target(given: Target, *, base_url: str | None, dialect: str | None, key: str | None) -> Target:
    """A target of the program's own; what was said beside it wins."""
    return replace(
        given,
        url=base_url or given.url,
        dialect=check_dialect(dialect or given.dialect),
        key=Secret(key) if key else given.key,
    )


def find_upstream(
    name: str,
    *,
    upstreams: Mapping[str, str | Target],
    base_url: str | None = None,
    dialect: str | None = None,
    key: str | None = None,
    environ: Mapping[str, str] | None = None,
    env_file: str | Path | None = None,
) -> Target:
    """The same for whom is asked alone, its model left open."""
    if dialect is not None:
        check_dialect(dialect)
    environ = os.environ if environ is None else environ
    given = upstreams.get(name)
    if isinstance(given, Target):
        return _given_target(replace(given, upstream=name), base_url=base_url, dialect=dialect, key=key)
    url = base_url or given
    table = known(environ)
    entry = table.get(name)
    if entry is None:
        if url is None:
            raise _no_provider(name, [*upstreams, *table])
        return Target(name, url, dialect or "openai-chat", None, Secret(key) if key else None)
    found, auth = (Secret(key), _given_auth(entry)) if key else (None, None)
    if url is None:
        filling = environ
        if found is None:
            found, auth, filling = found_key(entry, environ, env_file)
        url = filled(entry.url, entry.placeholders, filling, f"`{name}`")
        if found is None and entry.auth != "none" and not entry.is_local and entry.key_env:
            raise no_key(entry, env_file)
    return Target(
        upstream=name,
        url=url,
        dialect=check_dialect(dialect or entry.dialect),
        key=found,
        profile=entry.profile,
        headers=tuple(entry.headers.items()),
        auth=auth if dialect in (None, entry.dialect) else None,
    )


def _no_provider(name: str, names: Iterable[str]) -> ConfigError:
    close = difflib.get_close_matches(name, list(names), n=1)
    fix = f"Did you mean `{close[0]}`?" if close else "`penstock providers` lists them; or give a base_url."
    return ConfigError(f"There is no provider `{name}`.", fix=fix)


def _given_auth(entry: Provider) -> str | None:
    """Where a key goes that the caller has passed."""
    return None if entry.auth in ("none", "sigv4") else entry.auth


def able(request: ChatRequest, targets: tuple[Target, ...]) -> tuple[Target, ...]:
    """Those that take such a request, as far as is known. Raises `Unsupported` when none does."""
    taken: list[Target] = []
    refused: Unsupported | None = None
    for target in targets:
        try:
            refuse_unable(request, target)
        except Unsupported as error:
            refused = refused or error
        else:
            taken.append(target)
    if refused is not None and not taken:
        raise refused
    return tuple(taken)


def refuse_unable(request: ChatRequest, target: Target) -> None:
    """What the catalogue says that a model does not take, before it is asked. Raises `Unsupported`."""
    entry = known().get(target.upstream)
    if entry is None or not entry.is_at(target.url):
        return
    model = target.model or request.model
    if entry.lacks("images", model) and (path := _first_image(request)) is not None:
        fix = "Leave it out, or ask another model."
        raise Unsupported(f"`{model}` of {entry.name} looks at no images.", param=path, fix=fix)
    if entry.lacks("tools", model) and request.tools:
        fix = "Leave them out, or ask another model."
        raise Unsupported(f"`{model}` of {entry.name} calls no tools.", param="tools", fix=fix)


def _first_image(request: ChatRequest) -> str | None:
    for k, message in enumerate(request.messages):
        for part in message.parts:
            shown = part.parts if isinstance(part, ToolResult) else (part,)
            if any(isinstance(each, Image) for each in shown):
                return f"messages[{k}]"
    return None


def continues(target: Target) -> bool:
    """Whether it goes on with a reply whose beginning it is given: as the catalogue says, or as its kind does."""
    entry = known().get(target.upstream)
    said = entry.capabilities.prefill if entry is not None and entry.is_at(target.url) else None
    return goes_on(target) if said is None else said


def listed_at(name: str) -> str | None:
    """Where a provider's list of models is, when it is not at its dialect's place."""
    entry = known().get(name)
    return entry.models_path if entry is not None else None


def most_texts(target: Target) -> int:
    """How many texts a provider takes in one request for embeddings, as far as anybody knows."""
    entry = known().get(target.upstream)
    if entry is not None and entry.embed_batch is not None and entry.is_at(target.url):
        return entry.embed_batch
    return MOST_TEXTS[target.dialect]


def price(target: Target, model: str) -> Price | None:
    """What a model's tokens cost there, by the catalogue; None where nobody said, and for a server of another URL."""
    entry = known().get(target.upstream)
    if entry is None or not entry.is_at(target.url):
        return None
    return of_model(model, entry.cost)


def check_dialect(name: str) -> str:
    if name not in DIALECTS:
        raise ConfigError(f"There is no dialect `{name}`.", fix=nearest(name, DIALECTS))
    return name
