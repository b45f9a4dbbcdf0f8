"""What policies that start replicas when somebody waits have in common. Pure.

In: a draft of the cluster, a model. Out: what it has, what it is short of, starts that need nobody
to move. Never: decides for or against a model.
"""

from dataclasses import dataclass

from placement.catalog import ModelSpec
from placement.edges import climb_us, footprint_bytes
from placement.feasibility import room_for_start
from placement.plan import Reason, ReasonCode, Victim
from placement.planning.climbs import Climb
from placement.planning.demand import ModelDemand
from placement.planning.draft import Draft, sets_for
from placement.planning.kinds import weights_at
from placement.planning.writing import Planning
from placement.snapshot import NodeState, Phase, ReplicaState, Rung

WHY_START = Reason(code=ReasonCode.HELD_REQUESTS)
WHY_FAILED = Reason(code=ReasonCode.FAILED_REPLICA)


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


class FreeRoom:
    """Starts that need nobody to move, in one round. Room only shrinks while a round is planned, so
    what was looked for in vain is not looked for again, nor is anything larger."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._in_vain: set[tuple[int, int]] = set()

    def start(self, spec: ModelSpec) -> Climb | None:
        """The first GPU set, in the order of nodes, where a start has all it needs."""
        width, need = spec.gpus, footprint_bytes(spec)
        if any(w <= width and n <= need for w, n in self._in_vain):
            return None
        draft, barred = self._draft, False
        for node in draft.nodes.values():
            if draft.blocked(spec, node.node_id):
                barred = True
                continue
            node_spec = draft.spec_of(node)
            for gpus in sets_for(spec, node_spec):
                if draft.promised_to_another(spec, node.node_id, gpus):
                    barred = True
                elif room_for_start(spec, node, node_spec, gpus) is None:
                    return start_there(draft, spec, node, gpus, ())
        if not barred:  # else it may be open to others
            self._in_vain.add((width, need))
        return None


def end_failed(planning: Planning) -> None:
    for replica in planning.facts.snapshot.replicas():
        if replica.phase is Phase.FAILED and not replica.action_id:
            planning.step_down(planning.draft.replica(replica.replica_id), None, WHY_FAILED)


def start_there(
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
