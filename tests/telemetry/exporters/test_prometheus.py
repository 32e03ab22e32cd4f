"""Records in, a page of metrics out: the same sum however many processes have counted."""

from __future__ import annotations

import multiprocessing
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families

from penstock.telemetry.bus import ExporterState
from penstock.telemetry.counts import MAX_MODELS, MAX_SERIES, Places, TargetNow
from penstock.telemetry.exporters.prometheus import WRITE_EVERY_S, PrometheusExporter, joined, retire
from penstock.telemetry.metrics_page import wants_openmetrics
from penstock.telemetry.record import AttemptRecord, CallRecord

if TYPE_CHECKING:
    from pathlib import Path


def record(**fields: Any) -> CallRecord:
    known = {
        "request_id": "r", "time": 1.0, "model_requested": "m", "target": "up:m-1", "stream": True, "attempts": 1,
        "outcome": "complete", "duration_ms": 1200.0,
    }  # fmt: skip
    return CallRecord(**{**known, **fields})


def values(exporter: PrometheusExporter) -> dict[str, float]:
    """`name{label="value"}` → its value."""
    return read(exporter.page())


def read(page: bytes) -> dict[str, float]:
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(page.decode()):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()) if value)
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


def test_what_a_call_comes_to():
    exporter = PrometheusExporter()
    exporter.export(
        [
            record(
                prompt_tokens=100, completion_tokens=20, cached_tokens=60, ttft_ms=38.0, itl_p50_ms=20.0,
                itl_p95_ms=30.0, itl_max_ms=700.0, heartbeats=2, bytes_out=900, attempts=3, cost=0.25,
            ),
            record(outcome="timeout", error_type="timeout_idle", bytes_after_disconnect=7),
        ]
    )  # fmt: skip
    found = values(exporter)
    assert found["penstock_requests_total{model=m,outcome=complete,upstream=up}"] == 1
    assert found["penstock_requests_total{error=timeout_idle,model=m,outcome=timeout,upstream=up}"] == 1
    assert found["penstock_tokens_total{kind=prompt,model=m,upstream=up}"] == 100
    assert found["penstock_tokens_total{kind=completion,model=m,upstream=up}"] == 20
    assert found["penstock_tokens_total{kind=cached,model=m,upstream=up}"] == 60
    assert "penstock_tokens_total{kind=reasoning,model=m,upstream=up}" not in found  # nobody said
    assert found["penstock_cost_dollars_total{model=m,upstream=up}"] == 0.25
    assert found["penstock_retries_total{upstream=up}"] == 2
    assert found["penstock_heartbeats_total{upstream=up}"] == 2
    assert found["penstock_sent_bytes_total{upstream=up}"] == 900
    assert found["penstock_wasted_bytes_total{upstream=up}"] == 7
    assert found["penstock_time_to_first_token_seconds_bucket{le=0.025,upstream=up}"] == 0
    assert found["penstock_time_to_first_token_seconds_bucket{le=0.05,upstream=up}"] == 1
    assert found["penstock_time_to_first_token_seconds_bucket{le=+Inf,upstream=up}"] == 1
    assert found["penstock_time_to_first_token_seconds_sum{upstream=up}"] == pytest.approx(0.038)
    assert found["penstock_request_duration_seconds_count{outcome=timeout,upstream=up}"] == 1
    assert found["penstock_chunk_gap_seconds_sum{stat=max,upstream=up}"] == pytest.approx(0.7)
    assert found["penstock_chunk_gap_seconds_bucket{le=0.02,stat=p50,upstream=up}"] == 1


def test_other_targets_are_fallbacks_and_the_same_again_a_retry():
    attempted = tuple(AttemptRecord(target=target) for target in ("a:m", "a:m", "b:m", "c:m"))
    exporter = PrometheusExporter()
    exporter.export([record(target="c:m", attempts=4, attempted=attempted)])
    found = values(exporter)
    assert found["penstock_retries_total{upstream=c}"] == 1
    assert found["penstock_fallbacks_total{upstream=c}"] == 2


