"""A model spec → a target: `openai:gpt-5.6`, `local:tiny` with `base_url`, or a name among a client's own upstreams.

Keys come from an argument, from the client, or from the provider's environment variable, which only this module reads
for the library. Whatever is wrong is said before anything is sent, with the nearest name that exists.
"""

from __future__ import annotations

import difflib
import os
from typing import TYPE_CHECKING

from msgspec import Struct

from penstock.canon.errors import ConfigError
from penstock.canon.target import Secret, Target
from penstock.dialects import DIALECTS

if TYPE_CHECKING:
    from collections.abc import Mapping


class Provider(Struct, frozen=True):
    url: str
    dialect: str
    key_env: str
    profile: str | None = None


#: the two vendors whose dialects these are
PROVIDERS: dict[str, Provider] = {
    "openai": Provider("https://api.openai.com/v1", "openai-chat", "OPENAI_API_KEY", "openai"),
    "anthropic": Provider("https://api.anthropic.com/v1", "anthropic-messages", "ANTHROPIC_API_KEY"),
}


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
    if dialect is not None:
        check_dialect(dialect)
    provider = PROVIDERS.get(name)
    url = base_url or upstreams.get(name)
    if url is None and provider is None:
        known = [*upstreams, *PROVIDERS]
        close = difflib.get_close_matches(name, known, n=1)
        fix = f"Did you mean `{close[0]}`?" if close else f"Known: {', '.join(known)}; or give a base_url."
        raise ConfigError(f"There is no provider `{name}`.", fix=fix)
    if provider is None or url is not None:
        secret = Secret(key) if key else None
        spoken = dialect or (provider.dialect if provider else "openai-chat")
        assert url is not None
        return Target(name, url, spoken, model, secret, provider.profile if provider else None)
    found = key or (os.environ if environ is None else environ).get(provider.key_env)
    if not found:
        raise ConfigError(f"There is no key for {name}.", fix=f"Set {provider.key_env}, or pass key=.")
    return Target(name, provider.url, dialect or provider.dialect, model, Secret(found), provider.profile)


def check_dialect(name: str) -> str:
    if name not in DIALECTS:
        close = difflib.get_close_matches(name, DIALECTS, n=1)
        fix = f"Did you mean `{close[0]}`?" if close else f"Known: {', '.join(DIALECTS)}."
        raise ConfigError(f"There is no dialect `{name}`.", fix=fix)
    return name
