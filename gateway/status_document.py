"""All that the admin port tells of the gateway, as one document. An edge: it looks at live state.

In: the desk, the control loop, how the history does. Out: plain data for JSON. Times are trace
times. Never: a key, a prompt.
"""

from typing import Any

import msgspec

from gateway.app import warmth
from gateway.desk import Desk
from gateway.gate import Gate
from gateway.routing import Lane
from gateway.telemetry import Histogram, ModelTelemetry, percentile
from placement.catalog import ModelSpec
from placement.engines.readings import Meaning, Readings
from placement.snapshot import NodeState
from prewarm.history import HistoryState
from prewarm.loop import Loop


def status_document(desk: Desk, loop: Loop, history: HistoryState) -> dict[str, Any]:
    """All that `warmtide status` shows, as one document. Times are trace times."""
    gate = desk.gate
    return {
        "time_scale": gate.clock.scale,
        "now_us": gate.now_us(),
        "catalog_version": gate.catalog.version,
        "snapshot_version": gate.snapshot.version,
        "stopping": desk.stopping,
        "history": msgspec.to_builtins(history),
        "models": [_model(desk, spec) for spec in gate.catalog.models],
        "refused_unknown": dict(
            gate.telemetry.models[""].refused if "" in gate.telemetry.models else {}
        ),
        "nodes": [_node(node) for node in gate.snapshot.nodes],
        "pending": [msgspec.to_builtins(a) for a in loop.controller.pending()],
        "wants": [msgspec.to_builtins(w) for w in loop.plan.wants],
        "outcomes": [msgspec.to_builtins(o) for o in loop.outcomes[-20:]],
    }


def _model(desk: Desk, spec: ModelSpec) -> dict[str, Any]:
    gate = desk.gate
    seen = gate.telemetry.models.get(spec.id, ModelTelemetry())
    lanes = list(gate.table.lanes(spec.id))
    now_us = gate.now_us()
    queue = gate.queue_depth(spec.id, now_us)
    return {
        "model": spec.id,
        "engine": spec.engine,
        **warmth(desk, spec),
        "replicas": [
            msgspec.to_builtins(r) for r in gate.snapshot.replicas() if r.model_id == spec.id
        ],
        "lanes_ready": sum(lane.ready(now_us) for lane in lanes),
        "held": queue.held,
        "in_flight": sum(lane.in_flight for lane in lanes),
        "queue_depth": queue.total,
        "engines_waiting": msgspec.to_builtins(queue.engines),
        "engines": [_engine(gate, lane, now_us) for lane in lanes if lane.open],
        "offered_per_s": gate.rates.rate_per_s(spec.id, now_us),
        "offered": seen.offered,
        "outcomes": dict(seen.outcomes),
        "refused": dict(seen.refused),
        "cold_starts": dict(seen.cold_starts),
        "tokens": {"prompt": seen.prompt_tokens.total, "output": seen.output_tokens.total},
        "ttft_ms": _percentiles_ms(seen.ttft),
        "itl_ms": _percentiles_ms(seen.itl),
        "held_ms": _percentiles_ms(seen.held),
    }


def _engine(gate: Gate, lane: Lane, now_us: int) -> dict[str, Any]:
    """What an engine says of itself: numbers by meaning, old ones marked, absent ones absent."""
    readings = gate.readings.get(lane.lane_id, Readings())
    fresh_us = gate.readings_fresh_us()
    return {
        "replica": lane.lane_id,
        "state": readings.read(Meaning.RUNNING, now_us, fresh_us).state,
        "age_ms": (now_us - readings.at_us) // 1000 if readings.at_us else None,
        "problem": readings.problem,
        **{meaning.value: value for meaning, value in readings.values.items()},
    }


def _percentiles_ms(spans: Histogram) -> dict[str, float | None]:
    def ms(share: float) -> float | None:
        found = percentile(spans.latest, share)
        return None if found is None else found / 1000

    return {"p50": ms(0.5), "p95": ms(0.95), "p99": ms(0.99)}


def _node(node: NodeState) -> dict[str, Any]:
    return {
        "node": node.node_id,
        "alive": node.alive,
        "gpus": [msgspec.to_builtins(g) for g in node.gpus],
        "host_bytes": node.host_bytes,
        "host_reserved_bytes": node.host_reserved_bytes,
        "replicas": len(node.replicas),
    }
