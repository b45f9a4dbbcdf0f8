"""How a model can get to serving: the climbs open to it now, what each takes and whom it hurts.

In: a draft of the cluster, demand, the time. Out: `Climb`s, quickest and least harmful first.
Never: decides whether to climb, awaits, reads a clock.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from placement.catalog import Catalog, ModelId, ModelSpec, NodeSpec, ReplicaId
from placement.edges import (
    LEGAL_STEPS,
    climb_us,
    edge_us,
    footprint_bytes,
    gpu_bytes,
    host_bytes,
    step_edge,
)
from placement.feasibility import (
    freeing_in_the_way,
    gpu_free_bytes,
    gpu_sets,
    host_free_bytes,
    recounted,
    room_for_start,
    room_for_step,
    start_in_the_way,
)
from placement.plan import Victim
from placement.snapshot import ClusterSnapshot, NodeState, Phase, ReplicaState, Rung, WeightsAt
from prewarm.demand import ModelDemand

US = 1_000_000
HORIZON_S = 60.0
"""A neighbour's loss counts the requests that its recent rate brings within this time."""
TENURE_US_MIN = 2 * US


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All that a decision may look at. `models` also holds those that left the catalog."""

    snapshot: ClusterSnapshot
    catalog: Catalog
    models: Mapping[str, ModelSpec]
    demand: Mapping[str, ModelDemand]
    in_flight: Mapping[str, int]
    blocked_until_us: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """(model, node) pairs that failed lately."""
    cleared_for: Mapping[str, str] = field(default_factory=dict)
    """Replicas drained to make room, and the model that the room is for."""
    excess_since_us: Mapping[str, int] = field(default_factory=dict)
    """Models that have had more serving replicas than they need, and since when."""
    now_us: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Climb:
    """One way up. `replica` stands on a rung already; without one an engine is started.

    `loss_us` is what it costs others: microseconds of waiting, expected within the horizon.
    """

    node_id: str
    gpu_ids: tuple[int, ...]
    replica: ReplicaState | None
    victims: tuple[Victim, ...]
    takes_us: int
    loss_us: float
    restore: bool = False

    @property
    def key(self) -> tuple[float, str, tuple[int, ...], str]:
        replica_id = self.replica.replica_id if self.replica is not None else "~"
        return (self.takes_us + self.loss_us, self.node_id, self.gpu_ids, replica_id)


class Draft:
    """The cluster as it will be once the actions planned so far have been taken up. Mutable."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.cleared_for = dict(facts.cleared_for)
        self.nodes: dict[str, NodeState] = {}
        for node in facts.snapshot.nodes:
            if node.alive and facts.catalog.node(node.node_id) is not None:
                self.nodes[node.node_id] = node

    def spec_of(self, node: NodeState) -> NodeSpec:
        spec = self.facts.catalog.node(node.node_id)
        assert spec is not None, f"{node.node_id} is in the snapshot but not in the catalog"
        return spec

    def of_model(self, model_id: str) -> list[ReplicaState]:
        found = [r for n in self.nodes.values() for r in n.replicas if r.model_id == model_id]
        return sorted(found, key=lambda r: r.replica_id)

    def replica(self, replica_id: str) -> ReplicaState:
        found = (r for n in self.nodes.values() for r in n.replicas if r.replica_id == replica_id)
        return next(found)

    def put(self, replica: ReplicaState) -> None:
        """Add or replace a replica and count the node's bytes anew."""
        node = self.nodes[replica.node_id]
        others = tuple(r for r in node.replicas if r.replica_id != replica.replica_id)
        self.nodes[replica.node_id] = recounted(
            node, (*others, replica), self.spec_of(node), self.facts.models
        )

    def busy(self, replica: ReplicaState) -> bool:
        return self.facts.in_flight.get(replica.replica_id, 0) > 0


def climbs(draft: Draft, spec: ModelSpec) -> list[Climb]:
    """Every climb open to a model now, best first."""
    found = [*_restores(draft, spec), *_promotions(draft, spec), *_starts(draft, spec)]
    return sorted(found, key=lambda c: c.key)


def ever_fits(draft: Draft, spec: ModelSpec) -> bool:
    """Whether some living node could serve this model if it were empty."""
    for node in draft.nodes.values():
        node_spec = draft.spec_of(node)
        bare = recounted(node, (), node_spec, draft.facts.models)
        sets = _gpu_sets(spec, node_spec)
        if any(room_for_start(spec, bare, node_spec, gpus) is None for gpus in sets):
            return True
    return False


