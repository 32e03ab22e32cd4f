"""The worker's own routes: jobs, and their streams.

    POST   /v1/jobs               a job: 202 with its `job_id`, `stream_url` and `position` in line
    GET    /v1/jobs               all there are
    GET    /v1/jobs/{id}          how one is
    GET    /v1/jobs/{id}/stream   what it says, from its beginning to its end; any number of readers
    DELETE /v1/jobs/{id}          cancel it; one that is over stays as it ended
    POST   /v1/execute            a job and its stream in one; it ends when nobody reads it any more

What is wrong with a request is told at once and whole, before there is a job. One that cannot have a place, because the
line is full or the model is not there yet, is refused with a status. After that a failure is an `error` event.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from penstock.canon.errors import PenstockError, UnknownJob
from penstock.dialects import client_dialect
from penstock.serving.asgi import KEY, ClientGone, read_body, request_id_of, respond
from penstock.serving.connection import connection_of
from penstock.serving.downstream import Downstream
from penstock.serving.route import unless_gone
from penstock.serving.running import running_of
from penstock.streams.handler import Call
from penstock.worker.job import JobInfo, stream_url
from penstock.worker.reader import Reader
from penstock.worker.refusal import refuse_fields, refuse_job
from penstock.worker.request import read_request

if TYPE_CHECKING:
    from collections.abc import Callable

    from penstock.serving.asgi import Receive, Route, Scope, Send
    from penstock.worker.job import Job
    from penstock.worker.jobs import Jobs

JOBS = "/v1/jobs"
_STREAM = "/stream"
_CHAT = "openai-chat"
_HEARTBEAT = b": keep-alive\n\n"


class Submitted(Struct, frozen=True):
    """`position`: places in line before it has a slot; 0: it has one."""

    job_id: str
    stream_url: str
    position: int


class _List(Struct, frozen=True):
    jobs: list[JobInfo]


def job_routes(
    model: str,
    jobs: Jobs,
    *,
    max_body_bytes: int,
    heartbeat_s: float | None,
    now: Callable[[], float] = time.monotonic,
) -> dict[tuple[str, str], Route]:
    """Rows for the worker's table of routes."""
    chat = client_dialect(_CHAT)

    async def submitted(scope: Scope, receive: Receive, send: Send, *, is_bound: bool) -> Job | None:
        """The job that is asked for; None when its client was refused, or has left."""
        request_id = request_id_of(scope)
        try:
            asked = read_request(await read_body(scope, receive, max_body_bytes), model)
            if isinstance(asked, list):
                await refuse_fields(send, asked, request_id)
                return None
            call = Call(
                request_id=request_id,
                model=model,
                stream=True,
                dialect=chat,
                head=chat.read_head(asked),
                body=asked,
                route=scope["path"],
                key=scope.get(KEY),
                now=now,
            )
            return await jobs.submit(call, is_bound=is_bound, running=running_of(scope))
        except ClientGone:
            return None
        except PenstockError as error:
            await refuse_job(send, error, request_id)
            return None

    async def submit(scope: Scope, receive: Receive, send: Send) -> None:
        job = await submitted(scope, receive, send, is_bound=False)
        if job is not None:
            said = Submitted(job.id, stream_url(job.id), job.position)
            headers = [(b"x-request-id", job.request_id.encode()), (b"location", f"{JOBS}/{job.id}".encode())]
            await respond(send, 202, msgspec.json.encode(said), headers)

    async def execute(scope: Scope, receive: Receive, send: Send) -> None:
        job = await submitted(scope, receive, send, is_bound=True)
        if job is not None:
            await read(job, job.request_id, scope, receive, send)

    async def read(job: Job, request_id: str, scope: Scope, receive: Receive, send: Send) -> None:
        call = Call(request_id=request_id, model=model, stream=True, route=scope["path"], now=now)
        down = Downstream(
            send,
            call,
            content_type="text/event-stream",
            heartbeat=_HEARTBEAT,
            heartbeat_s=heartbeat_s,
            connection=connection_of(scope),
        )
        # A server that ends stops the job, which says so: its readers then come to its end by themselves.
        await unless_gone(call, Reader(job, down, call.sent).read(), scope, receive, is_stopped=False)

    async def everyone(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, 200, msgspec.json.encode(_List([job.info for job in jobs])))

    async def named(scope: Scope, send: Send) -> Job | None:
        """The job of this path; None when its client was told that there is none."""
        try:
            return jobs.find(scope["path"].removeprefix(f"{JOBS}/").removesuffix(_STREAM))
        except UnknownJob as error:
            await refuse_job(send, error, request_id_of(scope))
            return None

    async def get(scope: Scope, receive: Receive, send: Send) -> None:
        job = await named(scope, send)
        if job is not None and scope["path"].endswith(_STREAM):
            await read(job, request_id_of(scope), scope, receive, send)
        elif job is not None:
            await respond(send, 200, msgspec.json.encode(job.info))

    async def delete(scope: Scope, receive: Receive, send: Send) -> None:
        job = await named(scope, send)
        if job is not None:
            job.cancel()
            await job.over.wait()  # its slot is free when this is answered
            await respond(send, 200, msgspec.json.encode(job.info))

    return {
        ("POST", JOBS): submit,
        ("GET", JOBS): everyone,
        ("GET", f"{JOBS}/"): get,
        ("DELETE", f"{JOBS}/"): delete,
        ("POST", "/v1/execute"): execute,
    }