def test_rates_queues_and_what_upstreams_did_wrong():
    exporter = PrometheusExporter()
    exporter.export(
        [
            record(prompt_tps=850.5, generation_tps=75.2, timings_source="server", queued_ms=300.0, synthetic=True),
            record(generation_tps=30.0, timings_source="client", pathologies=("after_end", "no_terminator")),
            record(pathologies=("no_terminator",)),
        ]
    )
    exporter.was_late(0.3)
    found = values(exporter)
    assert found["penstock_prompt_tokens_per_second_bucket{le=500.0,upstream=up}"] == 0
    assert found["penstock_prompt_tokens_per_second_bucket{le=1000.0,upstream=up}"] == 1
    assert found["penstock_generation_tokens_per_second_sum{clock=server,upstream=up}"] == 75.2
    assert found["penstock_generation_tokens_per_second_sum{clock=client,upstream=up}"] == 30.0
    assert found["penstock_queue_duration_seconds_count{upstream=up}"] == 1
    assert found["penstock_queue_duration_seconds_sum{upstream=up}"] == pytest.approx(0.3)
    assert found["penstock_synthetic_streams_total{upstream=up}"] == 1
    assert found["penstock_pathologies_total{pathology=no_terminator,upstream=up}"] == 2
    assert found["penstock_pathologies_total{pathology=after_end,upstream=up}"] == 1
    assert found["penstock_event_loop_lag_seconds_count{}"] == 1
    assert found["penstock_event_loop_lag_seconds_sum{}"] == pytest.approx(0.3)


# --- OpenMetrics ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ("", False),
        ("*/*", False),
        ("text/plain", False),
        ("application/openmetrics-text", True),
        # what Prometheus 2.42 sends
        (
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
            "text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            True,
        ),
        ("application/openmetrics-text;q=0.2, text/plain;q=0.5", False),
        ("Application/OpenMetrics-Text ; Q=0.5", True),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;q=x,;;=,", False),
    ],
)
def test_who_gets_openmetrics(accept: str, wanted: bool):
    assert wants_openmetrics(accept) is wanted


def exemplars(exporter: PrometheusExporter) -> dict[str, tuple[dict[str, str], float, float]]:
    page = exporter.page(openmetrics=True).decode()
    assert page.endswith("# EOF\n")
    return {
        f"{sample.name}{{{','.join(f'{k}={v}' for k, v in sorted(sample.labels.items()))}}}": (
            sample.exemplar.labels, sample.exemplar.value, float(sample.exemplar.timestamp)
        )
        for family in openmetrics_families(page)
        for sample in family.samples
        if sample.exemplar
    }  # fmt: skip


def test_exemplars_name_the_last_call_of_each_bucket():
    exporter = PrometheusExporter()
    exporter.export(
        [
            record(request_id="r1", ttft_ms=30.0, time=100.0),
            record(request_id="r2", ttft_ms=40.0, time=101.0, trace_id="1" * 32, sampled=True),
            record(request_id="r3", ttft_ms=90.0, time=102.0, trace_id="2" * 32, sampled=False),
        ]
    )
    found = exemplars(exporter)
    name = "penstock_time_to_first_token_seconds_bucket"
    assert found[f"{name}{{le=0.05,upstream=up}}"] == ({"trace_id": "1" * 32}, 0.04, 102.2)
    assert found[f"{name}{{le=0.1,upstream=up}}"] == ({"request_id": "r3"}, 0.09, 103.2)
    assert b"r3" not in exporter.page(), "the text format has none"


def test_a_request_with_a_longer_name_than_openmetrics_allows_is_no_exemplar():
    exporter = PrometheusExporter()
    exporter.export([record(request_id="x" * 128, ttft_ms=30.0), record(request_id="y" * 100, ttft_ms=90.0)])
    assert {labels["request_id"] for labels, *_ in exemplars(exporter).values()} == {"y" * 100}


def test_exemplars_of_several_processes_are_the_newest(tmp_path: Path):
    for number, time in ((1, 200.0), (2, 100.0)):
        other = exporter_of(tmp_path, number)
        other.export([record(request_id=f"r{number}", ttft_ms=30.0, time=time)])
        other.write()
    found = exemplars(exporter_of(tmp_path, 3))
    assert found["penstock_time_to_first_token_seconds_bucket{le=0.05,upstream=up}"][0] == {"request_id": "r1"}


