"""A job's stream as it should be: what is wrong with one that was heard, in a few words; None where nothing is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.worker.events import End, Failure, Metrics, Narration, Started, Token

if TYPE_CHECKING:
    from penstock.testing.smoke.asking import Heard


def problem_of(heard: Heard) -> str | None:
    """What is wrong with a stream that should be whole; None: nothing."""
    return disorder(heard) or ending(heard) or last_word(heard)


def disorder(heard: Heard) -> str | None:
    """Of its events: their form, their order, their numbers, and whose they are."""
    if heard.malformed is not None:
        return f"an event cannot be read: {heard.malformed}"
    if not heard.events:
        return f"status {heard.status}, and not one event"
    kinds = [type(each.event) for each in heard.events]
    if kinds.count(Started) != 1 or kinds[0] is not Started:
        return f"{kinds.count(Started)} started events, the first event is {kinds[0].__name__.lower()}"
    if [token.i for token in heard.tokens] != list(range(len(heard.tokens))):
        return "the tokens are not numbered 0, 1, 2 and so on"
    started = heard.events[0].event
    assert isinstance(started, Started)
    if any(each.job_id != started.job_id for each in heard.narrations):
        return "a narration is another job's"
    if Token in kinds and Narration in kinds[kinds.index(Token) :]:
        return "a narration came after the first token"
    if Metrics in kinds and Token in kinds and kinds.index(Metrics) < kinds.index(Token):
        return "metrics came before the first token"
    return None


def ending(heard: Heard) -> str | None:
    ends, failures = heard.of(End), heard.of(Failure)
    if failures:
        return f"{len(failures)} errors ({failures[0].code}: {failures[0].message}), {len(ends)} ends"
    if len(ends) != 1:
        return f"{len(ends)} ends; its connection is {heard.ended}"
    if not isinstance(heard.events[-1].event, End):
        return f"{kind(heard.events[-1].event)} came after the end"
    return None


def last_word(heard: Heard) -> str | None:
    if heard.dones != 1 or heard.after_done:
        return f"{heard.dones} times, {heard.after_done} events after it"
    if heard.ended != "clean":
        return f"the stream is {heard.ended} after it"
    return None


def kind(event: object) -> str:
    return type(event).__name__.lower()
