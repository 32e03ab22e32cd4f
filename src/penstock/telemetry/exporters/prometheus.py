"""Records as counters and histograms, and the page of them that Prometheus reads.

Records are folded into plain numbers in the exporter's own thread, at a few microseconds each; only a page that is
asked for makes metrics of them, with `prometheus_client`. Labels are bounded: upstreams are configured, outcomes and
errors are our own words, and the first `MAX_MODELS` models that have answered keep their names; others are `other`.

With several processes each writes its numbers to a file in a folder that they share, and every page is the sum of all
files, so it does not matter who is asked, and no counter goes back when one is killed (docs/decisions/0018).
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from bisect import bisect_left
from collections import defaultdict
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct, field

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from prometheus_client.metrics_core import Metric

    from penstock.telemetry.bus import ExporterState
    from penstock.telemetry.record import CallRecord

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"

MAX_MODELS = 100
MAX_SERIES = 2000
OTHER = "other"

#: seconds; a count per bound and one for what is above the last
DURATIONS_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0)
TTFTS_S = (0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.5, 3.0, 6.0, 12.0, 25.0, 50.0, 100.0)
GAPS_S = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.6, 1.2, 2.5, 5.0, 10.0, 30.0)

#: how often a process under load writes its file
WRITE_EVERY_S = 0.2

Key = tuple[str, str, str, str]


class Buckets(Struct):
    counts: list[int]
    total: float = 0.0

    def add(self, value: float, bounds: tuple[float, ...]) -> None:
        self.counts[bisect_left(bounds, value)] += 1
        self.total += value

    def join(self, other: Buckets) -> None:
        self.counts = [mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)]
        self.total += other.total


def _buckets(bounds: tuple[float, ...]) -> Callable[[], Buckets]:
    return lambda: Buckets([0] * (len(bounds) + 1))


class Series(Struct):
    """What calls of one (upstream, model, outcome, error) come to."""

    key: Key
    requests: int = 0
    retries: int = 0
    prompt: int = 0
    completion: int = 0
    cached: int = 0
    reasoning: int = 0
    heartbeats: int = 0
    bytes_out: int = 0
    bytes_wasted: int = 0
    cost: float = 0.0
    duration: Buckets = field(default_factory=_buckets(DURATIONS_S))
    ttft: Buckets = field(default_factory=_buckets(TTFTS_S))
    gap_p50: Buckets = field(default_factory=_buckets(GAPS_S))
    gap_p95: Buckets = field(default_factory=_buckets(GAPS_S))
    gap_max: Buckets = field(default_factory=_buckets(GAPS_S))

    def count(self, record: CallRecord) -> None:
        self.requests += 1
        if record.attempts > 1:
            self.retries += record.attempts - 1
        self.prompt += record.prompt_tokens or 0
        self.completion += record.completion_tokens or 0
        self.cached += record.cached_tokens or 0
        self.reasoning += record.reasoning_tokens or 0
        self.heartbeats += record.heartbeats
        self.bytes_out += record.bytes_out
        self.bytes_wasted += record.bytes_after_disconnect
        self.cost += record.cost or 0.0
        if record.duration_ms is not None:
            self.duration.add(record.duration_ms / 1e3, DURATIONS_S)
        if record.ttft_ms is not None:
            self.ttft.add(record.ttft_ms / 1e3, TTFTS_S)
        if record.itl_p50_ms is not None and record.itl_p95_ms is not None and record.itl_max_ms is not None:
            self.gap_p50.add(record.itl_p50_ms / 1e3, GAPS_S)
            self.gap_p95.add(record.itl_p95_ms / 1e3, GAPS_S)
            self.gap_max.add(record.itl_max_ms / 1e3, GAPS_S)

    def join(self, other: Series) -> None:
        for name in self.__struct_fields__[1:]:
            mine, theirs = getattr(self, name), getattr(other, name)
            if isinstance(mine, Buckets):
                mine.join(theirs)
            else:
                setattr(self, name, mine + theirs)


class Exported(Struct):
    """One exporter's records since the start; `lag` is now."""

    sent: int = 0
    dropped: int = 0
    failed: int = 0
    lag: int = 0


class Places(Struct):
    """A limit on concurrency, and what it holds now. `limit` is what it is one of: `whole`, `key`, `upstream`."""

    limit: str
    name: str
    places: int
    busy: int
    waiting: int


class TargetNow(Struct):
    """A target as calls have found it. `down`: the processes whose breaker for it is not closed."""

    name: str
    down: int
    in_flight: int


class Snapshot(Struct):
    """All numbers of one process, or of several. What is `now` of a process that has ended is 0."""

    series: list[Series] = []
    in_flight: int = 0
    exporters: dict[str, Exported] = {}
    processes: int = 0
    limits: list[Places] = []
    targets: list[TargetNow] = []


