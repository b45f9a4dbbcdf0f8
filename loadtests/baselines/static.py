"""`static`: a partition made once from the history's mean demand, MuxServe-like sharing included.

In: a `Setup`. Out: places for replicas, and a catalog whose shared models have smaller KV caches
and fewer slots. Never: moves anything later on, knows a request.

World W lets one replica serve on a GPU, so there a model without GPUs of its own has no place, and
its requests are refused at once. World S lets as many serve side by side as their footprints
allow, without slowing each other down: the bound is in the partition's favour.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import ceil

import msgspec

from loadtests.baselines.on_demand import end_failed
from placement.catalog import Catalog, ModelSpec, NodeSpec, World
from placement.constants import ACTIVATIONS_BYTES
from placement.edges import host_bytes
from placement.feasibility import gpu_sets, room_for_start, usable_hbm_bytes
from placement.plan import Reason, ReasonCode
from placement.planning.climbs import Climb
from placement.planning.draft import Draft, Facts
from placement.planning.writing import Decision, Ids, Planning
from placement.service_time import kv_tokens
from placement.snapshot import Rung
from prewarm.controller import Controller

FULL_SHARE = 0.8
"""A replica is planned to hold this share of its slots on average, as the scalers plan it."""
WHY = Reason(code=ReasonCode.MIN_REPLICAS)


@dataclass(frozen=True, slots=True)
class Usage:
    """What the history says of one model."""

    concurrency: float
    tokens: float
    """Mean context at the end of a request: prompt and answer."""


@dataclass(frozen=True, slots=True)
class Place:
    model_id: str
    node_id: str
    gpu_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Partition:
    """Places in the order in which engines are started."""

    places: tuple[Place, ...]
    catalog: Catalog


@dataclass(slots=True)
class _Gpu:
    """One GPU as it fills up: models with their least bytes, and how much is asked of them."""

    usable: int
    least: dict[str, int] = field(default_factory=dict)
    load: float = 0.0


class _Floor:
    """All GPUs of the fleet while the partition is made."""

    def __init__(self, catalog: Catalog) -> None:
        self.nodes = catalog.nodes
        self.gpus = {
            (node.id, g): _Gpu(usable_hbm_bytes(node.hbm_bytes))
            for node in catalog.nodes
            for g in range(node.gpus)
        }
        self.host_left = {node.id: node.host_bytes for node in catalog.nodes}
        self.places: list[Place] = []

    def sets(self, spec: ModelSpec) -> Iterator[tuple[NodeSpec, tuple[int, ...], list[_Gpu]]]:
        """Aligned sets that do not hold this model, on hosts with room for its engine."""
        for node in self.nodes:
            if self.host_left[node.id] < host_bytes(spec, Rung.SERVING):
                continue
            for gpu_ids in gpu_sets(node, spec.gpus):
                gpus = [self.gpus[node.id, g] for g in gpu_ids]
                if not any(spec.id in gpu.least for gpu in gpus):
                    yield node, gpu_ids, gpus

    def put_alone(self, spec: ModelSpec, load: float) -> bool:
        """On the first GPUs that nobody has."""
        for node, gpu_ids, gpus in self.sets(spec):
            if not any(gpu.least for gpu in gpus):
                self._put(spec, node, gpu_ids, load)
                return True
        return False

    def put_shared(self, spec: ModelSpec, load: float) -> bool:
        """Where the least is asked of the GPUs, if the least that it needs fits beside the rest."""
        least = least_bytes(spec)
        fitting = [
            (max(gpu.load for gpu in gpus), k, node, gpu_ids)
            for k, (node, gpu_ids, gpus) in enumerate(self.sets(spec))
            if all(sum(gpu.least.values()) + least <= gpu.usable for gpu in gpus)
        ]
        if not fitting:
            return False
        _, _, node, gpu_ids = min(fitting, key=lambda f: f[:2])
        self._put(spec, node, gpu_ids, load)
        return True

    def _put(self, spec: ModelSpec, node: NodeSpec, gpu_ids: tuple[int, ...], load: float) -> None:
        for g in gpu_ids:
            gpu = self.gpus[node.id, g]
            gpu.least[spec.id] = least_bytes(spec)
            gpu.load += load
        self.host_left[node.id] -= host_bytes(spec, Rung.SERVING)
        self.places.append(Place(spec.id, node.id, gpu_ids))


def partition(catalog: Catalog, usage: Mapping[str, Usage]) -> Partition:
    """Everybody alone where that is possible; else, in world S, together."""
    asked: dict[str, float] = {
        m.id: usage.get(m.id, Usage(0.0, 0.0)).concurrency for m in catalog.models
    }
    alone = _exclusive(catalog, asked)
    placed = {place.model_id for place in alone.places}
    shares = all(m.mechanism.world is World.S for m in catalog.models)
    if len(placed) == len(catalog.models) or not shares:
        return Partition(_busiest_first(alone.places, asked), catalog)
    floor, replicas = _shared(catalog, asked)
    models = tuple(_shrunk(m, floor, asked, replicas, usage) for m in catalog.models)
    changed = msgspec.structs.replace(catalog, models=models)
    return Partition(_busiest_first(floor.places, asked), changed)


def least_bytes(spec: ModelSpec) -> int:
    """On each GPU: weights, what the engine keeps, and the least KV cache."""
    fixed = spec.residue_bytes + spec.weights_per_gpu_bytes + int(ACTIVATIONS_BYTES.value)
    return fixed + least_kv_bytes(spec)


def least_kv_bytes(spec: ModelSpec) -> int:
    """For one request of full length: none is refused for its size that another policy takes."""
    longest = -(-spec.max_model_len * spec.kv_bytes_per_token // spec.gpus)
    return min(longest, spec.kv_cache_bytes)


def _exclusive(catalog: Catalog, asked: Mapping[str, float]) -> _Floor:
    """One replica each, the most asked for per GPU first where not all fit; what is left goes to
    those with the most requests per replica."""
    floor = _Floor(catalog)
    needed = sum(m.gpus for m in catalog.models)
    fits = needed <= len(floor.gpus)
    ranked = sorted(
        catalog.models,
        key=lambda m: (-m.gpus if fits else 0, -asked[m.id] / m.gpus, m.id),
    )
    count = {m.id: int(floor.put_alone(m, asked[m.id])) for m in ranked}
    open_models = [m for m in ranked if count[m.id]]
    while open_models:
        neediest = max(open_models, key=lambda m: asked[m.id] / count[m.id])
        if count[neediest.id] < neediest.max_replicas and floor.put_alone(neediest, 0.0):
            count[neediest.id] += 1
        else:
            open_models.remove(neediest)
    return floor


def _shared(catalog: Catalog, asked: Mapping[str, float]) -> tuple[_Floor, dict[str, int]]:
    """First one replica of each, the widest and most asked for first; then those that the mean
    demand calls for beyond it."""
    floor = _Floor(catalog)
    wanted: dict[str, int] = {
        m.id: min(max(ceil(asked[m.id] / (FULL_SHARE * m.max_num_seqs)), 1), m.max_replicas)
        for m in catalog.models
    }
    ranked = sorted(catalog.models, key=lambda m: (-m.gpus, -asked[m.id], m.id))
    count = dict.fromkeys(wanted, 0)
    for spec in ranked:
        count[spec.id] += floor.put_shared(spec, asked[spec.id] / wanted[spec.id])
    for spec in ranked:
        for _ in range(wanted[spec.id] - count[spec.id]):
            count[spec.id] += floor.put_shared(spec, asked[spec.id] / wanted[spec.id])
    return floor, count


def _shrunk(
    spec: ModelSpec,
    floor: _Floor,
    asked: Mapping[str, float],
    replicas: Mapping[str, int],
    usage: Mapping[str, Usage],
) -> ModelSpec:
    """Its KV cache: of each GPU what nobody needs at least, shared by demand; the smallest counts,
    for all replicas of a model are alike. Its slots: as many usual requests as that holds."""
    shares = []
    for gpu in floor.gpus.values():
        if spec.id in gpu.least:
            left = gpu.usable - sum(gpu.least.values())
            loads = {m: asked[m] / max(replicas[m], 1) for m in gpu.least}
            total = sum(loads.values())
            share = loads[spec.id] / total if total else 1 / len(loads)
            shares.append(int(left * share))
    if not shares:
        return spec
    kv_bytes = min(least_kv_bytes(spec) + min(shares), spec.kv_cache_bytes)
    smaller = msgspec.structs.replace(spec, kv_cache_bytes=kv_bytes)
    known = usage.get(spec.id)
    tokens = known.tokens if known is not None and known.tokens else spec.max_model_len
    slots = max(min(int(kv_tokens(smaller) / tokens), spec.max_num_seqs), 1)
    return msgspec.structs.replace(smaller, max_num_seqs=slots)


def _busiest_first(places: list[Place], asked: Mapping[str, float]) -> tuple[Place, ...]:
    return tuple(sorted(places, key=lambda p: -asked[p.model_id]))


class Static(Controller):
    """Starts what the partition says wherever it is missing, and nothing else."""

    def __init__(self, made: Partition) -> None:
        super().__init__(made.catalog, "static", self._fill)
        self._made = made
        self._placed = {place.model_id for place in made.places}

    def eta_us(self, model_id: str, now_us: int) -> int | None:
        """A model without a place is never served."""
        return super().eta_us(model_id, now_us) if model_id in self._placed else None

    def _fill(self, facts: Facts, ids: Ids) -> Decision:
        planning = Planning(facts, ids)
        for place in self._made.places:
            if not _there(planning.draft, place):
                self._start(planning, place)
        end_failed(planning)
        return planning.decision()

    def _start(self, planning: Planning, place: Place) -> None:
        draft, spec = planning.draft, self._models[place.model_id]
        node = draft.nodes.get(place.node_id)
        if node is None:
            return
        if room_for_start(spec, node, draft.spec_of(node), place.gpu_ids) is None:
            climb = Climb(node_id=place.node_id, gpu_ids=place.gpu_ids, replica=None)
            planning.take(spec, climb, WHY)


def _there(draft: Draft, place: Place) -> bool:
    node = draft.nodes.get(place.node_id)
    here = () if node is None else node.replicas
    return any((r.model_id, r.gpu_ids) == (place.model_id, place.gpu_ids) for r in here)
