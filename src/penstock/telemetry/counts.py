"""What many records come to, as plain numbers: counters by (upstream, model, outcome, error), and histograms.

Values that can be added: those of several processes, whose sum is the whole's. Labels are bounded: upstreams are
configured, outcomes, errors and pathologies are our own words, and the first `MAX_MODELS` models that have answered
keep their names; others are `other`. Each bucket of a histogram remembers the last call that fell into it.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import pairwise
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterable

    from penstock.telemetry.record import CallRecord

MAX_MODELS = 100
MAX_SERIES = 2000
OTHER = "other"

#: OpenMetrics allows an exemplar's labels 128 characters in all; a client may choose a long name for its request.
MAX_EXEMPLAR_CHARS = 100

_DURATIONS_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0)
_TTFTS_S = (0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.5, 3.0, 6.0, 12.0, 25.0, 50.0, 100.0)
_GAPS_S = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.6, 1.2, 2.5, 5.0, 10.0, 30.0)
_QUEUED_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
_LAGS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_RATES = (1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 60.0, 80.0, 120.0, 200.0, 400.0, 800.0, 1600.0)
_PROMPT_RATES = (10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0, 10_000.0, 25_000.0, 100_000.0)

Key = tuple[str, str, str, str]


class Kind(Struct, frozen=True):
    """A histogram's description, the names of its labels, and the upper bounds of its buckets."""

    text: str
    labels: tuple[str, ...]
    bounds: tuple[float, ...]


DURATION, TTFT, GAP = (
    "penstock_request_duration_seconds",
    "penstock_time_to_first_token_seconds",
    "penstock_chunk_gap_seconds",
)
QUEUED, LAG = "penstock_queue_duration_seconds", "penstock_event_loop_lag_seconds"
PROMPT_RATE, GENERATION_RATE = "penstock_prompt_tokens_per_second", "penstock_generation_tokens_per_second"

HISTOGRAMS: dict[str, Kind] = {
    DURATION: Kind("From a call's beginning to its ending", ("upstream", "outcome"), _DURATIONS_S),
    TTFT: Kind("From a call's beginning to its first content", ("upstream",), _TTFTS_S),
    GAP: Kind(
        "Gaps between reads that brought content: each stream's median, 95th percentile and longest",
        ("upstream", "stat"),
        _GAPS_S,
    ),
    PROMPT_RATE: Kind("Prompt tokens per second, by the server's clock", ("upstream",), _PROMPT_RATES),
    GENERATION_RATE: Kind("Tokens generated per second, by whose clock", ("upstream", "clock"), _RATES),
    QUEUED: Kind("How long calls that had to wait in line did", ("upstream",), _QUEUED_S),
    LAG: Kind("How late the event loop was for a timer, each second", (), _LAGS_S),
}

_BOUNDS = {name: kind.bounds for name, kind in HISTOGRAMS.items()}

#: When a call ended (unix seconds), what its name is called, and its name.
FoundBy = tuple[float, str, str]
#: One call that fell into a bucket, by its value. A plain tuple: one is made for each value that is counted.
Exemplar = tuple[float, FoundBy]


class Histogram(Struct):
    """`counts`: one per bucket and one for what is above the last bound. `exemplars`: by the bucket's number."""

    name: str
    labels: tuple[str, ...]
    counts: list[int]
    total: float = 0.0
    exemplars: dict[int, Exemplar] = {}

    def add(self, value: float, found_by: FoundBy | None = None) -> None:
        at = bisect_left(_BOUNDS[self.name], value)
        self.counts[at] += 1
        self.total += value
        if found_by is not None:
            self.exemplars[at] = (value, found_by)

    def join(self, other: Histogram) -> None:
        self.counts = [mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)]
        self.total += other.total
        for at, theirs in other.exemplars.items():
            mine = self.exemplars.get(at)
            if mine is None or mine[1] < theirs[1]:
                self.exemplars[at] = theirs


def empty(name: str, labels: tuple[str, ...]) -> Histogram:
    return Histogram(name, labels, [0] * (len(HISTOGRAMS[name].bounds) + 1))


class Series(Struct):
    """What calls of one (upstream, model, outcome, error) come to."""

    key: Key
    requests: int = 0
    retries: int = 0
    fallbacks: int = 0
    prompt: int = 0
    completion: int = 0
    cached: int = 0
    reasoning: int = 0
    heartbeats: int = 0
    synthetic: int = 0
    bytes_out: int = 0
    bytes_wasted: int = 0
    cost: float = 0.0
    pathologies: dict[str, int] = {}

    def count(self, record: CallRecord) -> None:
        self.requests += 1
        if record.attempts > 1:
            moved = _moves(record)
            self.fallbacks += moved
            self.retries += record.attempts - 1 - moved
        self.prompt += record.prompt_tokens or 0
        self.completion += record.completion_tokens or 0
        self.cached += record.cached_tokens or 0
        self.reasoning += record.reasoning_tokens or 0
        self.heartbeats += record.heartbeats
        self.synthetic += record.synthetic
        self.bytes_out += record.bytes_out
        self.bytes_wasted += record.bytes_after_disconnect
        self.cost += record.cost or 0.0
        for name in record.pathologies:
            self.pathologies[name] = self.pathologies.get(name, 0) + 1

    def join(self, other: Series) -> None:
        for name in self.__struct_fields__[1:-1]:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name, number in other.pathologies.items():
            self.pathologies[name] = self.pathologies.get(name, 0) + number


