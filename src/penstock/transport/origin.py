"""Where a request goes: a URL → its origin, the request's target, and the proxy in between, if any.

Pure: no sockets and no environment; the proxy variables come in as a mapping. A URL that could smuggle a line break
into a request, or that carries credentials, is refused with `InvalidRequest` and never quoted in the message. A proxy's
credentials stay in its `authorization` and out of every repr.
"""

from __future__ import annotations

import base64
import ipaddress
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote, unquote, urlsplit

from penstock.canon.errors import ConfigError, InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_PORTS = {"http": 80, "https": 443}

# What a URL may hold besides letters and digits; anything else is percent-encoded as UTF-8. `%` is left alone: the
# caller has encoded already, and encoding twice would name another resource.
_SAFE = "%/:=&?~#+!$,;'@()*[]|"


class Origin(NamedTuple):
    """`host` is lower-case and without brackets."""

    scheme: str
    host: str
    port: int

    @property
    def netloc(self) -> str:
        """`host:port`, IPv6 in brackets: how messages and CONNECT name it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def host_header(self) -> str:
        """As `netloc`, without a port that goes without saying."""
        return self.netloc.rpartition(":")[0] if self.port == DEFAULT_PORTS[self.scheme] else self.netloc

    def __str__(self) -> str:
        return f"{self.scheme}://{self.netloc}"


class Location(NamedTuple):
    """A URL taken apart: whom to connect to, and the two strings that a request's head needs of it."""

    origin: Origin
    target: str
    host_header: str


def locate(url: str) -> Location:
    """Raises `InvalidRequest` when the URL is not an absolute http or https URL."""
    return _locate_known(url) if len(url) <= 512 else _locate(url)


def _locate(url: str) -> Location:
    # Before urlsplit, which drops tabs and line breaks in silence.
    if any(c <= " " or c == "\x7f" for c in url):
        raise InvalidRequest("The upstream's url holds a space or a control character.", fix="Percent-encode it.")
    try:
        parts = urlsplit(url)
        scheme, host, port = parts.scheme, parts.hostname, parts.port
        if host and not host.isascii():
            host = host.encode("idna").decode("ascii")
    except ValueError:  # brackets that do not close, a port that is not a number, a name IDNA does not know
        raise InvalidRequest("The upstream's url is malformed.", fix="It looks like http://host:port/path.") from None
    if scheme not in DEFAULT_PORTS or not host:
        raise InvalidRequest(
            "The upstream's url is not an absolute http or https url.", fix="It looks like http://host:port/path."
        )
    if parts.username is not None or parts.password is not None:
        raise InvalidRequest("The upstream's url holds credentials.", fix="Send them in a header instead.")
    target = quote(parts.path or "/", safe=_SAFE)
    if parts.query:
        target += "?" + quote(parts.query, safe=_SAFE)
    origin = Origin(scheme, host, DEFAULT_PORTS[scheme] if port is None else port)
    return Location(origin, target, origin.host_header)


# Programs call few URLs, again and again: a lookup costs a tenth of taking one apart.
_locate_known = lru_cache(maxsize=512)(_locate)


class Proxy(NamedTuple):
    """`authorization` is the value of a `proxy-authorization` header, empty where the proxy asks for none."""

    origin: Origin
    authorization: str = ""

    def __repr__(self) -> str:
        return f"<Proxy {self.origin}>"


class Proxies:
    """`HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`, in either case; the lower one wins, as in curl."""

    __slots__ = ("_by_scheme", "_exempt")

    def __init__(self, environ: Mapping[str, str] | None) -> None:
        environ = environ or {}
        self._by_scheme: dict[str, Proxy] = {}
        for scheme in DEFAULT_PORTS:
            name = f"{scheme}_proxy"
            if value := (environ.get(name) or environ.get(name.upper()) or "").strip():
                self._by_scheme[scheme] = _parse_proxy(name.upper(), value)
        exempt = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
        self._exempt = [_parse_exemption(entry) for entry in exempt.lower().replace(",", " ").split()]

    def choose(self, origin: Origin) -> Proxy | None:
        proxy = self._by_scheme.get(origin.scheme)
        if proxy is None or any(exemption.covers(origin) for exemption in self._exempt):
            return None
        return proxy


def _parse_proxy(name: str, value: str) -> Proxy:
    fix = "It looks like http://user:password@host:port."
    try:
        parts = urlsplit(value if "://" in value else f"http://{value}")
        scheme, host, port = parts.scheme, parts.hostname, parts.port
    except ValueError:
        raise ConfigError(f"{name} is malformed.", fix=fix) from None
    if scheme not in DEFAULT_PORTS or not host:
        raise ConfigError(f"{name} is not an http or https proxy.", fix=fix)
    authorization = ""
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = "Basic " + base64.b64encode(pair.encode()).decode("ascii")
    return Proxy(Origin(scheme, host, DEFAULT_PORTS[scheme] if port is None else port), authorization)


class _Exemption(NamedTuple):
    """One entry of `NO_PROXY`: a network, or a name that covers itself and what is below it."""

    name: str
    port: int | None
    network: ipaddress.IPv4Network | ipaddress.IPv6Network | None

    def covers(self, origin: Origin) -> bool:
        if self.port is not None and self.port != origin.port:
            return False
        if self.network is not None:
            try:
                return ipaddress.ip_address(origin.host) in self.network
            except ValueError:
                return False
        return self.name == "*" or origin.host == self.name or origin.host.endswith("." + self.name)


def _parse_exemption(entry: str) -> _Exemption:
    if network := _network(entry):
        return _Exemption(entry, None, network)
    name, colon, digits = entry.rpartition(":")
    if not colon or not digits.isdigit():
        name, digits = entry, ""
    name = name.strip("[]")
    # `*.example.com` is how some write `.example.com`.
    bare = name if name == "*" else name.removeprefix("*").removeprefix(".")
    return _Exemption(bare, int(digits) if digits else None, _network(name))


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text.strip("[]"), strict=False)
    except ValueError:
        return None
