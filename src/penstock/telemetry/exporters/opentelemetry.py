"""Records as OpenTelemetry spans and metrics, by the semantic conventions for generative AI, sent by OTLP.

The extra `opentelemetry`; this is the only file that imports it. A span per call that is sampled, made when the call
has ended, with the call's own moments. Histograms are sent each minute and at the end. Nothing of a prompt or a reply
is in either.

The conventions have two sets of names: those that dashboards know, and newer ones. `gen_ai_latest_experimental` in
`OTEL_SEMCONV_STABILITY_OPT_IN` asks for the newer, `…/dup` for both.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Literal

from penstock.canon.errors import ConfigError
from penstock.telemetry.exporters.base import ExportFailed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.metrics import Histogram, Meter
    from opentelemetry.sdk.trace import ReadableSpan

    from penstock.telemetry.record import CallRecord

Protocol = Literal["http", "grpc"]
Names = Literal["known", "new", "both"]

TIMEOUT_S = 3.0
METRICS_EVERY_S = 60.0

SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)

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


def names_of(opt_in: str | None) -> Names:
    """What `OTEL_SEMCONV_STABILITY_OPT_IN` asks for: words, parted by commas."""
    words = {word.strip() for word in (opt_in or "").split(",")}
    if "gen_ai_latest_experimental/dup" in words:
        return "both"
    return "new" if "gen_ai_latest_experimental" in words else "known"


def operation(record: CallRecord) -> str:
    route = record.route or ""
    if "embed" in route:
        return "embeddings"
    if "enerateContent" in route:
        return "generate_content"
    return "text_completion" if route.endswith(("/v1/completions", "/api/generate")) else "chat"


def shared_attributes(record: CallRecord) -> dict[str, Any]:
    """Of a span and of a metric alike; few different values each."""
    provider = record.provider or (record.target or "").partition(":")[0] or "unknown"
    attributes: dict[str, Any] = {
        "gen_ai.operation.name": operation(record),
        "gen_ai.provider.name": PROVIDERS.get(provider, provider),
        "gen_ai.request.model": record.model_requested or None,
        "gen_ai.response.model": record.model,
        "error.type": record.error_type,
    }
    return {name: value for name, value in attributes.items() if value is not None}


def span_attributes(record: CallRecord) -> dict[str, Any]:
    attributes: dict[str, Any] = {
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
    return shared_attributes(record) | {name: value for name, value in attributes.items() if value is not None}


def _seconds(ms: float | None) -> float | None:
    return None if ms is None else ms / 1000


class OpenTelemetryExporter:
    """`endpoint` is the collector's: `http://127.0.0.1:4318` (http) or `http://127.0.0.1:4317` (grpc).

    Headers and certificates are OpenTelemetry's own variables: `OTEL_EXPORTER_OTLP_HEADERS` and so on; so is the name
    of the service, `penstock` where `OTEL_SERVICE_NAME` says nothing.
    """

    name = "opentelemetry"
    gather_s = 1.0

    def __init__(
        self, endpoint: str, *, protocol: Protocol = "http", names: Names = "known", version: str = ""
    ) -> None:
        if not endpoint.startswith(("http://", "https://")):
            raise ConfigError(f"`{endpoint}` is no URL of a collector.", fix="Write http://host:4318.")
        self._endpoint = endpoint.rstrip("/")
        self._protocol = protocol
        self._names = names
        self._version = version
        self._sdk: _Sdk | None = None
        check_installed()

    def context(self) -> Mapping[str, str]:
        """Of the span that the program has begun itself, where it has: ours are its children."""
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        found: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(found)
        return found

    def export(self, records: list[CallRecord]) -> None:
        sdk = self._sdk = self._sdk or _Sdk(self._endpoint, self._protocol, self._names, self._version)
        for record in records:
            sdk.measure(record)
        spans = [sdk.span(record) for record in records if record.trace_id is not None and record.sampled]
        if spans and not sdk.send(spans):
            raise ExportFailed(f"The collector at {self._endpoint} took no spans.", fix="See that it runs.")

    def close(self) -> None:
        if self._sdk is not None:
            self._sdk.close()


def check_installed() -> None:
    """Raises `ConfigError` where the extra is missing."""
    try:
        import opentelemetry.exporter.otlp.proto.common
        import opentelemetry.sdk.trace  # noqa: F401
    except ImportError:
        raise ConfigError(
            "OpenTelemetry is not installed.", fix="Install it: pip install 'penstock[opentelemetry]'."
        ) from None


class _Sdk:
    """What of the SDK is used, made in the exporter's own thread."""

    def __init__(self, endpoint: str, protocol: Protocol, names: Names, version: str) -> None:
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope

        # Its failures are the bus's to tell, in a sentence.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        self._resource = Resource.create({"service.version": version})  # with what OpenTelemetry's variables say
        if str(self._resource.attributes["service.name"]).startswith("unknown_service"):
            self._resource = self._resource.merge(Resource({"service.name": "penstock"}))
        self._scope = InstrumentationScope("penstock", version)
        self._spans, metrics = _exporters(endpoint, protocol)
        reader = PeriodicExportingMetricReader(
            metrics, export_interval_millis=METRICS_EVERY_S * 1000, export_timeout_millis=TIMEOUT_S * 1000
        )
        self._provider = MeterProvider([reader], resource=self._resource)
        self._instruments = _Instruments(self._provider.get_meter("penstock", version), names)

    def measure(self, record: CallRecord) -> None:
        self._instruments.add(record)

    def send(self, spans: list[ReadableSpan]) -> bool:
        from opentelemetry.sdk.trace.export import SpanExportResult

        return bool(self._spans.export(spans) is SpanExportResult.SUCCESS)

    def close(self) -> None:
        self._provider.shutdown(timeout_millis=TIMEOUT_S * 1000)
        self._spans.shutdown()

    def span(self, record: CallRecord) -> ReadableSpan:
        from opentelemetry.sdk.trace import Event, ReadableSpan
        from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

        assert record.trace_id is not None
        assert record.span_id is not None
        trace_id, flags = int(record.trace_id, 16), TraceFlags(TraceFlags.SAMPLED)
        began_ns = int(record.time * 10**6) * 1000
        has_failed = record.outcome not in ("complete", "cancelled")
        attempts = [{k: v for k, v in _attempt(attempt).items() if v is not None} for attempt in record.attempted]
        return ReadableSpan(
            f"{operation(record)} {record.model_requested or record.model or ''}".rstrip(),
            context=SpanContext(trace_id, int(record.span_id, 16), is_remote=False, trace_flags=flags),
            parent=(
                SpanContext(trace_id, int(record.parent_span_id, 16), is_remote=True, trace_flags=flags)
                if record.parent_span_id is not None
                else None
            ),
            resource=self._resource,
            instrumentation_scope=self._scope,
            kind=SpanKind.CLIENT,
            attributes=span_attributes(record),
            events=[Event("penstock.attempt", attributes, began_ns) for attributes in attempts],
            status=Status(StatusCode.ERROR, record.error_type) if has_failed else Status(StatusCode.UNSET),
            start_time=began_ns,
            end_time=began_ns + int((record.duration_ms or 0.0) * 10**6),
        )