def test_a_call_that_found_no_upstream():
    exporter = PrometheusExporter()
    exporter.export([record(target=None, outcome="upstream_error", error_type="unknown_model", model_requested="x")])
    found = values(exporter)
    assert found["penstock_requests_total{error=unknown_model,model=other,outcome=upstream_error}"] == 1


def test_names_that_clients_make_up_take_nobodys_place():
    exporter = PrometheusExporter()
    exporter.export([record(model_requested=f"made-up-{n}", outcome="upstream_error") for n in range(MAX_MODELS * 2)])
    exporter.export([record(model_requested="real")])
    found = values(exporter)
    assert found["penstock_requests_total{model=other,outcome=upstream_error,upstream=up}"] == MAX_MODELS * 2
    assert found["penstock_requests_total{model=real,outcome=complete,upstream=up}"] == 1


def test_labels_are_bounded():
    exporter = PrometheusExporter()
    exporter.export([record(model_requested=f"m-{number}") for number in range(MAX_MODELS * 3)])
    exporter.export([record(target=f"up-{number}:m") for number in range(MAX_SERIES * 2)])
    requests = {name: value for name, value in values(exporter).items() if name.startswith("penstock_requests_total")}
    assert len(requests) <= MAX_SERIES + 1
    assert sum(requests.values()) == MAX_MODELS * 3 + MAX_SERIES * 2


def state(name: str, sent: int, **more: int) -> ExporterState:
    return ExporterState(name, sent, more.get("dropped", 0), more.get("failed", 0), more.get("lag", 0), None)


def test_how_exporters_do_and_that_their_counts_go_on():
    exporter = PrometheusExporter()
    exporter.see(3, [state("sqlite", 5, dropped=1, lag=2)])
    exporter.see(4, [state("sqlite", 7, dropped=1, failed=2)])
    exporter.see(4, [state("sqlite", 1)])  # a new configuration's
    found = values(exporter)
    assert found["penstock_requests_in_flight{}"] == 4
    assert found["penstock_exporter_records_total{exporter=sqlite,result=sent}"] == 8
    assert found["penstock_exporter_records_total{exporter=sqlite,result=dropped}"] == 1
    assert found["penstock_exporter_records_total{exporter=sqlite,result=failed}"] == 2
    assert found["penstock_exporter_lag_records{exporter=sqlite}"] == 0


def test_what_is_limited_is_told_as_it_is_now():
    exporter = PrometheusExporter()
    exporter.see(1, [], [Places("whole", "", 8, 3, 0), Places("key", "team", 2, 2, 5)])
    exporter.see(1, [], [Places("key", "team", 4, 1, 0)])
    found = {name: value for name, value in values(exporter).items() if "limit" in name}
    assert found == {
        "penstock_limit_places{limit=key,name=team}": 4,
        "penstock_limit_busy{limit=key,name=team}": 1,
        "penstock_limit_waiting{limit=key,name=team}": 0,
    }


def test_targets_are_told_as_they_are_now_in_all_processes(tmp_path: Path):
    for number in (1, 2):
        exporter = PrometheusExporter(tmp_path)
        exporter._file = tmp_path / f"live-{number}"
        exporter.see(1, [], [], [TargetNow("local:qwen3", 0, 5), TargetNow("gone", 1, 0)])
        exporter.see(1, [], [], [TargetNow("local:qwen3", 0, number), TargetNow("gone", number - 1, 0)])
    found = {name: value for name, value in read(exporter.page()).items() if "target" in name}
    assert found == {
        "penstock_target_down{target=local:qwen3}": 0,
        "penstock_target_in_flight{target=local:qwen3}": 3,
        "penstock_target_down{target=gone}": 1,
        "penstock_target_in_flight{target=gone}": 0,
    }
    retire(tmp_path, 2)
    assert {one.name: one.in_flight for one in joined(tmp_path).targets} == {"local:qwen3": 1, "gone": 0}


