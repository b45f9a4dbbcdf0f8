"""`keepalive-lru`: start on demand, keep alive until another model needs the room. A pure decision.

In: `Facts` of the controller, round after round. Out: a `Decision`. State is when each replica was
last seen with requests. Never: forecasts, parks, takes a busy replica's place.
"""

from dataclasses import dataclass

from placement.catalog import ModelSpec
from placement.edges import climb_us, footprint_bytes
from placement.feasibility import freeing_in_the_way, room_for_start, start_in_the_way
from placement.plan import Reason, ReasonCode, Victim
from placement.snapshot import NodeState, Phase, ReplicaState, Rung
from prewarm.climbs import Climb
from prewarm.demand import ModelDemand
from prewarm.draft import Draft, Facts, sets_for, weights_at
from prewarm.planning import Decision, Ids, Planning
from prewarm.victims import enough

WHY_START = Reason(code=ReasonCode.HELD_REQUESTS)
WHY_FAILED = Reason(code=ReasonCode.FAILED_REPLICA)


class KeepAlive:
    """`decide` is called every round."""

    def __init__(self) -> None:
        self._used_us: dict[str, int] = {}

    def decide(self, facts: Facts, ids: Ids) -> Decision:
        """Longest-waiting models first."""
        planning = Planning(facts, ids)
        self._note_use(planning.draft)
        for spec in sorted(facts.models.values(), key=lambda s: _waiting(facts, s)):
            if short_of(planning.draft, spec) > 0:
                self._serve(planning, spec)
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

    def _serve(self, planning: Planning, spec: ModelSpec) -> None:
        """As many starts as there is free room for; then one set of GPUs is cleared."""
        for _ in range(short_of(planning.draft, spec)):
            climb = start_in_free_room(planning.draft, spec)
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
        steps: dict[str, Rung | None] = {}
        for replica in sorted(idle, key=lambda r: (self._last_used_us(r.replica_id), r.replica_id)):
            steps[replica.replica_id] = None
            ending = {r.replica_id: None for r in idle if r.replica_id in steps}
            if enough(draft, node, gpus, footprint_bytes(spec), ending):
                victims = tuple(Victim(replica_id=name, to=None) for name in ending)
                return _start_there(draft, spec, node, gpus, victims)
        return None

    def _last_used_us(self, replica_id: str) -> int:
        return self._used_us.get(replica_id, 0)


@dataclass(frozen=True, slots=True)
class Have:
    """Replicas of one model, by what may be expected of them."""

    serving: tuple[ReplicaState, ...]
    coming: tuple[ReplicaState, ...]


def have(draft: Draft, spec: ModelSpec) -> Have:
    mine = draft.of_model(spec.id)
    return Have(
        tuple(r for r in mine if r.serving),
        tuple(r for r in mine if r.action_id and r.target is Rung.SERVING),
    )


def short_of(draft: Draft, spec: ModelSpec) -> int:
    """Replicas to start: those that held requests fill, beyond what is coming, and the minimum.

    Requests are held only where nothing serves, or where all that serve are full.
    """
    demand = draft.facts.demand.get(spec.id) or ModelDemand(model_id=spec.id)
    there = have(draft, spec)
    waiting = demand.held or (1 if demand.wanted and not there.serving else 0)
    least = spec.min_replicas - len(there.serving) - len(there.coming)
    wanted = -(-waiting // spec.max_num_seqs) - len(there.coming)
    most = spec.max_replicas - len(there.serving) - len(there.coming)
    return min(max(wanted, least), most)


def start_in_free_room(draft: Draft, spec: ModelSpec) -> Climb | None:
    """The first GPU set, in the order of nodes, where a start has all it needs."""
    for node in draft.nodes.values():
        if draft.blocked(spec, node.node_id):
            continue
        node_spec = draft.spec_of(node)
        for gpus in sets_for(spec, node_spec):
            taken = draft.promised_to_another(spec, node.node_id, gpus)
            if not taken and room_for_start(spec, node, node_spec, gpus) is None:
                return _start_there(draft, spec, node, gpus, ())
    return None


def end_failed(planning: Planning) -> None:
    for replica in planning.facts.snapshot.replicas():
        if replica.phase is Phase.FAILED and not replica.action_id:
            planning.step_down(planning.draft.replica(replica.replica_id), None, WHY_FAILED)


def _start_there(
    draft: Draft,
    spec: ModelSpec,
    node: NodeState,
    gpus: tuple[int, ...],
    victims: tuple[Victim, ...],
) -> Climb:
    takes_us = climb_us(spec, weights_at(node, spec), draft.spec_of(node).links)
    return Climb(
        node_id=node.node_id, gpu_ids=gpus, replica=None, victims=victims, takes_us=takes_us
    )


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
