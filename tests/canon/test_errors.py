"""One tree of errors: each class classified by cause, with its status and word, and whole after pickling."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from penstock.canon import errors
from penstock.canon.errors import (
    CODE_ERRORS,
    STATUS_ERRORS,
    AlreadyConsumed,
    Cancelled,
    ConfigError,
    ConnectError,
    ContentRefused,
    ContextTooLong,
    CursorLagged,
    EmptyReply,
    EngineCrashed,
    EngineOutOfMemory,
    Forbidden,
    FrameTooLarge,
    InvalidRequest,
    InvalidSchema,
    KeyRejected,
    MalformedFrame,
    NoTargetLeft,
    NotAStream,
    Overloaded,
    PenstockError,
    ProtocolError,
    RateLimited,
    ReplyTooLarge,
    RequestError,
    Saturated,
    SchemaMismatch,
    ServerFault,
    ShuttingDown,
    StatusError,
    StreamedError,
    StreamingError,
    StreamingTimeout,
    TimedOut,
    TooLarge,
    ToolLimit,
    Truncated,
    Unauthenticated,
    UnknownJob,
    UnknownModel,
    UnknownRoute,
    Unsupported,
    UpstreamError,
    status_error_class,
)
from penstock.canon.events import Text
from penstock.canon.response import Response

#: one of each, every attribute set
EXAMPLES: list[PenstockError] = [
    PenstockError("m", fix="f", target="a:b"),
    ConfigError("m", fix="f"),
    Cancelled("m"),
    AlreadyConsumed("m"),
    CursorLagged("m"),
    StreamingError("m", type="t", code="c", status=503, raw={}, target="a:b"),
    StreamingTimeout("idle", 3.0, target="a:b"),
    StreamingTimeout("idle", None),
    Saturated("m"),
    ShuttingDown("m"),
    RequestError("m", param="p", fix="f"),
    *(cls("m", param="p", fix="f") for cls in (InvalidRequest, Unauthenticated, Forbidden, UnknownModel, UnknownRoute)),
    *(cls("m", param="p", fix="f") for cls in (InvalidSchema, Unsupported, TooLarge, UnknownJob)),
    *(cls("m", target="a:b") for cls in (UpstreamError, ConnectError, Truncated, EmptyReply)),
    *(cls("m", target="a:b", fix="f") for cls in (EngineCrashed, EngineOutOfMemory)),
    *(cls("m", target="a:b", fix="f") for cls in (ProtocolError, MalformedFrame, NotAStream)),
    *(cls("m", target="a:b", fix="f") for cls in (FrameTooLarge, ReplyTooLarge)),
    TimedOut("first_content", 1.5, target="a:b"),
    *(
        cls("m", status=418, type="t", code="c", param="p", body=b"b", content_type="x", retry_after_s=2, target="a:b")
        for cls in (StatusError, RateLimited, Overloaded, KeyRejected, ContextTooLong, ContentRefused, ServerFault)
    ),
    StreamedError("m", type="t", code="c", param="p", status=429, raw={"a": [1]}, target="a:b"),
    NoTargetLeft("m", attempts=("a:b 500", "c:d timeout"), status=503),
    SchemaMismatch("m", text="{}", fix="f"),
    ToolLimit("m", limit="rounds", run=("what", "was", "done"), fix="f"),
]  # fmt: skip


def every_class() -> set[type[PenstockError]]:
    return {found for found in vars(errors).values() if isinstance(found, type) and issubclass(found, PenstockError)}


def test_there_is_an_example_of_every_class():
    assert {type(error) for error in EXAMPLES} == every_class()


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("way", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy, copy.deepcopy])
def test_an_error_is_whole_after_its_journey(error: PenstockError, way: Any):
    error.partial = Response(parts=(Text("Hel"),), outcome="truncated")
    again = way(error)
    assert type(again) is type(error)
    assert vars(again) == vars(error)
    assert (str(again), again.args) == (str(error), error.args)


def test_an_error_of_somebody_elses_making_is_whole_too():
    class Own(StatusError):
        kind = "own"

        def __init__(self, mood: str) -> None:
            super().__init__("m", status=500)
            self.mood = mood

    error = Own("glad")
    rebuild, arguments = error.__reduce__()[:2]
    assert vars(rebuild(*arguments)) == vars(error)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Cancelled("m"), 499),
        (Saturated("m"), 429),
        (ConfigError("m"), 500),
        (InvalidRequest("m"), 400),
        (Unauthenticated("m"), 401),
        (Forbidden("m"), 403),
        (UnknownModel("m"), 404),
        (UnknownRoute("m"), 404),
        (UnknownJob("m"), 404),
        (Unsupported("m"), 400),
        (TooLarge("m"), 413),
        (UpstreamError("m"), 502),
        (ConnectError("m"), 502),
        (TimedOut("idle", 1), 504),
        (StatusError("m", status=418), 418),
        (ServerFault("m", status=503), 503),
        (ProtocolError("m"), 502),
        (Truncated("m"), 502),
        (EngineCrashed("m"), 503),
        (StreamedError("m"), 502),
        (StreamedError("m", status=429), 429),
        (NoTargetLeft("m", attempts=(), status=529), 529),
    ],
)
def test_the_status_that_a_gateway_answers_with(error: PenstockError, status: int):
    assert error.status == status


def test_every_class_has_a_word_of_its_own():
    kinds = [cls.kind for cls in every_class()]
    assert len(kinds) == len(set(kinds))
    assert all(kind.replace("_", "").isalpha() and kind.islower() for kind in kinds)


def test_what_may_be_asked_again():
    retryable = {cls for cls in every_class() if cls.retryable}
    assert retryable == {
        ConnectError,
        TimedOut,
        StreamingTimeout,
        RateLimited,
        Overloaded,
        ServerFault,
        Truncated,
        EmptyReply,
        EngineCrashed,
        EngineOutOfMemory,
    }
    assert not any(issubclass(cls, RequestError) for cls in retryable)


@pytest.mark.parametrize(
    ("error", "retryable"),
    [
        *((StatusError("m", status=status), True) for status in (408, 409)),
        *((StatusError("m", status=status), False) for status in (302, 400, 404, 413, 422)),
        (RateLimited("m", status=429), True),
        (KeyRejected("m", status=429), False),
        *((StreamedError("m", status=status), True) for status in (408, 409, 429, 500, 502, 503, 529)),
        *((StreamedError("m", status=status), False) for status in (400, 401, 403, 404)),
        (StreamedError("m", code="context_length_exceeded"), False),
        (StreamedError("m", type="overloaded_error", status=400), True),
        *((TimedOut(clock, 1), True) for clock in ("connect", "first_content", "idle", "silence")),
        (TimedOut("total", 1), False),
    ],
)
def test_what_one_error_says_of_asking_again(error: PenstockError, retryable: bool):
    assert error.retryable is retryable
    assert pickle.loads(pickle.dumps(error)).retryable is retryable


def test_a_clock_has_a_word_of_its_own():
    assert (TimedOut("idle", 1).error_type, Truncated("m").error_type) == ("timeout_idle", "truncated")


def test_every_class_is_in_the_tree_that_the_module_draws():
    assert errors.__doc__ is not None
    missing = {cls.__name__ for cls in every_class() if cls.__name__ not in errors.__doc__}
    assert missing == set()


def test_an_error_says_what_happened_and_the_fix():
    assert str(TimedOut("idle", 60)) == (
        "The upstream gave no further content within 60 s. Raise timeouts.idle if it is only slow."
    )
    assert str(PenstockError("Too bad.")) == "Too bad."


@pytest.mark.parametrize("clock", ["connect", "first_content", "idle", "silence", "total"])
def test_c8_every_clock_has_its_own_words(clock: Any):
    error = TimedOut(clock, 0.5)
    assert error.clock == clock
    assert f"timeouts.{clock}" in str(error)
    assert "0.5 s" in str(error)


# --- classification --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("status", "cls"), sorted(STATUS_ERRORS.items()))
def test_a_status_alone(status: int, cls: type[StatusError]):
    assert status_error_class(status) is cls
    assert status_error_class(status, None, "something_new") is cls


@pytest.mark.parametrize(
    ("status", "cls"),
    [(400, StatusError), (404, StatusError), (302, StatusError), (500, ServerFault), (599, ServerFault)],
)
def test_any_other_status(status: int, cls: type[StatusError]):
    assert status_error_class(status) is cls


@pytest.mark.parametrize(("code", "cls"), sorted(CODE_ERRORS.items(), key=str))
def test_a_code_says_more_than_a_status(code: str, cls: type[StatusError]):
    for status in (400, 429, 500, 503):
        assert status_error_class(status, None, code) is cls
        assert status_error_class(status, "something_new", code) is cls


def test_the_first_code_that_is_known_counts():
    assert status_error_class(429, "insufficient_quota", "rate_limit_error") is KeyRejected
