"""Records by OpenTelemetry's semantic conventions for generative AI: attributes, and sums of many as plain numbers.

Pure; `exporters/opentelemetry` makes OTLP of it. The conventions have two sets of names: those that dashboards know,
and newer ones. `gen_ai_latest_experimental` in `OTEL_SEMCONV_STABILITY_OPT_IN` asks for the newer, `…/dup` for both.

Label sets are bounded, as on the metrics page: a model that a client names keeps its name once it has answered, and
what comes after the first `MAX_SERIES` is counted together as `_OTHER`, the conventions' own word.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct

from penstock.telemetry.counts import MAX_SERIES, Models

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from penstock.telemetry.gaps import Gaps
    from penstock.telemetry.record import CallRecord

Names = Literal["known", "new", "both"]

SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)

OTHER = "_OTHER"

#: the conventions' own words for providers; any other is called as we call it
PROVIDERS = {
    "azure": "azure.ai.openai",
    "bedrock": "aws.bedrock",
    "google": "gcp.gemini",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "moonshot": "moonshot_ai",
    "vertex": "gcp.vertex_ai",
    "watsonx": "ibm.watsonx.ai",
    "xai": "x_ai",
}

#: a count of the record's, as the newer names call it
COUNTERS = {
    "prompt_tokens": "gen_ai.client.inference.usage.input_tokens",
    "completion_tokens": "gen_ai.client.inference.usage.output_tokens",
    "cached_tokens": "gen_ai.client.inference.usage.cache_read.input_tokens",
    "reasoning_tokens": "gen_ai.client.inference.usage.reasoning.output_tokens",
}


def names_of(opt_in: str | None) -> Names:
    """What `OTEL_SEMCONV_STABILITY_OPT_IN` asks for: words, parted by commas."""
    words = {word.strip() for word in (opt_in or "").split(",")}
    if "gen_ai_latest_experimental/dup" in words:
        return "both"
    return "new" if "gen_ai_latest_experimental" in words else "known"


# --- one record -------------------------------------------------------------------------------------------------------


def operation(route: str | None) -> str:
    route = route or ""
    if "embed" in route:
        return "embeddings"
    if "enerateContent" in route:
        return "generate_content"
    return "text_completion" if route.endswith(("/v1/completions", "/api/generate")) else "chat"


def span_attributes(record: CallRecord) -> dict[str, Any]:
    return _told(
        _shared(_key(record, record.model_requested))
        | {
            "gen_ai.request.stream": record.stream,
            "gen_ai.response.finish_reasons": (record.finish_reason,) if record.finish_reason is not None else None,
            "gen_ai.response.time_to_first_chunk": _seconds(record.ttft_ms),
            "gen_ai.usage.input_tokens": record.prompt_tokens,
            "gen_ai.usage.output_tokens": record.completion_tokens,
            "gen_ai.usage.cache_read.input_tokens": record.cached_tokens,
            "gen_ai.usage.reasoning.output_tokens": record.reasoning_tokens,
            "http.response.status_code": record.http_status,
            "penstock.request_id": record.request_id,
            "penstock.outcome": record.outcome,
            "penstock.target": record.target,
            "penstock.attempts": record.attempts,
            "penstock.synthetic": record.synthetic,
            "penstock.key_name": record.key_name,
            "penstock.cost": record.cost,
        }
    )


def _seconds(ms: float | None) -> float | None:
    return None if ms is None else ms / 1000


def _told(attributes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if value is not None}


#: operation, provider, the model that was asked for, the one that answered, the error
Key = tuple[str, str, str, str | None, str | None]


def _key(record: CallRecord, model: str) -> Key:
    provider = record.provider or (record.target or "").partition(":")[0] or "unknown"
    return operation(record.route), PROVIDERS.get(provider, provider), model, record.model, record.error_type


def _shared(key: Key) -> dict[str, Any]:
    """Of a span and of a metric alike; few different values each."""
    kind, provider, asked, answered, error = key
    return {
        "gen_ai.operation.name": kind,
        "gen_ai.provider.name": provider,
        "gen_ai.request.model": asked or None,
        "gen_ai.response.model": answered,
        "error.type": error,
    }


# --- many of them -----------------------------------------------------------------------------------------------------


class Distribution:
    """A histogram: `counts` has one for each bound, whose bucket it ends, and one for what is above the last."""

    __slots__ = ("bounds", "count", "counts", "largest", "smallest", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.count = 0
        self.total = 0.0
        self.smallest = float("inf")
        self.largest = float("-inf")

    def add(self, value: float, times: int = 1) -> None:
        self.counts[bisect_left(self.bounds, value)] += times
        self.count += times
        self.total += value * times
        if value < self.smallest:
            self.smallest = value
        if value > self.largest:
            self.largest = value


class Series:
    """What the calls of one set of attributes come to. `counters`: by the record's field, those that were told."""

    __slots__ = ("chunk", "counters", "duration", "first", "input", "output")

    def __init__(self) -> None:
        self.duration, self.first, self.chunk = (Distribution(SECONDS) for _ in range(3))
        self.input, self.output = (Distribution(TOKENS) for _ in range(2))
        self.counters: dict[str, int] = {}


