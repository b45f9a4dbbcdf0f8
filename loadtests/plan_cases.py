"""Clusters of any size as a planner meets them, for measuring how fast it decides. Seeded.

In: a number of GPUs, a world, a seed. Out: `Facts` of one round. Never: plans, measures.

Nodes of eight GPUs; a model for every five GPUs, of 1, 2, 4 or 8 GPUs, few of them asked much.
Three quarters of the GPUs serve. Beside them stand warm and parked replicas. Of two hundred models
a dozen need another replica, half of which nothing serves, and a dozen have some too many. What is
expected stands on 128 paths.
"""

from collections import Counter
from enum import Enum, auto
from itertools import count
from typing import NamedTuple

import numpy as np

from loadtests.draws import Ints, stream
from placement.catalog import (
    Catalog,
    EngineKind,
    Mechanism,
    ModelId,
    ModelSpec,
    NodeId,
    NodeSpec,
    ReplicaId,
    World,
)
from placement.edges import DEFAULT_LINKS, SHARED_LINKS, gpu_bytes
from placement.feasibility import claim_bytes, gpu_sets, recounted, usable_hbm_bytes
from placement.planning.demand import ModelDemand
from placement.planning.draft import Facts
from placement.planning.outlook import ModelOutlook, Outlook
from placement.planning.writing import Ids
from placement.snapshot import ClusterSnapshot, GpuState, NodeState, Phase, ReplicaState, Rung

US = 1_000_000
GB = 1_000_000_000
NOW_US = 3600 * US
GPUS_PER_NODE = 8
GPUS_PER_MODEL = 5
SERVING = 0.75
"""Of all GPUs."""
PATHS = 128
MAX_REPLICAS = 32
ASLEEP = {World.S: 8, World.W: 2}
"""Of each model, where there is room."""
TRIES = 6
TRIES_ASLEEP = 40
SLOTS = 24
SERVICE_S = 4.0
HORIZONS_US = (10 * US, 60 * US, 300 * US, 1800 * US)


class Role(Enum):
    """What one model has beside what it needs."""

    ENOUGH = auto()
    ASLEEP = auto()
    """Nobody asks for it, and nothing serves it."""
    HELD = auto()
    """It is asked for, and nothing serves it."""
    FULL = auto()
    TOO_MANY = auto()


ROLES = {
    Role.ENOUGH: 0.68,
    Role.ASLEEP: 0.2,
    Role.HELD: 0.03,
    Role.FULL: 0.03,
    Role.TOO_MANY: 0.06,
}
LOADS = {Role.ENOUGH: 0.7, Role.FULL: 1.0, Role.TOO_MANY: 0.1}
"""Of the slots of those that serve."""


class Shape(NamedTuple):
    weights_gb: int
    gpus: int
    share: float


SHAPES = (
    Shape(16, 1, 0.45),
    Shape(29, 1, 0.25),
    Shape(66, 2, 0.15),
    Shape(141, 4, 0.1),
    Shape(405, 8, 0.05),
)


