"""Jobs: made, read by any number, cancelled, kept for a while, and gone without a trace. The clock costs no time."""

from __future__ import annotations

import asyncio
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from penstock.canon.errors import Cancelled, Overloaded
from penstock.dialects import client_dialect
from penstock.streams.handler import Call
from penstock.transport.memory import Break, Hang, Pause, Reply
from penstock.worker import job as job_module
from penstock.worker.reader import PIECE_BYTES
from tests.virtual_clock import now, on_virtual_time
from tests.worker.scripted import END, Bench, paced, progress, reply, token

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from penstock.streams.handler import Batches, Handler, Layer, Stage
    from penstock.streams.stream import EventStream
    from tests.worker.scripted import Client

WORDS = ["Once ", "upon ", "a ", "time."]
STORY = "".join(WORDS)


# --- one job ---------------------------------------------------------------------------------------------------------


@on_virtual_time
async def test_a_job_is_made_and_its_stream_read():
    bench = Bench(paced(WORDS))
    made = await bench.ask("POST", "/v1/jobs", {"prompt": "hi"})
    assert made.status == 202
    job_id = made.json["job_id"]
    assert made.json == {"job_id": job_id, "stream_url": f"/v1/jobs/{job_id}/stream", "position": 0}
    assert made.headers[b"location"] == f"/v1/jobs/{job_id}".encode()
    reader = bench.listen(job_id)
    started, *_, metrics, end, done = await reader.ended()
    assert (started["type"], started["job_id"], started["model"]) == ("started", job_id, "m")
    assert reader.text == STORY
    assert (metrics["type"], end["type"], done) == ("metrics", "end", "[DONE]")
    assert (end["stop_reason"], end["tokens_out"], end["queued_ms"]) == ("EOS", 4, 0)
    assert end["total_time_ms"] == pytest.approx(400)


@on_virtual_time
async def test_c2_a_token_is_written_in_the_moment_that_it_came():
    for connected in (False, True):
        bench = Bench(paced(WORDS))
        reader = bench.listen(await bench.submit(), connected=connected)
        came = now()
        await reader.ended()
        assert [at - reader.moments("started")[0] for at in reader.moments("token")] == pytest.approx(
            [0.1, 0.2, 0.3, 0.4]
        )
        assert now() - came == pytest.approx(0.4)


@on_virtual_time
async def test_c3_who_joins_late_reads_what_it_missed_and_then_goes_on():
    bench = Bench(paced(WORDS))
    job_id = await bench.submit()
    await asyncio.sleep(0.25)
    reader = bench.listen(job_id)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert reader.kinds == ["started", "token", "token"]
    await reader.ended()
    assert reader.text == STORY
    assert reader.kinds[-3:] == ["metrics", "end", "[DONE]"]


@on_virtual_time
async def test_a_job_that_is_over_can_be_read_again():
    bench = Bench(paced(WORDS))
    job_id = await bench.submit()
    first = await bench.listen(job_id).ended()
    again = await bench.listen(job_id).ended()
    assert again == [event for event in first if event == "[DONE]" or event["type"] != "narration"]


@on_virtual_time
async def test_many_read_one_job_which_runs_once():
    bench = Bench(paced(WORDS))
    job_id = await bench.submit()
    readers = []
    for number in range(20):
        readers.append(bench.listen(job_id, connected=number % 2 == 0))
        await asyncio.sleep(0.03)
    for reader in readers:
        await reader.ended()
        assert reader.text == STORY
        assert reader.kinds.count("end") == 1
    assert len(bench.transport.requests) == 1


@on_virtual_time
async def test_a_reader_that_does_not_read_holds_up_neither_the_job_nor_another():
    bench = Bench(paced(WORDS))
    job_id = await bench.submit()
    slow, quick = bench.listen(job_id, connected=True), bench.listen(job_id, connected=True)
    await asyncio.sleep(0.15)
    slow.reads.clear()
    await quick.ended()
    assert quick.text == STORY
    assert quick.moments("token") == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert bench.busy == 0
    assert slow.kinds.count("token") < 4
    slow.reads.set()
    await slow.ended()
    assert slow.text == STORY


