"""Where an engine of a model could start, and who would step down for it there. Pure.

In: a draft that changes, a model. Out: sets with who makes room, the least harm first. Never:
decides whether to start.

What a set takes hangs on the bytes that are needed and not on whom they are for, but where the
model stands already or was promised that somebody goes. So it is reckoned once a round for all
models that need as much, and anew where the draft has changed.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from placement.catalog import ModelSpec
from placement.edges import climb_us, host_bytes
from placement.feasibility import (
    claim_bytes,
    freeing_in_the_way,
    host_free_bytes,
    room_for_start,
    start_in_the_way,
    wrong_gpu_set,
)
from placement.plan import Victim
from placement.planning.draft import Draft, sets_for
from placement.planning.kinds import Kind, weights_at
from placement.planning.ranked import Gpus, Ranked, RoomMade
from placement.planning.ranks import taken_on, whole_around
from placement.planning.victims import (
    choose_victims,
    covers,
    enough,
    host_given,
    host_victims,
    price,
)
from placement.snapshot import NodeState, Rung, WeightsAt

NOWHERE: frozenset[int] = frozenset()
NOBODY = RoomMade(victims=(), takes_us=0, loss_us=0.0)


class Start(NamedTuple):
    takes_us: int
    """Of the start alone, once there is room."""
    node_id: str
    gpus: Gpus
    made: RoomMade


class Starts:
    """Of one model."""

    def __init__(self, draft: Draft, spec: ModelSpec) -> None:
        self._draft, self._spec = draft, spec
        mine = draft.of_model(spec.id)
        self._host_need = host_bytes(spec, Rung.SERVING)
        self._taken = {(r.node_id, r.gpu_ids) for r in mine}
        cleared = (draft.find(name) for name, m in draft.cleared_for.items() if m == spec.id)
        rooms = (room for m, room in draft.rooms.items() if m != spec.id)
        self._own = _by_node((r.node_id, r.gpu_ids) for r in (*mine, *cleared) if r is not None)
        """GPUs on which the model may not hurt whom others may, or the reverse."""
        self._promised = _by_node((room.node_id, room.gpu_ids) for room in rooms)

    def free(self) -> Start | None:
        """The quickest on GPUs that are free; of equals the one with the least ids."""
        best: Start | None = None
        for takes_us, kind, at in self._kinds():
            found = next(self._ranked_open(kind, at, takes_us, may_hurt=False), None)
            if found is not None and (best is None or found[:3] < best[:3]):
                best = found
        return best

    def over_others(self, than_us: int | None) -> Iterator[Start]:
        """Those that take less than that. Of such that take equally long and break as many larger
        sets, the one with the least harm."""
        for takes_us, kind, at in self._kinds():
            if than_us is None or takes_us < than_us:
                yield from self._on_own(kind, at, takes_us)
                yield from self._ranked_open(kind, at, takes_us, may_hurt=True)

    def _ranked_open(
        self, kind: Kind, at: WeightsAt, takes_us: int, *, may_hurt: bool
    ) -> Iterator[Start]:
        """The first of each ranking that is open to the model, and as good for it as for others."""
        ranked = self._ranked(kind, may_hurt=may_hurt)
        for ranks in ranked.by_kind.values():
            for _, _, node_id, gpus in ranks:
                own = may_hurt and self._is_own(node_id, gpus)
                if not own and self._is_open(node_id, gpus, at):
                    yield Start(takes_us, node_id, gpus, ranked.at(node_id, gpus))
                    break

    def _kinds(self) -> Iterator[tuple[int, Kind, WeightsAt]]:
        """Kinds of nodes that the model can stand on, and where its weights lie on them."""
        for kind, at in self._draft.kinds.weights(self._spec):
            sets = sets_for(self._spec, kind.spec)
            if sets and wrong_gpu_set(self._spec, kind.spec, sets[0]) is None:
                yield climb_us(self._spec, at, kind.spec.links), kind, at

    def _on_own(self, kind: Kind, at: WeightsAt, takes_us: int) -> Iterator[Start]:
        draft, spec = self._draft, self._spec
        for node_id in sorted(n for n in self._own if draft.kinds.of(n) == kind):
            node, need = draft.nodes[node_id], self._need(kind)
            for gpus in sets_for(spec, kind.spec):
                if self._is_own(node_id, gpus) and self._is_open(node_id, gpus, at):
                    made = room_made(draft, spec.id, node, gpus, need, self._host_need)
                    if made is not None:
                        yield Start(takes_us, node_id, gpus, made)

    def _is_own(self, node_id: str, gpus: Gpus) -> bool:
        own = self._own.get(node_id)
        if own is None:
            return False
        # Whoever gives host memory may stand anywhere on the node.
        short = host_free_bytes(self._draft.nodes[node_id]) < self._host_need
        return short or not own.isdisjoint(gpus)

    def _is_open(self, node_id: str, gpus: Gpus, at: WeightsAt) -> bool:
        """One engine of a model per GPU set. Promised room is another's."""
        draft, spec = self._draft, self._spec
        return (
            (node_id, gpus) not in self._taken
            and weights_at(draft.nodes[node_id], spec) is at
            and not draft.blocked(spec, node_id)
            and self._promised.get(node_id, NOWHERE).isdisjoint(gpus)
        )

    def _ranked(self, kind: Kind, *, may_hurt: bool) -> Ranked:
        """What room takes on all nodes of a kind, as the draft is now."""
        draft, spec = self._draft, self._spec
        names = draft.kinds.names[kind]
        key = (kind, may_hurt, spec.gpus if spec.on_gpu else 0, self._need(kind), self._host_need)
        known = draft.ranked.get(key)
        if known is None:
            known = draft.ranked[key] = Ranked()
            stale: Mapping[str, frozenset[int] | None] = dict.fromkeys(names)
        else:
            stale = draft.changed_since(known.read)
        known.read = len(draft.changes)
        for node_id, changed in stale.items():
            if draft.kinds.of(node_id) == kind and (may_hurt or changed is None):
                node = draft.nodes[node_id]
                whole = changed is None or host_free_bytes(node) < self._host_need
                sets = sets_for(spec, kind.spec)
                if not whole:
                    sets = tuple(s for s in sets if changed and not changed.isdisjoint(s))
                made = self._made if may_hurt else self._unmade
                known.put(node_id, [(s, made(node, s, self._need(kind))) for s in sets])
        return known

    def _need(self, kind: Kind) -> int:
        """Bytes that a start needs on each of its GPUs, if it has any."""
        if not self._spec.on_gpu:
            return 0
        return claim_bytes(self._spec, self._draft.nodes[self._draft.kinds.names[kind][0]])

    def _made(self, node: NodeState, gpus: Gpus, need: int) -> RoomMade | None:
        return room_made(self._draft, "", node, gpus, need, self._host_need)

    def _unmade(self, node: NodeState, gpus: Gpus, need: int) -> RoomMade | None:
        """Where there is room already."""
        draft, spec = self._draft, self._spec
        if not covers(draft.bytes_on(node).free, gpus, need):
            return None
        lacking = room_for_start(spec, node, draft.spec_of(node), gpus)
        return NOBODY if lacking is None else None


