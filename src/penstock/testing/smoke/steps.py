"""What the smoke test tries, in order: each step is a promise of the worker's page, and tells what showed it.

A step returns its evidence, or raises `Broken`. Without a worker that answers, has its model and takes a job, the rest
is not tried. It leaves no job behind: those that it did not see to their end are cancelled.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct

from penstock.canon.errors import PenstockError
from penstock.canon.wire import ConnectionLost
from penstock.testing.smoke.asking import Answer, Heard
from penstock.testing.smoke.stream import disorder, ending, kind, last_word, problem_of
from penstock.worker.events import End, Failure, Started, Token

if TYPE_CHECKING:
    from penstock.testing.smoke.asking import Client

PROMPT = "Tell me a story."
LONG_PROMPT = "Write a very long essay about rivers."
MAX_TOKENS = 64
LONG_MAX_TOKENS = 4000
FIRST_EVENT_S = 1.0
TOGETHER = 8
#: jobs that are made and cancelled at once: more than a worker of this size has slots
LEAKS = 12
#: after a client has left, its job is to be over within this
GONE_S = 1.0
POLL_S = 0.05
#: of a reply that took longer than this, the pieces must come in its course
TELLING_S = 0.05
#: in wrong requests, and never in an answer
MARKER = "penstock-smoke-test-marker"

Verdict = Literal["ok", "failed", "not tried"]


class Broken(Exception):
    """What was seen instead of what was promised."""


class Step(Struct, frozen=True):
    """One row: what was tried, whether it held, what was seen, how long it took."""

    name: str
    verdict: Verdict
    seen: str
    took_s: float


class Trial:
    """One run against one worker. `show` is given the first job's text as it comes."""

    def __init__(self, client: Client, *, show: Callable[[str], None] | None = None) -> None:
        self.client = client
        self.patience_s = client.patience_s
        self.show = show
        self.story = Heard(0.0)
        self.made: list[str] = []
        self.submitted_at = 0.0

    async def submit(self, prompt: str = PROMPT, max_tokens: int = MAX_TOKENS) -> tuple[str, Any]:
        """A job's id, and its answer. Raises `Broken` where there is none."""
        self.submitted_at = time.monotonic()
        answer = await self.client.send(
            "POST", "/v1/jobs", {"prompt": prompt, "max_tokens": max_tokens, "temperature": 0}
        )
        said = answer.json
        if not 200 <= answer.status < 300 or not isinstance(said, dict) or not isinstance(said.get("job_id"), str):
            raise Broken(f"POST /v1/jobs: {_status(answer)}")
        self.made.append(said["job_id"])
        return said["job_id"], said

    async def state(self, job_id: str) -> str:
        answer = await self.client.send("GET", f"/v1/jobs/{job_id}")
        said = answer.json
        if answer.status != 200 or not isinstance(said, dict):
            raise Broken(f"GET /v1/jobs/{{id}}: {_status(answer)}")
        return str(said.get("state"))

    async def cancel(self, job_id: str) -> Answer:
        return await self.client.send("DELETE", f"/v1/jobs/{job_id}")


# --- it is there ------------------------------------------------------------------------------------------------------


async def health(trial: Trial) -> str:
    answer = await trial.client.send("GET", "/health")
    said = answer.json
    if answer.status != 200 or not isinstance(said, dict):
        raise Broken(f"GET /health: {_status(answer)}")
    if said.get("status") == "failed":
        raise Broken("its model could not be loaded")
    return f"{said.get('status')}, model {said.get('model')}, {answer.took_s * 1e3:.0f} ms"


async def ready(trial: Trial) -> str:
    began = time.monotonic()
    while True:
        answer = await trial.client.send("GET", "/ready")
        if answer.status == 200:
            return f"after {time.monotonic() - began:.1f} s"
        if answer.status != 503:
            raise Broken(f"GET /ready: {_status(answer)}")
        if time.monotonic() - began > trial.patience_s:
            raise Broken(f"not within {trial.patience_s:g} s: {_status(answer)}")
        await asyncio.sleep(POLL_S)


# --- one job ----------------------------------------------------------------------------------------------------------


async def job(trial: Trial) -> str:
    job_id, said = await trial.submit()
    url = said.get("stream_url")
    if not isinstance(url, str) or not url.startswith("/"):
        raise Broken(f"its stream_url is {url!r}")
    if not isinstance(said.get("position"), int):
        raise Broken("its place in line is not told")
    heard = trial.story = Heard(trial.submitted_at)
    await trial.client.hear("GET", url, heard=heard, show=trial.show)
    if heard.status != 200 or not heard.events:
        raise Broken(f"its stream: status {heard.status}, {len(heard.events)} events")
    if heard.started is not None and heard.started.job_id != job_id:
        raise Broken("its stream is another job's")
    return f"{len(heard.tokens)} tokens, {len(heard.events)} events"