def loss_us(draft: Draft, replica: ReplicaState, to: Rung | None) -> float:
    """What stepping down costs: seconds more to come back × requests expected in the horizon."""
    spec = draft.facts.models[replica.model_id]
    demand = draft.facts.demand.get(replica.model_id)
    rate_per_s = demand.rate_per_s if demand is not None else 0.0
    node = draft.nodes[replica.node_id]
    back_us = climb_us(spec, _weights_at(node, spec) if to is None else to)
    more_us = back_us - climb_us(spec, replica.rung)
    return max(more_us, 0) * rate_per_s * HORIZON_S


def _restores(draft: Draft, spec: ModelSpec) -> Iterator[Climb]:
    for replica in draft.of_model(spec.id):
        mine = draft.cleared_for.get(replica.replica_id, spec.id) == spec.id
        draining = replica.phase is Phase.DRAINING and replica.rung is Rung.SERVING
        if draining and not replica.action_id and mine:
            yield _climb(replica, (), 0, 0.0, restore=True)


def _promotions(draft: Draft, spec: ModelSpec) -> Iterator[Climb]:
    for replica in draft.of_model(spec.id):
        at_rest = replica.phase is Phase.READY and not replica.action_id
        if not at_rest or replica.rung is Rung.SERVING or _blocked(draft, spec, replica.node_id):
            continue
        node = draft.nodes[replica.node_id]
        if start_in_the_way(node.replicas, replica.gpu_ids) is not None:
            continue
        takes_us = climb_us(spec, replica.rung, draft.spec_of(node).links)
        if room_for_step(spec, node, replica, Rung.SERVING) is None:
            yield _climb(replica, (), takes_us, 0.0)
            continue
        need = gpu_bytes(spec, Rung.SERVING) - gpu_bytes(spec, replica.rung)
        victims = choose_victims(draft, spec, node, replica.gpu_ids, need, low=Rung.SHED)
        if victims:
            down_us, loss = _price(draft, victims)
            yield _climb(replica, victims, takes_us + down_us, loss)


def _starts(draft: Draft, spec: ModelSpec) -> Iterator[Climb]:
    for node in draft.nodes.values():
        if _blocked(draft, spec, node.node_id):
            continue
        node_spec = draft.spec_of(node)
        takes_us = climb_us(spec, _weights_at(node, spec), node_spec.links)
        for gpus in _gpu_sets(spec, node_spec):
            if any(r.model_id == spec.id and r.gpu_ids == gpus for r in node.replicas):
                continue  # one engine of a model per GPU set: climb with that one
            climb = _start_on(draft, spec, node, node_spec, gpus, takes_us)
            if climb is not None:
                yield climb


def _start_on(
    draft: Draft,
    spec: ModelSpec,
    node: NodeState,
    node_spec: NodeSpec,
    gpus: tuple[int, ...],
    takes_us: int,
) -> Climb | None:
    bare = Climb(
        node_id=node.node_id,
        gpu_ids=gpus,
        replica=None,
        victims=(),
        takes_us=takes_us,
        loss_us=0.0,
    )
    if room_for_start(spec, node, node_spec, gpus) is None:
        return bare
    if start_in_the_way(node.replicas, gpus) or freeing_in_the_way(node.replicas, gpus):
        return None
    if host_free_bytes(node) < host_bytes(spec, Rung.SERVING):
        return None
    need = footprint_bytes(spec)
    victims = choose_victims(draft, spec, node, gpus, need, low=Rung.PARKED)
    if not victims:
        return None
    down_us, loss = _price(draft, victims)
    return Climb(
        node_id=node.node_id,
        gpu_ids=gpus,
        replica=None,
        victims=victims,
        takes_us=takes_us + down_us,
        loss_us=loss,
    )


def choose_victims(
    draft: Draft, spec: ModelSpec, node: NodeState, gpus: tuple[int, ...], need: int, low: Rung
) -> tuple[Victim, ...]:
    """Idle neighbours that step down so that each GPU gets `need` bytes; empty if none suffice.

    Gentlest step first (KV cache only), then `low`, then ending engines; cheapest loss first.
    """
    neighbours = [r for r in node.replicas if not set(gpus).isdisjoint(r.gpu_ids)]
    idle = [r for r in neighbours if may_step_down(draft, r, for_model=spec.id)]
    steps: dict[ReplicaId, Rung | None] = {}
    ranked = sorted(idle, key=lambda r: (loss_us(draft, r, None), r.replica_id))
    for to in (Rung.WARM, low, None):
        for replica in ranked:
            now_at = steps.get(replica.replica_id, replica.rung)
            if not _goes_down(draft, node, replica, to):
                continue
            if now_at is not None and (to is None or to < now_at):
                steps[replica.replica_id] = _kept_legal(draft, node, replica, to)
            if _enough(draft, node, gpus, need, steps):
                return _pruned(draft, node, gpus, need, steps, ranked)
    return ()