class PrometheusExporter:
    """`folder` is shared by the processes of one gateway, None where there is one process."""

    name = "prometheus"

    def __init__(self, folder: Path | None = None, *, now: Callable[[], float] = time.monotonic) -> None:
        self._file = folder / f"live-{os.getpid()}" if folder is not None else None
        self._now = now
        self._lock = threading.Lock()
        self._series: dict[Key, Series] = {}
        self._models: set[str] = set()
        self._in_flight = 0
        self._limits: list[Places] = []
        self._targets: list[TargetNow] = []
        self._exporters: dict[str, Exported] = {}
        self._seen: dict[str, ExporterState] = {}
        self._written_at = -WRITE_EVERY_S

    @property
    def is_shared(self) -> bool:
        """There are other processes, which should know how this one is."""
        return self._file is not None

    # --- what happens ---

    def export(self, records: list[CallRecord]) -> None:
        with self._lock:
            for record in records:
                self._of(record).count(record)
        if self._now() - self._written_at >= WRITE_EVERY_S:
            self.write()

    def close(self) -> None:
        self.write()

    def see(
        self,
        in_flight: int,
        exporters: Iterable[ExporterState],
        limits: Iterable[Places] = (),
        targets: Iterable[TargetNow] = (),
    ) -> None:
        """How things are now; the file is as new as the last call."""
        with self._lock:
            self._in_flight = in_flight
            self._limits = list(limits)
            self._targets = list(targets)
            for state in exporters:
                # A new configuration's exporters count from 0 again; ours go on.
                seen = self._seen.get(state.name)
                if seen is not None and (state.sent < seen.sent or state.dropped < seen.dropped):
                    seen = None
                total = self._exporters.setdefault(state.name, Exported())
                total.sent += state.sent - (seen.sent if seen else 0)
                total.dropped += state.dropped - (seen.dropped if seen else 0)
                total.failed += state.failed - (seen.failed if seen else 0)
                total.lag = state.lag
                self._seen[state.name] = state
        self.write()

    def _of(self, record: CallRecord) -> Series:
        upstream = record.target.partition(":")[0] if record.target else ""
        key = (upstream, self._model(record), record.outcome, record.error_type or "")
        found = self._series.get(key)
        if found is None:
            if len(self._series) >= MAX_SERIES:
                key = (OTHER, OTHER, record.outcome, OTHER)
            found = self._series.setdefault(key, Series(key))
        return found

    def _model(self, record: CallRecord) -> str:
        """Its name, once it has answered: what a client makes up and nobody knows takes nobody's place."""
        name = record.model_requested
        if name in self._models:
            return name
        if record.outcome == "complete" and len(self._models) < MAX_MODELS:
            self._models.add(name)
            return name
        return OTHER

    # --- the page ---

    def write(self) -> None:
        """Bring the file up to now; nothing where there is one process."""
        if self._file is None:
            return
        self._written_at = self._now()
        # On a full disk the file stays as it is. The lock is for the order of writes, too: a file must not go back.
        with self._lock, suppress(OSError):
            _replace(self._file, self._snapshot())

    def page(self) -> bytes:
        """In Prometheus's text format. Reads files; call it in a thread."""
        from prometheus_client import CollectorRegistry, generate_latest

        if self._file is None:
            with self._lock:
                whole = msgspec.msgpack.decode(msgspec.msgpack.encode(self._snapshot()), type=Snapshot)
        else:
            self.write()
            whole = joined(self._file.parent)
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Collector(whole))
        return generate_latest(registry)

    def _snapshot(self) -> Snapshot:
        return Snapshot(list(self._series.values()), self._in_flight, self._exporters, 1, self._limits, self._targets)


# --- several processes ------------------------------------------------------------------------------------------------


def joined(folder: Path) -> Snapshot:
    """The sum of all processes' files."""
    with _turn(folder, fcntl.LOCK_SH):
        return _sum(_read(path) for path in sorted(folder.iterdir()) if path.suffix == "")


def retire(folder: Path, pid: int) -> None:
    """A process has ended: what it has counted stays, what it was doing does not."""
    with _turn(folder, fcntl.LOCK_EX):
        live, ended = folder / f"live-{pid}", folder / "ended"
        if not live.exists():
            return
        whole = _sum(_read(path) for path in (ended, live) if path.exists())
        whole.in_flight = whole.processes = 0
        whole.limits = []
        whole.targets = []
        for exporter in whole.exporters.values():
            exporter.lag = 0
        _replace(ended, whole)
        live.unlink()


def _sum(snapshots: Iterable[Snapshot]) -> Snapshot:
    whole = Snapshot([], 0, {}, 0)
    series: dict[Key, Series] = {}
    limits: dict[tuple[str, str], Places] = {}
    targets: dict[str, TargetNow] = {}
    for snapshot in snapshots:
        for target in snapshot.targets:
            here = targets.setdefault(target.name, TargetNow(target.name, 0, 0))
            here.down += target.down
            here.in_flight += target.in_flight
        for place in snapshot.limits:
            there = limits.setdefault((place.limit, place.name), Places(place.limit, place.name, 0, 0, 0))
            there.places += place.places
            there.busy += place.busy
            there.waiting += place.waiting
        whole.in_flight += snapshot.in_flight
        whole.processes += snapshot.processes
        for name, state in snapshot.exporters.items():
            total = whole.exporters.setdefault(name, Exported())
            for word in total.__struct_fields__:
                setattr(total, word, getattr(total, word) + getattr(state, word))
        for one in snapshot.series:
            known = series.get(one.key)
            if known is None:
                series[one.key] = one
            else:
                known.join(one)
    whole.series = list(series.values())
    whole.limits = list(limits.values())
    whole.targets = list(targets.values())
    return whole


