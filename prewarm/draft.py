"""What a decision looks at, and the cluster as the decisions of one round change it. Pure.

In: a snapshot with pending actions laid over it, demand, what the controller remembers. Out: the
same after each action planned so far. Never: decides.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from placement.catalog import Catalog, ModelId, ModelSpec, NodeSpec
from placement.edges import climb_us
from placement.feasibility import gpu_sets, recounted
from placement.snapshot import ClusterSnapshot, NodeState, ReplicaState, Rung, WeightsAt
from prewarm.demand import ModelDemand

HORIZON_S = 60.0
"""A replica's loss counts the requests that its model's recent rate brings within this time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """A GPU set that is being cleared so that an engine of a model can start there."""

    node_id: str
    gpu_ids: tuple[int, ...]
    until_us: int

    def meets(self, node_id: str, gpu_ids: tuple[int, ...]) -> bool:
        return self.node_id == node_id and not set(self.gpu_ids).isdisjoint(gpu_ids)


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
    now_us: int = 0


class Draft:
    """The cluster as it will be once the actions planned so far have been taken up. Mutable."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.cleared_for = dict(facts.cleared_for)
        self.rooms = dict(facts.rooms)
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

    def load(self, replica: ReplicaState) -> int:
        """Requests that run on a replica."""
        return self.facts.in_flight.get(replica.replica_id, 0)

    def busy(self, replica: ReplicaState) -> bool:
        return self.load(replica) > 0

    def blocked(self, spec: ModelSpec, node_id: str) -> bool:
        """Whether this model failed on this node so lately that it rests there."""
        return self.facts.blocked_until_us.get((spec.id, node_id), 0) > self.facts.now_us

    def promised_to_another(self, spec: ModelSpec, node_id: str, gpus: tuple[int, ...]) -> bool:
        """Whether room is being made there for some other model."""
        return any(m != spec.id and room.meets(node_id, gpus) for m, room in self.rooms.items())

    def loss_us(self, replica: ReplicaState, to: Rung | None) -> float:
        """What stepping down costs: seconds more to come back × requests expected meanwhile."""
        spec = self.facts.models[replica.model_id]
        demand = self.facts.demand.get(replica.model_id)
        rate_per_s = demand.rate_per_s if demand is not None else 0.0
        node = self.nodes[replica.node_id]
        links = self.spec_of(node).links
        back_us = climb_us(spec, weights_at(node, spec) if to is None else to, links)
        more_us = back_us - climb_us(spec, replica.rung, links)
        return max(more_us, 0) * rate_per_s * HORIZON_S


def sets_for(spec: ModelSpec, node_spec: NodeSpec) -> list[tuple[int, ...]]:
    """GPU sets that a model may stand on; a model on the CPU stands on none."""
    return list(gpu_sets(node_spec, spec.gpus)) if spec.on_gpu else [()]


def weights_at(node: NodeState, spec: ModelSpec) -> WeightsAt:
    return node.weights_at.get(ModelId(spec.id), WeightsAt.HOST)
