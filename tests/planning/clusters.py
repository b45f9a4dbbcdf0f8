"""Clusters that hypothesis makes up: whatever may stand, wait and be expected, in either world.

What is drawn is feasible: nothing is overcommitted, one engine of a model stands on a GPU set, and
the sets of any two nest or are disjoint, as they do wherever a plan of ours put them.
"""

import msgspec
from hypothesis import strategies as st

from placement.catalog import (
    Catalog,
    Mechanism,
    ModelId,
    ModelSpec,
    NodeId,
    NodeSpec,
    ReplicaId,
    World,
)
from placement.constants import ACTIVATIONS_BYTES
from placement.edges import legal_starts, legal_steps, shared_copies
from placement.feasibility import (
    freeing_in_the_way,
    gpu_sets,
    recounted,
    reserved,
    start_in_the_way,
    usable_hbm_bytes,
)
from placement.plan import Reason, ReasonCode
from placement.planning.demand import ModelDemand
from placement.planning.draft import Facts
from placement.planning.outlook import ModelOutlook, Outlook
from placement.planning.resident import Residency, Resident
from placement.snapshot import (
    ClusterSnapshot,
    GpuState,
    NodeState,
    Phase,
    ReplicaState,
    Rung,
    WeightsAt,
)
from tests.builders import GB, catalog, model, node

US = 1_000_000
NOW_US = 10_000 * US
HORIZONS_US = (10 * US, 60 * US, 300 * US)
PATHS = 16


@st.composite
def models(draw: st.DrawFn, world: World) -> list[ModelSpec]:
    return [draw(_model(f"m{i}", world)) for i in range(draw(st.integers(1, 5)))]


@st.composite
def _model(draw: st.DrawFn, name: str, world: World) -> ModelSpec:
    gpus = draw(st.sampled_from([1, 1, 2, 4]))
    weights = draw(st.sampled_from([5, 16, 30])) * GB
    kv_cache = draw(st.sampled_from([3, 10, 25])) * GB
    if world is World.W:
        kv_cache = usable_hbm_bytes(80 * GB) - weights - int(ACTIVATIONS_BYTES.value)
    return model(
        name,
        weights_bytes=weights * gpus,
        gpus=gpus,
        kv_cache_bytes=kv_cache,
        max_num_seqs=draw(st.sampled_from([1, 4, 32])),
        min_replicas=draw(st.sampled_from([0, 0, 0, 1, 2])),
        max_replicas=draw(st.sampled_from([2, 8])),
        priority=draw(st.sampled_from([0, 0, 1])),
        mechanism=Mechanism(world=world),
    )


@st.composite
def catalogs(draw: st.DrawFn, world: World) -> Catalog:
    nodes = tuple(
        node(
            f"n{i}",
            gpus=draw(st.sampled_from([1, 2, 4])),
            host_bytes=draw(st.sampled_from([60, 200, 900])) * GB,
        )
        for i in range(draw(st.integers(1, 3)))
    )
    return catalog(*draw(models(world)), nodes=nodes)


@st.composite
def clusters(draw: st.DrawFn, world: World, *, forecast: bool = True) -> Facts:
    """Facts of any moment. Without `forecast` nobody says what is expected."""
    whole = draw(catalogs(world))
    specs: dict[str, ModelSpec] = {m.id: m for m in whole.models}
    nodes = [_empty(whole, i, draw(st.booleans())) for i in range(len(whole.nodes))]
    for at in range(draw(st.integers(0, 8))):
        place = draw(st.integers(0, len(nodes) - 1))
        replica = draw(_replica(whole, place, f"r{at}"))
        if replica is not None:
            nodes[place] = _with(whole, place, nodes[place], replica)
    replicas = [r for n in nodes for r in n.replicas]
    in_flight: dict[str, int] = {
        r.replica_id: draw(st.sampled_from([0, 0, 1, 3])) for r in replicas if _works(r)
    }
    return Facts(
        snapshot=ClusterSnapshot(version=7, nodes=tuple(nodes)),
        catalog=whole,
        models=specs,
        demand={m.id: draw(_demand(m, replicas, in_flight)) for m in whole.models},
        in_flight=in_flight,
        excess_since_us={m: NOW_US - 100 * US for m in specs if draw(st.booleans())},
        outlook=draw(outlooks(whole)) if forecast else None,
        residency=draw(_residency(whole)) if forecast and world is World.S else None,
        now_us=NOW_US,
    )


