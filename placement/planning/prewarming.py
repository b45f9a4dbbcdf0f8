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

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

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
from placement.feasibility import room_for_step
from placement.plan import Reason, ReasonCode
from placement.planning.expected import Expected
from placement.planning.kinds import weights_at
from placement.planning.places import Gpus, Place, Places
from placement.planning.ranks import HORIZON_US, Ranks, nearness, rung_to_come
from placement.planning.stale import Stale
from placement.planning.writing import Planning
from placement.snapshot import NodeState, Phase, ReplicaState, Rung

US = 1_000_000
Choice: TypeAlias = tuple[float, int, str, Gpus]
CHANGE = 2.0
ROUNDING = 1e-9
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


def prewarm(
    planning: Planning, models: Mapping[str, Expected], ranks: Ranks, *, apart: bool = True
) -> None:
    """Loads for this round, as many as links and GPUs take side by side."""
    _Prewarming(planning, models, ranks, apart=apart).run()


class _Prewarming:
    def __init__(
        self, planning: Planning, models: Mapping[str, Expected], ranks: Ranks, *, apart: bool
    ) -> None:
        self._apart = apart
        self._planning = planning
        self._ranks = ranks
        self._draft = planning.draft
        self._models = models
        self._worth: dict[str, Worth] = {}
        """Of every replica that is warm or on its way there."""
        nodes = planning.draft.nodes
        self._any_node = nodes[min(nodes)] if nodes else None
        self._places = Places(planning.draft)
        self._stale = Stale(self._places, self._value, self._held)

    def run(self) -> None:
        """As much as there is room for: another round at the same moment would add nothing."""
        looked_at: Iterable[str] = self._models
        while looked_at:
            missing = sorted(self._missing(looked_at), key=lambda w: (-w.value, w.model_id))
            placed = [new for new in missing if self._place(new, self._models[new.model_id].spec)]
            looked_at = [new.model_id for new in placed]

    # --- what is worth having

    def _missing(self, model_ids: Iterable[str]) -> Iterator[Worth]:
        """Of each model the next one that is not warm; notes what the others are worth."""
        for model_id in model_ids:
            model = self._models[model_id]
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
            node = self._any_node
            if node is None:
                return 0.0
            links = self._draft.spec_of(node).links
            cold_us = climb_us(spec, weights_at(node, spec), links)
            return (cold_us - climb_us(spec, Rung.WARM, links)) / US
        return (climb_us(spec, Rung.PARKED) - climb_us(spec, Rung.WARM)) / US

    # --- where

    def _place(self, new: Worth, spec: ModelSpec) -> bool:
        """Whether there was a place for it."""
        return self._load(new, spec) if shared_copies(spec) else self._wake(new, spec)

    def _load(self, new: Worth, spec: ModelSpec) -> bool:
        """World W: any GPU set will do."""
        need = gpu_bytes(spec, Rung.WARM)
        best = self._best(new, spec, need)
        if best is None:
            return self._replace(new, spec, need)
        beside, _, node_id, gpus = best
        self._load_on(node_id, gpus, new, beside)
        return True

    def _best(self, new: Worth, spec: ModelSpec, need: int) -> Choice | None:
        """Where room is left: the least harm, then the fewest of the model, then the least ids."""
        mine: Counter[str] = Counter(r.node_id for r in self._draft.of_model(spec.id))
        best: Choice | None = None
        for node_id in self._places.roomy(spec, need):
            for place in self._places.open_to(spec, node_id):
                if place.free < need or not self._is_open(spec, node_id, place.gpus):
                    continue
                found = (self._beside(new, place), mine[node_id], node_id, place.gpus)
                best = found if best is None else min(best, found)
            if best is not None and best[:2] == (0.0, 0):
                return best  # nothing is better, and ids only grow
        return best

    def _load_on(self, node_id: str, gpus: Gpus, new: Worth, cost: float) -> None:
        node, spec = self._draft.nodes[node_id], self._models[new.model_id].spec
        edge = start_edge(spec, weights_at(node, spec), Rung.WARM)
        takes_us = edge_us(edge, self._draft.spec_of(node).links)
        self._planning.load(spec, node_id, gpus, takes_us, self._why(new, cost))
        self._places.changed(node_id)
        self._stale.changed(node_id)

    def _replace(self, new: Worth, spec: ModelSpec, need: int) -> bool:
        """In the place of what is worth least, if it is worth enough less."""
        loss_max = new.value / CHANGE
        for offer in self._stale.offers(spec, need):
            if offer.loss > loss_max * (1 + ROUNDING):
                return False
            if offer.within(loss_max) and self._is_open(spec, offer.node_id, offer.gpus):
                break
        else:
            return False
        for value, replica_id in offer.stale:
            numbers = {"value": value, "for_value": new.value}
            why = Reason(code=ReasonCode.STALE_PREWARM, numbers=numbers, for_model=spec.id)
            self._planning.step_down(self._draft.replica(replica_id), None, why)
        self._load_on(offer.node_id, offer.gpus, new, offer.loss)
        return True

    def _value(self, replica: ReplicaState) -> float | None:
        known = self._worth.get(replica.replica_id)
        return None if known is None else known.value

    def _held(self, replica: ReplicaState) -> int:
        return gpu_bytes(self._models[replica.model_id].spec, Rung.WARM)

    def _wake(self, new: Worth, spec: ModelSpec) -> bool:
        """World S: a sleeping engine, where it sleeps."""
        ways = []
        for replica in self._draft.of_model(spec.id):
            node = self._draft.nodes.get(replica.node_id)
            if node is None or not self._may_wake(replica, spec, node):
                continue
            takes_us = edge_us(
                step_edge(spec, replica.rung, Rung.WARM), self._draft.spec_of(node).links
            )
            place = Place(replica.gpu_ids, 0, node.on(replica.gpu_ids))
            beside = self._beside(new, place)
            ways.append((beside, takes_us, replica.replica_id, replica))
        if ways:
            beside, takes_us, _, replica = min(ways, key=lambda w: w[:3])
            self._planning.warm(replica, takes_us, self._why(new, beside))
        return bool(ways)

    def _may_wake(self, replica: ReplicaState, spec: ModelSpec, node: NodeState) -> bool:
        return (
            replica.rung in (Rung.PARKED, Rung.SHED)
            and replica.phase is Phase.READY
            and not replica.action_id
            and not self._draft.beside_a_start(replica)
            and not self._draft.blocked(spec, node.node_id)
            and not self._draft.promised_to_another(spec, node.node_id, replica.gpu_ids)
            and legal(spec, replica, Rung.WARM)
            and self._places.link_is_idle(node.node_id)
            and room_for_step(spec, node, replica, Rung.WARM) is None
        )

    def _is_open(self, spec: ModelSpec, node_id: str, gpus: Gpus) -> bool:
        """The model stands on no GPU there yet, does not rest there, and nobody else was promised
        the place."""
        draft = self._draft
        if draft.blocked(spec, node_id) or draft.promised_to_another(spec, node_id, gpus):
            return False
        return not any(r.model_id == spec.id for r in draft.nodes[node_id].on(gpus))

    def _beside(self, new: Worth, place: Place) -> float:
        """What is lost in futures that need the new one and a neighbour together."""
        outlook = self._planning.facts.outlook
        assert outlook is not None
        if not self._apart:
            return 0.0
        lost = 0.0
        for replica in place.there:
            known = self._worth.get(replica.replica_id)
            if known is not None:
                both = outlook.share(known.mask & new.mask) if new.mask else 0.0
                both = max(both, known.chance * new.chance)
                lost += both * min(known.unit, new.unit) + 1e-6 * known.value
        return round(lost, 9)

    def _why(self, new: Worth, beside: float) -> Reason:
        numbers = {
            "probability": new.chance,
            "horizon_s": HORIZON_US / US,
            "value": new.value,
            "beside": beside,
        }
        return Reason(code=ReasonCode.PREWARM, numbers=numbers)
