"""Where an engine of a model could start, and who would step down for it there. Pure.

In: a draft that changes, a model. Out: sets with who makes room, the least harm first. Never:
decides whether to start.

What a set takes hangs on the bytes that are needed and not on whom they are for, but where the
model stands already or was promised that somebody goes. So it is reckoned once a round for all
models that need as much, and anew where the draft has changed.
"""

from collections.abc import Iterator, Mapping
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
        self._taken = {(r.node_id, r.gpu_ids) for r in mine}
        cleared = (draft.find(name) for name, m in draft.cleared_for.items() if m == spec.id)
        self._own = {r.node_id for r in (*mine, *cleared) if r is not None}
        """Nodes of which the model sees more than others do."""

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
        """The first of each ranking that is open to the model; on its own nodes others may hurt
        whom it may not, and the reverse."""
        ranked = self._ranked(kind, may_hurt=may_hurt)
        for ranks in ranked.by_kind.values():
            for _, _, node_id, gpus in ranks:
                own = may_hurt and node_id in self._own
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
            node = draft.nodes[node_id]
            for gpus in sets_for(spec, kind.spec):
                if self._is_open(node_id, gpus, at):
                    need, host_need = _needs(spec, node)
                    made = room_made(draft, spec.id, node, gpus, need, host_need)
                    if made is not None:
                        yield Start(takes_us, node_id, gpus, made)

    def _is_open(self, node_id: str, gpus: Gpus, at: WeightsAt) -> bool:
        """One engine of a model per GPU set. Promised room is another's."""
        draft, spec = self._draft, self._spec
        return (
            (node_id, gpus) not in self._taken
            and weights_at(draft.nodes[node_id], spec) is at
            and not draft.blocked(spec, node_id)
            and not draft.promised_to_another(spec, node_id, gpus)
        )

    def _ranked(self, kind: Kind, *, may_hurt: bool) -> Ranked:
        """What room takes on all nodes of a kind, as the draft is now."""
        draft, spec = self._draft, self._spec
        names = draft.kinds.names[kind]
        need, host_need = _needs(spec, draft.nodes[names[0]])
        key = (kind, may_hurt, spec.gpus if spec.on_gpu else 0, need, host_need)
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
                # Whoever gives host memory may stand anywhere on the node.
                whole = changed is None or host_free_bytes(node) < host_need
                sets = sets_for(spec, kind.spec)
                if not whole:
                    sets = tuple(s for s in sets if changed and not changed.isdisjoint(s))
                known.put(node_id, [(s, self._made(node, s, may_hurt=may_hurt)) for s in sets])
        return known

    def _made(self, node: NodeState, gpus: Gpus, *, may_hurt: bool) -> RoomMade | None:
        draft, spec = self._draft, self._spec
        need, host_need = _needs(spec, node)
        if may_hurt:
            return room_made(draft, "", node, gpus, need, host_need)
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


def _needs(spec: ModelSpec, node: NodeState) -> tuple[int, int]:
    """Bytes that a start needs on each of its GPUs, if it has any, and on the host."""
    return claim_bytes(spec, node) if spec.on_gpu else 0, host_bytes(spec, Rung.SERVING)