def room_made(
    draft: Draft, for_model: str, node: NodeState, gpus: Gpus, need: int, host_need: int
) -> RoomMade | None:
    """Who steps down for a start on exactly these GPUs, nobody where they are free; None if that
    is not enough. Without `for_model` those do not count who were cleared for one model."""
    if not covers(draft.bytes_on(node).most, gpus, need):
        return None
    neighbours = node.on(gpus)
    if start_in_the_way(neighbours, gpus) or freeing_in_the_way(neighbours, gpus):
        return None
    victims: dict[str, Victim] = {}
    if not enough(draft, node, gpus, need, {}):
        chosen = choose_victims(draft, for_model, node, gpus, need, low=Rung.PARKED)
        if not chosen:
            return None
        victims = {v.replica_id: v for v in chosen}
    host_free = host_free_bytes(node) + host_given(draft, victims.values())
    if host_free < host_need:
        ending = {name for name, victim in victims.items() if victim.to is None}
        sleepers = host_victims(draft, for_model, node, host_need - host_free, spared=ending)
        if not sleepers:
            return None
        victims |= {v.replica_id: v for v in sleepers}
    down_us, loss = price(draft, node, victims.values())
    around = len(list(whole_around(taken_on(node), len(node.gpus), gpus)))
    return RoomMade(tuple(victims[k] for k in sorted(victims)), down_us, loss, around)


def _by_node(places: Iterable[tuple[str, Gpus]]) -> dict[str, frozenset[int]]:
    """The GPUs of all these places."""
    found: dict[str, frozenset[int]] = {}
    for node_id, gpus in places:
        found[node_id] = found.get(node_id, NOWHERE).union(gpus)
    return found
