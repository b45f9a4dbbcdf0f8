"""Spans of requests by OpenTelemetry, and W3C trace context towards engines. An edge.

In: what a client sent as trace context, what became of its request. Out: one server span per
sampled request with `gen_ai.*` attributes, sent over OTLP by the SDK's own thread; the headers that
make the engine's spans its children. Off, a request pays nothing, and the client's trace context
goes to the engine as it came. Never: waits for a collector, puts a prompt or a key into a span.
"""

import importlib.util
import threading
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from gateway.checks import UnfitError
from gateway.telemetry import OutcomeKind, Record
from gateway.wire import Request
from placement.catalog import TelemetryPolicy
from placement.clock import wall_us

if TYPE_CHECKING:
    from opentelemetry.trace import Span

CONTEXT_HEADERS = (b"traceparent", b"tracestate", b"baggage")
PROVIDER = "warmtide"
_MODULES = ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http")
EXPORT_WALL_S = 2.0
FLUSH_WALL_S = 2.0


class Trace:
    """One request's span. `headers` make whoever gets them its child."""

    __slots__ = ("_span", "headers")

    def __init__(self, span: "Span", headers: dict[bytes, bytes]) -> None:
        self._span = span
        self.headers = headers

    def sent(self, replica: str, rung: str) -> None:
        """Another attempt goes to an engine."""
        attributes = {"warmtide.replica": replica, "warmtide.rung": rung}
        self._span.add_event("sent", attributes, timestamp=wall_us() * 1000)

    def end(self, record: Record, replica: str) -> None:
        from opentelemetry.trace import Status, StatusCode

        span = self._span
        if span.is_recording():
            span.set_attributes(_attributes(record, replica))
            if record.outcome in (OutcomeKind.REFUSED, OutcomeKind.CUT):
                span.set_attribute("error.type", record.code or record.outcome.value)
                span.set_status(Status(StatusCode.ERROR))
        span.end(end_time=wall_us() * 1000)


def _attributes(record: Record, replica: str) -> dict[str, Any]:
    """Spans of time are trace times, as everywhere; a token count only where one was counted."""
    found: dict[str, Any] = {
        "warmtide.outcome": record.outcome.value,
        "warmtide.cold_start": record.cold,
        "warmtide.held_ms": record.held_us / 1000,
    }
    if replica:
        found |= {"warmtide.replica": replica, "warmtide.rung": record.rung}
    if record.ttft_us:
        found["gen_ai.server.time_to_first_token"] = record.ttft_us / 1e6
    if record.prompt_tokens:
        found["gen_ai.usage.input_tokens"] = record.prompt_tokens
    if record.output_tokens:
        found["gen_ai.usage.output_tokens"] = record.output_tokens
    return found


class Tracing:
    """Begins traces. Made once per catalog that asks for it."""

    def __init__(self, policy: TelemetryPolicy, address: str) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        about = {"service.name": "warmtide", "service.version": version("warmtide")}
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(policy.trace_share)),
            resource=Resource.create(about),
            shutdown_on_exit=False,
        )
        # Keys for the collector come from the environment: OTEL_EXPORTER_OTLP_HEADERS.
        self._exporter = OTLPSpanExporter(f"{policy.otlp_url}/v1/traces", timeout=EXPORT_WALL_S)
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self._tracer = self._provider.get_tracer("warmtide.gateway")
        self._propagator = TraceContextTextMapPropagator()
        self._kind = SpanKind.SERVER
        host, _, port = address.rpartition(":")
        self._server: dict[str, Any] = {"server.address": host, "server.port": int(port or 0)}

    def begin(self, request: Request, operation: str, model: str) -> Trace:
        """A span under the client's, if it named a valid one; else the root of a new trace."""
        from opentelemetry.context import Context
        from opentelemetry.trace import set_span_in_context

        carrier = {
            name.decode(): request.header[name].decode("latin-1")
            for name in CONTEXT_HEADERS[:2]
            if name in request.header
        }
        parent = self._propagator.extract(carrier, Context())
        span = self._tracer.start_span(
            f"{operation} {model}",
            parent,
            self._kind,
            {
                "gen_ai.operation.name": operation,
                "gen_ai.provider.name": PROVIDER,
                "gen_ai.request.model": model,
                **self._server,
            },
            start_time=wall_us() * 1000,
        )
        headers: dict[str, str] = {}
        self._propagator.inject(headers, set_span_in_context(span, Context()))
        return Trace(span, {k.encode(): v.encode() for k, v in headers.items()})

    def close(self) -> None:
        """Send what is left, for at most a moment. Blocks: not for the event loop.

        The SDK's own flush heeds no limit: before a collector that hangs it waits for every batch.
        """
        sending = threading.Thread(target=self._provider.shutdown, name="spans", daemon=True)
        sending.start()
        sending.join(FLUSH_WALL_S)
        if sending.is_alive():
            # What waits yet is given up unsent.
            self._exporter.shutdown()  # type: ignore[no-untyped-call]


def check_tracing(policy: TelemetryPolicy) -> None:
    """Raises `UnfitError` where a catalog wants spans and the SDK is not installed."""
    if policy.otlp_url and not all(_installed(module) for module in _MODULES):
        raise UnfitError(
            "telemetry.otlp is set, but OpenTelemetry's SDK is not installed: "
            "`pip install -e '.[otel]'`, or remove the key"
        )


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False
