"""What the judge found: a verdict with its evidence per case, and what the cases of a promise come to.

`held` and `broken` are for what was seen. `unseen`: it could not be seen from outside, or did not happen in time.
`idle`: the promise says nothing about this endpoint (bytes cannot pass as they are where they are translated).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from msgspec import Struct

if TYPE_CHECKING:
    from penstock.testing.judge.heard import Heard

Verdict = Literal["held", "broken", "unseen", "idle"]

#: the promises by number, in the words of docs/contract.md
PROMISES = {
    "C1": "One execution",
    "C2": "At once",
    "C3": "Whole and in order",
    "C4": "One true ending",
    "C5": "Nothing beside the stream holds it up",
    "C6": "Metrics from the stream's own end",
    "C7": "Gone is cancelled",
    "C8": "Four clocks",
    "C9": "Two commit points",
    "C10": "Verbatim",
    "C11": "Bounded",
    "C12": "Always a stream",
}


class Finding(Struct, frozen=True):
    promise: str
    case: str
    verdict: Verdict
    evidence: str


class Judgement(Struct, frozen=True):
    """Of one endpoint, in one dialect. `at` is ISO 8601; `asked` counts requests."""

    endpoint: str
    dialect: str
    mode: Literal["endpoint", "gateway"]
    at: str
    penstock: str
    asked: int
    findings: tuple[Finding, ...]
    #: what the gateway asked the simulator in
    upstream_dialect: str | None = None
    command: str | None = None

    def of(self, promise: str) -> list[Finding]:
        return [finding for finding in self.findings if finding.promise == promise]

    def verdict(self, promise: str) -> Verdict:
        """Broken by one case, held by what was seen."""
        verdicts = {finding.verdict for finding in self.of(promise)}
        return next((each for each in ("broken", "held", "unseen") if each in verdicts), "idle")

    @property
    def promises(self) -> list[str]:
        return [promise for promise in PROMISES if self.of(promise)]

    @property
    def broken(self) -> list[str]:
        return [promise for promise in self.promises if self.verdict(promise) == "broken"]

    @property
    def unseen(self) -> list[str]:
        return [promise for promise in self.promises if self.verdict(promise) == "unseen"]


# --- how an answer ended ----------------------------------------------------------------------------------------------


def told(heard: Heard) -> str:
    """How it ended, in a few words."""
    if heard.malformed is not None:
        return f"{_status(heard)}what no client can read: {heard.malformed.message}"
    if heard.status and not 200 <= heard.status < 300:
        return f"status {heard.status}: {short(heard.error.message if heard.error else '')}"
    if heard.end_after_error is not None:
        return f"an error, and after it {heard.end_after_error}"
    if heard.error is not None:
        return f"an error in the stream: {short(heard.error.message)}"
    if heard.looks_whole:
        finish = heard.finish
        reason = f" ({finish.raw_reason or finish.reason})" if finish is not None else ""
        return f"an end as of a whole reply{reason or ' (its terminator)'}"
    match heard.ended:
        case "clean":
            return "a clean end of the body, without an error and without the dialect's end"
        case "cut":
            return "a broken connection, and no word of why"
        case "open":
            return f"nothing more for {heard.ended_at - (heard.reads[-1] if heard.reads else heard.asked_at):.1f} s"
    return "we left"


def is_told_as_failed(heard: Heard) -> bool:
    """Whether a client was told, in its dialect, that this is no whole reply."""
    return heard.error is not None and heard.end_after_error is None and heard.terminators == 0


def of_failure(promise: str, case: str, heard: Heard, sent: str, *, words: str | None = None) -> Finding:
    """A reply that failed upstream: owed are an error in the dialect, nothing after it, and no invented text.

    `words` are the provider's own, which the error must hold.
    """
    evidence = told(heard)
    if not sent.startswith(heard.text):
        return Finding(promise, case, "broken", f"text that was never sent: {short(heard.text)!r}; {evidence}")
    if heard.looks_whole:
        return Finding(promise, case, "broken", f"forged: {evidence}, after {len(heard.text)} letters of {len(sent)}")
    if not is_told_as_failed(heard):
        return Finding(promise, case, "broken", evidence)
    said = heard.error.message if heard.error is not None else ""
    if words is not None and words not in said:
        return Finding(promise, case, "broken", f"{evidence}; the provider's words were {words!r}")
    return Finding(promise, case, "held", evidence)


def of_whole(promise: str, case: str, heard: Heard, sent: str) -> Finding:
    """A reply that is whole: all of the text, one end, no error."""
    if heard.text != sent:
        if heard.looks_whole or heard.is_proved:
            return Finding(promise, case, "broken", f"{short(heard.text)!r} came, not {short(sent)!r}; {told(heard)}")
        return Finding(promise, case, "broken", f"{len(heard.text)} letters of {len(sent)} came; {told(heard)}")
    if not heard.looks_whole:
        return Finding(promise, case, "broken", f"all of the text, and then {told(heard)}")
    if heard.terminators > 1:
        return Finding(promise, case, "broken", f"the end was said {heard.terminators} times")
    return Finding(promise, case, "held", f"all {len(sent)} letters; {told(heard)}")


def short(text: str, length: int = 90) -> str:
    text = " ".join(text.split())
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _status(heard: Heard) -> str:
    return f"status {heard.status}, and " if heard.status else ""
