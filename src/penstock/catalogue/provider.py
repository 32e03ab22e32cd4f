"""One provider as a value: an entry of `providers.toml`, typed and checked; and what a call of it needs.

An entry goes in as plain values, a `Provider` comes out, or a `ConfigError` that names file, entry and field. Nothing
here reads the environment: whoever may passes it in.
"""

from __future__ import annotations

import difflib
import re
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_type_hints
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from penstock.canon.errors import ConfigError
from penstock.canon.model import of_model
from penstock.canon.price import Price
from penstock.canon.target import Secret

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

#: Every dialect's name, whether or not this build speaks it.
DIALECT_NAMES = (
    "openai-chat", "openai-completions", "openai-responses", "anthropic-messages", "gemini", "ollama", "cohere",
    "bedrock", "straico",
)  # fmt: skip

LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})

Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
Variable = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]

_HEADER = re.compile(r"[A-Za-z0-9-]+")
_BRACES = re.compile(r"\{([^{}]*)\}")


class Capabilities(Struct, frozen=True, forbid_unknown_fields=True):
    """What is known of a provider. None: nobody said."""

    #: answers with a stream, where it is asked for one
    stream: bool | None = None
    #: answers with a document, where it is asked for one
    document: bool | None = None
    #: calls tools
    tools: bool | None = None
    #: looks at images
    images: bool | None = None
    #: tells the usage of a stream
    stream_usage: bool | None = None
    #: takes `stream_options`
    stream_options: bool | None = None
    #: takes a limit of this name
    max_tokens: bool | None = None
    #: takes a limit of this name
    max_completion_tokens: bool | None = None
    #: takes messages of this role
    system: bool | None = None
    #: takes messages of this role
    developer: bool | None = None
    #: goes on with a reply whose beginning it is given as the last message
    prefill: bool | None = None


class ModelEntry(Struct, frozen=True, forbid_unknown_fields=True):
    """What is known of one model, or of those that a pattern fits. None: as of its provider."""

    #: what it is asked in
    dialect: str | None = None

    #: calls tools
    tools: bool | None = None
    #: looks at images
    images: bool | None = None


class Provider(Struct, frozen=True, forbid_unknown_fields=True):
    """`url` may hold `{placeholders}`, each with its variable; `key_env` are the variables that may hold the key.

    `auth` is where the key goes: None the dialect's own place, `bearer`, a header's name, `none` where there is no key,
    `sigv4` where AWS's credentials sign instead. `models` and `cost` map a model or a pattern to what is known of it,
    and to its price.
    """

    id: Name
    name: str
    url: str
    dialect: str = "openai-chat"
    profile: str | None = None
    key_env: tuple[Variable, ...] = ()
    auth: str | None = None
    placeholders: dict[str, Variable] = {}
    headers: dict[str, str] = {}
    docs: str | None = None
    models_path: str | None = None
    capabilities: Capabilities = Capabilities()
    models: dict[str, ModelEntry] = {}
    cost: dict[str, Price] = {}
    #: texts in one request for embeddings, at most
    embed_batch: Annotated[int, msgspec.Meta(ge=1)] | None = None
    note: str | None = None

    def __repr__(self) -> str:
        names = ", ".join(self.headers)  # their values may be keys
        return f"<Provider {self.id} {self.dialect} at {self.url}{f' with {names}' if names else ''}>"

    @property
    def is_local(self) -> bool:
        """On this machine: its key is sent where one is set, and asked of nobody."""
        return is_local(self.url)

    def lacks(self, ability: Literal["tools", "images"], model: str) -> bool:
        """Whether it is known that this model of its has it not."""
        of_one = of_model(model, self.models)
        said: bool | None = getattr(of_one, ability, None)
        return (getattr(self.capabilities, ability) if said is None else said) is False

    def is_at(self, url: str) -> bool:
        """Whether this is its own URL, its placeholders filled in."""
        return re.fullmatch("[^/]+".join(map(re.escape, _BRACES.split(self.url)[::2])), url) is not None


def is_local(url: str) -> bool:
    return urlsplit(_BRACES.sub("x", url)).hostname in LOCAL_HOSTS


