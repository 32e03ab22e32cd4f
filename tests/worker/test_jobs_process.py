"""Five hundred jobs of every ending, on the real engine: what the worker holds after them is what it held before."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from penstock.testing.smoke.asking import Client, Heard
from penstock.testing.smoke.stream import problem_of
from penstock.worker.events import End, Failure

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.processes import Running

pytestmark = pytest.mark.process

JOBS = 500
TOGETHER = 12
SHORT = {"prompt": "Tell me a story", "max_tokens": 6, "temperature": 0}
LONG = {"prompt": "Write a very long essay about rivers.", "max_tokens": 4000, "temperature": 0}


async def made(client: Client, body: object) -> str:
    answer = await client.send("POST", "/v1/jobs", body)
    assert answer.status == 202, answer.body
    return str(answer.json["job_id"])


async def heard(client: Client, job_id: str) -> Heard:
    return await client.hear("GET", f"/v1/jobs/{job_id}/stream")


async def listed(client: Client) -> list[Any]:
    answer = await client.send("GET", "/v1/jobs")
    return list(answer.json["jobs"])


async def complete(client: Client) -> str:
    one, other = await asyncio.gather(*[heard(client, job_id) for job_id in [await made(client, SHORT)] * 2])
    assert problem_of(one) is None
    assert one.text == other.text
    return "complete"


async def stopped(client: Client) -> str:
    found = await heard(client, await made(client, {**SHORT, "max_tokens": 40, "stop": " upon"}))
    (end,) = found.of(End)
    assert (end.stop_reason, end.stop_sequence_matched) == ("STOP_SEQUENCE", " upon")
    return "stopped"


async def cancelled(client: Client) -> str:
    job_id = await made(client, LONG)
    found = await client.hear("GET", f"/v1/jobs/{job_id}/stream", leave_after=1)
    state = (await client.send("DELETE", f"/v1/jobs/{job_id}")).json["state"]
    again = await heard(client, job_id)
    if state == "complete":  # on a busy machine the reply may be whole before its cancel comes
        assert problem_of(again) is None
        return "cancelled late"
    (failure,) = again.of(Failure)
    assert (found.ended, state, failure.code) == ("left", "cancelled", "CANCELLED")
    return "cancelled"


async def cancelled_at_once(client: Client) -> str:
    job_id = await made(client, LONG)
    assert (await client.send("DELETE", f"/v1/jobs/{job_id}")).json["state"] == "cancelled"
    return "cancelled at once"


async def left(client: Client) -> str:
    found = await client.hear("POST", "/v1/execute", LONG, leave_after=1)
    assert found.started is not None
    return "left"


async def unread(client: Client) -> str:
    await made(client, SHORT)
    return "unread"


async def wrong(client: Client) -> str:
    assert (await client.send("POST", "/v1/jobs", {"prompt": ""})).status == 400
    return "wrong"


async def too_long(client: Client) -> str:
    found = await heard(client, await made(client, {"prompt": "word " * 20_000}))
    (failure,) = found.of(Failure)
    assert failure.code == "CONTEXT_TOO_LONG"
    assert "8192" in failure.message
    return "too long"


ENDINGS: tuple[Callable[[Client], Awaitable[str]], ...] = (
    complete, stopped, cancelled, cancelled_at_once, left, unread, wrong, complete, cancelled, left,
)  # fmt: skip


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def held(pid: int) -> dict[str, int]:
    """Threads and open files of a process and of its engine's."""
    found = {}
    for each in (pid, *children(pid)):
        found[f"threads of {each}"] = len(list(Path(f"/proc/{each}/task").iterdir()))
        found[f"files of {each}"] = len(list(Path(f"/proc/{each}/fd").iterdir()))
    return found


def test_c13_five_hundred_jobs_of_every_ending_leave_no_job_thread_or_slot(worker: Running) -> None:
    async def played(client: Client, count: int) -> Counter[str]:
        room = asyncio.Semaphore(TOGETHER)

        async def one(number: int) -> str:
            async with room:
                if number % 100 == 99:
                    return await too_long(client)
                return await ENDINGS[number % len(ENDINGS)](client)

        return Counter(await asyncio.gather(*(one(number) for number in range(count))))

    async def settled(client: Client) -> None:
        """Nothing runs any more. That a client has left is known when its connection's end has come."""
        while any(job["state"] in ("queued", "running") for job in await listed(client)):  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    async def every_slot_is_free(client: Client) -> None:
        """The engine's own, and those that the worker gives away."""
        while any(slot["is_processing"] for slot in (await client.send("GET", "/slots")).json):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        slots = (await client.send("GET", "/v1/info")).json["slots"]
        for _ in range(slots):
            assert (await client.send("POST", "/v1/jobs", SHORT)).json["position"] == 0

    async def play() -> None:
        async with Client(worker.url, patience_s=60) as client:
            await played(client, 60)
            await settled(client)
            await every_slot_is_free(client)
        before = held(worker.process.pid)
        async with Client(worker.url, patience_s=60) as client:
            counted = await played(client, JOBS)
            assert sum(counted.values()) == JOBS
            assert len(counted - Counter({"cancelled late": JOBS})) == 8
            async with asyncio.timeout(30):
                await settled(client)
            jobs = await listed(client)
            assert len(jobs) <= 256
            assert {job["state"] for job in jobs} == {"complete", "cancelled", "failed"}
            await every_slot_is_free(client)
        async with asyncio.timeout(30):
            while any(count > before[what] for what, count in held(worker.process.pid).items()):  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    asyncio.run(play())
