"""Small clusters and futures for the residency plan, and its value worked out the slow way."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import permutations, product

import numpy as np
from hypothesis import strategies as st

from placement.catalog import Catalog, ModelId, ModelSpec, NodeId, NodeSpec, ReplicaId
from placement.edges import climb_us, footprint_bytes, gpu_bytes, host_bytes
from placement.feasibility import gpu_sets, usable_hbm_bytes
from placement.planning.draft import Facts
from placement.planning.paths import DemandPaths
from placement.planning.resident import Residency, Resident
from placement.snapshot import Phase, ReplicaState, Rung, WeightsAt
from tests.builders import GB, catalog, model, node
from tests.prewarm.worlds import NOW_US, fleet

US = 1_000_000
STEP_US = 300 * US
Needs = Mapping[ModelId, list[list[int]]]


def sleeps(
    replica_id: str,
    model_id: str,
    gpus: tuple[int, ...] = (0,),
    rung: Rung = Rung.PARKED,
    node_id: str = "n0",
    phase: Phase = Phase.READY,
) -> ReplicaState:
    return ReplicaState(
        replica_id=ReplicaId(replica_id),
        model_id=ModelId(model_id),
        node_id=NodeId(node_id),
        gpu_ids=gpus,
        rung=rung,
        phase=phase,
        pinned=rung is Rung.PARKED,
    )


def facts(whole: Catalog, *replicas: ReplicaState, residency: Residency | None = None) -> Facts:
    return Facts(
        snapshot=fleet(whole, *replicas),
        catalog=whole,
        models={m.id: m for m in whole.models},
        demand={},
        in_flight={},
        residency=residency,
        now_us=NOW_US,
    )


def futures(
    whole: Catalog, needs: Needs, *, slots: int = 10, service_s: float = 5.0
) -> DemandPaths:
    """Of each model, for each path, the replicas that are needed in each step. The first step
    begins in five minutes, so that every start is there in time."""
    concurrency = np.array(
        [np.array(needs[m.id], np.int32).T * slots for m in whole.models], np.int32
    )
    count = len(whole.models)
    return DemandPaths(
        models=tuple(m.id for m in whole.models),
        start_us=NOW_US + STEP_US,
        step_us=STEP_US,
        concurrency=concurrency,
        service_s=(service_s,) * count,
        slots=(slots,) * count,
    )


def applied(whole: Catalog, residency: Residency) -> list[ReplicaState]:
    """As if all residents had been started and slept since."""
    return [
        sleeps(f"r{i}", r.model_id, r.gpu_ids, r.rests, r.node_id)
        for i, r in enumerate(residency.residents)
    ]


# --- the slow way


@dataclass(frozen=True)
class Placed:
    """The `count`-th engine of a model, by hand."""

    spec: ModelSpec
    count: int
    node_id: str
    gpu_ids: tuple[int, ...]
    rests: Rung
    exists: bool = False


def worth(whole: Catalog, paths: DemandPaths, engines: Iterable[Placed]) -> float:
    """Step by step and path by path: every GPU gives its bytes to whom they save most."""
    placed, total = list(engines), 0.0
    count = paths.concurrency.shape[2]
    shares = {e: saved(whole, paths, e) for e in placed}
    for spec in whole.nodes:
        for g in range(spec.gpus):
            here = [e for e in placed if e.node_id == spec.id and g in e.gpu_ids]
            for cell in {c for e in here for c in shares[e]}:
                offers = [
                    (shares[e].get(cell, 0.0) / e.spec.gpus, footprint_bytes(e.spec)) for e in here
                ]
                total += knapsack(offers, usable_hbm_bytes(spec.hbm_bytes)) / count
    return total - sum(start_cost(whole, e) for e in placed)


def knapsack(offers: list[tuple[float, int]], room: float) -> float:
    earned = 0.0
    for gain, size in sorted(offers, key=lambda o: -o[0] / o[1]):
        part = min(size, room)
        earned += gain * part / size
        room -= part
    return earned


def saved(whole: Catalog, paths: DemandPaths, engine: Placed) -> dict[tuple[int, int], float]:
    """By step and path. Nothing serves at the beginning of these worlds."""
    spec, found = engine.spec, {}
    at = paths.models.index(spec.id)
    slots = paths.slots[at]
    long_s, short_s = (climb_us(spec, r) / US for r in (WeightsAt.HOST, engine.rests))
    for path in range(paths.concurrency.shape[2]):
        asked = paths.concurrency[at, :, path]
        steps = [t for t, a in enumerate(asked) if a > slots * (engine.count - 1)]
        if steps:
            first = steps[0]
            lasts = next((n for n, t in enumerate(steps) if t != first + n), len(steps))
            per_s: float = min(int(asked[first]) - slots * (engine.count - 1), slots)
            per_s /= paths.service_s[at]
            gain = sum(sign * d * (1 + per_s * d / 2) for sign, d in ((1, long_s), (-1, short_s)))
            for step in steps[:lasts]:
                found[step, path] = gain * 2.0**spec.priority / lasts
    return found


def start_cost(whole: Catalog, engine: Placed) -> float:
    if engine.exists:
        return 0.0
    start_s = climb_us(engine.spec, WeightsAt.HOST) / US
    return start_s * engine.spec.gpus / whole.waiting_to_idle(engine.spec.id)


def placed(whole: Catalog, residency: Residency) -> list[Placed]:
    """What a plan says, in words of its own."""
    return [
        Placed(
            spec=spec,
            count=int(r.why.numbers["replica"]),
            node_id=r.node_id,
            gpu_ids=r.gpu_ids,
            rests=r.rests,
            exists=r.why.numbers["start_cost"] == 0,
        )
        for r in residency.residents
        if (spec := whole.model(r.model_id)) is not None
    ]


def fits(whole: Catalog, engines: list[Placed]) -> bool:
    """Host memory, and on each GPU the residues of all and the growth of the largest."""
    for spec in whole.nodes:
        mine = [e for e in engines if e.node_id == spec.id]
        if sum(host_bytes(e.spec, e.rests) for e in mine) > spec.host_bytes:
            return False
        for g in range(spec.gpus):
            here = [e.spec for e in mine if g in e.gpu_ids]
            residues = sum(gpu_bytes(s, Rung.PARKED) for s in here)
            growth = [footprint_bytes(s) - gpu_bytes(s, Rung.PARKED) for s in here]
            if residues + max(growth, default=0) > usable_hbm_bytes(spec.hbm_bytes):
                return False
    return True


def best(whole: Catalog, paths: DemandPaths) -> float:
    """The most that any set of engines is worth that fits, starting from nothing."""
    choices = [list(_sets(whole, spec)) for spec in whole.models]
    found = 0.0
    for choice in product(*choices):
        engines = [e for some in choice for e in some]
        if fits(whole, engines):
            found = max(found, worth(whole, paths, engines))
    return found


def _sets(whole: Catalog, spec: ModelSpec) -> Iterator[list[Placed]]:
    places = [(n.id, gpus) for n in whole.nodes for gpus in gpu_sets(n, spec.gpus)]
    for count in range(min(spec.max_replicas, len(places)) + 1):
        for order in permutations(places, count):
            for rests in product((Rung.PARKED, Rung.SHED), repeat=count):
                yield [
                    Placed(spec, i + 1, *place, rung)
                    for i, (place, rung) in enumerate(zip(order, rests, strict=True))
                ]


# --- drawn


@st.composite
def worlds(draw: st.DrawFn, *, nodes: int = 1, models: int = 3, copies: int = 1) -> Catalog:
    """Models that fit a GPU alone or two at once, scarce or ample host memory."""
    specs = [
        model(
            name,
            weights_bytes=draw(st.sampled_from([8, 16, 30, 50])) * GB,
            kv_cache_bytes=draw(st.sampled_from([5, 15])) * GB,
            gpus=draw(st.sampled_from([1, 1, 2])),
            max_replicas=copies,
            priority=draw(st.sampled_from([0, 0, 1])),
        )
        for name in "abcd"[:models]
    ]
    host = draw(st.sampled_from([4, 8, 25, 60, 200])) * GB
    return catalog(*specs, nodes=tuple(_nodes(nodes, host)))


def _nodes(count: int, host_bytes_each: int) -> Iterator[NodeSpec]:
    for i in range(count):
        yield node(f"n{i}", host_bytes=host_bytes_each)


@st.composite
def cases(
    draw: st.DrawFn, *, nodes: int = 1, models: int = 3, copies: int = 1
) -> tuple[Catalog, DemandPaths]:
    whole = draw(worlds(nodes=nodes, models=models, copies=copies))
    steps, paths = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    rows = st.lists(st.integers(0, copies), min_size=steps, max_size=steps)
    needs = {m.id: draw(st.lists(rows, min_size=paths, max_size=paths)) for m in whole.models}
    return whole, futures(whole, needs, slots=draw(st.sampled_from([1, 10])))


def stands_at(residents: Iterable[Resident], model_id: str) -> list[tuple[str, tuple[int, ...]]]:
    return sorted((r.node_id, r.gpu_ids) for r in residents if r.model_id == model_id)