@example(turns=[], flips=[True, False] * 10, connected=True, together=1)
@given(
    st.lists(st.tuples(st.floats(0, 0.3), st.booleans()), max_size=12),
    st.lists(st.booleans(), max_size=20),
    st.booleans(),
    st.integers(1, 3),
)
def test_c3_however_a_client_reads_it_reads_each_token_once_and_in_order(
    turns: list[tuple[float, bool]], flips: list[bool], connected: bool, together: int
) -> None:
    """`turns`: when it begins and stops to read; `flips`: the same, between two reads of one turn of the loop."""

    @on_virtual_time
    async def play() -> None:
        steps: list[Any] = []
        for number in range(20):
            if number % 4 == 0:
                steps += [Pause(0.2), progress(1, 2)]
            steps.append(b"".join(token(f"{number}.{k} ") for k in range(together)))
        readers: list[Client] = []
        left = list(flips)

        async def flipping(batches: Batches) -> Batches:
            async for batch in batches:
                if left and readers:
                    (readers[0].reads.set if left.pop() else readers[0].reads.clear)()
                yield batch

        bench = Bench(reply(*steps, *END), staged(flipping), heartbeat_s=0.02)
        reader = bench.listen(await bench.submit(), connected=connected)
        readers.append(reader)
        for wait_s, reads in turns:
            await asyncio.sleep(wait_s)
            (reader.reads.set if reads else reader.reads.clear)()
        (job,) = bench.jobs
        await job.over.wait()
        reader.reads.set()
        await reader.ended()
        assert reader.text == "".join(f"{number}.{k} " for number in range(20) for k in range(together))
        assert reader.kinds[-2:] == ["end", "[DONE]"]

    play()


def staged(stage: Stage) -> Layer:
    """A layer that puts a stage round each stream."""

    def layer(inner: Handler) -> Handler:
        @asynccontextmanager
        async def handle(call: Call) -> AsyncIterator[EventStream]:
            async with inner(call) as stream:
                stream.through(stage)
                yield stream

        return handle

    return layer


@on_virtual_time
async def test_what_a_late_reader_is_given_is_cut_between_events():
    words = [f"{'x' * 300}{number} " for number in range(1000)]
    bench = Bench(reply(*(token(word) for word in words), *END))
    job_id = await bench.submit()
    await asyncio.sleep(1)
    reader = bench.listen(job_id)
    await reader.ended()
    assert reader.text == "".join(words)
    assert len(reader.pieces) > 4
    assert all(piece.endswith(b"\n\n") and len(piece) <= PIECE_BYTES for _, piece in reader.pieces)


@on_virtual_time
async def test_one_token_may_be_larger_than_what_a_reader_is_given_at_once():
    bench = Bench(reply(token("x" * 3 * PIECE_BYTES), token("y"), *END))
    job_id = await bench.submit()
    await asyncio.sleep(1)
    reader = bench.listen(job_id)
    await reader.ended()
    assert reader.text == "x" * 3 * PIECE_BYTES + "y"


@on_virtual_time
async def test_metrics_come_each_second_even_while_no_token_does():
    bench = Bench(reply(token("a"), Pause(3.5), token("b"), *END))
    reader = bench.listen(await bench.submit(), connected=True)
    await reader.ended()
    assert reader.moments("metrics") == pytest.approx([1, 2, 3, 3.5])
    assert [event["tokens_out"] for event in reader.of("metrics")] == [1, 1, 1, 2]
    assert reader.of("metrics")[0]["tokens_per_sec"] is None
    assert reader.of("metrics")[-1]["tokens_per_sec"] == pytest.approx(1 / 3.5)


@on_virtual_time
async def test_heartbeats_while_the_engine_thinks():
    bench = Bench(reply(Pause(5), token("a"), *END), heartbeat_s=2)
    reader = bench.listen(await bench.submit())
    await reader.ended()
    assert reader.body.count(b": keep-alive\n\n") == 2
    assert [record.heartbeats for record in bench.records] == [2]