async def first_event(trial: Trial) -> str:
    first = trial.story.events[0]
    after_s = first.at - trial.story.asked_at
    if not isinstance(first.event, Started):
        raise Broken(f"the first event is {kind(first.event)}, not started")
    if after_s > FIRST_EVENT_S:
        raise Broken(f"after {after_s:.2f} s")
    return f"started after {after_s * 1e3:.0f} ms"


async def tokens_as_they_come(trial: Trial) -> str:
    """In the course of the reply, and not all at its end."""
    came = [each for each in trial.story.events if isinstance(each.event, Token)]
    if not came:
        raise Broken("there was no token")
    reads, span_s = len({each.read for each in came}), came[-1].at - came[0].at
    decode_s = next(((end.decode_time_ms or 0) / 1e3 for end in trial.story.of(End)), 0.0)
    seen = f"{len(came)} tokens in {reads} reads over {span_s * 1e3:.0f} ms"
    if decode_s >= TELLING_S and span_s < decode_s / 3:
        raise Broken(f"{seen}, and it took {decode_s * 1e3:.0f} ms to make them")
    return seen


async def in_order(trial: Trial) -> str:
    problem = disorder(trial.story)
    if problem is not None:
        raise Broken(problem)
    count = len(trial.story.narrations)
    return f"{len(trial.story.tokens)} numbers, {count} narrations before the first token"


async def one_end(trial: Trial) -> str:
    problem = ending(trial.story)
    if problem is not None:
        raise Broken(problem)
    (end,) = trial.story.of(End)
    return f"{end.stop_reason}, {end.tokens_out} tokens, in {end.total_time_ms:.0f} ms"


async def done(trial: Trial) -> str:
    problem = last_word(trial.story)
    if problem is not None:
        raise Broken(problem)
    return "once, and nothing after it"


async def read_again(trial: Trial) -> str:
    again = await trial.client.hear("GET", f"/v1/jobs/{trial.made[0]}/stream")
    if again.text != trial.story.text or problem_of(again) is not None:
        raise Broken(problem_of(again) or f"{len(again.tokens)} tokens, not the same ones")
    return f"the same {len(again.tokens)} tokens"


# --- what is wrong ----------------------------------------------------------------------------------------------------


async def refusals(trial: Trial) -> str:
    wrong = await trial.client.send("POST", "/v1/jobs", {"prompt": MARKER, "max_tokens": 0, "temperature": "hot"})
    error = wrong.json.get("error") if isinstance(wrong.json, dict) else None
    if wrong.status != 400 or not isinstance(error, dict):
        raise Broken(f"a wrong request: {_status(wrong)}")
    fields = {each.get("field") for each in error.get("errors") or () if isinstance(each, dict)}
    if not {"max_tokens", "temperature"} <= fields:
        raise Broken(f"of two wrong fields it told {', '.join(sorted(map(str, fields))) or 'none'}")
    if MARKER in wrong.body.decode("utf-8", "replace"):
        raise Broken("the answer to a wrong request repeats the prompt")
    for method, path in (("GET", ""), ("GET", "/stream"), ("DELETE", "")):
        unknown = await trial.client.send(method, f"/v1/jobs/{MARKER}{path}")
        if unknown.status != 404:
            raise Broken(f"{method} of an unknown job: {_status(unknown)}")
    return "two wrong fields told at once, an unknown job is 404"


# --- jobs that end otherwise ------------------------------------------------------------------------------------------


async def cancel(trial: Trial) -> str:
    # A model that ends by itself at once is cancelled before its first token.
    seen = await _cancelled(trial, at_once=False) or await _cancelled(trial, at_once=True)
    if seen is None:
        raise Broken("each job was over before it could be cancelled")
    return seen


async def _cancelled(trial: Trial, *, at_once: bool) -> str | None:
    """One job, cancelled at its first token, or before it. None: it was over before that."""
    job_id, said = await trial.submit(LONG_PROMPT, LONG_MAX_TOKENS)
    heard, begun = Heard(time.monotonic()), asyncio.Event()
    hearing = trial.client.hear("GET", str(said["stream_url"]), heard=heard, show=lambda token: begun.set())
    listening = asyncio.ensure_future(hearing)
    listening.add_done_callback(lambda heard: begun.set())
    try:
        if not at_once:
            await begun.wait()
        began = time.monotonic()
        first = await trial.cancel(job_id)
        took_s = time.monotonic() - began
        await listening
    finally:
        listening.cancel()
    if first.status != 200:
        raise Broken(f"DELETE /v1/jobs/{{id}}: {_status(first)}")
    second = await trial.cancel(job_id)
    if second.status != 200:
        raise Broken(f"a second cancel: {_status(second)}")
    state = first.json.get("state") if isinstance(first.json, dict) else None
    if state == "complete":
        return None
    if state != "cancelled":
        raise Broken(f"its state is {state} after the cancel")
    failures = heard.of(Failure)
    if [each.code for each in failures] != ["CANCELLED"] or heard.of(End) or last_word(heard) is not None:
        told = ", ".join(each.code for each in failures) or "no error"
        raise Broken(f"its stream told {told} and {len(heard.of(End))} ends; its connection is {heard.ended}")
    return f"after {len(heard.tokens)} tokens, in {took_s * 1e3:.0f} ms; a second cancel is answered, too"


