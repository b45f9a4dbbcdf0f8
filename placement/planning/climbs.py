"""How a model can get to serving: the climbs open to it now, what each takes and whom it hurts.

In: a draft of the cluster. Out: `Climb`s, quickest and least harmful first. Never: decides whether
to climb, awaits, reads a clock.
"""

from collections.abc import Container, Iterator
from dataclasses import dataclass
from operator import itemgetter
from typing import TypeAlias

from placement.catalog import ModelSpec
from placement.edges import climb_us, gpu_bytes, host_bytes
from placement.feasibility import (
    claim_bytes,
    freeing_in_the_way,
    host_free_bytes,
    room_for_start,
    room_for_step,
    start_in_the_way,
    wrong_gpu_set,
)
from placement.plan import Victim
from placement.planning.draft import Draft, RoomMade, sets_for, weights_at
from placement.planning.victims import (
    choose_victims,
    covers,
    enough,
    host_given,
    host_victims,
    price,
)
from placement.snapshot import NodeState, Phase, ReplicaState, Rung, WeightsAt

GpuSets: TypeAlias = tuple[tuple[int, ...], ...]
Taken: TypeAlias = Container[tuple[str, tuple[int, ...]]]


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
    start = _free_start(draft, spec, _nodes_for(draft, spec), _taken(draft, spec))
    found = [*_restores(draft, spec), *up, *([start] if start is not None else [])]
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


def _start_over_others(
    draft: Draft, spec: ModelSpec, node: NodeState, gpus: tuple[int, ...], takes_us: int
) -> Climb | None:
    """A start on exactly these GPUs, with whoever must make room for it; None if none can."""
    neighbours = node.on(gpus)
    if start_in_the_way(neighbours, gpus) or freeing_in_the_way(neighbours, gpus):
        return None
    made = _room_made(draft, spec, node, gpus)
    if made is None:
        return None
    return Climb(
        node_id=node.node_id,
        gpu_ids=gpus,
        replica=None,
        victims=made.victims,
        takes_us=takes_us + made.takes_us,
        loss_us=made.loss_us,
    )


def _room_made(
    draft: Draft, spec: ModelSpec, node: NodeState, gpus: tuple[int, ...]
) -> RoomMade | None:
    """The same for every model that needs as much, but for those of which something stands there,
    or for which somebody there was cleared: it is worked out once for all others."""
    mine = any(r.model_id == spec.id or r.replica_id in draft.cleared_for for r in node.replicas)
    if mine:
        return _make_room(draft, spec, node, gpus)
    known = draft.room_made(node.node_id)
    key = (gpus, _need(spec, node), host_bytes(spec, Rung.SERVING))
    if key not in known:
        known[key] = _make_room(draft, spec, node, gpus)
    return known[key]


def _make_room(
    draft: Draft, spec: ModelSpec, node: NodeState, gpus: tuple[int, ...]
) -> RoomMade | None:
    victims: dict[str, Victim] = {}
    need = _need(spec, node)
    if not enough(draft, node, gpus, need, {}):
        chosen = choose_victims(draft, spec, node, gpus, need, low=Rung.PARKED)
        if not chosen:
            return None
        victims = {v.replica_id: v for v in chosen}
    host_need = host_bytes(spec, Rung.SERVING)
    host_free = host_free_bytes(node) + host_given(draft, victims.values())
    if host_free < host_need:
        ending = {name for name, victim in victims.items() if victim.to is None}
        sleepers = host_victims(draft, spec, node, host_need - host_free, spared=ending)
        if not sleepers:
            return None
        victims |= {v.replica_id: v for v in sleepers}
    on_host = host_free < host_need
    down_us, loss = price(draft, node, victims.values())
    return RoomMade(tuple(victims[k] for k in sorted(victims)), down_us, loss, on_host)


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
        victims = choose_victims(draft, spec, node, replica.gpu_ids, need, low=Rung.SHED)
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

    On free GPUs a start takes no longer than over others on the same node, and harms nobody.
    """
    taken, nodes = _taken(draft, spec), _nodes_for(draft, spec)
    free = _free_start(draft, spec, nodes, taken)
    if free is not None:
        yield free
    for takes_us, node, sets in nodes:
        if free is not None and takes_us >= free.takes_us:
            return
        most, need = draft.bytes_on(node).most, _need(spec, node)
        if max(most, default=0) < need:
            continue
        for gpus in sets:
            if covers(most, gpus, need) and _open_to(draft, spec, node, gpus, taken):
                climb = _start_over_others(draft, spec, node, gpus, takes_us)
                if climb is not None:
                    yield climb


def _taken(draft: Draft, spec: ModelSpec) -> set[tuple[str, tuple[int, ...]]]:
    """Where an engine of the model stands already: climb with that one."""
    return {(r.node_id, r.gpu_ids) for r in draft.of_model(spec.id)}


def _nodes_for(draft: Draft, spec: ModelSpec) -> list[tuple[int, NodeState, GpuSets]]:
    """Nodes with its kind of device where it does not rest: how long a start takes, and where it
    may stand. The quickest first."""
    found = []
    for node_spec, names in draft.alike().items():
        sets = sets_for(spec, node_spec)
        if not sets or wrong_gpu_set(spec, node_spec, sets[0]) is not None:
            continue
        takes_us = {at: climb_us(spec, at, node_spec.links) for at in WeightsAt}
        for name in names:
            if not draft.blocked(spec, name):
                node = draft.nodes[name]
                found.append((takes_us[weights_at(node, spec)], name, node, sets))
    found.sort(key=itemgetter(0, 1))
    return [(takes, node, sets) for takes, _, node, sets in found]


def _free_start(
    draft: Draft, spec: ModelSpec, nodes: list[tuple[int, NodeState, GpuSets]], taken: Taken
) -> Climb | None:
    """The quickest start on GPUs that are free; of equals the one with the least ids."""
    for takes_us, node, sets in nodes:
        free, need = draft.bytes_on(node).free, _need(spec, node)
        if max(free, default=0) < need:
            continue
        node_spec = draft.spec_of(node)
        for gpus in sets:
            if (
                covers(free, gpus, need)
                and _open_to(draft, spec, node, gpus, taken)
                and room_for_start(spec, node, node_spec, gpus) is None
            ):
                return Climb(node_id=node.node_id, gpu_ids=gpus, replica=None, takes_us=takes_us)
    return None


def _need(spec: ModelSpec, node: NodeState) -> int:
    """Bytes that a start needs on each of its GPUs, if it has any."""
    return claim_bytes(spec, node) if spec.on_gpu else 0


def _open_to(
    draft: Draft, spec: ModelSpec, node: NodeState, gpus: tuple[int, ...], taken: Taken
) -> bool:
    """One engine of a model per GPU set. Promised room is another's."""
    if (node.node_id, gpus) in taken:
        return False
    return not draft.promised_to_another(spec, node.node_id, gpus)