def _empty(whole: Catalog, place: int, preloaded: bool) -> NodeState:
    spec = whole.nodes[place]
    at = WeightsAt.HOST if preloaded else WeightsAt.DISK
    return NodeState(
        node_id=spec.id,
        alive=True,
        gpus=tuple(GpuState(gpu_id=g, hbm_bytes=spec.hbm_bytes) for g in range(spec.gpus)),
        host_bytes=spec.host_bytes,
        host_reserved_bytes=0,
        weights_at={m.id: at for m in whole.models},
    )


@st.composite
def _replica(draw: st.DrawFn, whole: Catalog, place: int, name: str) -> ReplicaState | None:
    spec = draw(st.sampled_from(whole.models))
    sets = gpu_sets(whole.nodes[place], spec.gpus)
    if not sets:
        return None
    rungs = [Rung.WARM, Rung.SERVING] if shared_copies(spec) else list(Rung)
    rung = draw(st.sampled_from(rungs))
    at_rest = ReplicaState(
        replica_id=ReplicaId(name),
        model_id=ModelId(spec.id),
        node_id=NodeId(whole.nodes[place].id),
        gpu_ids=draw(st.sampled_from(sets)),
        rung=rung,
        phase=Phase.READY,
        endpoint="127.0.0.1:1",
        since_us=NOW_US - draw(st.sampled_from([1, 40, 4000])) * US,
        pinned=rung is Rung.PARKED,
    )
    return msgspec.structs.replace(at_rest, **draw(_doing(spec, rung, name)))


@st.composite
def _doing(draw: st.DrawFn, spec: ModelSpec, rung: Rung, name: str) -> dict[str, object]:
    """Nothing, mostly; else what an agent may be at, or has given up."""
    kind = draw(st.sampled_from(["rests"] * 4 + ["drains", "starts", "moves", "ends", "failed"]))
    under_way = {"action_id": f"doing-{name}", "eta_us": NOW_US + 3 * US}
    if kind == "drains" and rung is Rung.SERVING:
        return {"phase": Phase.DRAINING}
    if kind == "failed" and rung is Rung.SERVING:
        return {"phase": Phase.FAILED}
    if kind == "starts" and rung in legal_starts(spec):
        return {"phase": Phase.STARTING, "target": rung, **under_way}
    if kind == "moves":
        steps = sorted(to for at, to in legal_steps(spec) if at is rung)
        return {"target": draw(st.sampled_from(steps)), **under_way} if steps else {}
    return {"target": None, **under_way} if kind == "ends" else {}


def _with(whole: Catalog, place: int, there: NodeState, one: ReplicaState) -> NodeState:
    """The node with this replica on it as well; without it, where it cannot stand."""
    specs: dict[str, ModelSpec] = {m.id: m for m in whole.models}
    spec, beside = whole.nodes[place], there.on(one.gpu_ids)
    if any(r.model_id == one.model_id for r in beside):
        return there
    starts = one.phase is Phase.STARTING and one.target is Rung.SERVING
    if start_in_the_way(beside, one.gpu_ids) or (
        starts and freeing_in_the_way(beside, one.gpu_ids)
    ):
        return there
    if shared_copies(specs[one.model_id]) and any(map(_owns, (*beside, one))) and beside:
        return there
    after = recounted(there, (*there.replicas, one), spec, specs)
    found = reserved(spec, [(r, specs[r.model_id]) for r in after.replicas])
    usable = usable_hbm_bytes(spec.hbm_bytes)
    fits = max(found.gpu_bytes.values()) <= usable and found.host_bytes <= spec.host_bytes
    return after if fits else there