def _moves(record: CallRecord) -> int:
    """How often it went on to another target than the one before."""
    targets = [attempt.target for attempt in record.attempted]
    return sum(one != other for one, other in pairwise(targets))


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
    histograms: list[Histogram] = []
    refusals: dict[str, int] = {}


class Counts:
    """One process's, record by record. Not locked."""

    def __init__(self) -> None:
        self._series: dict[Key, Series] = {}
        self._histograms: dict[tuple[str, ...], Histogram] = {}
        self._models = Models()

    @property
    def series(self) -> list[Series]:
        return list(self._series.values())

    @property
    def histograms(self) -> list[Histogram]:
        return list(self._histograms.values())

    def count(self, record: CallRecord) -> None:
        series = self._of(record)
        series.count(record)
        upstream, _, outcome, _ = series.key
        found_by = _found_by(record)
        if (value_ms := record.duration_ms) is not None:
            self._histogram((DURATION, upstream, outcome)).add(value_ms / 1e3, found_by)
        if (value_ms := record.ttft_ms) is not None:
            self._histogram((TTFT, upstream)).add(value_ms / 1e3, found_by)
        if (value_ms := record.itl_p50_ms) is not None:
            self._histogram((GAP, upstream, "p50")).add(value_ms / 1e3, found_by)
        if (value_ms := record.itl_p95_ms) is not None:
            self._histogram((GAP, upstream, "p95")).add(value_ms / 1e3, found_by)
        if (value_ms := record.itl_max_ms) is not None:
            self._histogram((GAP, upstream, "max")).add(value_ms / 1e3, found_by)
        if (value_ms := record.queued_ms) is not None:
            self._histogram((QUEUED, upstream)).add(value_ms / 1e3, found_by)
        if (rate := record.prompt_tps) is not None:
            self._histogram((PROMPT_RATE, upstream)).add(rate, found_by)
        if (rate := record.generation_tps) is not None:
            self._histogram((GENERATION_RATE, upstream, record.timings_source or "")).add(rate, found_by)

    def was_late(self, lag_s: float) -> None:
        """The event loop came so long after a timer was due."""
        self._histogram((LAG,)).add(max(lag_s, 0.0))

    def _histogram(self, key: tuple[str, ...]) -> Histogram:
        """By its name and its labels' values."""
        found = self._histograms.get(key)
        if found is None:
            found = self._histograms[key] = empty(key[0], key[1:])
        return found

    def _of(self, record: CallRecord) -> Series:
        upstream = record.target.partition(":")[0] if record.target else ""
        key = (upstream, (self._models.name_of(record) or OTHER), record.outcome, record.error_type or "")
        found = self._series.get(key)
        if found is None:
            if len(self._series) >= MAX_SERIES:
                key = (OTHER, OTHER, record.outcome, OTHER)
            found = self._series.setdefault(key, Series(key))
        return found


class Models:
    """The names that labels may have: what a client makes up and nobody knows takes nobody's place."""

    __slots__ = ("_names",)

    def __init__(self) -> None:
        self._names: set[str] = set()

    def name_of(self, record: CallRecord) -> str | None:
        """The model's, once it has answered and while it is one of the first `MAX_MODELS`."""
        name = record.model_requested
        if name in self._names:
            return name
        if record.outcome == "complete" and len(self._names) < MAX_MODELS:
            self._names.add(name)
            return name
        return None


def _found_by(record: CallRecord) -> FoundBy | None:
    """By the trace where one is kept, else by the request."""
    ended = record.time + (record.duration_ms or 0.0) / 1e3
    if record.trace_id is not None and record.sampled:
        return ended, "trace_id", record.trace_id
    if 0 < len(record.request_id) <= MAX_EXEMPLAR_CHARS:
        return ended, "request_id", record.request_id
    return None


def added(snapshots: Iterable[Snapshot]) -> Snapshot:
    """The sum. What it is made of is used up."""
    whole = Snapshot()
    series: dict[Key, Series] = {}
    histograms: dict[tuple[str, ...], Histogram] = {}
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
        for word, number in snapshot.refusals.items():
            whole.refusals[word] = whole.refusals.get(word, 0) + number
        for one in snapshot.series:
            if (known := series.setdefault(one.key, one)) is not one:
                known.join(one)
        for each in snapshot.histograms:
            if (there_is := histograms.setdefault((each.name, *each.labels), each)) is not each:
                there_is.join(each)
    whole.series = list(series.values())
    whole.histograms = list(histograms.values())
    whole.limits = list(limits.values())
    whole.targets = list(targets.values())
    return whole
