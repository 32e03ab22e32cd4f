"""Say what is configured here, which keys there are, and who answers. No key is shown, only the names of variables.

Example: penstock doctor --config penstock.yaml

Every upstream of the configuration, every provider whose key is set, and the servers that run on this machine are asked
for their lists of models, at the same time and for a few seconds at most; that costs nothing. It fails where something
that is configured does not work.
"""

from __future__ import annotations

import asyncio
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal
from urllib.parse import urlsplit

import typer
from msgspec import Struct

from penstock.canon.errors import PenstockError
from penstock.cli.table import print_table

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable, Iterator, Mapping

    from penstock.canon.target import Target
    from penstock.catalogue.provider import Provider
    from penstock.config.model import Config
    from penstock.policy.probe import Probed
    from penstock.transport.http1 import Http1Transport

#: what may take long on a slow line, and what nobody waits for gladly
_TIMEOUT_S = 5.0

#: extra → the distribution that it brings
EXTRAS = {
    "bedrock": "botocore",
    "keyring": "keyring",
    "opentelemetry": "opentelemetry-sdk",
    "worker": "xllamacpp",
}
_PARTS = ("httptools", "msgspec", "uvicorn", "uvloop")


class Finding(Struct, frozen=True):
    """`missing`: it may be; `unknown`: there is no list to ask for; `failed`: it is configured and does not work."""

    about: Literal["versions", "extra", "configuration", "providers", "store", "key", "upstream", "local"]
    name: str
    state: Literal["ok", "missing", "unknown", "failed"]
    said: str