@on_virtual_time
async def test_c4_every_ending_is_told_once():
    broken = b'data: {"error":{"message":"no memory","type":"server_error","code":500}}\n\n'
    endings: dict[tuple[Any, ...], tuple[str, bool]] = {
        (Break(),): ("INFERENCE_FAILED", True),
        (broken, *END): ("INFERENCE_FAILED", True),
        (): ("INFERENCE_FAILED", True),
    }
    for steps, (code, retriable) in endings.items():
        bench = Bench(reply(token("a"), *steps))
        job_id = await bench.submit()
        reader = bench.listen(job_id)
        await reader.ended()
        assert reader.kinds[-2:] == ["error", "[DONE]"]
        (error,) = reader.of("error")
        assert (error["code"], error["retriable"]) == (code, retriable)
        info = (await bench.ask("GET", f"/v1/jobs/{job_id}")).json
        assert (info["state"], info["error"]["code"], info["tokens_out"]) == ("failed", code, 1)
        assert bench.busy == 0


@on_virtual_time
async def test_a_job_that_says_too_much_is_ended(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(job_module, "MAX_LOG_BYTES", 2000)
    bench = Bench(reply(*(token("word ") for _ in range(500)), *END))
    reader = bench.listen(await bench.submit())
    await reader.ended()
    assert reader.of("error")[0]["message"] == "The job said more than 2000 bytes. Set max_tokens."
    assert bench.transport.responses[0].ended == "aborted"


@on_virtual_time
async def test_a_fault_of_our_own_ends_the_job_truly(caplog: pytest.LogCaptureFixture):
    async def breaking(batches: Batches) -> Batches:
        async for batch in batches:
            yield batch
            raise ZeroDivisionError

    bench = Bench(paced(WORDS), staged(breaking))
    *_, error, done = await bench.listen(await bench.submit()).ended()
    assert (error["code"], error["message"], done) == ("INFERENCE_FAILED", "The worker failed.", "[DONE]")
    assert bench.busy == 0
    assert "A job failed in the worker itself." in caplog.text


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/execute"])
def test_c9_what_fails_before_there_is_a_job_is_a_status(path: str) -> None:
    """As a worker does that refuses calls while its model loads."""

    def refusing(inner: Handler) -> Handler:
        def handle(call: Call) -> Any:
            raise Overloaded("The model m is loading.", status=503, retry_after_s=7)

        return handle

    @on_virtual_time
    async def play() -> None:
        bench = Bench(paced(WORDS), refusing)
        refused = await bench.ask("POST", path, {"prompt": "hi"})
        assert (refused.status, refused.headers[b"retry-after"]) == (503, b"7")
        error = refused.json["error"]
        assert (error["code"], error["message"], error["retriable"]) == (
            "ENGINE_UNAVAILABLE",
            "The model m is loading.",
            True,
        )
        assert list(bench.jobs) == []
        assert bench.jobs.live == 0
        assert [record.http_status for record in bench.records] == [503]

    play()


# --- the line for a slot ---------------------------------------------------------------------------------------------


@on_virtual_time
async def test_jobs_wait_in_line_and_are_told_where_they_stand():
    bench = Bench(paced(WORDS), slots=1)
    made = [(await bench.ask("POST", "/v1/jobs", {"prompt": "hi"})).json for _ in range(3)]
    assert [each["position"] for each in made] == [0, 1, 2]
    assert [job.state for job in bench.jobs] == ["running", "queued", "queued"]
    last = bench.listen(made[2]["job_id"])
    await last.ended()
    assert [event["human"] for event in last.of("narration")] == ["queued 2 of 2", "queued 1 of 1", "slot acquired"]
    assert [event["done"] for event in last.of("narration")] == [2, 1, None]
    assert {event["job_id"] for event in last.of("narration")} == {made[2]["job_id"]}
    assert last.of("end")[0]["queued_ms"] == pytest.approx(800)


@on_virtual_time
async def test_one_more_than_the_line_takes_is_refused_and_leaves_no_job():
    bench = Bench(paced(WORDS), slots=1, queue=1)
    await bench.submit()
    await bench.submit()
    for path in ("/v1/jobs", "/v1/execute"):
        refused = await bench.ask("POST", path, {"prompt": "hi"})
        assert refused.status == 429
        assert int(refused.headers[b"retry-after"]) >= 1
        error = refused.json["error"]
        assert (error["code"], error["retriable"]) == ("SATURATED", True)
    assert len((await bench.ask("GET", "/v1/jobs")).json["jobs"]) == 2
    assert [record.http_status for record in bench.records] == [429, 429]
    await bench.stop()


# --- cancelling ------------------------------------------------------------------------------------------------------


@on_virtual_time
async def test_c7_a_job_that_is_cancelled_frees_its_slot_and_says_so_once():
    bench = Bench(reply(token("a"), Hang()))
    job_id = await bench.submit()
    reader = bench.listen(job_id)
    await asyncio.sleep(0.1)
    assert bench.busy == 1
    cancelled = await bench.ask("DELETE", f"/v1/jobs/{job_id}")
    assert (cancelled.status, cancelled.json["state"]) == (200, "cancelled")
    assert bench.busy == 0
    assert bench.transport.responses[0].ended == "aborted"
    *_, error, done = await reader.ended()
    assert (error["code"], error["retriable"], done) == ("CANCELLED", False, "[DONE]")
    assert [(record.outcome, record.http_status) for record in bench.records] == [("cancelled", 202)]


@on_virtual_time
async def test_a_second_cancel_is_answered_as_the_first():
    bench = Bench(reply(token("a"), Hang()))
    job_id = await bench.submit()
    first, second = await asyncio.gather(*(bench.ask("DELETE", f"/v1/jobs/{job_id}") for _ in range(2)))
    third = await bench.ask("DELETE", f"/v1/jobs/{job_id}")
    assert first.status == second.status == third.status == 200
    assert first.json == second.json == third.json
    assert first.json["state"] == "cancelled"


@on_virtual_time
async def test_a_job_that_waits_in_line_can_be_cancelled_there():
    bench = Bench(reply(token("a"), Hang()), slots=1)
    await bench.submit()
    second, third = await bench.submit(), await bench.submit()
    cancelled = await bench.ask("DELETE", f"/v1/jobs/{second}")
    assert cancelled.json["state"] == "cancelled"
    assert (await bench.ask("GET", f"/v1/jobs/{third}")).json["position"] == 1
    assert len(bench.transport.requests) == 1
    await bench.stop()


@on_virtual_time
async def test_a_job_that_is_over_stays_as_it_ended():
    bench = Bench(paced(WORDS))
    job_id = await bench.submit()
    await bench.listen(job_id).ended()
    assert (await bench.ask("DELETE", f"/v1/jobs/{job_id}")).json["state"] == "complete"
    assert (await bench.listen(job_id).ended())[-2]["type"] == "end"


@on_virtual_time
async def test_a_job_that_is_cancelled_before_it_has_begun_ends_too():
    bench = Bench(paced(WORDS))
    call = Call(request_id="r", model="m", stream=True, now=now)
    submitting = asyncio.create_task(bench.jobs.submit(call, is_bound=False))
    await asyncio.sleep(0)
    (job,) = bench.jobs
    job.cancel()  # its task has not run yet
    with pytest.raises(Cancelled):
        await submitting
    assert job.is_over
    assert (bench.jobs.live, list(bench.jobs), bench.records) == (0, [], [])


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/jobs/job_x"),
        ("GET", "/v1/jobs/job_x/stream"),
        ("DELETE", "/v1/jobs/job_x"),
        ("GET", "/v1/jobs/a/b"),
    ],
)
def test_an_unknown_job_is_one_sentence(method: str, path: str) -> None:
    @on_virtual_time
    async def play() -> None:
        answered = await Bench(paced(WORDS)).ask(method, path)
        error = answered.json["error"]
        assert (answered.status, error["code"], error["retriable"]) == (404, "UNKNOWN_JOB", False)
        assert error["message"].startswith("There is no job ")

    play()


