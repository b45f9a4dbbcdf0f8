"""`keepalive-lru`: start on demand, keep alive until another model needs the room. A pure decision.

In: `Facts` of the controller, round after round. Out: a `Decision`. State is when each replica was
last seen with requests. Never: forecasts, parks, takes a busy replica's place.
"""

from loadtests.baselines.on_demand import (
    WHY_START,
    FreeRoom,
    end_failed,
    have,
    short_of,
    start_there,
)
from placement.catalog import ModelSpec, ReplicaId
from placement.edges import footprint_bytes
from placement.feasibility import freeing_in_the_way, start_in_the_way
from placement.plan import Victim
from placement.planning.climbs import Climb
from placement.planning.draft import Draft, Facts, sets_for
from placement.planning.victims import enough
from placement.planning.writing import Decision, Ids, Planning
from placement.snapshot import NodeState, ReplicaState, Rung


class KeepAlive:
    """`decide` is called every round."""

    def __init__(self) -> None:
        self._used_us: dict[str, int] = {}

    def decide(self, facts: Facts, ids: Ids) -> Decision:
        """Longest-waiting models first."""
        planning = Planning(facts, ids)
        room = FreeRoom(planning.draft)
        self._note_use(planning.draft)
        for spec in sorted(facts.models.values(), key=lambda s: _waiting(facts, s)):
            if short_of(planning.draft, spec) > 0:
                self._serve(planning, room, spec)
        end_failed(planning)
        return planning.decision()

    def _note_use(self, draft: Draft) -> None:
        """A replica that came up just now counts as used: somebody waits for it."""
        now_us, living = draft.facts.now_us, set[str]()
        for replica in draft.facts.snapshot.replicas():
            living.add(replica.replica_id)
            if draft.busy(replica) or not replica.serving:
                self._used_us[replica.replica_id] = now_us
        for name in [name for name in self._used_us if name not in living]:
            del self._used_us[name]

    def _serve(self, planning: Planning, room: FreeRoom, spec: ModelSpec) -> None:
        """As many starts as there is free room for; then one set of GPUs is cleared."""
        for _ in range(short_of(planning.draft, spec)):
            climb = room.start(spec)
            if climb is None:
                break
            planning.take(spec, climb, WHY_START)
        if short_of(planning.draft, spec) > 0 and not _being_cleared(planning.draft, spec):
            cleared = self._cheapest(planning.draft, spec)
            if cleared is not None:
                planning.take(spec, cleared, WHY_START)
            else:
                planning.want(spec, "every replica that could make room is busy")

    def _cheapest(self, draft: Draft, spec: ModelSpec) -> Climb | None:
        """The set of GPUs whose most recently used replica has been idle for longest."""
        offers: list[tuple[tuple[int, int, str, tuple[int, ...]], Climb]] = []
        for node in draft.nodes.values():
            for gpus in sets_for(spec, draft.spec_of(node)):
                climb = self._clearing(draft, spec, node, gpus)
                if climb is not None:
                    used_us = max(self._last_used_us(v.replica_id) for v in climb.victims)
                    key = (used_us, len(climb.victims), node.node_id, gpus)
                    offers.append((key, climb))
        return min(offers, key=lambda offer: offer[0])[1] if offers else None

    def _clearing(
        self, draft: Draft, spec: ModelSpec, node: NodeState, gpus: tuple[int, ...]
    ) -> Climb | None:
        """Idle replicas end, the least recently used first, until the start has room."""
        in_the_way = start_in_the_way(node.replicas, gpus) or freeing_in_the_way(
            node.replicas, gpus
        )
        if in_the_way or draft.promised_to_another(spec, node.node_id, gpus):
            return None
        beside = [r for r in node.replicas if not set(gpus).isdisjoint(r.gpu_ids)]
        idle = [r for r in beside if _may_end(draft, r, spec)]
        ending: dict[ReplicaId, Rung | None] = {}
        for replica in sorted(idle, key=lambda r: (self._last_used_us(r.replica_id), r.replica_id)):
            ending[replica.replica_id] = None
            if enough(draft, node, gpus, footprint_bytes(spec), ending):
                return start_there(
                    draft, spec, node, gpus, _needed(draft, spec, node, gpus, ending)
                )
        return None

    def _last_used_us(self, replica_id: str) -> int:
        return self._used_us.get(replica_id, 0)


def _needed(
    draft: Draft,
    spec: ModelSpec,
    node: NodeState,
    gpus: tuple[int, ...],
    ending: dict[ReplicaId, Rung | None],
) -> tuple[Victim, ...]:
    """Without those that give nothing where it is short."""
    for name in list(ending):
        spared = {k: v for k, v in ending.items() if k != name}
        if spared and enough(draft, node, gpus, footprint_bytes(spec), spared):
            ending = spared
    return tuple(Victim(replica_id=name, to=None) for name in ending)


def _may_end(draft: Draft, replica: ReplicaState, waiting: ModelSpec) -> bool:
    """Idle, up, not the waiting model's own, and more than its model's minimum."""
    spec = draft.facts.models.get(replica.model_id)
    if spec is None or spec.id == waiting.id or not replica.serving or draft.busy(replica):
        return False
    return len(have(draft, spec).serving) > spec.min_replicas


def _being_cleared(draft: Draft, spec: ModelSpec) -> bool:
    room = draft.rooms.get(spec.id)
    if room is None or draft.facts.now_us >= room.until_us:
        return False
    node = draft.nodes.get(room.node_id)
    return node is not None and any(
        r.action_id and room.meets(node.node_id, r.gpu_ids) for r in node.replicas
    )


def _waiting(facts: Facts, spec: ModelSpec) -> tuple[int, int, str]:
    demand = facts.demand.get(spec.id)
    held = demand is not None and demand.held > 0
    return (-spec.priority, demand.oldest_held_us if demand and held else 1 << 62, spec.id)
