"""Situations for the policy's tests: replicas that stand somewhere, models that are asked for."""

from collections.abc import Iterable

import msgspec
from hypothesis import strategies as st

from placement.catalog import Catalog, ModelId, NodeId, ReplicaId
from placement.feasibility import recounted
from placement.plan import Plan
from placement.planning.demand import ModelDemand
from placement.snapshot import (
    ClusterSnapshot,
    GpuState,
    NodeState,
    Phase,
    ReplicaState,
    Rung,
)
from prewarm.controller import Controller, Observed

US = 1_000_000
NOW_US = 10_000 * US


def stands(
    replica_id: str,
    model_id: str,
    rung: Rung = Rung.SERVING,
    phase: Phase = Phase.READY,
    gpus: tuple[int, ...] = (0,),
    since_us: int = 0,
) -> ReplicaState:
    return ReplicaState(
        replica_id=ReplicaId(replica_id),
        model_id=ModelId(model_id),
        node_id=NodeId("n0"),
        gpu_ids=gpus,
        rung=rung,
        phase=phase,
        endpoint="127.0.0.1:1",
        since_us=since_us,
    )


def fleet(whole: Catalog, *replicas: ReplicaState) -> ClusterSnapshot:
    nodes = []
    for spec in whole.nodes:
        gpus = tuple(GpuState(gpu_id=g, hbm_bytes=spec.hbm_bytes) for g in range(spec.gpus))
        empty = NodeState(
            node_id=spec.id,
            alive=True,
            gpus=gpus,
            host_bytes=spec.host_bytes,
            host_reserved_bytes=0,
        )
        mine = tuple(r for r in replicas if r.node_id == spec.id)
        nodes.append(recounted(empty, mine, spec, {m.id: m for m in whole.models}))
    return ClusterSnapshot(version=1, nodes=tuple(nodes))


def asks(model_id: str, held: int = 0, in_flight: int = 0, **more: float) -> ModelDemand:
    defaults: dict[str, float] = {"last_arrival_us": NOW_US, "oldest_held_us": NOW_US - US}
    return msgspec.convert(
        {"model_id": model_id, "held": held, "in_flight": in_flight, **defaults, **more},
        ModelDemand,
    )


def seen(
    whole: Catalog,
    replicas: Iterable[ReplicaState],
    *demand: ModelDemand,
    at_us: int = NOW_US,
    **in_flight: int,
) -> Observed:
    """Of models that a story does not mention something was asked a moment ago."""
    told = {d.model_id for d in demand}
    demand = (*demand, *(asks(m.id) for m in whole.models if m.id not in told))
    return Observed(
        at_us=at_us, snapshot=fleet(whole, *replicas), demand=demand, in_flight=in_flight
    )


def decide(
    whole: Catalog, replicas: Iterable[ReplicaState], *demand: ModelDemand, **busy: int
) -> Plan:
    plan = Controller(whole, "t").step(seen(whole, replicas, *demand, **busy))
    assert plan is not None
    return plan


@st.composite
def asked_of(draw: st.DrawFn, whole: Catalog, replicas: list[ReplicaState]) -> Observed:
    """Any load on these replicas, and anybody waiting."""
    in_flight: dict[str, int] = {
        r.replica_id: draw(st.integers(0, 3)) for r in replicas if r.rung is Rung.SERVING
    }
    demand = []
    for spec in whole.models:
        running = sum(in_flight.get(r.replica_id, 0) for r in replicas if r.model_id == spec.id)
        demand.append(
            asks(
                spec.id,
                held=draw(st.integers(0, 40)),
                in_flight=running,
                oldest_held_us=NOW_US - draw(st.integers(0, 60)) * US,
                rate_per_s=draw(st.floats(0, 3)),
                last_arrival_us=NOW_US - draw(st.integers(0, 600)) * US,
            )
        )
    return Observed(
        at_us=NOW_US, snapshot=fleet(whole, *replicas), demand=tuple(demand), in_flight=in_flight
    )
