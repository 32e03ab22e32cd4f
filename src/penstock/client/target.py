"""A model spec → a target: `groq:llama-3.3-70b-versatile`, `local:tiny` with `base_url`, or a client's own upstream.

Providers come from the catalogue. Keys come from an argument, from the client, or from the provider's environment
variables, which only this module reads for the library. Whatever is wrong is said before anything is sent, with the
nearest name that exists.
"""

from __future__ import annotations

import difflib
import os
from typing import TYPE_CHECKING

from msgspec.structs import replace

from penstock.canon.errors import ConfigError
from penstock.canon.price import price_of
from penstock.canon.target import Secret, Target
from penstock.catalogue.catalogue import catalogue, users_file
from penstock.catalogue.provider import filled, find_key, key_fix, nearest
from penstock.dialects import DIALECTS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from penstock.canon.price import Price
    from penstock.catalogue.provider import Provider


def providers(environ: Mapping[str, str] | None = None) -> list[Provider]:
    """Every provider that is known: Penstock's own, with the user's file laid over them."""
    return list(known(environ).values())


def known(environ: Mapping[str, str] | None = None) -> Mapping[str, Provider]:
    return catalogue(users_file(os.environ if environ is None else environ))


def find_target(
    spec: str,
    *,
    upstreams: Mapping[str, str],
    base_url: str | None = None,
    dialect: str | None = None,
    key: str | None = None,
    environ: Mapping[str, str] | None = None,
) -> Target:
    """`base_url` or an entry of `upstreams` wins over a provider of the same name; then the key is optional."""
    name, colon, model = spec.partition(":")
    if not colon or not name or not model:
        raise ConfigError(f"`{spec}` names no model.", fix="Write provider:model, as in openai:gpt-5.6.")
    target = find_upstream(name, upstreams=upstreams, base_url=base_url, dialect=dialect, key=key, environ=environ)
    return replace(target, model=model)


def find_upstream(
    name: str,
    *,
    upstreams: Mapping[str, str],
    base_url: str | None = None,
    dialect: str | None = None,
    key: str | None = None,
    environ: Mapping[str, str] | None = None,
) -> Target:
    """The same for whom is asked alone, its model left open."""
    if dialect is not None:
        check_dialect(dialect)
    environ = os.environ if environ is None else environ
    url = base_url or upstreams.get(name)
    table = known(environ)
    entry = table.get(name)
    if entry is None:
        if url is None:
            close = difflib.get_close_matches(name, [*upstreams, *table], n=1)
            fix = f"Did you mean `{close[0]}`?" if close else "`penstock providers` lists them; or give a base_url."
            raise ConfigError(f"There is no provider `{name}`.", fix=fix)
        return Target(name, url, dialect or "openai-chat", None, Secret(key) if key else None)
    found, auth = (Secret(key), _given_auth(entry)) if key else (None, None)
    if url is None:
        url = filled(entry.url, entry.placeholders, environ, f"`{name}`")
        if found is None:
            found, auth = find_key(entry.key_env, entry.auth, environ)
            if found is None and entry.auth != "none" and not entry.is_local and entry.key_env:
                raise ConfigError(
                    f"There is no key for {name}.", fix=f"Set {key_fix(entry.key_env, entry.auth)}, or pass key=."
                )
    return Target(
        upstream=name,
        url=url,
        dialect=check_dialect(dialect or entry.dialect),
        key=found,
        profile=entry.profile,
        headers=tuple(entry.headers.items()),
        auth=auth if dialect in (None, entry.dialect) else None,
    )


def _given_auth(entry: Provider) -> str | None:
    """Where a key goes that the caller has passed."""
    return None if entry.auth in ("none", "sigv4") else entry.auth


def listed_at(name: str) -> str | None:
    """Where a provider's list of models is, when it is not at its dialect's place."""
    entry = known().get(name)
    return entry.models_path if entry is not None else None


def price(target: Target, model: str) -> Price | None:
    """What a model's tokens cost there, by the catalogue; None where nobody said, and for a server of another URL."""
    entry = known().get(target.upstream)
    if entry is None or not entry.is_at(target.url):
        return None
    return price_of(model, entry.cost)


def check_dialect(name: str) -> str:
    if name not in DIALECTS:
        raise ConfigError(f"There is no dialect `{name}`.", fix=nearest(name, DIALECTS))
    return name
