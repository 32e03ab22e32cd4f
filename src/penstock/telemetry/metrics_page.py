"""The page of metrics: a `Snapshot` as Prometheus's text format, or as OpenMetrics, which has exemplars as well.

`docs/reference/metrics.md` lists every metric and label of it. Pure; `prometheus_client` is imported when a page is
asked for.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from penstock.telemetry.counts import HISTOGRAMS, Histogram, Snapshot, empty

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from prometheus_client.metrics_core import Metric

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = b"application/openmetrics-text; version=1.0.0; charset=utf-8"

_BY_UPSTREAM = {
    "retries": ("retries", "Attempts after a call's first, at the same target"),
    "fallbacks": ("fallbacks", "Attempts after a call's first, at another target than the one before"),
    "heartbeats": ("heartbeats", "Signs of life sent to waiting clients"),
    "synthetic": ("synthetic_streams", "Streams made of an upstream's document"),
    "bytes_out": ("sent_bytes", "Bytes of replies sent to clients"),
    "bytes_wasted": ("wasted_bytes", "Bytes that had come for a client that had gone, and that nobody read"),
}

Values = dict[tuple[str, ...], float]


def wants_openmetrics(accept: str) -> bool:
    """Whether a request with this `accept` prefers OpenMetrics to the text format. Who names neither does not."""
    openmetrics, text = _quality(accept, "application/openmetrics-text"), _quality(accept, "text/plain")
    return openmetrics > 0 and openmetrics >= text


def _quality(accept: str, wanted: str) -> float:
    """The highest that is named for a type; 0 for one that is not named."""
    best = 0.0
    for offer in accept.split(","):
        kind, *parameters = [part.strip() for part in offer.split(";")]
        if kind.lower() != wanted:
            continue
        quality = 1.0
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            if name.strip().lower() == "q":
                try:
                    quality = float(value)
                except ValueError:
                    quality = 0.0
        best = max(best, quality)
    return best


def page_of(whole: Snapshot, *, openmetrics: bool = False) -> bytes:
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.openmetrics import exposition

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(whole))
    if openmetrics:
        written: bytes = exposition.generate_latest(registry)  # type: ignore[no-untyped-call]
        return written
    return generate_latest(registry)


class _Collector:
    """One page's metrics. `collect` is what `prometheus_client` asks for."""

    def __init__(self, whole: Snapshot) -> None:
        self._whole = whole

    def collect(self) -> Iterator[Metric]:
        from importlib.metadata import version

        from prometheus_client.metrics_core import GaugeMetricFamily

        yield _labelled(
            GaugeMetricFamily, "penstock_build_info", "The version", ["version"], {(version("penstock"),): 1}
        )
        yield GaugeMetricFamily("penstock_processes", "Processes that answer", self._whole.processes)
        yield GaugeMetricFamily("penstock_requests_in_flight", "Calls being answered", self._whole.in_flight)
        yield from self._places()
        yield from self._targets()
        yield from self._counters()
        yield from self._exporters()
        yield from self._histograms()

    def _places(self) -> Iterator[Metric]:
        from prometheus_client.metrics_core import GaugeMetricFamily

        for word, text in (
            ("places", "Calls that may be answered at the same time"),
            ("busy", "Calls that hold a place"),
            ("waiting", "Calls in line for a place"),
        ):
            values = {(it.limit, it.name): float(getattr(it, word)) for it in self._whole.limits}
            yield _labelled(GaugeMetricFamily, f"penstock_limit_{word}", text, ["limit", "name"], values)

    def _targets(self) -> Iterator[Metric]:
        from prometheus_client.metrics_core import GaugeMetricFamily

        for word, text in (
            ("down", "Processes that pass the target by, because their calls kept failing there"),
            ("in_flight", "Calls that the target is answering"),
        ):
            values = {(it.name,): float(getattr(it, word)) for it in self._whole.targets}
            yield _labelled(GaugeMetricFamily, f"penstock_target_{word}", text, ["target"], values)

    def _counters(self) -> Iterator[Metric]:
        from prometheus_client.metrics_core import CounterMetricFamily

        requests: Values = defaultdict(float)
        tokens: Values = defaultdict(float)
        costs: Values = defaultdict(float)
        pathologies: Values = defaultdict(float)
        by_upstream: dict[str, Values] = {name: defaultdict(float) for name in _BY_UPSTREAM}
        for one in self._whole.series:
            upstream, model, *_ = one.key
            requests[one.key] += one.requests
            for kind in ("prompt", "completion", "cached", "reasoning"):
                if amount := getattr(one, kind):
                    tokens[upstream, model, kind] += amount
            if one.cost:
                costs[upstream, model] += one.cost
            for name, number in one.pathologies.items():
                pathologies[upstream, name] += number
            for name, values in by_upstream.items():
                values[(upstream,)] += getattr(one, name)
        labels = ["upstream", "model", "outcome", "error"]
        yield _labelled(CounterMetricFamily, "penstock_requests", "Calls, by how they ended", labels, requests)
        refusals: Values = {(word,): float(number) for word, number in self._whole.refusals.items()}
        text = "Requests that were refused before they were calls, by why; they have no record"
        yield _labelled(CounterMetricFamily, "penstock_refused_requests", text, ["error"], refusals)
        labels = ["upstream", "model", "kind"]
        yield _labelled(CounterMetricFamily, "penstock_tokens", "Tokens that upstreams reported", labels, tokens)
        labels = ["upstream", "model"]
        yield _labelled(CounterMetricFamily, "penstock_cost_dollars", "What calls cost, where known", labels, costs)
        text = "Replies in which an upstream kept not to its dialect, by what it did"
        yield _labelled(CounterMetricFamily, "penstock_pathologies", text, ["upstream", "pathology"], pathologies)
        for field, (name, text) in _BY_UPSTREAM.items():
            yield _labelled(CounterMetricFamily, f"penstock_{name}", text, ["upstream"], by_upstream[field])

    def _exporters(self) -> Iterator[Metric]:
        from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

        records = {
            (name, word): float(getattr(state, word))
            for name, state in self._whole.exporters.items()
            for word in ("sent", "dropped", "failed")
        }
        lags = {(name,): float(state.lag) for name, state in self._whole.exporters.items()}
        text = "Records that an exporter was given, by what became of them"
        yield _labelled(CounterMetricFamily, "penstock_exporter_records", text, ["exporter", "result"], records)
        text = "Records that wait for an exporter"
        yield _labelled(GaugeMetricFamily, "penstock_exporter_lag_records", text, ["exporter"], lags)

    def _histograms(self) -> Iterator[Metric]:
        by_name: dict[str, list[Histogram]] = {name: [] for name in HISTOGRAMS}
        for one in self._whole.histograms:
            by_name[one.name].append(one)
        for name, histograms in by_name.items():
            yield _histogram(name, histograms or ([] if HISTOGRAMS[name].labels else [empty(name, ())]))


def _labelled(
    family: Callable[..., Metric], name: str, text: str, labels: list[str], values: Mapping[Any, float]
) -> Metric:
    metric = family(name, text, labels=labels)
    for key, value in sorted(values.items()):
        metric.add_metric(key, value)  # type: ignore[attr-defined]
    return metric


def _histogram(name: str, histograms: list[Histogram]) -> Metric:
    from prometheus_client.metrics_core import HistogramMetricFamily
    from prometheus_client.samples import Exemplar

    kind = HISTOGRAMS[name]
    metric = HistogramMetricFamily(name, kind.text, labels=list(kind.labels))
    for one in sorted(histograms, key=lambda it: it.labels):
        below = 0
        rows: list[Any] = []
        for at, (bound, count) in enumerate(zip([*map(str, kind.bounds), "+Inf"], one.counts, strict=True)):
            below += count
            seen = one.exemplars.get(at)
            if seen is None:
                rows.append((bound, below))
            else:
                value, (ended, label, name_there) = seen
                rows.append((bound, below, Exemplar({label: name_there}, value, round(ended, 3))))
        metric.add_metric(list(one.labels), rows, one.total)
    return metric