@on_virtual_time
async def test_a_reader_that_leaves_ends_no_job():
    bench = Bench(paced(WORDS))
    job_id = await bench.submit()
    reader = bench.listen(job_id)
    await asyncio.sleep(0.15)
    reader.leave()
    await reader.ended()
    assert "end" not in reader.kinds
    again = bench.listen(job_id)
    await again.ended()
    assert again.text == STORY


@on_virtual_time
async def test_c7_the_client_of_execute_leaves_and_its_job_is_cancelled():
    for connected in (False, True):
        bench = Bench(paced(WORDS))
        client = bench.client(connected=connected)
        client.begin("POST", "/v1/execute", {"prompt": "hi"})
        await asyncio.sleep(0.15)
        left = now()
        client.leave()
        await client.ended()
        (job,) = bench.jobs
        await job.over.wait()
        assert now() == left
        assert job.state == "cancelled"
        assert bench.transport.responses[0].ended == "aborted"
        assert [record.outcome for record in bench.records] == ["cancelled"]


@on_virtual_time
async def test_execute_lives_as_long_as_somebody_reads_it():
    bench = Bench(paced(WORDS))
    client = bench.client()
    client.begin("POST", "/v1/execute", {"prompt": "hi"})
    await asyncio.sleep(0.15)
    (job,) = bench.jobs
    other = bench.listen(job.id)
    await asyncio.sleep(0)
    client.leave()
    await other.ended()
    assert other.text == STORY
    assert job.state == "complete"