def _read(path: Path) -> Snapshot:
    return msgspec.msgpack.decode(path.read_bytes(), type=Snapshot)


def _replace(path: Path, snapshot: Snapshot) -> None:
    """In one step, that a reader sees all of or nothing of."""
    new = path.with_suffix(".new")
    new.write_bytes(msgspec.msgpack.encode(snapshot))
    new.replace(path)


@contextmanager
def _turn(folder: Path, how: int) -> Iterator[None]:
    """Readers do not see an ended process twice, or not at all."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, how)
        yield
    finally:
        os.close(handle)


# --- metrics ----------------------------------------------------------------------------------------------------------


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

        requests: dict[tuple[str, ...], float] = defaultdict(float)
        tokens: dict[tuple[str, ...], float] = defaultdict(float)
        costs: dict[tuple[str, ...], float] = defaultdict(float)
        named = {
            "retries": ("retries", "Attempts at an upstream after a call's first"),
            "heartbeats": ("heartbeats", "Signs of life sent to waiting clients"),
            "bytes_out": ("sent_bytes", "Bytes of replies sent to clients"),
            "bytes_wasted": ("wasted_bytes", "Bytes that an upstream still sent after the client had gone"),
        }
        by_upstream: dict[str, dict[tuple[str, ...], float]] = {name: defaultdict(float) for name in named}
        for one in self._whole.series:
            upstream, model, *_ = one.key
            requests[one.key] += one.requests
            for kind in ("prompt", "completion", "cached", "reasoning"):
                if amount := getattr(one, kind):
                    tokens[upstream, model, kind] += amount
            if one.cost:
                costs[upstream, model] += one.cost
            for name, values in by_upstream.items():
                values[(upstream,)] += getattr(one, name)
        labels = ["upstream", "model", "outcome", "error"]
        yield _labelled(CounterMetricFamily, "penstock_requests", "Calls, by how they ended", labels, requests)
        labels = ["upstream", "model", "kind"]
        yield _labelled(CounterMetricFamily, "penstock_tokens", "Tokens that upstreams reported", labels, tokens)
        labels = ["upstream", "model"]
        yield _labelled(CounterMetricFamily, "penstock_cost_dollars", "What calls cost, where known", labels, costs)
        for field_name, (name, text) in named.items():
            yield _labelled(CounterMetricFamily, f"penstock_{name}", text, ["upstream"], by_upstream[field_name])

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
        duration: dict[tuple[str, ...], Buckets] = defaultdict(_buckets(DURATIONS_S))
        ttft: dict[tuple[str, ...], Buckets] = defaultdict(_buckets(TTFTS_S))
        gap: dict[tuple[str, ...], Buckets] = defaultdict(_buckets(GAPS_S))
        for one in self._whole.series:
            upstream, _, outcome, _ = one.key
            duration[upstream, outcome].join(one.duration)
            ttft[(upstream,)].join(one.ttft)
            for stat in ("p50", "p95", "max"):
                gap[upstream, stat].join(getattr(one, f"gap_{stat}"))
        text = "From a call's beginning to its ending"
        yield _histogram("penstock_request_duration_seconds", text, ["upstream", "outcome"], DURATIONS_S, duration)
        text = "From a call's beginning to its first content"
        yield _histogram("penstock_time_to_first_token_seconds", text, ["upstream"], TTFTS_S, ttft)
        text = "Gaps between reads that brought content: each stream's median, 95th percentile and longest"
        yield _histogram("penstock_chunk_gap_seconds", text, ["upstream", "stat"], GAPS_S, gap)


def _labelled(
    family: Callable[..., Metric], name: str, text: str, labels: list[str], values: Mapping[Any, float]
) -> Metric:
    metric = family(name, text, labels=labels)
    for key, value in sorted(values.items()):
        metric.add_metric(key, value)  # type: ignore[attr-defined]
    return metric


def _histogram(
    name: str, text: str, labels: list[str], bounds: tuple[float, ...], values: dict[tuple[str, ...], Buckets]
) -> Metric:
    from prometheus_client.metrics_core import HistogramMetricFamily

    metric = HistogramMetricFamily(name, text, labels=labels)
    for key, buckets in sorted(values.items()):
        below, rows = 0, []
        for bound, count in zip([*map(str, bounds), "+Inf"], buckets.counts, strict=True):
            below += count
            rows.append((bound, below))
        if below:
            metric.add_metric(key, rows, buckets.total)
    return metric
