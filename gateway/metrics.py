"""What the gateway knows, in Prometheus' words. Read when asked, so a request pays nothing for it.

In: the gate, how the history does. Out: the text of `GET /metrics` on the admin port. What
OpenTelemetry has a name for carries that name (`gen_ai.*`), as Prometheus spells it. All times are
trace times, in seconds. A number that an engine does not give is left out, never zero.
"""

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from gateway.gate import Gate
from gateway.telemetry import Histogram, ModelTelemetry, Telemetry
from gateway.tracing import PROVIDER
from placement.engines.readings import Meaning, Readings, State
from prewarm.history import HistoryState

MODEL = "gen_ai_request_model"
US = 1e6


def exposition(gate: Gate, history: HistoryState) -> bytes:
    """The current state of everything, as Prometheus reads it."""
    registry = CollectorRegistry()
    registry.register(_Collector(gate, history))
    text: bytes = generate_latest(registry)
    return text


class _Collector:
    def __init__(self, gate: Gate, history: HistoryState) -> None:
        self._gate = gate
        self._history = history

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        seen = {name: model for name, model in self._gate.telemetry.models.items() if name}
        yield from _counters(seen)
        yield _refused_unknown(self._gate.telemetry)
        yield from _latencies(seen)
        yield from _operations(seen)
        yield from _now(self._gate)
        yield from _engines(self._gate)
        yield from _fleet(self._gate)
        yield from _history(self._history)


def _counters(seen: dict[str, ModelTelemetry]) -> Iterator[Metric]:
    offered = CounterMetricFamily(
        "warmtide_requests_offered", "Requests that came; retries counted once.", labels=[MODEL]
    )
    ended = CounterMetricFamily(
        "warmtide_requests_ended", "Requests by outcome, one each.", labels=[MODEL, "outcome"]
    )
    refused = CounterMetricFamily(
        "warmtide_requests_refused", "Refusals by error code.", labels=[MODEL, "error_type"]
    )
    cold = CounterMetricFamily(
        "warmtide_cold_starts",
        "Held for want of a replica, by rung climbed from.",
        labels=[MODEL, "rung"],
    )
    for name, model in seen.items():
        offered.add_metric([name], model.offered)
        for outcome, count in model.outcomes.items():
            ended.add_metric([name, outcome.value], count)
        for code, count in model.refused.items():
            refused.add_metric([name, code], count)
        for rung, count in model.cold_starts.items():
            cold.add_metric([name, rung], count)
    yield from (offered, ended, refused, cold)


def _refused_unknown(telemetry: Telemetry) -> Metric:
    """Who knocks with wrong keys or asks for what is not there is in no model's count."""
    refused = CounterMetricFamily(
        "warmtide_requests_refused_unknown",
        "Refusals before a model was known, by error code.",
        labels=["error_type"],
    )
    nobodys = telemetry.models.get("")
    for code, count in (nobodys.refused if nobodys is not None else {}).items():
        refused.add_metric([code], count)
    return refused


def _latencies(seen: dict[str, ModelTelemetry]) -> Iterator[Metric]:
    ttft = HistogramMetricFamily(
        "gen_ai_server_time_to_first_token_seconds",
        "Last byte of the request read to the first non-empty delta.",
        labels=[MODEL],
    )
    itl = HistogramMetricFamily(
        "gen_ai_server_time_per_output_token_seconds",
        "Mean time between a stream's tokens, where the engine counted them.",
        labels=[MODEL],
    )
    held = HistogramMetricFamily(
        "warmtide_held_seconds", "How long held requests were held.", labels=[MODEL]
    )
    for name, model in seen.items():
        for family, spans in ((ttft, model.ttft), (itl, model.itl), (held, model.held)):
            family.add_metric([name], _buckets(spans, US), spans.total / US)
    yield from (ttft, itl, held)


def _operations(seen: dict[str, ModelTelemetry]) -> Iterator[Metric]:
    """The histograms that OpenTelemetry wants by operation, provider and kind of token."""
    duration = HistogramMetricFamily(
        "gen_ai_server_request_duration_seconds",
        "Last byte of the request read to the end, however it ended.",
        labels=[MODEL, "gen_ai_operation_name", "gen_ai_provider_name", "error_type"],
    )
    usage = HistogramMetricFamily(
        "gen_ai_client_token_usage",
        "Tokens of a request, where the engine counted them.",
        labels=[MODEL, "gen_ai_provider_name", "gen_ai_token_type"],
    )
    for name, model in seen.items():
        for (operation, code), spans in model.durations.items():
            labels = [name, operation, PROVIDER, code]
            duration.add_metric(labels, _buckets(spans, US), spans.total / US)
        for kind, tokens in (("input", model.prompt_tokens), ("output", model.output_tokens)):
            usage.add_metric([name, PROVIDER, kind], _buckets(tokens, 1), tokens.total)
    yield from (duration, usage)


def _buckets(samples: Histogram, unit: float) -> list[tuple[str, float]]:
    total, buckets = 0, []
    for bound, count in zip(samples.bounds, samples.counts, strict=False):
        total += count
        buckets.append((str(bound / unit), float(total)))
    return [*buckets, ("+Inf", float(sum(samples.counts)))]


