"""Records as OpenTelemetry spans and metrics, by the semantic conventions for generative AI, sent by OTLP.

The extra `opentelemetry`; this is the only file that imports it. A span per call that is sampled, made when the call
has ended, with the call's own moments. Metrics are summed here (`gen_ai`), where a record costs a tenth of what the
SDK's instruments ask for it, and sent each minute and at the end. Of a prompt or a reply nothing is in either, unless
content is asked for.

A collector that takes nothing is asked again after a wait that doubles; while it lasts no spans are made, which would
cost as much as if they were sent, and their records count as failed. Their numbers are sent once it takes them.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, Literal

from penstock.canon.errors import ConfigError
from penstock.telemetry.beside import Belongings, Beside
from penstock.telemetry.content import ContentTally
from penstock.telemetry.exporters.base import ExportFailed, Kept
from penstock.telemetry.gen_ai import Distribution, Metric, Names, Sums, operation, span_attributes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from opentelemetry.sdk.trace import ReadableSpan

    from penstock.telemetry.record import CallRecord
    from penstock.telemetry.tally import Tally

Protocol = Literal["http", "grpc"]

TIMEOUT_S = 3.0
METRICS_EVERY_S = 60.0
#: in one request: no more than keep the interpreter busy for some milliseconds
MAX_SPANS, PROBE_SPANS = 128, 8
#: between attempts at a collector that takes nothing, doubled up to the last
FIRST_WAIT_S, LAST_WAIT_S = 1.0, 30.0


class OpenTelemetryExporter:
    """`endpoint` is the collector's: `http://127.0.0.1:4318` (http) or `http://127.0.0.1:4317` (grpc).

    Headers and certificates are OpenTelemetry's own variables: `OTEL_EXPORTER_OTLP_HEADERS` and so on; so is the name
    of the service, `penstock` where `OTEL_SERVICE_NAME` says nothing. Times are in
    seconds.
    """

    name = "opentelemetry"
    gather_s = 1.0

    def __init__(
        self,
        endpoint: str,
        *,
        protocol: Protocol = "http",
        names: Names = "known",
        version: str = "",
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        if not endpoint.startswith(("http://", "https://")):
            raise ConfigError(f"`{endpoint}` is no URL of a collector.", fix="Write http://host:4318.")
        self._endpoint = endpoint.rstrip("/")
        self._protocol = protocol
        self._version = version
        self._beside = Beside()
        self._now = now
        self._sums = Sums(names)
        self._sdk: _Sdk | None = None
        self._wait_s = FIRST_WAIT_S
        self._not_before = self._metrics_at = now()
        self._error: str | None = None
        check_installed()

    def context(self) -> Mapping[str, str]:
        """Of the span that the program has begun itself, where it has: ours are its children."""
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        found: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(found)
        return found

    # --- in the streams' thread ---------------------------------------------------------------------------------------

    def ended(self, tally: Tally) -> None:
        trace = tally.call.trace
        if trace is None:
            return
        gaps = tally.gaps if len(tally.gaps) else None
        content = tally.content() if isinstance(tally, ContentTally) and trace.is_sampled else {}
        if gaps is not None or content:
            self._beside.put(trace.span_id, Belongings(gaps, content))

    # --- what the bus calls -------------------------------------------------------------------------------------------

    def export(self, records: list[CallRecord]) -> None:
        sdk = self._opened()
        taken = [(record, self._beside.take(record.span_id)) for record in records]
        for record, more in taken:
            self._sums.add(record, more.gaps)
        sampled = [(record, more) for record, more in taken if record.trace_id is not None and record.sampled]
        if not sampled:
            return
        if self._now() < self._not_before:
            raise ExportFailed(self._taken_no("spans"), fix="See that it runs.")
        at = 0
        while at < len(sampled):
            # One that took nothing is asked with a few: a span costs as much whether it is taken or not.
            size = MAX_SPANS if self._wait_s == FIRST_WAIT_S else PROBE_SPANS
            if not sdk.send([sdk.span(record, more.content) for record, more in sampled[at : at + size]]):
                self._not_before = self._now() + self._wait_s
                self._wait_s = min(self._wait_s * 2, LAST_WAIT_S)
                raise ExportFailed(self._taken_no("spans"), fix="See that it runs.")
            self._wait_s = FIRST_WAIT_S
            at += size

    def resume(self) -> float | None:
        """Send the metrics, when it is time. In how many seconds to call again."""
        if self._sdk is None:
            self._opened()  # it takes half a second to load: before the first record, not beside it
            self._metrics_at = self._now() + METRICS_EVERY_S
        if self._now() >= self._metrics_at:
            self._metrics_at = self._now() + METRICS_EVERY_S
            self._send_metrics(self._opened())
        return self._metrics_at - self._now()

    @property
    def kept(self) -> Kept:
        return Kept(error=self._error)

    def close(self) -> None:
        if self._sdk is not None:
            self._send_metrics(self._sdk)
            self._sdk.close()

    def _send_metrics(self, sdk: _Sdk) -> None:
        self._error = None if sdk.measured(list(self._sums.metrics())) else self._taken_no("metrics")

    def _taken_no(self, what: str) -> str:
        return f"The collector at {self._endpoint} took no {what}."

    def _opened(self) -> _Sdk:
        self._sdk = self._sdk or _Sdk(self._endpoint, self._protocol, self._version)
        return self._sdk


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

    def __init__(self, endpoint: str, protocol: Protocol, version: str) -> None:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope

        # Its failures are the bus's to tell, in a sentence.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        self._resource = Resource.create({"service.version": version})  # with what OpenTelemetry's variables say
        if str(self._resource.attributes["service.name"]).startswith("unknown_service"):
            self._resource = self._resource.merge(Resource({"service.name": "penstock"}))
        self._scope = InstrumentationScope("penstock", version)
        self._spans, self._metrics = _exporters(endpoint, protocol)
        self._began_ns = time.time_ns()

    def send(self, spans: list[ReadableSpan]) -> bool:
        from opentelemetry.sdk.trace.export import SpanExportResult

        return bool(self._spans.export(spans) is SpanExportResult.SUCCESS)

    def measured(self, metrics: list[Metric]) -> bool:
        from opentelemetry.sdk.metrics.export import MetricExportResult, MetricsData, ResourceMetrics, ScopeMetrics

        if not metrics:
            return True
        now_ns = time.time_ns()
        of_scope = ScopeMetrics(self._scope, [_metric(metric, self._began_ns, now_ns) for metric in metrics], "")
        data = MetricsData([ResourceMetrics(self._resource, [of_scope], "")])
        return bool(self._metrics.export(data, timeout_millis=TIMEOUT_S * 1000) is MetricExportResult.SUCCESS)

    def close(self) -> None:
        self._metrics.shutdown(timeout_millis=TIMEOUT_S * 1000)
        self._spans.shutdown()

    def span(self, record: CallRecord, content: Mapping[str, str]) -> ReadableSpan:
        from opentelemetry.sdk.trace import Event, ReadableSpan
        from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

        assert record.trace_id is not None
        assert record.span_id is not None
        trace_id, flags = int(record.trace_id, 16), TraceFlags(TraceFlags.SAMPLED)
        began_ns = int(record.time * 10**6) * 1000
        has_failed = record.outcome not in ("complete", "cancelled")
        attempts = [{k: v for k, v in _attempt(attempt).items() if v is not None} for attempt in record.attempted]
        return ReadableSpan(
            f"{operation(record.route)} {record.model_requested or record.model or ''}".rstrip(),
            context=SpanContext(trace_id, int(record.span_id, 16), is_remote=False, trace_flags=flags),
            parent=(
                SpanContext(trace_id, int(record.parent_span_id, 16), is_remote=True, trace_flags=flags)
                if record.parent_span_id is not None
                else None
            ),
            resource=self._resource,
            instrumentation_scope=self._scope,
            kind=SpanKind.CLIENT,
            attributes={**span_attributes(record), **content},
            events=[Event("penstock.attempt", attributes, began_ns) for attributes in attempts],
            status=Status(StatusCode.ERROR, record.error_type) if has_failed else Status(StatusCode.UNSET),
            start_time=began_ns,
            end_time=began_ns + int((record.duration_ms or 0.0) * 10**6),
        )


def _attempt(attempt: Any) -> Mapping[str, Any]:
    import msgspec

    return {f"penstock.attempt.{name}": value for name, value in msgspec.structs.asdict(attempt).items()}


def _metric(metric: Metric, began_ns: int, now_ns: int) -> Any:
    from opentelemetry.sdk.metrics import export as sdk

    def numbers() -> Iterable[sdk.NumberDataPoint]:
        for attributes, value in metric.points:
            if isinstance(value, int):
                yield sdk.NumberDataPoint(attributes, began_ns, now_ns, value)

    def distributions() -> Iterable[sdk.HistogramDataPoint]:
        for attributes, it in metric.points:
            if isinstance(it, Distribution):
                yield sdk.HistogramDataPoint(
                    attributes, began_ns, now_ns, it.count, it.total, it.counts, it.bounds, it.smallest, it.largest
                )

    cumulative = sdk.AggregationTemporality.CUMULATIVE
    data: sdk.Sum | sdk.Histogram = (
        sdk.Sum(list(numbers()), cumulative, is_monotonic=True)
        if isinstance(metric.points[0][1], int)
        else sdk.Histogram(list(distributions()), cumulative)
    )
    return sdk.Metric(metric.name, "", metric.unit, data)


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