def provider(id_: str, fields: Any, where: str) -> Provider:
    """The entry `id_` of the file `where`, checked."""
    if not isinstance(fields, dict):
        raise ConfigError(f"In {where}, `{id_}` is no table.", fix=f"Write [{id_}] and its fields below.")
    refuse_unknown(fields, Provider, f"{where}, {id_}")
    if "id" in fields:
        raise ConfigError(f"In {where}, {id_}.id: an entry's id is its table's name.", fix="Leave it out.")
    given = {"id": id_, **fields}
    if isinstance(given.get("key_env"), str):
        given["key_env"] = [given["key_env"]]
    try:
        found = msgspec.convert(given, Provider)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$.")
        raise ConfigError(
            f"In {where}, {'.'.join(filter(None, (id_, path.rstrip('`'))))}: {message.rstrip('.')}."
        ) from error
    spoken = {"dialect": found.dialect} | {f"models.{name}.dialect": it.dialect for name, it in found.models.items()}
    for path, dialect in spoken.items():
        if dialect is not None and dialect not in DIALECT_NAMES:
            raise ConfigError(
                f"In {where}, {id_}.{path}: there is no dialect `{dialect}`.", fix=nearest(dialect, DIALECT_NAMES)
            )
    check_url(found.url, found.placeholders, f"{where}, {id_}")
    check_auth(found.auth, found.dialect, f"{where}, {id_}")
    return found


def refuse_unknown(fields: Mapping[str, Any], struct: type[Struct], where: str) -> None:
    """Refuse unknown fields with the nearest known one, in the tables within as well."""
    hints = _hints(struct)
    for key, value in fields.items():
        if key not in hints:
            known = [name for name in hints if name != "id"]
            raise ConfigError(f"In {where}.{key}: there is no such field.", fix=nearest(str(key), known))
        if not isinstance(value, dict):
            continue
        for kind in (hints[key], *get_args(hints[key])):
            if isinstance(kind, type) and issubclass(kind, Struct):
                tables = {"": value} if kind is hints[key] else value
                for name, table in tables.items():
                    if isinstance(table, dict):
                        refuse_unknown(table, kind, ".".join(filter(None, (where, key, name))))


@cache
def _hints(struct: type[Struct]) -> dict[str, Any]:
    return get_type_hints(struct)


def check_url(url: str, placeholders: Mapping[str, str], where: str) -> None:
    if "@" in url.partition("://")[2].partition("/")[0]:
        # Said without the URL: what stands in it would be printed.
        raise ConfigError(
            f"In {where}.url holds a user name or password.",
            fix="Leave it out, and name the variable that holds the key in key_env.",
        )
    if not url.startswith(("http://", "https://")):
        raise ConfigError(f"In {where}.url: `{url}` is no http:// or https:// URL.")
    for name in _BRACES.findall(url):
        if name not in placeholders:
            raise ConfigError(
                f"In {where}.url: nothing says what `{{{name}}}` is.",
                fix=f"Name its variable: placeholders: {{{name}: VARIABLE}}.",
            )


def check_auth(auth: str | None, dialect: str, where: str) -> None:
    if auth is None:
        return
    if not _HEADER.fullmatch(auth):
        raise ConfigError(
            f"In {where}.auth: `{auth}` is no header's name.", fix="Write bearer, none, sigv4, or a name as in api-key."
        )
    if auth == "sigv4" and dialect != "bedrock":  # any other would send the pair itself
        raise ConfigError(f"In {where}.auth: only the dialect bedrock signs.", fix="Leave it out, or set the dialect.")


def nearest(word: str, known: Iterable[str]) -> str:
    """The fix for a name that does not exist."""
    known = list(known)
    close = difflib.get_close_matches(word, known, n=1)
    if close:
        return f"Did you mean `{close[0]}`?"
    return f"Known: {', '.join(sorted(known))}." if len(known) <= 20 else "`penstock providers` lists them."


# --- what a call needs -----------------------------------------------------------------------------------------------


def filled(url: str, placeholders: Mapping[str, str], environ: Mapping[str, str], who: str) -> str:
    """The URL with what its variables say. A missing one is named."""

    def value(found: re.Match[str]) -> str:
        variable = placeholders[found[1]]
        if not (said := environ.get(variable, "").strip()):
            raise ConfigError(f"The url of {who} needs its {found[1]}.", fix=f"Set {variable}, or give the whole url.")
        if any(sign in said for sign in "/@?#\\ \t\r\n"):
            raise ConfigError(f"{variable} cannot stand in the url of {who}.", fix=f"It is the {found[1]} alone.")
        return said

    return _BRACES.sub(value, url)


def find_key(key_env: Iterable[str], auth: str | None, environ: Mapping[str, str]) -> tuple[Secret | None, str | None]:
    """The first key that is set, and where it goes. `sigv4` signs with a pair of keys where no token is set."""
    if auth == "none":
        return None, None
    for variable in key_env:
        if value := environ.get(variable):
            return Secret(value), "bearer" if auth == "sigv4" else auth
    if auth == "sigv4" and environ.get("AWS_ACCESS_KEY_ID") and environ.get("AWS_SECRET_ACCESS_KEY"):
        names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
        return Secret(":".join(environ[name] for name in names if environ.get(name))), auth
    return None, None if auth == "sigv4" else auth


def key_fix(key_env: Iterable[str], auth: str | None) -> str:
    """Which variables to set."""
    names = [*key_env, *(["AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"] if auth == "sigv4" else [])]
    return " or ".join(names)