async def client_leaves(trial: Trial) -> str:
    body = {"prompt": LONG_PROMPT, "max_tokens": LONG_MAX_TOKENS, "temperature": 0}
    heard = await trial.client.hear("POST", "/v1/execute", body, leave_after=1)
    began = time.monotonic()
    if heard.started is None:
        raise Broken(f"POST /v1/execute: status {heard.status}, {len(heard.events)} events")
    trial.made.append(heard.started.job_id)
    while (state := await trial.state(heard.started.job_id)) in ("queued", "running"):
        if time.monotonic() - began > GONE_S:
            raise Broken(f"its job is still {state} {GONE_S:g} s after its client has left")
        await asyncio.sleep(POLL_S / 5)
    return f"its job is {state} after {(time.monotonic() - began) * 1e3:.0f} ms"


async def together(trial: Trial) -> str:
    began = time.monotonic()
    made = [await trial.submit() for _ in range(TOGETHER)]
    waited = sum(said.get("position", 0) > 0 for _, said in made)
    heard = await asyncio.gather(*(trial.client.hear("GET", str(said["stream_url"])) for _, said in made))
    for (job_id, _), each in zip(made, heard, strict=True):
        problem = problem_of(each)
        if problem is not None:
            raise Broken(f"of {TOGETHER} jobs one: {problem}")
        if each.started is None or each.started.job_id != job_id:
            raise Broken("a stream is another job's")
    took_s = time.monotonic() - began
    return f"{TOGETHER} jobs at the same time, {waited} in line, each with one end, in {took_s:.1f} s"


async def leak(trial: Trial) -> str:
    """Slots that were not given back would keep the last job waiting."""
    for _ in range(LEAKS):
        job_id, _ = await trial.submit(LONG_PROMPT, LONG_MAX_TOKENS)
        await trial.cancel(job_id)
    _, said = await trial.submit()
    heard = await trial.client.hear("GET", str(said["stream_url"]))
    if (problem := problem_of(heard)) is not None:
        raise Broken(f"after {LEAKS} jobs were cancelled, the next: {problem}")
    answer = await trial.client.send("GET", "/v1/jobs")
    listed = answer.json.get("jobs") if isinstance(answer.json, dict) else None
    if answer.status != 200 or not isinstance(listed, list):
        raise Broken(f"GET /v1/jobs: {_status(answer)}")
    left = [each for each in listed if each.get("job_id") in trial.made and each.get("state") in ("queued", "running")]
    if left:
        raise Broken(f"{len(left)} of {len(trial.made)} jobs are still {left[0].get('state')}")
    return f"none of {len(trial.made)} jobs is left, and the next had its slot"


Tried = Callable[[Trial], Awaitable[str]]

#: name, step, and whether the rest needs it
STEPS: tuple[tuple[str, Tried, bool], ...] = (
    ("health", health, True),
    ("ready", ready, True),
    ("a job", job, True),
    (f"first event under {FIRST_EVENT_S:g} s", first_event, False),
    ("tokens as they come", tokens_as_they_come, False),
    ("in order", in_order, False),
    ("exactly one end", one_end, False),
    ("[DONE]", done, False),
    ("read again", read_again, False),
    ("wrong requests", refusals, False),
    ("cancel", cancel, False),
    ("a client that leaves", client_leaves, False),
    ("concurrency", together, False),
    ("leak", leak, False),
)


async def try_worker(
    client: Client, *, show: Callable[[str], None] | None = None, progress: Callable[[str], None] = lambda name: None
) -> list[Step]:
    """Every step's row. `progress` is given the name of each step before it is tried."""
    trial = Trial(client, show=show)
    rows: list[Step] = []
    missing: str | None = None
    for name, step, is_needed in STEPS:
        if missing is not None:
            rows.append(Step(name, "not tried", f"{missing} failed", 0.0))
            continue
        progress(name)
        began = time.monotonic()
        verdict: Verdict = "failed"
        try:
            seen = await step(trial)
            verdict = "ok"
        except Broken as broken:
            seen = str(broken)
        except TimeoutError:
            seen = f"no answer within {trial.patience_s:g} s"
        except (PenstockError, ConnectionLost) as error:
            seen = str(error)
        rows.append(Step(name, verdict, seen, time.monotonic() - began))
        if verdict == "failed" and is_needed:
            missing = name
    await _tidy(trial)
    return rows


async def _tidy(trial: Trial) -> None:
    for job_id in trial.made:
        try:
            if await trial.state(job_id) in ("queued", "running"):
                await trial.cancel(job_id)
        except (Broken, PenstockError, ConnectionLost, TimeoutError):
            return  # who cannot be asked cannot be tidied either


def _status(answer: Answer) -> str:
    said = answer.json
    error = said.get("error") if isinstance(said, dict) else None
    message = error.get("message") if isinstance(error, dict) else None
    return f"status {answer.status}" + (f", {message}" if isinstance(message, str) else "")
