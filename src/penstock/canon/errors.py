"""Every error that Penstock raises, classified once, by cause.

    PenstockError
    ├── ConfigError                     the configuration is wrong; says the key and the fix
    ├── RequestError                    the caller's fault; never retried
    │   ├── InvalidRequest  400         malformed JSON, a missing field, a wrong type (`.param` is the field's path)
    │   │   └── InvalidSchema           a type or a JSON Schema that cannot be said, or is none
    │   ├── Unauthenticated 401  Forbidden 403  UnknownModel 404  UnknownRoute 404  UnknownJob 404
    │   ├── Unsupported     400         valid, but this target cannot express it
    │   └── TooLarge        413         a limit of ours
    ├── UpstreamError                   whom we called; carries `.target`
    │   ├── ConnectError    502         no connection, or one that closed before any answer
    │   ├── TimedOut        504         `.clock`: connect first_content idle silence document total
    │   │   └── StreamingTimeout        … or another library's stream gave nothing in time (`streaming_timeout`)
    │   ├── StatusError                 an answer that is not 2xx; keeps its status and body
    │   │   └── RateLimited  Overloaded  KeyRejected  ContextTooLong  ContentRefused  ServerFault
    │   ├── ProtocolError   502
    │   │   └── MalformedFrame  FrameTooLarge  ReplyTooLarge  NotAStream
    │   ├── Truncated       502         the stream ended without the provider's own terminal
    │   ├── EmptyReply      502         the reply finished properly, and said nothing at all
    │   ├── EngineCrashed   503         the worker's engine ended under it; it is started again
    │   │   └── EngineOutOfMemory       … because the system had no memory left for it
    │   ├── StreamedError               the provider said so, inside the stream
    │   │   └── StreamingError          another library's stream raised it (`streaming_error`)
    │   └── NoTargetLeft                every target failed; `.attempts` says how
    ├── ToolLimit                       tools went on for too long: `.limit` is rounds or time, `.run` what was done
    ├── SchemaMismatch                  a whole reply that does not fit the schema asked for; `.text` is it
    ├── Cancelled                       we, or the caller, stopped it
    ├── ShuttingDown    503         this server is ending
    ├── AlreadyConsumed                 a stream is read once
    ├── CursorLagged                    a reader of a stream fell too far behind another one
    └── Saturated       429             a limit of ours on work in progress

An error says what happened, to which target, at which attempt, and, where one is known, the fix. It is chosen by status
and structured code, never by the words of a message. It holds no key, can be pickled, and carries `.partial` (a
`Response`) once anything had arrived. `.status` is the HTTP status that a gateway answers with while it still can.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    from penstock.canon.response import Response

ClockName = Literal["connect", "first_content", "idle", "silence", "document", "total"]


class PenstockError(Exception):
    """The root. `kind` is its class's word; `retryable`: the same request may do better at the same target."""

    kind: ClassVar[str] = "error"
    retryable: bool = False
    status: int = 500

    def __init__(self, message: str, *, fix: str | None = None, target: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix
        self.target = target
        #: the number of the attempt at which it happened, counted over all targets from 1
        self.attempt: int | None = None
        self.partial: Response | None = None

    @property
    def error_type(self) -> str:
        """The word that records and metrics use."""
        return self.kind

    def __str__(self) -> str:
        return f"{self.message} {self.fix}" if self.fix else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        # Keyword-only arguments are lost by Exception's own pickling.
        return (_rebuild, (type(self), self.message, dict(self.__dict__)))


def _rebuild(cls: type[PenstockError], message: str, state: dict[str, Any]) -> PenstockError:
    error = cls.__new__(cls, message)
    Exception.__init__(error, message)
    error.__dict__.update(state)
    return error


class ConfigError(PenstockError):
    kind = "config"


class Cancelled(PenstockError):
    kind = "cancelled"
    status = 499


class ShuttingDown(PenstockError):
    """The server was told to end; another, or the same one in a while, takes the request."""

    kind = "shutting_down"
    status = 503
    retry_after_s = 1.0

    def __init__(self, message: str = "The server is shutting down.", *, fix: str | None = "Ask again.") -> None:
        super().__init__(message, fix=fix)


class AlreadyConsumed(PenstockError):
    kind = "already_consumed"


class CursorLagged(PenstockError):
    kind = "cursor_lagged"


class Saturated(PenstockError):
    """`retry_after_s`: when it is worth coming back."""

    kind = "saturated"
    status = 429

    def __init__(
        self, message: str, *, retry_after_s: float | None = None, fix: str | None = None, target: str | None = None
    ) -> None:
        super().__init__(message, fix=fix, target=target)
        self.retry_after_s = retry_after_s


# --- the caller's fault ---------------------------------------------------------------------------------------------


class RequestError(PenstockError):
    """`param` is the path of the field at fault (`messages[0].role`), `code` a stable word for programs."""

    kind = "request"
    status = 400
    code: ClassVar[str | None] = None

    def __init__(self, message: str, *, param: str | None = None, fix: str | None = None) -> None:
        super().__init__(message, fix=fix)
        self.param = param


class InvalidRequest(RequestError):
    kind = "invalid_request"


class InvalidSchema(InvalidRequest):
    kind = "invalid_schema"


class Unauthenticated(RequestError):
    kind = "unauthenticated"
    status = 401
    code = "invalid_api_key"


class Forbidden(RequestError):
    kind = "forbidden"
    status = 403


class UnknownModel(RequestError):
    kind = "unknown_model"
    status = 404
    code = "model_not_found"


class UnknownRoute(RequestError):
    kind = "unknown_route"
    status = 404


class UnknownJob(RequestError):
    kind = "unknown_job"
    status = 404
    code = "job_not_found"


class Unsupported(RequestError):
    kind = "unsupported"
    code = "unsupported_parameter"


class TooLarge(RequestError):
    kind = "too_large"
    status = 413
    code = "request_too_large"


# --- whom we called -------------------------------------------------------------------------------------------------


class UpstreamError(PenstockError):
    kind = "upstream"
    status = 502


class ConnectError(UpstreamError):
    kind = "connect"
    retryable = True


class TimedOut(UpstreamError):
    """A clock ran out. `after_s` is the limit that was set, in seconds."""

    kind = "timeout"
    retryable = True
    status = 504

    def __init__(self, clock: ClockName, after_s: float, *, target: str | None = None) -> None:
        what = {
            "connect": "no connection",
            "first_content": "no content",
            "idle": "no further content",
            "silence": "not one byte",
            "document": "no whole reply",
            "total": "no end of the reply",
        }[clock]
        super().__init__(
            f"The upstream gave {what} within {after_s:g} s.",
            fix=f"Raise timeouts.{clock} if it is only slow.",
            target=target,
        )
        self.clock: ClockName = clock
        self.after_s = after_s
        self.retryable = clock not in ("document", "total")  # after so long, all of it was thought, and paid for

    @property
    def error_type(self) -> str:
        return f"timeout_{self.clock}"


class StreamingTimeout(TimedOut):
    """A stream of another library's gave nothing in time: by our clock, or, with `after_s` None, by its own."""

    kind = "streaming_timeout"

    def __init__(self, clock: ClockName, after_s: float | None, *, target: str | None = None) -> None:
        super().__init__(clock, after_s or 0.0, target=target)
        if after_s is None:
            self.message, self.fix = "The source says that it has timed out.", "Raise the timeout of its own client."
            self.args = (self.message,)


class StatusError(UpstreamError):
    """An answer that is not 2xx; `status` is 502 where the upstream's is none of an error.

    `body` is what the upstream sent, with our key masked; at most 64 KiB of it.
    """

    kind = "status"

    def __init__(
        self,
        message: str,
        *,
        status: int,
        type: str | None = None,
        code: str | None = None,
        param: str | None = None,
        body: bytes = b"",
        content_type: str | None = None,
        retry_after_s: float | None = None,
        target: str | None = None,
    ) -> None:
        super().__init__(message, target=target)
        self.retryable = self.retryable or status in RETRYABLE_STATUSES
        # A redirect, a 304 or a 999 is nothing that a gateway could say of itself, nor a failure to every client.
        self.status = status if 400 <= status <= 599 else 502
        self.type = type
        self.code = code
        self.param = param
        self.body = body
        self.content_type = content_type
        self.retry_after_s = retry_after_s


class RateLimited(StatusError):
    kind = "rate_limited"
    retryable = True


class Overloaded(StatusError):
    kind = "overloaded"
    retryable = True


class KeyRejected(StatusError):
    kind = "key_rejected"


class ContextTooLong(StatusError):
    kind = "context_too_long"


class ContentRefused(StatusError):
    kind = "content_refused"


class ServerFault(StatusError):
    kind = "server_fault"
    retryable = True


class ProtocolError(UpstreamError):
    kind = "protocol"


class MalformedFrame(ProtocolError):
    kind = "malformed_frame"


class FrameTooLarge(ProtocolError):
    kind = "frame_too_large"


class ReplyTooLarge(ProtocolError):
    """More in all than a reply may be."""

    kind = "reply_too_large"


class NotAStream(ProtocolError):
    kind = "not_a_stream"


class Truncated(UpstreamError):
    """The stream ended, by EOF or by a broken connection, before the provider's own terminal."""

    kind = "truncated"
    retryable = True


class EmptyReply(UpstreamError):
    """Proved complete, and without one word, thought or call. It may be true: whoever asks last hands it on."""

    kind = "empty_reply"
    retryable = True


class EngineCrashed(UpstreamError):
    """A worker's engine ended by itself. Whatever ran on it is lost; it is started again."""

    kind = "engine_crashed"
    status = 503
    retryable = True
    retry_after_s = 1.0


class EngineOutOfMemory(EngineCrashed):
    kind = "engine_out_of_memory"


class StreamedError(UpstreamError):
    """An error that the provider sent inside a stream that had begun with 200; retryable as its status would be."""

    kind = "streamed_error"

    def __init__(
        self,
        message: str,
        *,
        type: str | None = None,
        code: str | int | None = None,
        param: str | None = None,
        status: int = 502,
        raw: Any = None,
        target: str | None = None,
    ) -> None:
        super().__init__(message, target=target)
        self.type = type
        self.code = code
        self.param = param
        self.status = status
        self.raw = raw
        meant = status_error_class(status, str(code), type)
        self.retryable = meant.retryable or status in RETRYABLE_STATUSES


class StreamingError(StreamedError):
    """A stream of another library's raised an error, which is the `__cause__`."""

    kind = "streaming_error"


class NoTargetLeft(UpstreamError):
    """Every target was tried. `attempts` holds a line per attempt; `status` is the most telling one among them."""

    kind = "no_target_left"

    def __init__(
        self, message: str, *, attempts: tuple[str, ...], status: int, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.attempts = attempts
        self.status = status
        self.retry_after_s = retry_after_s


#: beside what `RateLimited`, `Overloaded` and `ServerFault` stand for: Request Timeout and Conflict
RETRYABLE_STATUSES = frozenset({408, 409})


# --- what a program asked for beyond one reply ----------------------------------------------------------------------


class ToolLimit(PenstockError):
    """`run_tools` stopped at a limit of its caller's: `limit` is `rounds` or `time`, `run` the `ToolRun` so far."""

    kind = "tool_limit"

    def __init__(
        self, message: str, *, limit: Literal["rounds", "time"], run: Any = None, fix: str | None = None
    ) -> None:
        super().__init__(message, fix=fix)
        self.limit = limit
        self.run = run


class SchemaMismatch(PenstockError):
    """A whole reply that does not fit. `text` is what the model said; the message says where, and holds none of it."""

    kind = "schema_mismatch"

    def __init__(self, message: str, *, text: str, fix: str | None = None) -> None:
        super().__init__(message, fix=fix)
        self.text = text


#: HTTP status → the class of a non-2xx answer; the structured code may say more (see `status_error_class`).
STATUS_ERRORS: dict[int, type[StatusError]] = {
    401: KeyRejected,
    402: KeyRejected,
    403: KeyRejected,
    429: RateLimited,
    503: Overloaded,
    529: Overloaded,
}

#: structured code or type, in any dialect → class. Seen with OpenAI, Anthropic, Azure, llama.cpp (2026-11).
CODE_ERRORS: dict[str, type[StatusError]] = {
    "context_length_exceeded": ContextTooLong,
    "exceed_context_size_error": ContextTooLong,
    "content_filter": ContentRefused,
    "content_policy_violation": ContentRefused,
    "invalid_api_key": KeyRejected,
    "authentication_error": KeyRejected,
    "insufficient_quota": KeyRejected,
    "overloaded_error": Overloaded,
    "rate_limit_error": RateLimited,
    "rate_limit_exceeded": RateLimited,
}


def status_error_class(status: int, *codes: str | None) -> type[StatusError]:
    """The class for a non-2xx answer, by its structured codes first and its status second."""
    for code in codes:
        if code in CODE_ERRORS:
            return CODE_ERRORS[code]
    if status in STATUS_ERRORS:
        return STATUS_ERRORS[status]
    return ServerFault if status >= 500 else StatusError