def plan_case(gpus: int, world: World, seed: int = 0) -> Facts:
    """One round of a cluster of so many GPUs."""
    rng = stream(seed, f"plan-case/{gpus}/{world}")
    models = _models(max(gpus // GPUS_PER_MODEL, 1), world, rng)
    drawn = rng.choice(len(ROLES), len(models), p=list(ROLES.values())).tolist()
    roles: dict[str, Role] = {
        m.id: list(ROLES)[place] for m, place in zip(models, drawn, strict=True)
    }
    nodes = tuple(_node(i, world) for i in range(-(-gpus // GPUS_PER_NODE)))
    catalog = Catalog(version="bench", models=models, nodes=nodes)
    cluster = _Cluster(catalog, roles, rng)
    cluster.fill()
    in_flight = _in_flight(cluster.serving, roles, rng)
    demand: dict[str, ModelDemand] = {
        m.id: _demand(m, roles[m.id], cluster.serving, in_flight, rng) for m in models
    }
    return Facts(
        snapshot=ClusterSnapshot(version=1, nodes=tuple(cluster.states())),
        catalog=catalog,
        models={m.id: m for m in models},
        demand=demand,
        in_flight=in_flight,
        outlook=_outlook(models, demand, rng),
        now_us=NOW_US,
    )


def fresh_ids() -> Ids:
    """No two alike."""
    actions, replicas = count(1), count(1)
    return Ids(lambda: f"action-{next(actions)}", lambda model: f"{model}-new-{next(replicas)}")


def _models(wanted: int, world: World, rng: np.random.Generator) -> tuple[ModelSpec, ...]:
    """Of each shape its share; in world W the KV cache fills the GPU."""
    places = rng.choice(len(SHAPES), wanted, p=[shape.share for shape in SHAPES])
    return tuple(_model(i, SHAPES[place], world) for i, place in enumerate(places.tolist()))


def _model(at: int, shape: Shape, world: World) -> ModelSpec:
    per_gpu_gb = shape.weights_gb / shape.gpus
    kv_gb = 70 - per_gpu_gb if world is World.W else 10
    return ModelSpec(
        id=ModelId(f"m{at:04}"),
        engine=EngineKind.EMULATED,
        weights_bytes=shape.weights_gb * GB,
        parameters=shape.weights_gb * GB // 2,
        kv_bytes_per_token=131_072,
        kv_cache_bytes=int(kv_gb * GB),
        residue_bytes=0 if world is World.W else GB,
        gpus=shape.gpus,
        max_replicas=MAX_REPLICAS,
        mechanism=Mechanism(world=world),
    )


def _node(at: int, world: World) -> NodeSpec:
    return NodeSpec(
        id=NodeId(f"n{at:04}"),
        gpus=GPUS_PER_NODE,
        gpu_type="A100-80GB",
        hbm_bytes=80 * GB,
        host_bytes=2000 * GB,
        links=SHARED_LINKS if world is World.W else DEFAULT_LINKS,
    )


class _Cluster:
    """Replicas by node, and the bytes that are left on each GPU."""

    def __init__(self, catalog: Catalog, roles: dict[str, Role], rng: np.random.Generator) -> None:
        self.serving: dict[str, list[str]] = {m.id: [] for m in catalog.models}
        self._catalog, self._roles, self._rng = catalog, roles, rng
        self._replicas: dict[str, list[ReplicaState]] = {n.id: [] for n in catalog.nodes}
        self._free = {n.id: [usable_hbm_bytes(n.hbm_bytes)] * n.gpus for n in catalog.nodes}
        self._names = count(1)
        self._count: Counter[str] = Counter()
        # Few are asked for much: shares fall with the rank.
        weights = 1 / np.arange(1, len(catalog.models) + 1)
        self._shares = weights / weights.sum()

    def fill(self) -> None:
        """Serving replicas first, then those that sleep, some of each model."""
        wanted = int(SERVING * sum(n.gpus for n in self._catalog.nodes))
        for spec in self._drawn():
            if wanted >= spec.gpus and self._roles[spec.id] not in (Role.ASLEEP, Role.HELD):
                placed = self._place(spec, Rung.SERVING)
                if placed is not None:
                    self.serving[spec.id].append(placed)
                    wanted -= spec.gpus
        models = self._catalog.models
        for spec in models * ASLEEP[models[0].mechanism.world]:
            self._place(spec, self._sleeps(spec), tries=TRIES_ASLEEP)

    def _drawn(self) -> list[ModelSpec]:
        """Each model once, then as often as its share."""
        models = self._catalog.models
        times = 2 * sum(n.gpus for n in self._catalog.nodes)
        often = self._rng.choice(len(models), times, p=self._shares).tolist()
        return [*models, *(models[i] for i in often)]

    def _sleeps(self, spec: ModelSpec) -> Rung:
        shared = spec.mechanism.world is World.W
        return Rung.WARM if shared or self._rng.random() < 0.2 else Rung.PARKED

    def _place(self, spec: ModelSpec, rung: Rung, tries: int = TRIES) -> str | None:
        """On the first of some nodes that has room for it, if the model may have one more."""
        if self._count[spec.id] >= spec.max_replicas:
            return None
        nodes = self._catalog.nodes
        for at in self._rng.integers(0, len(nodes), tries).tolist():
            node = nodes[at]
            for gpus in gpu_sets(node, spec.gpus):
                if self._has_room(node, gpus, spec, rung):
                    return self._put(node, gpus, spec, rung)
        return None

    def _has_room(self, node: NodeSpec, gpus: tuple[int, ...], spec: ModelSpec, rung: Rung) -> bool:
        there = self._replicas[node.id]
        mine = any(r.model_id == spec.id and r.gpu_ids == gpus for r in there)
        need = gpu_bytes(spec, rung)
        if rung is Rung.SERVING:
            need = claim_bytes(spec, _empty(node))
        return not mine and all(self._free[node.id][g] >= need for g in gpus)

    def _put(self, node: NodeSpec, gpus: tuple[int, ...], spec: ModelSpec, rung: Rung) -> str:
        replica_id = ReplicaId(f"{spec.id}-{next(self._names)}")
        self._count[spec.id] += 1
        for g in gpus:
            self._free[node.id][g] -= gpu_bytes(spec, rung)
        self._replicas[node.id].append(
            ReplicaState(
                replica_id=replica_id,
                model_id=spec.id,
                node_id=node.id,
                gpu_ids=gpus,
                rung=rung,
                phase=Phase.READY,
                slots=spec.max_num_seqs,
                since_us=NOW_US - 600 * US,
                pinned=rung is Rung.PARKED,
            )
        )
        return replica_id

    def states(self) -> list[NodeState]:
        models: dict[str, ModelSpec] = {m.id: m for m in self._catalog.models}
        return [
            recounted(_empty(node), tuple(self._replicas[node.id]), node, models)
            for node in self._catalog.nodes
        ]


def _empty(node: NodeSpec) -> NodeState:
    return NodeState(
        node_id=node.id,
        alive=True,
        gpus=tuple(GpuState(gpu_id=g, hbm_bytes=node.hbm_bytes) for g in range(node.gpus)),
        host_bytes=node.host_bytes,
        host_reserved_bytes=0,
    )


def _in_flight(
    serving: dict[str, list[str]], roles: dict[str, Role], rng: np.random.Generator
) -> dict[str, int]:
    """Requests by replica."""
    return {
        replica_id: int(rng.binomial(SLOTS, LOADS[roles[model_id]]))
        for model_id, mine in serving.items()
        for replica_id in mine
    }


def _demand(
    spec: ModelSpec,
    role: Role,
    serving: dict[str, list[str]],
    in_flight: dict[str, int],
    rng: np.random.Generator,
) -> ModelDemand:
    running = sum(in_flight[replica_id] for replica_id in serving[spec.id])
    held = int(rng.integers(1, 12)) if role in (Role.HELD, Role.FULL) else 0
    return ModelDemand(
        model_id=spec.id,
        held=held,
        in_flight=running,
        oldest_held_us=NOW_US - int(rng.integers(1, 2 * US)) if held else 0,
        rate_per_s=(running + held) / SERVICE_S,
        last_arrival_us=NOW_US if running or held else NOW_US - 900 * US,
    )


def _outlook(
    models: tuple[ModelSpec, ...], demand: dict[str, ModelDemand], rng: np.random.Generator
) -> Outlook:
    found: dict[str, ModelOutlook] = {}
    gpus = np.zeros((len(HORIZONS_US), PATHS), np.int64)
    for spec in models:
        asked = demand[spec.id].asked
        rate_per_s = asked / SERVICE_S if asked else float(rng.exponential(0.005))
        windows_s = np.array(HORIZONS_US)[:, None] / US
        mean = rate_per_s * np.minimum(windows_s, 2 * SERVICE_S) + 1e-3 * windows_s
        peaks = np.sort(rng.poisson(mean, (len(mean), PATHS)), axis=0)
        counts = -(-peaks // SLOTS)
        gpus += counts * spec.gpus
        found[spec.id] = ModelOutlook(
            model_id=spec.id,
            rate_per_s=rate_per_s,
            dispersion=1.5,
            service_s=SERVICE_S,
            slots=SLOTS,
            need=tuple(_masks(row) for row in counts),
        )
    at_once = tuple(tuple(row) for row in gpus.tolist())
    return Outlook(made_us=NOW_US, horizons_us=HORIZONS_US, paths=PATHS, models=found, gpus=at_once)


def _masks(counts: Ints) -> tuple[bytes, ...]:
    """Bits of the paths in which at least k replicas are needed, for k = 1, 2, ..."""
    return tuple(
        np.packbits(counts >= k).tobytes() for k in range(1, int(counts.max(initial=0)) + 1)
    )