def _attempt(attempt: Any) -> Mapping[str, Any]:
    import msgspec

    return {f"penstock.attempt.{name}": value for name, value in msgspec.structs.asdict(attempt).items()}


def _exporters(endpoint: str, protocol: Protocol) -> tuple[Any, Any]:
    """Of spans, and of metrics."""
    if protocol == "http":
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpMetrics
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpans

        return (
            HttpSpans(endpoint=f"{endpoint}/v1/traces", timeout=TIMEOUT_S),
            HttpMetrics(endpoint=f"{endpoint}/v1/metrics", timeout=TIMEOUT_S),
        )
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcMetrics
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpans

    is_plain = endpoint.startswith("http://")
    return (
        GrpcSpans(endpoint=endpoint, insecure=is_plain, timeout=TIMEOUT_S),
        GrpcMetrics(endpoint=endpoint, insecure=is_plain, timeout=TIMEOUT_S),
    )


class _Instruments:
    """The histograms and counters of one set of names, or of both."""

    def __init__(self, meter: Meter, names: Names) -> None:
        self._known = names in ("known", "both")
        self._new = names in ("new", "both")
        self._durations: list[Histogram] = []
        self._firsts: list[Histogram] = []
        for prefix, wanted in (("operation", self._known), ("inference", self._new)):
            if wanted:
                self._durations.append(_histogram(meter, f"gen_ai.client.{prefix}.duration", "s", SECONDS))
                self._firsts.append(_histogram(meter, f"gen_ai.client.{prefix}.time_to_first_chunk", "s", SECONDS))
        if self._known:
            self._tokens = _histogram(meter, "gen_ai.client.token.usage", "{token}", TOKENS)
        if self._new:
            usage = "gen_ai.client.inference.usage"
            self._counters = {
                field: meter.create_counter(f"{usage}.{name}", "{token}")
                for field, name in {
                    "prompt_tokens": "input_tokens",
                    "completion_tokens": "output_tokens",
                    "cached_tokens": "cache_read.input_tokens",
                    "reasoning_tokens": "reasoning.output_tokens",
                }.items()
            }

    def add(self, record: CallRecord) -> None:
        attributes = shared_attributes(record)
        if record.duration_ms is not None:
            for histogram in self._durations:
                histogram.record(record.duration_ms / 1000, attributes)
        if record.stream and record.ttft_ms is not None:
            for histogram in self._firsts:
                histogram.record(record.ttft_ms / 1000, attributes)
        if self._known:
            for kind, tokens in (("input", record.prompt_tokens), ("output", record.completion_tokens)):
                if tokens is not None:
                    self._tokens.record(tokens, {**attributes, "gen_ai.token.type": kind})
        if self._new:
            for field, counter in self._counters.items():
                if (tokens := getattr(record, field)) is not None:
                    counter.add(tokens, {**attributes, "gen_ai.token.modality": "unknown"})


def _histogram(meter: Meter, name: str, unit: str, buckets: tuple[float, ...]) -> Histogram:
    return meter.create_histogram(name, unit, explicit_bucket_boundaries_advisory=buckets)
