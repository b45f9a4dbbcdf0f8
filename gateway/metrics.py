"""What the gateway knows, in Prometheus' words. Read when asked, so a request pays nothing for it.

In: the gate. Out: the text of `GET /metrics` on the admin port. Latencies carry OpenTelemetry's
`gen_ai.*` names as Prometheus spells them. All times are trace times, in seconds.
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
from gateway.telemetry import Histogram, ModelTelemetry

MODEL = "gen_ai_request_model"


def exposition(gate: Gate) -> bytes:
    """The current state of everything, as Prometheus reads it."""
    registry = CollectorRegistry()
    registry.register(_Collector(gate))
    text: bytes = generate_latest(registry)
    return text


class _Collector:
    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        seen = {name: model for name, model in self._gate.telemetry.models.items() if name}
        yield from _counters(seen)
        yield from _latencies(seen)
        yield from _now(self._gate)
        yield from _fleet(self._gate)


def _counters(seen: dict[str, ModelTelemetry]) -> Iterator[Metric]:
    offered = CounterMetricFamily(
        "warmtide_requests_offered", "Requests that came; retries counted once.", labels=[MODEL]
    )
    ended = CounterMetricFamily(
        "warmtide_requests_ended",
        "Requests by outcome, exactly one each.",
        labels=[MODEL, "outcome"],
    )
    refused = CounterMetricFamily(
        "warmtide_requests_refused", "Refused requests by code.", labels=[MODEL, "error_type"]
    )
    cold = CounterMetricFamily(
        "warmtide_cold_starts",
        "Held for want of a replica, by rung climbed from.",
        labels=[MODEL, "rung"],
    )
    tokens = CounterMetricFamily(
        "warmtide_tokens", "Tokens that engines counted.", labels=[MODEL, "gen_ai_token_type"]
    )
    for name, model in seen.items():
        offered.add_metric([name], model.offered)
        for outcome, count in model.outcomes.items():
            ended.add_metric([name, outcome.value], count)
        for code, count in model.refused.items():
            refused.add_metric([name, code], count)
        for rung, count in model.cold_starts.items():
            cold.add_metric([name, rung], count)
        tokens.add_metric([name, "input"], model.prompt_tokens)
        tokens.add_metric([name, "output"], model.output_tokens)
    yield from (offered, ended, refused, cold, tokens)


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
            family.add_metric([name], _buckets(spans), spans.total_us / 1e6)
    yield from (ttft, itl, held)


def _buckets(spans: Histogram) -> list[tuple[str, float]]:
    total, buckets = 0, []
    for bound_us, count in zip(spans.bounds_us, spans.counts, strict=False):
        total += count
        buckets.append((str(bound_us / 1e6), float(total)))
    return [*buckets, ("+Inf", float(sum(spans.counts)))]


def _now(gate: Gate) -> Iterator[Metric]:
    held = GaugeMetricFamily("warmtide_held", "Requests held now.", labels=[MODEL])
    running = GaugeMetricFamily(
        "warmtide_in_flight", "Requests sent to an engine, unfinished.", labels=[MODEL]
    )
    ready = GaugeMetricFamily(
        "warmtide_replicas_ready", "Replicas that take requests now.", labels=[MODEL]
    )
    now_us = gate.now_us()
    for name in gate.specs:
        lanes = list(gate.table.lanes(name))
        held.add_metric([name], gate.admission.held(name))
        running.add_metric([name], sum(lane.in_flight for lane in lanes))
        ready.add_metric([name], sum(lane.ready(now_us) for lane in lanes))
    yield from (held, running, ready)


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