class Metric(Struct, frozen=True):
    """One of them, by its name, with the points of all series: attributes, and a distribution or a count."""

    name: str
    unit: str
    points: list[tuple[dict[str, Any], Distribution | int]]


class Sums:
    """Record by record; not locked. Asked now and then for all metrics, cumulative since it was made."""

    def __init__(self, names: Names = "known") -> None:
        self._names = names
        self._series: dict[Key, Series] = {}
        self._models = Models()

    def add(self, record: CallRecord, gaps: Gaps | None = None) -> None:
        """`gaps`: those between the chunks of its reply."""
        series = self._of(record)
        if record.duration_ms is not None:
            series.duration.add(record.duration_ms / 1000)
        if record.stream and record.ttft_ms is not None:
            series.first.add(record.ttft_ms / 1000)
        if gaps is not None and record.stream:
            for gap_s, times in gaps.each():
                series.chunk.add(gap_s, times)
        if record.prompt_tokens is not None:
            series.input.add(record.prompt_tokens)
        if record.completion_tokens is not None:
            series.output.add(record.completion_tokens)
        for field in COUNTERS:
            if (tokens := getattr(record, field)) is not None:
                series.counters[field] = series.counters.get(field, 0) + tokens

    def _of(self, record: CallRecord) -> Series:
        key = _key(record, self._models.name_of(record) or OTHER)
        found = self._series.get(key)
        if found is None:
            if len(self._series) >= MAX_SERIES:
                key = (key[0], OTHER, OTHER, OTHER, OTHER if record.error_type is not None else None)
            found = self._series.setdefault(key, Series())
        return found

    def metrics(self) -> Iterator[Metric]:
        """Those that anything was counted in."""
        shared = {key: _told(_shared(key)) for key in self._series}
        for prefix, wanted in (("operation", "known"), ("inference", "new")):
            if self._names in (wanted, "both"):
                for field, word in (
                    ("duration", "duration"),
                    ("first", "time_to_first_chunk"),
                    ("chunk", "time_per_output_chunk"),
                ):
                    points = ((shared[key], getattr(series, field)) for key, series in self._series.items())
                    yield from _metric(f"gen_ai.client.{prefix}.{word}", "s", points)
        if self._names in ("known", "both"):
            tokens = (
                (shared[key] | {"gen_ai.token.type": kind}, getattr(series, kind))
                for key, series in self._series.items()
                for kind in ("input", "output")
            )
            yield from _metric("gen_ai.client.token.usage", "{token}", tokens)
        if self._names in ("new", "both"):
            for field, name in COUNTERS.items():
                counts = (
                    (shared[key] | {"gen_ai.token.modality": "unknown"}, series.counters[field])
                    for key, series in self._series.items()
                    if field in series.counters
                )
                yield from _metric(name, "{token}", counts)


def _metric(name: str, unit: str, points: Iterable[tuple[dict[str, Any], Distribution | int]]) -> Iterator[Metric]:
    told = [(attributes, value) for attributes, value in points if isinstance(value, int) or value.count]
    if told:
        yield Metric(name, unit, told)
