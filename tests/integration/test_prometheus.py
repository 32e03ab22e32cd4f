"""A real Prometheus scrapes a gateway and answers; its own linter reads the page."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest

from penstock.telemetry.bus import ExporterState
from penstock.telemetry.counts import HISTOGRAMS, Places, TargetNow
from penstock.telemetry.exporters.prometheus import PrometheusExporter
from penstock.telemetry.record import PATHOLOGIES, AttemptRecord
from penstock.testing import Counts, Reply, Upstream
from tests.gateways import serving
from tests.integration.test_influxdb import free_port, get, started
from tests.processes import server
from tests.telemetry.script import example

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.process

PROMETHEUS = """
global: {{scrape_interval: 200ms}}
scrape_configs:
  - job_name: penstock
    static_configs: [{{targets: ["{target}"]}}]
"""

ASKED = {"whole": 3, "fault:cut-after-2": 2, "fault:no-done": 1, "fault:json": 1}


def everything() -> PrometheusExporter:
    """With a value for every metric and label."""
    exporter = PrometheusExporter()
    tried = (AttemptRecord(target="a:m"), AttemptRecord(target="b:m"), AttemptRecord(target="b:m"))
    told = {"synthetic": True, "queued_ms": 5.0, "cost": 0.1, "pathologies": tuple(PATHOLOGIES)}
    gaps = {"itl_p50_ms": 1.0, "itl_p95_ms": 2.0, "itl_max_ms": 3.0}
    exporter.export(
        [
            example(attempts=3, attempted=tried, **told, **gaps),
            example(outcome="timeout", error_type="timeout_idle", cached_tokens=1, reasoning_tokens=1),
        ]
    )
    exporter.was_late(0.001)
    log = ExporterState("log", 1, 1, 1, 1, None)
    exporter.see(1, [log], [Places("key", "me", 2, 1, 0)], [TargetNow("a:m", 0, 1)], {"forbidden": 1})
    return exporter


def ask(url: str, model: str) -> None:
    body = {"model": model, "stream": True, "messages": [{"role": "user", "content": "Hi"}]}
    request = urllib.request.Request(
        f"{url}/v1/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        answer.read()


def asked(at: str, path: str, **query: Any) -> Any:
    return json.loads(get(f"{at}/api/v1/{path}?{urlencode(query)}"))["data"]


def until(found: Callable[[], Any], what: str) -> Any:
    end = time.monotonic() + 30
    while not (value := found()):
        assert time.monotonic() < end, f"no {what}"
        time.sleep(0.1)
    return value


def test_promtool_has_nothing_to_say_of_the_page():
    page = everything().page()
    assert all(name.encode() in page for name in HISTOGRAMS)
    checked = subprocess.run(
        [server("promtool"), "check", "metrics"], input=page, capture_output=True, timeout=30, check=False
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")


def test_prometheus_scrapes_what_the_upstream_did(tmp_path: Path):
    reply = Reply(text=("one ", "two ", "three"), usage=Counts(input=125, output=42))
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with Upstream(reply) as upstream:
        config = {"upstreams": {"chat": {"url": upstream.url}}, "retry": {"attempts": 1}}
        with serving(config, tmp_path) as gateway:
            for model, times in ASKED.items():
                for _ in range(times):
                    ask(gateway.url, model)
            folder = tmp_path / "prometheus"
            folder.mkdir()
            (folder / "prometheus.yml").write_text(PROMETHEUS.format(target=gateway.url.removeprefix("http://")))
            command = [
                server("prometheus"), f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
                f"--web.listen-address=127.0.0.1:{port}", "--enable-feature=exemplar-storage", "--log.level=error",
            ]  # fmt: skip
            with started(command, f"{url}/-/ready"):

                def told(query: str) -> dict[str, float]:
                    found = asked(url, "query", query=query)["result"]
                    return {"/".join(one["metric"].values()): float(one["value"][1]) for one in found}

                whole = "sum by (outcome) (penstock_requests_total)"
                outcomes = until(lambda: (seen := told(whole)) and sum(seen.values()) == 7 and seen, "seven calls")
                assert outcomes == {"complete": 5, "truncated": 2}
                assert told("sum by (kind) (penstock_tokens_total)") == {"prompt": 5 * 125, "completion": 5 * 42}
                assert told("sum(penstock_synthetic_streams_total)") == {"": 1}
                assert told("sum by (pathology) (penstock_pathologies_total)") == {"no_terminator": 1}
                assert told("penstock_requests_in_flight == 0") != {}
                quantile = "histogram_quantile(0.5, sum by (le) (penstock_time_to_first_token_seconds_bucket))"
                (median,) = told(quantile).values()
                assert 0 < median < 5
                until(lambda: told("penstock_event_loop_lag_seconds_count > 0"), "lag")
                name = "penstock_request_duration_seconds_bucket"
                span = {"start": time.time() - 600, "end": time.time() + 60}
                (series, *_) = until(lambda: asked(url, "query_exemplars", query=name, **span), "exemplars")
                labels = series["exemplars"][0]["labels"]
                records = gateway.records()
                assert labels["request_id"] in {record["request_id"] for record in records}
    assert len([seen for seen in upstream.seen if seen.method == "POST"]) == 7