@on_virtual_time
async def test_the_record_of_a_job():
    bench = Bench(paced(WORDS))
    for path in ("/v1/execute", "/v1/jobs"):
        client = bench.client()
        client.begin("POST", path, {"prompt": "hi"})
        await client.ended()
        await asyncio.sleep(1)
    execute, job = bench.records
    assert (execute.outcome, execute.http_status, execute.route) == ("complete", 200, "/v1/execute")
    assert (job.outcome, job.http_status, job.route) == ("complete", 202, "/v1/jobs")
    assert execute.bytes_out == len(next(iter(bench.jobs)).log)
    assert execute.chunks == 4


# --- an end of the worker --------------------------------------------------------------------------------------------


@on_virtual_time
async def test_a_worker_that_ends_tells_every_reader():
    bench = Bench(reply(token("a"), Hang()), slots=1)
    ids = [await bench.submit() for _ in range(3)]
    readers = [bench.listen(job_id) for job_id in ids]
    await asyncio.sleep(0.1)
    await bench.stop()
    for reader in readers:
        *_, error, done = await reader.ended()
        assert (error["code"], error["retriable"], done) == ("SHUTTING_DOWN", True, "[DONE]")
    assert bench.busy == 0


@on_virtual_time
async def test_a_drain_that_is_over_stops_the_jobs_and_their_readers_come_to_the_end():
    bench = Bench(reply(token("a"), Hang()))
    client = bench.client()
    client.begin("POST", "/v1/execute", {"prompt": "hi"})
    await asyncio.sleep(0.1)
    running = bench.app.running
    assert len(running) == 1
    running.stop()
    *_, error, done = await client.ended()
    assert (error["code"], done) == ("SHUTTING_DOWN", "[DONE]")
    assert len(running) == 0


# --- what is left ----------------------------------------------------------------------------------------------------


@on_virtual_time
async def test_a_job_that_is_over_is_kept_for_its_time():
    bench = Bench(paced(WORDS), keep_s=60)
    first = await bench.submit()
    await asyncio.sleep(30)
    second = await bench.submit()
    await asyncio.sleep(30.3)
    assert (await bench.ask("GET", f"/v1/jobs/{first}")).status == 200
    await asyncio.sleep(0.2)
    assert (await bench.ask("GET", f"/v1/jobs/{first}")).status == 404
    assert [job["job_id"] for job in (await bench.ask("GET", "/v1/jobs")).json["jobs"]] == [second]
    await asyncio.sleep(30)
    assert list(bench.jobs) == []


@on_virtual_time
async def test_who_reads_a_job_that_expires_reads_on():
    bench = Bench(paced(WORDS), keep_s=1)
    job_id = await bench.submit()
    reader = bench.listen(job_id)
    await asyncio.sleep(0.05)
    reader.reads.clear()
    await asyncio.sleep(5)
    assert list(bench.jobs) == []
    reader.reads.set()
    await reader.ended()
    assert reader.text == STORY