def _owns(replica: ReplicaState) -> bool:
    return Rung.SERVING in (replica.rung, replica.target)


def _works(replica: ReplicaState) -> bool:
    """It may have requests."""
    at_work = replica.phase in (Phase.READY, Phase.DRAINING)
    return replica.rung is Rung.SERVING and at_work and not replica.action_id


@st.composite
def _demand(
    draw: st.DrawFn, spec: ModelSpec, replicas: list[ReplicaState], in_flight: dict[str, int]
) -> ModelDemand:
    held = draw(st.sampled_from([0, 0, 1, 9, 80]))
    serves = any(r.serving for r in replicas if r.model_id == spec.id)
    wanted = not serves and draw(st.sampled_from([False, False, False, True]))
    quiet_s = 0 if held or wanted else draw(st.sampled_from([0, 1000]))
    return ModelDemand(
        model_id=spec.id,
        held=held,
        in_flight=sum(in_flight.get(r.replica_id, 0) for r in replicas if r.model_id == spec.id),
        oldest_held_us=NOW_US - draw(st.sampled_from([0, 1, 30])) * US if held else 0,
        rate_per_s=draw(st.sampled_from([0.0, 0.01, 2.0])),
        last_arrival_us=NOW_US - quiet_s * US,
        wanted=wanted,
    )


@st.composite
def _residency(draw: st.DrawFn, whole: Catalog) -> Residency | None:
    """Any engines at all, whether or not there is room for them."""
    places = [
        (spec, there, gpus)
        for spec in whole.models
        for there in whole.nodes
        for gpus in gpu_sets(there, spec.gpus)
    ]
    if not places:
        return None
    chosen = draw(
        st.lists(st.sampled_from(places), max_size=4, unique_by=lambda p: (p[0].id, *p[2]))
    )
    return Residency(made_us=NOW_US, residents=tuple(draw(_resident(*place)) for place in chosen))


@st.composite
def _resident(
    draw: st.DrawFn, spec: ModelSpec, there: NodeSpec, gpu_ids: tuple[int, ...]
) -> Resident:
    numbers = {"value": draw(st.sampled_from([0.1, 5.0, 500.0]))}
    return Resident(
        model_id=ModelId(spec.id),
        node_id=NodeId(there.id),
        gpu_ids=gpu_ids,
        why=Reason(code=ReasonCode.RESIDENCY, numbers=numbers),
    )


@st.composite
def outlooks(draw: st.DrawFn, whole: Catalog) -> Outlook:
    return Outlook(
        made_us=NOW_US,
        horizons_us=HORIZONS_US,
        paths=PATHS,
        models={m.id: draw(_outlook(m)) for m in whole.models if draw(st.integers(0, 3))},
    )


@st.composite
def _outlook(draw: st.DrawFn, spec: ModelSpec) -> ModelOutlook:
    return ModelOutlook(
        model_id=spec.id,
        rate_per_s=draw(st.sampled_from([0.0, 0.02, 1.0, 8.0])),
        dispersion=draw(st.sampled_from([1.0, 6.0])),
        service_s=draw(st.sampled_from([0.5, 4.0, 30.0])),
        slots=draw(st.integers(1, spec.max_num_seqs)),
        acts=draw(st.booleans()),
        need=draw(_need()) if draw(st.booleans()) else (),
    )


@st.composite
def _need(draw: st.DrawFn) -> tuple[tuple[bytes, ...], ...]:
    """Who needs two needs one; who needs them soon needs them by any later horizon as well."""
    found: list[list[int]] = []
    for _ in HORIZONS_US:
        masks, most = [], (1 << PATHS) - 1
        for k in range(draw(st.integers(0, 3))):
            before = found[-1][k] if found and k < len(found[-1]) else 0
            most &= draw(st.integers(0, (1 << PATHS) - 1)) | before
            if most:
                masks.append(most)
        before_this = found[-1] if found else []
        found.append(masks if len(masks) >= len(before_this) else [*before_this])
    return tuple(tuple(mask.to_bytes(PATHS // 8) for mask in masks) for masks in found)
