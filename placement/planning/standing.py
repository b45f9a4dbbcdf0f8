"""What is done in idle time so that the engines of the residency plan come to exist. Pure.

In: a round's planning after its climbs, with a `Residency` in its facts. Out: starts, each with its
numbers, and steps down that make room for them. Never: touches who serves, or what somebody waits
for; carries a newcomer down (it drains and rests by the rung plan, as anyone whom nobody asks for).

**Idle time.** While an engine starts, no neighbour on its GPUs may give memory back, so none is
promoted there: a start waits while neighbours are expected to lose more by that than it brings. On
each node one starts at a time; before the first request of all, as many as there are GPUs.

**Room.** Starts take what is free. Otherwise neighbours make room that are no residents themselves,
and warm ones step down, if that loses less than the start brings: in the next rounds it is free.
"""

from collections.abc import Iterator
from math import inf

from placement.catalog import ModelSpec
from placement.edges import climb_us, host_bytes, legal
from placement.feasibility import (
    claim_bytes,
    host_free_bytes,
    room_for_start,
    room_for_step,
    wrong_gpu_set,
)
from placement.plan import Reason, ReasonCode, RefusalCode, Victim
from placement.planning.climbs import Climb
from placement.planning.draft import sets_for
from placement.planning.kinds import weights_at
from placement.planning.ranks import serves_or_will
from placement.planning.resident import Resident
from placement.planning.victims import enough, host_given
from placement.planning.writing import Planning
from placement.snapshot import NodeState, ReplicaState, Rung

US = 1_000_000


def work_towards(planning: Planning) -> None:
    """At the end of a round: starts of residents that are missing, the most urgent first."""
    residency = planning.facts.residency
    if residency is not None:
        _Standing(planning, residency.residents).run()