@on_virtual_time
async def test_no_more_jobs_are_kept_than_there_is_room_for():
    few = Bench(paced(["a"], 0.0), max_kept=3)
    ids = []
    for _ in range(5):
        ids.append(await few.submit())
        await asyncio.sleep(0.1)
    assert [job.id for job in few.jobs] == ids[2:]
    small = Bench(paced(["x" * 1000], 0.0), max_kept_bytes=3500)
    for _ in range(5):
        await small.submit()
        await asyncio.sleep(0.1)
    assert len(list(small.jobs)) == 2


@on_virtual_time
async def test_a_job_that_runs_is_never_dropped():
    bench = Bench([reply(token("a"), Hang()), *[paced(["b"], 0.0)] * 5], max_kept=1, keep_s=1)
    first = await bench.submit()
    for _ in range(5):
        await bench.submit()
        await asyncio.sleep(5)
    assert [job.id for job in bench.jobs] == [first]
    await bench.stop()


@on_virtual_time
async def test_c13_five_hundred_jobs_of_every_ending_leave_nothing():
    broken = b'data: {"error":{"message":"no memory","type":"server_error","code":500}}\n\n'
    refusing = Reply(
        status=400,
        headers={"content-type": "application/json"},
        opening=[Pause(0.01)],
        chunks=[b'{"error":{"message":"no"}}'],
    )
    scripts = [
        paced(WORDS, 0.01),  # complete
        reply(token("a"), Break()),  # cut
        reply(token("a"), broken),  # an error in the stream
        refusing,  # an error before it
        reply(token("a"), Hang()),  # cancelled while it runs
        reply(Hang()),  # cancelled before its first token
        paced(WORDS, 0.01),  # read by nobody
        reply(token("a"), Pause(0.1), token("b"), *END),  # its reader leaves
    ]
    number = iter(range(10**6))
    bench = Bench(lambda request: scripts[next(number) % len(scripts)], slots=4, queue=600)
    before, threads = asyncio.all_tasks(), threading.active_count()
    readers, ids = [], []
    for each in range(500):
        if each % 5 == 0:
            client = bench.client(connected=True)
            client.begin("POST", "/v1/execute", {"prompt": "hi"})
            readers.append(client)
        else:
            ids.append(await bench.submit())
            if each % 7:
                readers.append(bench.listen(ids[-1], connected=each % 2 == 0))
    assert len(list(bench.jobs)) == 500
    since: dict[str, float] = {}
    while bench.jobs.live:
        await asyncio.sleep(0.1)
        for reader in readers[::11]:
            reader.leave()
        for number_of, job in enumerate([job for job in bench.jobs if job.state == "running"]):
            if now() - since.setdefault(job.id, now()) > 0.15:  # it hangs
                if number_of % 2:
                    job.cancel()
                else:
                    await bench.ask("DELETE", f"/v1/jobs/{job.id}")
    for reader in readers:
        await reader.ended()
    states = {record.outcome for record in bench.records}
    assert {"complete", "cancelled", "truncated", "upstream_error"} <= states
    assert len(bench.records) == 500
    assert bench.busy == 0
    assert len(bench.app.running) == 0
    assert all(response.ended for response in bench.transport.responses)
    assert asyncio.all_tasks() == before
    assert threading.active_count() == threads
    assert len(list(bench.jobs)) == 256
    assert all(job._call is None and not job._readers for job in bench.jobs)
    await asyncio.sleep(301)
    assert list(bench.jobs) == []


def test_c13_a_call_that_is_over_is_not_held() -> None:
    """Its prompt goes with it."""
    import gc
    import weakref

    class Watched(Call):
        __slots__ = ("__weakref__",)

    @on_virtual_time
    async def play() -> None:
        bench = Bench(paced(WORDS))
        body = b'{"model":"m","messages":[{"role":"user","content":"hi"}],"stream":true}'
        chat = client_dialect("openai-chat")
        head = chat.read_head(body)
        call = Watched(request_id="r", model="m", stream=True, dialect=chat, head=head, body=body, now=now)
        gone = weakref.ref(call)
        job = await bench.jobs.submit(call, is_bound=False)
        del call
        await job.over.wait()
        assert job.state == "complete"
        gc.collect()
        assert gone() is None

    play()
