"""Which weights come nearer before anybody asks, and where. Pure.

In: a draft after this round's climbs, what models are expected to need. Out: loads up to warm, the
most valuable first, each with its numbers. Never: touches who serves.

**Value.** The probability that the model needs one more replica within the horizon × the seconds
that the climb is then shorter × the requests that would wait for it × their price. A replica's rank
among its model's counts: a second one is worth what a second one is needed.

**Place.** Whoever is launched on a GPU set takes the place of all that are warm there. So two that
may be needed in the same future are kept apart: a place costs what its neighbours and the new one
would lose together, in the joint paths. Sets are aligned, so they nest or are disjoint. Of equals
the node with the fewest of the model, then the least ids.

**Replacement.** Where no room is left, what is worth less goes: only if the gain is `CHANGE` times
the loss, for a load costs its share of the link.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from placement.catalog import ModelSpec
from placement.edges import (
    climb_us,
    edge_us,
    gpu_bytes,
    legal,
    shared_copies,
    start_edge,
    step_edge,
)
from placement.feasibility import gpu_free_bytes, room_for_step
from placement.plan import Reason, ReasonCode
from placement.planning.draft import sets_for, weights_at
from placement.planning.expected import Expected
from placement.planning.ranks import HORIZON_US, Ranks, nearness, rung_to_come
from placement.planning.writing import Planning
from placement.snapshot import NodeState, Phase, ReplicaState, Rung

US = 1_000_000
CHANGE = 2.0
WORTH_MIN = 1e-3
"""Request-seconds below which nothing is moved."""


@dataclass(frozen=True, slots=True)
class Worth:
    """One replica that is or may be warm: what it is worth, and in which futures."""

    model_id: str
    unit: float
    """If it is needed: request-seconds of waiting saved, times their price."""
    chance: float
    mask: int

    @property
    def value(self) -> float:
        return self.chance * self.unit


def prewarm(planning: Planning, models: Mapping[str, Expected], ranks: Ranks) -> None:
    """Loads for this round, as many as links and GPUs take side by side."""
    _Prewarming(planning, models, ranks).run()


class _Prewarming:
    def __init__(self, planning: Planning, models: Mapping[str, Expected], ranks: Ranks) -> None:
        self._planning = planning
        self._ranks = ranks
        self._draft = planning.draft
        self._models = models
        self._worth: dict[str, Worth] = {}
        """Of every replica that is warm or on its way there."""
        self._free: dict[str, tuple[int, ...]] = {}

    def run(self) -> None:
        missing = sorted(self._missing(), key=lambda w: (-w.value, w.model_id))
        for new in missing:
            self._place(new, self._models[new.model_id].spec)

    # --- what is worth having

    def _missing(self) -> Iterator[Worth]:
        """Of each model the next one that is not warm; notes what the others are worth."""
        for model_id, model in self._models.items():
            if not model.spec.on_gpu or model.spec.on_cpu:
                continue
            up = warm = 0
            for replica in sorted(self._draft.of_model(model_id), key=nearness):
                rung = rung_to_come(replica)
                up += rung == Rung.SERVING
                warm += rung == Rung.WARM
                if rung == Rung.WARM:
                    self._worth[replica.replica_id] = self._worth_of(model, up + warm)
            new = self._worth_of(model, up + warm + 1)
            if up + warm < model.spec.max_replicas and new.value > WORTH_MIN:
                yield new

    def _worth_of(self, model: Expected, count: int) -> Worth:
        spec = model.spec
        saved_s = self._saved_s(spec)
        unit = saved_s * model.waiters(saved_s) * model.price
        chance = self._ranks.chance(spec.id, count)
        return Worth(spec.id, unit, chance, self._ranks.mask(spec.id, count))

    def _saved_s(self, spec: ModelSpec) -> float:
        """Seconds that a climb is shorter from warm."""
        if shared_copies(spec):
            node = next(iter(self._draft.nodes.values()), None)
            if node is None:
                return 0.0
            links = self._draft.spec_of(node).links
            cold_us = climb_us(spec, weights_at(node, spec), links)
            return (cold_us - climb_us(spec, Rung.WARM, links)) / US
        return (climb_us(spec, Rung.PARKED) - climb_us(spec, Rung.WARM)) / US

    # --- where

    def _place(self, new: Worth, spec: ModelSpec) -> None:
        if shared_copies(spec):
            self._load(new, spec)
        else:
            self._wake(new, spec)

    def _load(self, new: Worth, spec: ModelSpec) -> None:
        """World W: any GPU set will do."""
        need = gpu_bytes(spec, Rung.WARM)
        places = [
            (self._beside(new, node, gpus), self._of_model_on(node, spec), node.node_id, gpus)
            for node in self._nodes(spec)
            for gpus in sets_for(spec, self._draft.spec_of(node))
            if self._covers(node, gpus, need) and self._open(node, gpus, spec)
        ]
        if not places:
            self._replace(new, spec, need)
            return
        beside, _, node_id, gpus = min(places)
        node = self._draft.nodes[node_id]
        takes_us = edge_us(
            start_edge(spec, weights_at(node, spec), Rung.WARM), self._draft.spec_of(node).links
        )
        self._planning.load(spec, node_id, gpus, takes_us, self._why(new, beside))
        self._free.pop(node_id, None)

    def _replace(self, new: Worth, spec: ModelSpec, need: int) -> None:
        """In the place of what is worth least, if it is worth enough less."""
        options = []
        for node in self._nodes(spec):
            for gpus in sets_for(spec, self._draft.spec_of(node)):
                if self._open(node, gpus, spec):
                    stale = self._stale(node, gpus, need, new.value / CHANGE)
                    if stale:
                        loss = sum(self._worth[r.replica_id].value for r in stale)
                        options.append((loss, node.node_id, gpus, stale))
        if not options:
            return
        loss, node_id, gpus, stale = min(options, key=lambda o: o[:3])
        for replica in stale:
            numbers = {"value": self._worth[replica.replica_id].value, "for_value": new.value}
            why = Reason(code=ReasonCode.STALE_PREWARM, numbers=numbers, for_model=spec.id)
            self._planning.step_down(replica, None, why)
        node = self._draft.nodes[node_id]
        takes_us = edge_us(
            start_edge(spec, weights_at(node, spec), Rung.WARM), self._draft.spec_of(node).links
        )
        self._planning.load(spec, node_id, gpus, takes_us, self._why(new, loss))
        self._free.pop(node_id, None)

    def _stale(
        self, node: NodeState, gpus: tuple[int, ...], need: int, loss_max: float
    ) -> list[ReplicaState]:
        """The warm ones that give enough room, the least valuable first; empty if none do."""
        free = {g: self._free_on(node)[g] for g in gpus}
        warm = [r for r in node.on(gpus) if r.replica_id in self._worth and not r.action_id]
        chosen: list[ReplicaState] = []
        for replica in sorted(warm, key=lambda r: (self._worth[r.replica_id].value, r.replica_id)):
            if all(b >= need for b in free.values()):
                break
            loss_max -= self._worth[replica.replica_id].value
            if loss_max < 0:
                return []
            held = gpu_bytes(self._models[replica.model_id].spec, Rung.WARM)
            chosen.append(replica)
            for g in replica.gpu_ids:
                if g in free:
                    free[g] += held
        return chosen if all(b >= need for b in free.values()) else []

    def _wake(self, new: Worth, spec: ModelSpec) -> None:
        """World S: a sleeping engine, where it sleeps."""
        ways = []
        for replica in self._draft.of_model(spec.id):
            node = self._draft.nodes.get(replica.node_id)
            if node is None or not self._may_wake(replica, spec, node):
                continue
            takes_us = edge_us(
                step_edge(spec, replica.rung, Rung.WARM), self._draft.spec_of(node).links
            )
            beside = self._beside(new, node, replica.gpu_ids)
            ways.append((beside, takes_us, replica.replica_id, replica))
        if ways:
            beside, takes_us, _, replica = min(ways, key=lambda w: w[:3])
            self._planning.warm(replica, takes_us, self._why(new, beside))
            self._free.pop(replica.node_id, None)

    def _may_wake(self, replica: ReplicaState, spec: ModelSpec, node: NodeState) -> bool:
        return (
            replica.rung in (Rung.PARKED, Rung.SHED)
            and replica.phase is Phase.READY
            and not replica.action_id
            and not self._draft.beside_a_start(replica)
            and not self._draft.promised_to_another(spec, node.node_id, replica.gpu_ids)
            and legal(spec, replica, Rung.WARM)
            and self._loading_on(node) < self._side_by_side(node)
            and room_for_step(spec, node, replica, Rung.WARM) is None
        )

    def _nodes(self, spec: ModelSpec) -> Iterable[NodeState]:
        for node in self._draft.nodes.values():
            if not self._draft.blocked(spec, node.node_id) and self._loading_on(
                node
            ) < self._side_by_side(node):
                yield node

    def _open(self, node: NodeState, gpus: tuple[int, ...], spec: ModelSpec) -> bool:
        """Nobody serves, starts or drains there, and the model stands on none of them yet."""
        if self._draft.promised_to_another(spec, node.node_id, gpus):
            return False
        return not any(
            r.model_id == spec.id or r.rung is Rung.SERVING or r.target is Rung.SERVING
            for r in node.on(gpus)
        )

    def _covers(self, node: NodeState, gpus: tuple[int, ...], need: int) -> bool:
        free = self._free_on(node)
        return all(free[g] >= need for g in gpus)

    def _free_on(self, node: NodeState) -> tuple[int, ...]:
        known = self._free.get(node.node_id)
        if known is None:
            current = self._draft.nodes[node.node_id]
            known = tuple(gpu_free_bytes(current, g) for g in range(len(current.gpus)))
            self._free[node.node_id] = known
        return known

    def _beside(self, new: Worth, node: NodeState, gpus: tuple[int, ...]) -> float:
        """What is lost in futures that need the new one and a neighbour together."""
        outlook = self._planning.facts.outlook
        assert outlook is not None
        lost = 0.0
        for replica in node.on(gpus):
            known = self._worth.get(replica.replica_id)
            if known is not None:
                both = outlook.share(known.mask & new.mask) if new.mask else 0.0
                both = max(both, known.chance * new.chance)
                lost += both * min(known.unit, new.unit) + 1e-6 * known.value
        return round(lost, 9)

    def _of_model_on(self, node: NodeState, spec: ModelSpec) -> int:
        return sum(r.node_id == node.node_id for r in self._draft.of_model(spec.id))

    # --- links

    def _loading_on(self, node: NodeState) -> int:
        current = self._draft.nodes[node.node_id]
        return sum(
            r.target is not None and r.target > Rung.PARKED and bool(r.action_id)
            for r in current.replicas
        )

    def _side_by_side(self, node: NodeState) -> int:
        """As many loads as the node's link takes at full speed."""
        links = self._draft.spec_of(node).links
        return max(int(links.h2d_total // links.h2d_stream), 1)

    def _why(self, new: Worth, beside: float) -> Reason:
        numbers = {
            "probability": new.chance,
            "horizon_s": HORIZON_US / US,
            "value": new.value,
            "beside": beside,
        }
        return Reason(code=ReasonCode.PREWARM, numbers=numbers)