def may_step_down(draft: Draft, replica: ReplicaState, for_model: str) -> bool:
    """Idle, settled for its tenure, nobody waits for its model, and not its model's minimum."""
    facts = draft.facts
    spec = facts.models.get(replica.model_id)
    if spec is None or draft.busy(replica) or replica.action_id or replica.model_id == for_model:
        return False
    if replica.phase not in (Phase.READY, Phase.DRAINING):
        return False
    cleared = draft.cleared_for.get(replica.replica_id) == for_model
    if replica.rung is not Rung.SERVING or cleared:
        return True
    demand = facts.demand.get(replica.model_id)
    if demand is not None and demand.held > 0:
        return False
    serving = [r for r in draft.of_model(replica.model_id) if r.serving]
    if replica.serving and len(serving) <= spec.min_replicas:
        return False
    tenure_us = max(TENURE_US_MIN, climb_us(spec, Rung.PARKED))
    return replica.since_us + tenure_us <= facts.now_us


def _goes_down(draft: Draft, node: NodeState, replica: ReplicaState, to: Rung | None) -> bool:
    if to is None:
        return True
    if to is Rung.PARKED and not _host_room_to_park(draft, node, replica):
        to = Rung.SHED
    return (replica.rung, to) in LEGAL_STEPS and to < replica.rung


def _kept_legal(
    draft: Draft, node: NodeState, replica: ReplicaState, to: Rung | None
) -> Rung | None:
    parks = to is Rung.PARKED
    return Rung.SHED if parks and not _host_room_to_park(draft, node, replica) else to


def _host_room_to_park(draft: Draft, node: NodeState, replica: ReplicaState) -> bool:
    spec = draft.facts.models[replica.model_id]
    more = host_bytes(spec, Rung.PARKED) - host_bytes(spec, replica.rung)
    return more <= host_free_bytes(node)


def _enough(
    draft: Draft,
    node: NodeState,
    gpus: tuple[int, ...],
    need: int,
    steps: Mapping[ReplicaId, Rung | None],
) -> bool:
    free = {g: gpu_free_bytes(node, g) for g in gpus}
    for replica in node.replicas:
        if replica.replica_id not in steps:
            continue
        spec = draft.facts.models[replica.model_id]
        to = steps[replica.replica_id]
        given = gpu_bytes(spec, replica.rung) - (0 if to is None else gpu_bytes(spec, to))
        for g in replica.gpu_ids:
            if g in free:
                free[g] += given
    return all(bytes_free >= need for bytes_free in free.values())


def _pruned(
    draft: Draft,
    node: NodeState,
    gpus: tuple[int, ...],
    need: int,
    steps: dict[ReplicaId, Rung | None],
    ranked: Iterable[ReplicaState],
) -> tuple[Victim, ...]:
    """Spare whoever need not move after all, the dearest first."""
    for replica in sorted(ranked, key=lambda r: -loss_us(draft, r, None)):
        if replica.replica_id in steps:
            spared = {k: v for k, v in steps.items() if k != replica.replica_id}
            if spared and _enough(draft, node, gpus, need, spared):
                steps = spared
    return tuple(Victim(replica_id=k, to=v) for k, v in sorted(steps.items()))


def _price(draft: Draft, victims: Iterable[Victim]) -> tuple[int, float]:
    """How long the victims take to step down (they do it side by side), and their loss."""
    takes_us, loss = 0, 0.0
    for victim in victims:
        replica = draft.replica(victim.replica_id)
        spec = draft.facts.models[replica.model_id]
        if victim.to is not None:
            takes_us = max(takes_us, edge_us(step_edge(spec, replica.rung, victim.to)))
        loss += loss_us(draft, replica, victim.to)
    return takes_us, loss


def _climb(
    replica: ReplicaState,
    victims: tuple[Victim, ...],
    takes_us: int,
    loss: float,
    *,
    restore: bool = False,
) -> Climb:
    return Climb(
        node_id=replica.node_id,
        gpu_ids=replica.gpu_ids,
        replica=replica,
        victims=victims,
        takes_us=takes_us,
        loss_us=loss,
        restore=restore,
    )


def _blocked(draft: Draft, spec: ModelSpec, node_id: str) -> bool:
    return draft.facts.blocked_until_us.get((spec.id, node_id), 0) > draft.facts.now_us


def _gpu_sets(spec: ModelSpec, node_spec: NodeSpec) -> list[tuple[int, ...]]:
    return list(gpu_sets(node_spec, spec.gpus)) if spec.on_gpu else [()]


def _weights_at(node: NodeState, spec: ModelSpec) -> WeightsAt:
    return node.weights_at.get(ModelId(spec.id), WeightsAt.HOST)
