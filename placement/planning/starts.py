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
from placement.planning.draft import Alike, Draft, sets_for, weights_at
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
        for takes_us, alike, at in self._kinds():
            found = self._free(alike, at, takes_us)
            if found is not None and (best is None or found[:3] < best[:3]):
                best = found
        return best

    def _free(self, alike: Alike, at: WeightsAt, takes_us: int) -> Start | None:
        draft, spec = self._draft, self._spec
        for node_id in sorted(draft.alike()[alike]):
            node = draft.nodes[node_id]
            need, _ = _needs(spec, node)
            free = draft.bytes_on(node).free
            if max(free, default=0) < need:
                continue
            for gpus in sets_for(spec, alike.spec):
                if (
                    covers(free, gpus, need)
                    and self._is_open(node_id, gpus, at)
                    and room_for_start(spec, node, draft.spec_of(node), gpus) is None
                ):
                    return Start(takes_us, node_id, gpus, NOBODY)
        return None

    def over_others(self, than_us: int | None) -> Iterator[Start]:
        """Those that take less than that. Of such that take equally long and break as many larger
        sets, the one with the least harm."""
        for takes_us, alike, at in self._kinds():
            if than_us is not None and takes_us >= than_us:
                continue
            yield from self._on_own(alike, at, takes_us)
            ranked = self._ranked(alike)
            for ranks in ranked.by_kind.values():
                for _, _, node_id, gpus in ranks:
                    if node_id not in self._own and self._is_open(node_id, gpus, at):
                        yield Start(takes_us, node_id, gpus, ranked.at(node_id, gpus))
                        break

    def _kinds(self) -> Iterator[tuple[int, Alike, WeightsAt]]:
        """Kinds of nodes that the model can stand on, and where its weights lie on them."""
        draft, spec = self._draft, self._spec
        for alike, names in draft.alike().items():
            sets = sets_for(spec, alike.spec)
            if sets and wrong_gpu_set(spec, alike.spec, sets[0]) is None:
                for at in sorted({weights_at(draft.nodes[name], spec) for name in names}):
                    yield climb_us(spec, at, alike.spec.links), alike, at

    def _on_own(self, alike: Alike, at: WeightsAt, takes_us: int) -> Iterator[Start]:
        draft, spec = self._draft, self._spec
        for node_id in sorted(self._own.intersection(draft.alike()[alike])):
            node = draft.nodes[node_id]
            for gpus in sets_for(spec, alike.spec):
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

    def _ranked(self, alike: Alike) -> Ranked:
        """What room takes on all nodes of a kind, as the draft is now."""
        draft, spec = self._draft, self._spec
        names = draft.alike()[alike]
        need, host_need = _needs(spec, draft.nodes[names[0]])
        key = (alike, spec.gpus if spec.on_gpu else 0, need, host_need)
        known = draft.ranked.get(key)
        if known is None:
            known = draft.ranked[key] = Ranked()
            stale: Mapping[str, frozenset[int] | None] = dict.fromkeys(names)
        else:
            stale = draft.changed_since(known.read)
        known.read = len(draft.changes)
        for node_id, gpus in stale.items():
            if draft.kind(node_id) == alike:
                node = draft.nodes[node_id]
                whole = gpus is None or host_free_bytes(node) < host_need
                sets = sets_for(spec, alike.spec)
                if not whole:
                    sets = tuple(s for s in sets if gpus and not gpus.isdisjoint(s))
                made = ((s, room_made(draft, "", node, s, need, host_need)) for s in sets)
                known.put(node_id, made)
        return known


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
