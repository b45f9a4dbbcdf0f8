"""How a model can get to serving: the climbs open to it now, what each takes and whom it hurts.

In: a draft of the cluster. Out: `Climb`s, quickest and least harmful first. Never: decides whether
to climb, awaits, reads a clock.
"""

from collections.abc import Container, Iterator
from dataclasses import dataclass

from placement.catalog import ModelSpec
from placement.edges import climb_us, gpu_bytes
from placement.feasibility import claim_bytes, room_for_start, room_for_step, wrong_gpu_set
from placement.plan import Victim
from placement.planning.draft import Draft, sets_for
from placement.planning.starts import Start, Starts
from placement.planning.victims import choose_victims, covers, price
from placement.snapshot import NodeState, Phase, ReplicaState, Rung


@dataclass(frozen=True, slots=True, kw_only=True)
class Climb:
    """One way up. `replica` stands on a rung already; without one an engine is started.

    `loss_us` is what it costs others: microseconds of waiting, expected within the horizon.
    """

    node_id: str
    gpu_ids: tuple[int, ...]
    replica: ReplicaState | None
    victims: tuple[Victim, ...] = ()
    takes_us: int = 0
    loss_us: float = 0.0
    restore: bool = False

    @property
    def key(self) -> tuple[float, int, str, tuple[int, ...], str]:
        """The cheapest first; of equals the one that disturbs the fewest."""
        replica_id = self.replica.replica_id if self.replica is not None else "~"
        cost = self.takes_us + self.loss_us
        return (cost, len(self.victims), self.node_id, self.gpu_ids, replica_id)


def climbs(draft: Draft, spec: ModelSpec) -> list[Climb]:
    """The climbs open to a model now, best first, but for starts that another start surpasses."""
    found = [*_restores(draft, spec), *_promotions(draft, spec), *_starts(draft, spec)]
    return sorted(found, key=lambda c: c.key)


def free_climb(draft: Draft, spec: ModelSpec) -> Climb | None:
    """The best of the climbs that need no victims."""
    up = [c for c in _promotions(draft, spec, may_hurt=False) if not c.victims]
    start = Starts(draft, spec).free()
    found = [*_restores(draft, spec), *up, *([_climb(start)] if start is not None else [])]
    return min(found, key=lambda c: c.key, default=None)


def ever_fits(draft: Draft, spec: ModelSpec, but: Container[str] = ()) -> bool:
    """Whether some living node, but for these, could serve this model if it were empty."""
    for node in draft.nodes.values():
        if node.node_id in but:
            continue
        node_spec = draft.spec_of(node)
        sets = sets_for(spec, node_spec)
        if sets and wrong_gpu_set(spec, node_spec, sets[0]) is None:
            bare = draft.bare(node)
            if any(room_for_start(spec, bare, node_spec, gpus) is None for gpus in sets):
                return True
    return False


def need_on(spec: ModelSpec, node: NodeState, gpus: tuple[int, ...]) -> int:
    """Bytes more that each GPU of a set must give so that this model serves there."""
    mine = (r for r in node.replicas if r.model_id == spec.id and r.gpu_ids == gpus)
    held = next((gpu_bytes(spec, r.rung) for r in mine), 0)
    return claim_bytes(spec, node) - held


def _restores(draft: Draft, spec: ModelSpec) -> Iterator[Climb]:
    for replica in draft.of_model(spec.id):
        mine = draft.cleared_for.get(replica.replica_id, spec.id) == spec.id
        draining = replica.phase is Phase.DRAINING and replica.rung is Rung.SERVING
        whole = not replica.released_bytes  # else it has given its room away for good
        stays = not draft.leaves(replica.node_id)
        if draining and whole and stays and not replica.action_id and mine:
            yield Climb(
                node_id=replica.node_id, gpu_ids=replica.gpu_ids, replica=replica, restore=True
            )


def _promotions(draft: Draft, spec: ModelSpec, *, may_hurt: bool = True) -> Iterator[Climb]:
    for replica in draft.of_model(spec.id):
        at_rest = replica.phase is Phase.READY and not replica.action_id
        if (
            not (at_rest or replica.loading)
            or replica.rung is Rung.SERVING
            or draft.blocked(spec, replica.node_id)
        ):
            continue
        node, gpus = draft.nodes[replica.node_id], replica.gpu_ids
        need = claim_bytes(spec, node) - gpu_bytes(spec, replica.rung)
        room = draft.bytes_on(node).most if may_hurt else draft.bytes_on(node).free
        if not covers(room, gpus, need) or draft.beside_a_start(replica):
            continue
        if draft.promised_to_another(spec, node.node_id, gpus):
            continue
        climb = _promotion(draft, spec, node, replica)
        if climb is not None:
            yield climb


def _promotion(
    draft: Draft, spec: ModelSpec, node: NodeState, replica: ReplicaState
) -> Climb | None:
    victims: tuple[Victim, ...] = ()
    if room_for_step(spec, node, replica, Rung.SERVING) is not None:
        need = need_on(spec, node, replica.gpu_ids)
        victims = choose_victims(draft, spec.id, node, replica.gpu_ids, need, low=Rung.SHED)
        if not victims:
            return None
    down_us, loss = price(draft, node, victims)
    loads_us = max(replica.eta_us - draft.facts.now_us, 0) if replica.loading else 0
    return Climb(
        node_id=replica.node_id,
        gpu_ids=replica.gpu_ids,
        replica=replica,
        victims=victims,
        takes_us=loads_us + climb_us(spec, replica.rung, draft.spec_of(node).links) + down_us,
        loss_us=loss,
    )


def _starts(draft: Draft, spec: ModelSpec) -> Iterator[Climb]:
    """The best start on free GPUs, and those over others that take less time than it.

    On free GPUs a start takes no longer than over others on the same node, and harms nobody. Of
    those that take equally long, the one that harms least will do.
    """
    starts = Starts(draft, spec)
    free = starts.free()
    if free is not None:
        yield _climb(free)
    for start in starts.over_others(free.takes_us if free is not None else None):
        yield _climb(start)


def _climb(start: Start) -> Climb:
    made = start.made
    return Climb(
        node_id=start.node_id,
        gpu_ids=start.gpus,
        replica=None,
        victims=made.victims,
        takes_us=start.takes_us + made.takes_us,
        loss_us=made.loss_us,
    )