class _Standing:
    def __init__(self, planning: Planning, residents: tuple[Resident, ...]) -> None:
        self._planning = planning
        self._facts = planning.facts
        self._draft = planning.draft
        self._residents = residents
        self._standing = {(r.model_id, r.node_id, r.gpu_ids): r for r in residents}
        self._begun = any(d.offered or d.asked for d in self._facts.demand.values())
        self._waiting = [s for s in self._facts.models.values() if self._waits(s)]
        self._clearing: set[str] = set()
        """Nodes on which somebody makes room in this round."""

    def run(self) -> None:
        self._forget_old_rooms()
        for resident in sorted(self._residents, key=lambda r: r.start_by_us):
            spec = self._facts.catalog.model(resident.model_id)
            node = self._draft.nodes.get(resident.node_id)
            if spec is not None and node is not None and self._may_start(resident, spec, node):
                self._start(resident, spec, node)

    def _forget_old_rooms(self) -> None:
        """Room was made for a resident, and somebody else needed it more."""
        now_us, rooms = self._facts.now_us, self._draft.rooms
        waiting = {spec.id for spec in self._waiting}
        for model_id in [m for m, r in rooms.items() if r.until_us <= now_us and m not in waiting]:
            del rooms[model_id]

    def _waits(self, spec: ModelSpec) -> bool:
        """Somebody asked for it, and nothing serves or is on its way."""
        demand = self._facts.demand.get(spec.id)
        if demand is None or not demand.held:
            return False
        return not any(serves_or_will(r) for r in self._draft.of_model(spec.id))

    # --- starts

    def _may_start(self, resident: Resident, spec: ModelSpec, node: NodeState) -> bool:
        mine, gpus = self._draft.of_model(spec.id), resident.gpu_ids
        if any(r.node_id == node.node_id and r.gpu_ids == gpus for r in mine):
            return False
        return not (
            len(mine) >= spec.max_replicas
            or self._draft.blocked(spec, node.node_id)
            or self._draft.promised_to_another(spec, node.node_id, gpus)
            or (self._begun and (node.starting_gpus or node.node_id in self._clearing))
            or any(self._could_stand(other, node, gpus) for other in self._waiting)
        )

    def _could_stand(self, spec: ModelSpec, node: NodeState, gpus: tuple[int, ...]) -> bool:
        node_spec = self._draft.spec_of(node)
        return any(
            not set(theirs).isdisjoint(gpus) and wrong_gpu_set(spec, node_spec, theirs) is None
            for theirs in sets_for(spec, node_spec)
        )

    def _start(self, resident: Resident, spec: ModelSpec, node: NodeState) -> None:
        gain, takes_us = resident.why.numbers.get("value", 0.0), self._takes_us(spec, node)
        loss = sum(self._hurt(r, takes_us) for r in node.on(resident.gpu_ids))
        if loss >= gain:
            return
        node_spec = self._draft.spec_of(node)
        shortage = room_for_start(spec, node, node_spec, resident.gpu_ids)
        if shortage is None:
            numbers = resident.why.numbers | {"loss": loss, "start_s": takes_us / US}
            climb = Climb(
                node_id=node.node_id, gpu_ids=resident.gpu_ids, replica=None, takes_us=takes_us
            )
            why = Reason(code=ReasonCode.RESIDENCY, numbers=numbers)
            self._planning.take(spec, climb, why)
        elif shortage.code in (RefusalCode.NO_ROOM_GPU, RefusalCode.NO_ROOM_HOST):
            self._make_room(resident, spec, node, gain - loss)

    def _takes_us(self, spec: ModelSpec, node: NodeState) -> int:
        return climb_us(spec, weights_at(node, spec), self._draft.spec_of(node).links)

    def _hurt(self, neighbour: ReplicaState, takes_us: int) -> float:
        """Request-seconds that a neighbour is expected to lose, for it cannot be promoted now.
        Nobody is worth it that a model is left without any engine when it is likely to be asked."""
        spec = self._facts.models.get(neighbour.model_id)
        if spec is None or neighbour.rung is Rung.SERVING:
            return 0.0
        soon = self._soon(spec, takes_us)
        serves = any(map(serves_or_will, self._draft.of_model(spec.id)))
        if not serves and soon * (1 + self._facts.catalog.waiting_to_idle(spec.id)) > 1:
            return inf
        return soon * takes_us / US * 2.0**spec.priority

    def _soon(self, spec: ModelSpec, within_us: int) -> float:
        """The probability that one more replica of this model is needed within that time."""
        serving = sum(map(serves_or_will, self._draft.of_model(spec.id)))
        outlook, demand = self._facts.outlook, self._facts.demand.get(spec.id)
        known = outlook.of(spec.id) if outlook is not None else None
        if outlook is not None and known is not None and known.need:
            return outlook.share(outlook.mask(spec.id, serving + 1, within_us))
        if serving:
            return 0.0
        rate_per_s = demand.rate_per_s if demand is not None else 0.0
        return min(max(rate_per_s, known.rate_per_s if known else 0.0) * within_us / US, 1.0)

    # --- room

    def _make_room(self, resident: Resident, spec: ModelSpec, node: NodeState, most: float) -> None:
        """Strangers end and warm ones step down, those that lose least first."""
        offers = sorted(self._offers(node), key=_cheapness)
        chosen: list[tuple[float, Victim]] = []
        for loss, victim in offers:
            if self._suffices(spec, node, resident.gpu_ids, [v for _, v in chosen]):
                break
            most -= loss
            if most <= 0:
                return
            chosen.append((loss, victim))
        if not self._suffices(spec, node, resident.gpu_ids, [v for _, v in chosen]):
            return
        self._clearing.add(node.node_id)
        self._planning.promise(spec, node.node_id, resident.gpu_ids, 0)
        for loss, victim in self._needed(chosen, spec, node, resident.gpu_ids):
            numbers = {"value": resident.why.numbers.get("value", 0.0), "loss": loss}
            why = Reason(code=ReasonCode.RESIDENCY, numbers=numbers, for_model=spec.id)
            self._planning.step_down(self._draft.replica(victim.replica_id), victim.to, why)

    def _offers(self, node: NodeState) -> Iterator[tuple[float, Victim]]:
        """Who may make room, and what is expected to be lost by it."""
        for replica in node.asleep:
            spec = self._facts.models.get(replica.model_id)
            if spec is None or not self._draft.spare(replica):
                continue
            resident = self._standing.get((replica.model_id, replica.node_id, replica.gpu_ids))
            soon = self._soon(spec, self._takes_us(spec, node)) * 2.0**spec.priority
            if resident is None:
                lost_s = self._takes_us(spec, node) - climb_us(spec, replica.rung)
                yield soon * lost_s / US, Victim(replica_id=replica.replica_id, to=None)
            elif replica.rung is Rung.WARM:
                lost_s = climb_us(spec, resident.rests) - climb_us(spec, Rung.WARM)
                to = resident.rests
                if legal(spec, replica, to) and not room_for_step(spec, node, replica, to):
                    yield soon * lost_s / US, Victim(replica_id=replica.replica_id, to=to)

    def _suffices(
        self, spec: ModelSpec, node: NodeState, gpus: tuple[int, ...], victims: list[Victim]
    ) -> bool:
        steps = {v.replica_id: v.to for v in victims}
        host = host_free_bytes(node) + host_given(self._draft, victims)
        if host < host_bytes(spec, Rung.SERVING):
            return False
        return enough(self._draft, node, gpus, claim_bytes(spec, node), steps)

    def _needed(
        self,
        chosen: list[tuple[float, Victim]],
        spec: ModelSpec,
        node: NodeState,
        gpus: tuple[int, ...],
    ) -> list[tuple[float, Victim]]:
        """Spare whoever need not move after all, the dearest first."""
        for one in sorted(chosen, key=_cheapness, reverse=True):
            others = [c for c in chosen if c is not one]
            if self._suffices(spec, node, gpus, [v for _, v in others]):
                chosen = others
        return chosen


def _cheapness(offer: tuple[float, Victim]) -> tuple[float, str]:
    return offer[0], offer[1].replica_id