def _now(gate: Gate) -> Iterator[Metric]:
    held = GaugeMetricFamily("warmtide_held", "Requests held now.", labels=[MODEL])
    running = GaugeMetricFamily(
        "warmtide_in_flight", "Requests sent to an engine, unfinished.", labels=[MODEL]
    )
    depth = GaugeMetricFamily(
        "warmtide_queue_depth",
        "Held here, and waiting in the engines as far as they say.",
        labels=[MODEL, "engines"],
    )
    rate = GaugeMetricFamily(
        "warmtide_offered_per_second", "Recent rate of requests, retries left out.", labels=[MODEL]
    )
    ready = GaugeMetricFamily(
        "warmtide_replicas_ready", "Replicas that take requests now.", labels=[MODEL]
    )
    now_us = gate.now_us()
    for name in gate.specs:
        lanes = list(gate.table.lanes(name))
        held.add_metric([name], gate.admission.held(name))
        running.add_metric([name], sum(lane.in_flight for lane in lanes))
        queue = gate.queue_depth(name, now_us)
        depth.add_metric([name, queue.engines.state.value], queue.total)
        rate.add_metric([name], gate.rates.rate_per_s(name, now_us))
        ready.add_metric([name], sum(lane.ready(now_us) for lane in lanes))
    yield from (held, running, depth, rate, ready)


_GAUGES = {
    Meaning.RUNNING: ("running", "Requests that an engine runs."),
    Meaning.WAITING: ("waiting", "Requests that wait inside an engine."),
    Meaning.KV_CACHE_USAGE: ("kv_cache_usage_ratio", "Share of an engine's KV cache in use."),
}
_COUNTERS = {
    Meaning.PREEMPTIONS: ("preemptions", "Requests that an engine set aside for want of KV cache."),
    Meaning.PREFIX_QUERIES: ("prefix_cache_queries", "Prompt tokens looked up in the cache."),
    Meaning.PREFIX_HITS: ("prefix_cache_hits", "Prompt tokens found in the cache."),
    Meaning.PROMPT_TOKENS: ("prompt_tokens", "Prompt tokens by the engine's own count."),
    Meaning.OUTPUT_TOKENS: ("output_tokens", "Output tokens by the engine's own count."),
}


def _engines(gate: Gate) -> Iterator[Metric]:
    """What engines say of themselves, under one name each, and how far that can be believed."""
    labels = [MODEL, "replica"]
    gauges = {
        meaning: GaugeMetricFamily(f"warmtide_engine_{name}", about, labels=labels)
        for meaning, (name, about) in _GAUGES.items()
    }
    counters = {
        meaning: CounterMetricFamily(f"warmtide_engine_{name}", about, labels=labels)
        for meaning, (name, about) in _COUNTERS.items()
    }
    state = GaugeMetricFamily(
        "warmtide_engine_readings", "Engines by how their metrics stand.", labels=[MODEL, "state"]
    )
    now_us, fresh_us = gate.now_us(), gate.readings_fresh_us()
    counts: dict[tuple[str, str], int] = {}
    for lane in gate.open_lanes():
        readings = gate.readings.get(lane.lane_id, Readings())
        families: dict[Meaning, GaugeMetricFamily | CounterMetricFamily] = {**gauges, **counters}
        for meaning, family in families.items():
            found = readings.read(meaning, now_us, fresh_us)
            if found.value is not None and found.state is State.FRESH:
                family.add_metric([lane.spec.id, lane.lane_id], found.value)
        whole = readings.read(Meaning.RUNNING, now_us, fresh_us).state
        key = (str(lane.spec.id), whole.value)
        counts[key] = counts.get(key, 0) + 1
    for key, count in sorted(counts.items()):
        state.add_metric(list(key), count)
    yield from (*gauges.values(), *counters.values(), state)


def _fleet(gate: Gate) -> Iterator[Metric]:
    replicas = GaugeMetricFamily(
        "warmtide_replicas", "Replicas by rung and phase.", labels=[MODEL, "rung", "phase"]
    )
    alive = GaugeMetricFamily(
        "warmtide_node_alive", "1 while a node's agent is heard.", labels=["node"]
    )
    gpu = GaugeMetricFamily(
        "warmtide_gpu_reserved_bytes", "Bytes promised on a GPU.", labels=["node", "gpu"]
    )
    host = GaugeMetricFamily(
        "warmtide_host_reserved_bytes", "Host bytes promised on a node.", labels=["node"]
    )
    counts: dict[tuple[str, str, str], int] = {}
    for node in gate.snapshot.nodes:
        alive.add_metric([node.node_id], node.alive)
        host.add_metric([node.node_id], node.host_reserved_bytes)
        for one in node.gpus:
            gpu.add_metric([node.node_id, str(one.gpu_id)], one.reserved_bytes)
        for replica in node.replicas:
            key = (replica.model_id, replica.rung.name.lower(), replica.phase.value)
            counts[key] = counts.get(key, 0) + 1
    for labels, count in sorted(counts.items()):
        replicas.add_metric(list(labels), count)
    yield from (replicas, alive, gpu, host)


def _history(history: HistoryState) -> Iterator[Metric]:
    for name, about, value in (
        ("warmtide_history_ok", "1 while the demand history can be written.", not history.problem),
        ("warmtide_history_pending", "Windows that wait to be written.", history.pending),
    ):
        yield GaugeMetricFamily(name, about, value=float(value))
    yield CounterMetricFamily(
        "warmtide_history_dropped",
        "Windows given up while the disk refused.",
        value=history.dropped,
    )
