"""What another library's stream raises → an error of ours, the original as its cause.

By class, status and structured code, never by the words of a message: the classes of the SDKs and of httpx are known by
their names, because none of them is imported. Ours pass as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from penstock.canon.errors import (
    ConnectError,
    PenstockError,
    StreamingError,
    StreamingTimeout,
    Truncated,
    UpstreamError,
    status_error_class,
)

if TYPE_CHECKING:
    from penstock.canon.errors import ClockName

#: of the SDKs, httpx and aiohttp; each one's subclasses as well
_TIMEOUTS = frozenset({"APITimeoutError", "TimeoutException", "Timeout", "ServerTimeoutError"})
_LOST = frozenset({"APIConnectionError", "TransportError", "ClientConnectionError", "ClientPayloadError"})


def mapped(error: BaseException, *, has_begun: bool, has_content: bool) -> PenstockError:
    """`has_begun`: something had come before it; `has_content`: content had."""
    if isinstance(error, PenstockError):
        return error
    found = _mapped(error, has_begun=has_begun, has_content=has_content)
    found.__cause__ = error
    return found


def _mapped(error: BaseException, *, has_begun: bool, has_content: bool) -> UpstreamError:
    names = {cls.__name__ for cls in type(error).__mro__}
    if isinstance(error, TimeoutError) or names & _TIMEOUTS:
        clock: ClockName = "idle" if has_content else "first_content"
        return StreamingTimeout(clock, None)
    if isinstance(error, ConnectionError) or names & _LOST:
        said = f"{_first_line(error)} ({type(error).__name__})"
        if has_begun:
            return Truncated(f"The source's connection broke before its end: {said}")
        return ConnectError(f"The source found no connection: {said}")
    status, details = _status(error), _details(error)
    code, kind = _word(details.get("code")), _word(details.get("type"))
    if status is not None and not has_begun:
        return status_error_class(status, code, kind)(
            f"{_first_line(error)} (HTTP {status})",
            status=status,
            type=kind,
            code=code,
            param=_word(details.get("param")),
        )
    return StreamingError(
        f"The source raised {type(error).__name__}: {_first_line(error)}",
        type=kind,
        code=code,
        status=status or 502,
        raw=dict(details) or None,
    )


def _status(error: BaseException) -> int | None:
    status = getattr(error, "status_code", None)
    return status if type(status) is int and 400 <= status < 600 else None


def _details(error: BaseException) -> Mapping[str, Any]:
    """The error object of the body, where the SDK has kept one."""
    body = getattr(error, "body", None)
    if isinstance(body, Mapping):
        inner = body.get("error")
        return inner if isinstance(inner, Mapping) else body
    return {name: value for name in ("code", "type", "param") if (value := getattr(error, name, None)) is not None}


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0][:300]


def _word(value: Any) -> str | None:
    return value if isinstance(value, str) else None