def doctor(
    config: Annotated[
        Path | None,
        typer.Option(help="Look at this YAML file. [default: penstock.yaml, where there is one]", metavar="FILE"),
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Ask nobody.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was found as JSON.")] = False,
) -> None:
    import msgspec

    found = [_hidden(each, _secrets()) for each in _findings(config, offline=offline)]
    has_failed = any(each.state == "failed" for each in found)
    if as_json:
        print(msgspec.json.encode({"ok": not has_failed, "findings": found}).decode())
    else:
        print_table(("about", "name", "state", "what"), [(it.about, it.name, it.state, it.said) for it in found])
    if has_failed:
        raise typer.Exit(1)


def _findings(path: Path | None, *, offline: bool) -> Iterator[Finding]:
    yield from _versions()
    yield from _extras()
    usual = Path("penstock.yaml")
    path = usual if path is None and usual.is_file() else path
    settings, told = _configuration(path)
    yield told
    if (said := _unread_env_file()) is not None:
        yield said
    table, told = _providers(settings)
    yield told
    if settings is not None:
        yield _store(settings)
        yield from _needed_extras(settings)
    providers = list(table.values()) if table is not None else []
    keys = list(_keys(providers))
    yield from (told for _, told in keys)
    if not offline:
        yield from asyncio.run(_asked(settings, [entry for entry, _ in keys], providers))


# --- what is here ----------------------------------------------------------------------------------------------------


def _version(distribution: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _versions() -> Iterator[Finding]:
    system = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    yield Finding("versions", "penstock", "ok", f"{_version('penstock') or 'not installed'}; {system}")
    yield Finding("versions", "parts", "ok", ", ".join(f"{name} {_version(name) or '-'}" for name in _PARTS))


def _extras() -> Iterator[Finding]:
    for extra, distribution in EXTRAS.items():
        has = _version(distribution)
        said = f"{distribution} {has}" if has else f"pip install 'penstock[{extra}]' brings {distribution}"
        yield Finding("extra", extra, "ok" if has else "missing", said)


def _configuration(path: Path | None) -> tuple[Config | None, Finding]:
    from penstock.config.load import NOT_KEYS, PREFIX, load

    name = str(path) if path is not None else "the environment"
    try:
        settings = load(path)
    except PenstockError as error:
        return None, Finding("configuration", name, "failed", str(error))
    said = [f"{_several(len(settings.upstreams), 'upstream')}, {_several(len(settings.models), 'model')}"]
    if path is None:
        said = ["no file is named; all is as it comes"]
    if set_ := sorted(each for each in os.environ if each.startswith(PREFIX) and "__" in each and each not in NOT_KEYS):
        said.append(f"set in the environment: {', '.join(set_)}")
    return settings, Finding("configuration", name, "ok", "; ".join(said))


def _providers(settings: Config | None) -> tuple[Mapping[str, Provider] | None, Finding]:
    """The catalogue, and what is laid over it."""
    from penstock.catalogue.catalogue import VARIABLE, catalogue, users_file

    named = settings.providers if settings is not None else None
    path = Path(named) if named is not None else users_file(os.environ)
    try:
        table = catalogue(path)
    except PenstockError as error:
        return None, Finding("providers", str(path), "failed", str(error))
    if path is None:
        return table, Finding("providers", "built in", "ok", f"{len(table)} known; no file of your own ({VARIABLE})")
    return table, Finding("providers", str(path), "ok", f"{len(table)} known, this file laid over them")


def _store(settings: Config) -> Finding:
    from penstock.telemetry.store import query

    named = settings.telemetry.store.path
    if named is None:
        return Finding("store", "off", "ok", "no records are kept")
    path = Path(named)
    if path.exists():
        try:
            ((number,),) = query(path, "SELECT count(*) FROM records")[1]
        except PenstockError as error:
            return Finding("store", named, "failed", str(error))
        return Finding("store", named, "ok", _several(number, "record"))
    folder = path.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        return Finding("store", named, "failed", f"It cannot be made: nobody can write in {folder}.")
    return Finding("store", named, "ok", "not there yet; the gateway makes it")


def _needed_extras(settings: Config) -> Iterator[Finding]:
    """Those that the configuration cannot do without."""
    needed = [(f"upstream {name}", "bedrock") for name, each in settings.upstreams.items() if each.auth == "sigv4"]
    if settings.telemetry.opentelemetry.endpoint is not None:
        needed.append(("telemetry.opentelemetry", "opentelemetry"))
    for who, extra in needed:
        if _version(EXTRAS[extra]) is None:
            yield Finding("extra", extra, "failed", f"{who} needs it: pip install 'penstock[{extra}]'.")


# --- keys ------------------------------------------------------------------------------------------------------------


def _keys(providers: Iterable[Provider]) -> Iterator[tuple[Provider, Finding]]:
    """Providers whose key is set, with the variable that holds it. The keyring is left to calls: it may ask back."""
    from penstock.catalogue.provider import find_key

    for entry in providers:
        beside = _env_file()
        name, where = _held(entry, os.environ), "in the environment"
        if name is None:
            name, where = _held(entry, beside), "in .env"
        if name is None and find_key((), entry.auth, {**beside, **os.environ})[0] is not None:
            name, where = "AWS_ACCESS_KEY_ID", "set"
        if name is not None:
            yield entry, Finding("key", entry.id, "ok", f"{name} {where}")


def _held(entry: Provider, environ: Mapping[str, str]) -> str | None:
    return next((name for name in entry.key_env if environ.get(name)), None)


def _env_file() -> Mapping[str, str]:
    from penstock.client.keys import ENV_FILE, read_env_file

    try:
        return read_env_file(ENV_FILE)
    except PenstockError:
        return {}  # which is said once


def _unread_env_file() -> Finding | None:
    from penstock.client.keys import ENV_FILE, read_env_file

    try:
        read_env_file(ENV_FILE)
    except PenstockError as error:
        return Finding("configuration", ENV_FILE, "failed", str(error))
    return None


def _secrets() -> list[str]:
    """What may be shown nowhere: what a key's variable holds, and headers that a file of providers gives."""
    from penstock.catalogue.catalogue import catalogue, users_file

    try:
        table = catalogue(users_file(os.environ))
    except PenstockError:
        table = catalogue()
    names = {name for entry in table.values() for name in (*entry.key_env, *entry.placeholders.values())}
    names |= {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"}
    beside = _env_file()
    held = [value for name in names for value in (os.environ.get(name), beside.get(name)) if value]
    held += [value for entry in table.values() for value in entry.headers.values()]
    # Shorter than that is no key, and would be found in words.
    return sorted({value for value in held if len(value) >= 6}, key=len, reverse=True)


def _hidden(found: Finding, secrets: Iterable[str]) -> Finding:
    from msgspec.structs import replace

    said = found.said
    for secret in secrets:
        said = said.replace(secret, "***")
    return replace(found, said=said)


# --- who answers -----------------------------------------------------------------------------------------------------


async def _asked(settings: Config | None, keyed: list[Provider], providers: list[Provider]) -> list[Finding]:
    """Everybody at once. A server of this machine that does not run is nobody's mistake, and is left out."""
    from penstock.transport.http1 import Http1Transport

    transport = Http1Transport(environ=os.environ)
    try:
        waiting: list[Awaitable[Finding | None]] = []
        if settings is not None:
            waiting += [_upstream(settings, name, transport) for name in settings.upstreams]
        taken = {each.url for each in settings.upstreams.values()} if settings is not None else set()
        for is_keyed, entries in ((True, keyed), (False, [entry for entry in providers if entry.is_local])):
            for entry in entries:
                if entry.url not in taken:
                    taken.add(entry.url)
                    waiting.append(_provider(entry, transport, is_keyed=is_keyed))
        return [found for found in await asyncio.gather(*waiting) if found is not None]
    finally:
        await transport.aclose()


async def _upstream(settings: Config, name: str, transport: Http1Transport) -> Finding:
    from penstock.cli.config import models_named
    from penstock.config.load import upstream_target

    entry = settings.upstreams[name]
    try:
        target = upstream_target(settings, name)
    except PenstockError as error:
        return Finding("upstream", name, "failed", str(error))
    secrets = [*entry.headers.values(), *(os.environ.get(each, "") for each in entry.key_variables)]
    found = await _probed(target, transport, entry.models_path, models_named(settings)[name])
    state: Literal["ok", "unknown", "failed"] = "failed" if found.missing else found.state
    return _hidden(Finding("upstream", name, state, _said(found, entry.url)), [it for it in secrets if len(it) >= 6])


async def _provider(entry: Provider, transport: Http1Transport, *, is_keyed: bool) -> Finding | None:
    from penstock.client.keys import ENV_FILE
    from penstock.client.target import find_upstream

    # Whoever has no key is not asked for one: to look for it could wake the keyring.
    where = None if is_keyed else entry.url
    try:
        target = find_upstream(entry.id, upstreams={}, base_url=where, env_file=ENV_FILE)
    except PenstockError as error:
        return Finding("upstream", entry.id, "failed", str(error))
    found = await _probed(target, transport, entry.models_path, ())
    if not is_keyed:
        return Finding("local", entry.id, "ok", _said(found, entry.url)) if found.state == "ok" else None
    return Finding("upstream", entry.id, found.state, _said(found, entry.url))


async def _probed(target: Target, transport: Http1Transport, path: str | None, wanted: Iterable[str]) -> Probed:
    from penstock.policy.probe import probe

    return await probe(target, transport, path=path, wanted=set(wanted), timeout_s=_TIMEOUT_S)


def _said(found: Probed, url: str) -> str:
    """With the URL as it is written: what fills it may be nobody else's business, and so may its query."""
    parts = urlsplit(url)
    where = f"{parts.scheme}://{parts.netloc}{parts.path}"
    if found.error is not None:
        return f"{found.error.rstrip('.')}. ({where})"
    said = f"{_several(found.models or 0, 'model')} in {found.ms or 0:.0f} ms"
    lacking = f", but not {', '.join(found.missing)}" if found.missing else ""
    return f"{said}{lacking} ({where})"


def _several(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
