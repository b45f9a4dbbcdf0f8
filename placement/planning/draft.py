"""What a decision looks at, and the cluster as the decisions of one round change it. Pure.

In: a snapshot with pending actions laid over it, demand, what the controller remembers. Out: the
same after each action planned so far. Never: decides.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from operator import attrgetter
from typing import NamedTuple, TypeAlias

from placement.catalog import Catalog, ModelSpec, NodeSpec
from placement.edges import climb_us, return_us
from placement.feasibility import (
    gpu_free_bytes,
    gpu_sets,
    recounted,
    replica_gpu_bytes,
)
from placement.planning.demand import ModelDemand
from placement.planning.kinds import Kind, Kinds, weights_at
from placement.planning.outlook import Outlook
from placement.planning.ranked import Ranked
from placement.planning.resident import Residency
from placement.snapshot import ClusterSnapshot, NodeState, Phase, ReplicaState, Rung

US = 1_000_000
RoomKey: TypeAlias = tuple[Kind, bool, int, int, int]
"""Kind of node, whether anybody may be hurt, GPUs, bytes on each of them, bytes on the host."""
TENURE_US_MIN = 2 * US
"""A replica that has just begun to serve is left in place at least this long."""
HORIZON_S = 60.0
"""A replica's loss counts the requests that its model's recent rate brings within this time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """A GPU set that is being cleared so that an engine of a model can start there."""

    node_id: str
    gpu_ids: tuple[int, ...]
    until_us: int

    def meets(self, node_id: str, gpu_ids: tuple[int, ...]) -> bool:
        return self.node_id == node_id and any(g in self.gpu_ids for g in gpu_ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class Elastic:
    """Nodes of the catalog that may be launched and given back."""

    lead_us: int
    """From the launch until a node takes actions. It is paid for meanwhile."""
    nodes_min: int
    coming: Mapping[str, int] = field(default_factory=dict)
    """Nodes that were launched and are not there yet, and when they will be."""
    since_us: Mapping[str, int] = field(default_factory=dict)
    """Since when each node has been paid for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Going:
    """What is remembered of nodes of which there are too many."""

    too_many_since_us: int | None = None
    """Since when fewer would do, without a break."""
    node_id: str = ""
    """It takes nothing new, and is given back once nothing runs there."""
    since_us: int = 0


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
    rooms: Mapping[str, Room] = field(default_factory=dict)
    """By model: the room being made for it."""
    excess_since_us: Mapping[str, int] = field(default_factory=dict)
    """Models that have had more serving replicas than they need, and since when."""
    outlook: Outlook | None = None
    """What is expected. None: nobody forecasts, and decisions are reactive."""
    residency: Residency | None = None
    """The engines that are to exist. None: no slow plan was made."""
    elastic: Elastic | None = None
    """None: the nodes of the catalog are what there is."""
    going: Going = field(default_factory=Going)
    now_us: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bytes:
    """Of each GPU of a node: what is free now, and what would be at most if neighbours ended."""

    free: tuple[int, ...]
    most: tuple[int, ...]


class Change(NamedTuple):
    """What a round's planning has changed."""

    model_id: str
    node_id: str
    gpus: tuple[int, ...] | None
    """None: the node itself. Else what somebody on these GPUs is worth, for its model changed."""


class Draft:
    """The cluster as it will be once the actions planned so far have been taken up. Mutable.

    What is asked of it again and again is kept until the next change.
    """

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.loss_of: Callable[[ReplicaState, int], float] | None = None
        """What it costs that a replica is so many microseconds further from serving; None: as many
        waits as its model's recent rate brings within the horizon."""
        self.cleared_for = dict(facts.cleared_for)
        self.rooms = dict(facts.rooms)
        self.nodes: dict[str, NodeState] = {}
        self._specs: dict[str, NodeSpec] = {}
        for node in facts.snapshot.nodes:
            spec = facts.catalog.node(node.node_id)
            if node.alive and spec is not None:
                self.nodes[node.node_id], self._specs[node.node_id] = node, spec
        self._by_id: dict[str, ReplicaState] = {}
        for node in self.nodes.values():
            self._by_id.update((r.replica_id, r) for r in node.replicas)
        self._by_model: dict[str, list[ReplicaState]] = {}
        for replica in sorted(self._by_id.values(), key=attrgetter("replica_id")):
            self._by_model.setdefault(replica.model_id, []).append(replica)
        self._serving: dict[str, tuple[ReplicaState, ...]] = {}
        self._spare: dict[str, bool] = {}
        self._bytes: dict[str, Bytes] = {}
        self._bare: dict[str, NodeState] = {}
        self.ranked: dict[RoomKey, Ranked] = {}
        """What it takes to make room (`starts`)."""
        self.changes: list[Change] = []
        self._losses: dict[str, dict[tuple[str, Rung | None], float]] = {}
        """By model, for what each of its replicas is worth hangs on the others."""

    def spec_of(self, node: NodeState) -> NodeSpec:
        return self._specs[node.node_id]

    def of_model(self, model_id: str) -> list[ReplicaState]:
        """In order of their ids."""
        return self._by_model.get(model_id, [])

    def serving_of(self, model_id: str) -> tuple[ReplicaState, ...]:
        """Those that take new requests now, in order of their ids."""
        known = self._serving.get(model_id)
        if known is None:
            known = tuple(r for r in self.of_model(model_id) if r.serving)
            self._serving[model_id] = known
        return known

    def replica(self, replica_id: str) -> ReplicaState:
        return self._by_id[replica_id]

    def find(self, replica_id: str) -> ReplicaState | None:
        """None once it has been dropped."""
        return self._by_id.get(replica_id)

    def put(self, replica: ReplicaState) -> None:
        """Add or replace a replica and count the node's bytes anew."""
        self._by_id[replica.replica_id] = replica
        self._changed(replica, (replica,))

    def drop(self, replica: ReplicaState) -> None:
        """Its end takes no time, and gives back what it held."""
        del self._by_id[replica.replica_id]
        self._changed(replica, ())

    def _changed(self, replica: ReplicaState, now: tuple[ReplicaState, ...]) -> None:
        node, model_id = self.nodes[replica.node_id], replica.model_id
        others = tuple(r for r in node.replicas if r.replica_id != replica.replica_id)
        self.nodes[replica.node_id] = recounted(
            node, (*others, *now), self.spec_of(node), self.facts.models
        )
        mine = [r for r in self.of_model(model_id) if r.replica_id != replica.replica_id]
        self._by_model[model_id] = sorted([*mine, *now], key=attrgetter("replica_id"))
        self._serving.pop(model_id, None)
        self.changes.append(Change(model_id, replica.node_id, None))
        self._forget(replica)
        self.changes.extend(Change(model_id, r.node_id, r.gpu_ids) for r in self._revalued(mine))

    def _forget(self, changed: ReplicaState) -> None:
        """What was kept and may read otherwise now: a minimum ties a model's replicas together,
        and a start whoever stands beside it."""
        spec = self.facts.models.get(changed.model_id)
        tied = self.of_model(changed.model_id) if spec is not None and spec.min_replicas else ()
        beside = self.nodes[changed.node_id].on(changed.gpu_ids)
        for replica in (changed, *beside, *tied):
            self._spare.pop(replica.replica_id, None)
            self._bytes.pop(replica.node_id, None)

    def _revalued(self, mine: list[ReplicaState]) -> list[ReplicaState]:
        """Of a model that changed: those whose loss is not what it was when it was asked for, for
        what each is worth hangs on the others. A minimum ties them together in any case."""
        if not mine:
            return mine
        spec = self.facts.models.get(mine[0].model_id)
        before = self._losses.pop(mine[0].model_id, {})
        if spec is None or spec.min_replicas:
            return mine
        changed = {
            name
            for (name, to), loss in before.items()
            if name in self._by_id and self.loss_us(self._by_id[name], to) != loss
        }
        return [r for r in mine if r.replica_id in changed]

    def changed_since(self, read: int) -> dict[str, frozenset[int] | None]:
        """By node the GPUs on which anything is not as it was then; None: all of them."""
        found: dict[str, frozenset[int] | None] = {}
        for _, node_id, gpus in self.changes[read:]:
            before = found.get(node_id, frozenset())
            found[node_id] = None if gpus is None or before is None else before.union(gpus)
        return found

    @cached_property
    def kinds(self) -> Kinds:
        return Kinds(self.nodes, self.spec_of)

    def bare(self, node: NodeState) -> NodeState:
        """The node without any replica that we know of. No plan changes what is left then."""
        if node.node_id not in self._bare:
            spec, models = self.spec_of(node), self.facts.models
            self._bare[node.node_id] = recounted(node, (), spec, models)
        return self._bare[node.node_id]

    def load(self, replica: ReplicaState) -> int:
        """Requests that run on a replica."""
        return self.facts.in_flight.get(replica.replica_id, 0)

    def busy(self, replica: ReplicaState) -> bool:
        return self.load(replica) > 0

    def at_rest(self, replica: ReplicaState) -> bool:
        """Without work, in no transition that has to end first, and beside nobody who starts."""
        if replica.model_id not in self.facts.models or self.busy(replica):
            return False
        if replica.action_id:
            return replica.loading
        return replica.phase in (Phase.READY, Phase.DRAINING) and not self.beside_a_start(replica)

    def _cleared(self, replica: ReplicaState) -> bool:
        return replica.replica_id in self.cleared_for and self.at_rest(replica)

    def beside_a_start(self, replica: ReplicaState) -> bool:
        """Whoever starts measures its GPUs: until it serves, nobody gives memory back there."""
        return not self.nodes[replica.node_id].starting_gpus.isdisjoint(replica.gpu_ids)

    def spare(self, replica: ReplicaState) -> bool:
        """At rest, and below serving or else settled, not its model's minimum, with nobody waiting
        for it. Then it may step down for any other model."""
        known = self._spare.get(replica.replica_id)
        if known is None:
            known = self._spare[replica.replica_id] = self.at_rest(replica) and (
                replica.rung is not Rung.SERVING or self._can_be_missed(replica)
            )
        return known

    def _can_be_missed(self, replica: ReplicaState) -> bool:
        demand = self.facts.demand.get(replica.model_id)
        if demand is not None and demand.held > 0:
            return False
        return self.settled(replica) and not self.is_minimum(replica)

    def settled(self, replica: ReplicaState) -> bool:
        """It has served longer than it would take to come back."""
        spec = self.facts.models[replica.model_id]
        tenure_us = max(TENURE_US_MIN, return_us(spec))
        return replica.since_us + tenure_us <= self.facts.now_us

    def is_minimum(self, replica: ReplicaState) -> bool:
        spec = self.facts.models[replica.model_id]
        if not spec.min_replicas or not replica.serving:
            return False
        return len(self.serving_of(replica.model_id)) <= spec.min_replicas

    def bytes_on(self, node: NodeState) -> Bytes:
        """`most` counts whoever may step down for some model: no step gives more than that."""
        known = self._bytes.get(node.node_id)
        if known is None:
            known = self._bytes[node.node_id] = self._count(node)
        return known

    def _count(self, node: NodeState) -> Bytes:
        free = tuple(gpu_free_bytes(node, g) for g in range(len(node.gpus)))
        most, models = list(free), self.facts.models
        may_end = [r for r in node.asleep if r.model_id in models and not self.busy(r)]
        may_end += [r for r in node.awake if self.spare(r) or self._cleared(r)]
        for replica in may_end:
            held = replica_gpu_bytes(replica, models[replica.model_id], replica.rung)
            for g in replica.gpu_ids:
                most[g] += held
        return Bytes(free=free, most=tuple(most))

    def leaves(self, node_id: str) -> bool:
        """Whether the node is to be given back: what serves there is to be replaced elsewhere."""
        return node_id == self.facts.going.node_id

    def blocked(self, spec: ModelSpec, node_id: str) -> bool:
        """Whether the model failed there so lately that it rests there, or the node goes."""
        return (
            self.leaves(node_id)
            or self.facts.blocked_until_us.get((spec.id, node_id), 0) > self.facts.now_us
        )

    def promised_to_another(self, spec: ModelSpec, node_id: str, gpus: tuple[int, ...]) -> bool:
        """Whether room is being made there for some other model."""
        if not self.rooms:
            return False
        return any(m != spec.id and room.meets(node_id, gpus) for m, room in self.rooms.items())

    def loss_us(self, replica: ReplicaState, to: Rung | None) -> float:
        """What stepping down costs: microseconds more to come back × requests expected to wait."""
        known = self._losses.setdefault(replica.model_id, {})
        key = (replica.replica_id, to)
        if key not in known:
            known[key] = self._loss_us(replica, to)
        return known[key]

    def _loss_us(self, replica: ReplicaState, to: Rung | None) -> float:
        if self.loss_of is not None:
            return self.loss_of(replica, self._more_us(replica, to))
        demand = self.facts.demand.get(replica.model_id)
        rate_per_s = demand.rate_per_s if demand is not None else 0.0
        return self._more_us(replica, to) * rate_per_s * HORIZON_S

    def _more_us(self, replica: ReplicaState, to: Rung | None) -> int:
        """So much longer is its climb from there."""
        spec = self.facts.models[replica.model_id]
        node = self.nodes[replica.node_id]
        links = self.spec_of(node).links
        back_us = climb_us(spec, weights_at(node, spec) if to is None else to, links)
        more_us = back_us - climb_us(spec, replica.rung, links)
        return max(more_us, 0)


def sets_for(spec: ModelSpec, node_spec: NodeSpec) -> tuple[tuple[int, ...], ...]:
    """GPU sets that a model may stand on; a model on the CPU stands on none."""
    return gpu_sets(node_spec, spec.gpus if spec.on_gpu else 0)