def test_the_places_of_several_processes_are_theirs_together(tmp_path: Path):
    for number in (1, 2):
        exporter = PrometheusExporter(tmp_path)
        exporter._file = tmp_path / f"live-{number}"
        exporter.see(1, [], [Places("upstream", "gpu", 4, number, 0)])
    found = read(exporter.page())
    assert found["penstock_limit_places{limit=upstream,name=gpu}"] == 8
    assert found["penstock_limit_busy{limit=upstream,name=gpu}"] == 3
    retire(tmp_path, 2)
    assert {one.busy for one in joined(tmp_path).limits} == {1}


def test_refusals_of_several_processes_are_a_sum_that_an_end_takes_nothing_from(tmp_path: Path):
    for number in (1, 2):
        exporter = PrometheusExporter(tmp_path)
        exporter._file = tmp_path / f"live-{number}"
        exporter.see(1, [], refusals={"forbidden": number})
        exporter.see(1, [], refusals={"forbidden": number, "unauthenticated": 1})
    retire(tmp_path, 1)
    found = read(exporter.page())
    assert found["penstock_refused_requests_total{error=forbidden}"] == 3
    assert found["penstock_refused_requests_total{error=unauthenticated}"] == 2


# --- several processes ------------------------------------------------------------------------------------------------


def count_and_wait(folder: Path, calls: int, ready: Any) -> None:
    exporter = PrometheusExporter(folder)
    exporter.export([record(prompt_tokens=2) for _ in range(calls)])
    exporter.see(1, [state("log", calls)])
    ready.set()
    signal.pause()


@pytest.mark.process
def test_a_page_is_the_sum_and_a_killed_process_takes_nothing_away(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    others = []
    for calls in (3, 5):
        ready = context.Event()
        other = context.Process(target=count_and_wait, args=(tmp_path, calls, ready))
        other.start()
        others.append(other)
        assert ready.wait(30)
    own = PrometheusExporter(tmp_path)
    own.export([record(prompt_tokens=2)])
    name = "penstock_requests_total{model=m,outcome=complete,upstream=up}"
    try:
        found = values(own)
        assert (found[name], found["penstock_processes{}"], found["penstock_requests_in_flight{}"]) == (9, 3, 2)
        for left, other in zip((1, 0), others, strict=True):
            other.kill()
            other.join()
            assert other.pid is not None
            retire(tmp_path, other.pid)
            retire(tmp_path, other.pid)  # twice is once
            found = values(own)
            assert (found[name], found["penstock_requests_in_flight{}"]) == (9, left)
            assert found["penstock_processes{}"] == 1 + left
            assert found["penstock_exporter_records_total{exporter=log,result=sent}"] == 8
    finally:
        for other in others:
            other.kill()
            other.join()
    assert len(list(tmp_path.iterdir())) == 2


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 3), st.booleans()), max_size=12))
def test_no_counter_ever_goes_back(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, int, bool]]
) -> None:
    """Whoever counts, whoever ends, whoever is asked."""
    folder = tmp_path_factory.mktemp("metrics")
    processes = {number: exporter_of(folder, number) for number in range(3)}
    counted = 0
    for number, calls, ends in steps:
        processes[number].export([record() for _ in range(calls)])
        counted += calls
        processes[number].write()
        if ends:
            retire(folder, number)
            processes[number] = exporter_of(folder, number)
        assert sum(one.requests for one in joined(folder).series) == counted


def exporter_of(folder: Path, number: int) -> PrometheusExporter:
    exporter = PrometheusExporter(folder)
    exporter._file = folder / f"live-{number}"
    return exporter


def test_a_process_under_load_writes_now_and_then(tmp_path: Path) -> None:
    clock = [0.0]
    exporter = PrometheusExporter(tmp_path, now=lambda: clock[0])
    exporter.export([record()])
    path = tmp_path / f"live-{os.getpid()}"
    first = path.stat().st_mtime_ns, path.read_bytes()
    exporter.export([record()])
    assert path.read_bytes() == first[1]
    clock[0] += WRITE_EVERY_S
    exporter.export([record()])
    assert path.read_bytes() != first[1]
    exporter.export([record()])
    exporter.close()
    assert sum(one.requests for one in joined(tmp_path).series) == 4


def test_a_full_disk_stops_nothing(tmp_path: Path) -> None:
    exporter = PrometheusExporter(tmp_path / "gone")
    exporter.export([record()])
    exporter.see(1, [])
