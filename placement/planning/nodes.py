"""Which nodes to launch, and which one to empty and give back. Pure.

In: a draft after this round's actions, what models need now and are expected to need. Out: node
changes, each with its numbers, and what is to be remembered. Never: gives a node back on which
anything runs; goes below the fewest that are kept.

**Value.** A node is worth what it spares: price × those of its GPUs that would be in use once it
could be there, in the mean of the futures, for each GPU that is missing keeps a request waiting. It
costs the GPUs that it has. So what is kept is the price's quantile of the demand, but by whole
nodes; what is above the demand of now is the standby. Sets are aligned: up to one less than the
largest set may lie idle between others, and counts as demand.

**Coming.** Demand is looked at one launch and one climb ahead; whoever goes comes back first, for
that takes no time. Then the absent by their order in the catalog.

**Going.** A node that is worth less than `KEEP` of its cost for as long as a launch takes (by then
it has cost as idle what calling it back would) goes, one at a time: the one with the least to lose.
It takes nothing new, its models climb elsewhere while it still serves, then it drains, and once
nothing runs there it is given back. One that cannot be emptied in `EMPTY_US` stays.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from placement.catalog import ModelSpec, NodeSpec
from placement.edges import climb_us, footprint_bytes, host_bytes
from placement.feasibility import usable_hbm_bytes, wrong_gpu_set
from placement.plan import LaunchNode, NodeChange, Reason, ReasonCode, ReturnNode
from placement.planning.climbs import ever_fits
from placement.planning.draft import Elastic, Going, sets_for
from placement.planning.expected import Expected
from placement.planning.scaling import Wanted, worth_from_none
from placement.planning.writing import Planning
from placement.snapshot import NodeState, Rung, WeightsAt, nothing_runs

US = 1_000_000
KEEP = 0.5
"""A node stays while it is worth this share of its GPUs."""
EMPTY_US = 180 * US


@dataclass(frozen=True, slots=True)
class Need:
    """GPUs, in each of some futures."""

    gpus: tuple[int, ...]
    between: int
    """That may lie idle between sets."""
    price: float
    """GPU-seconds that it is worth to spare a request a second of waiting."""

    def used(self, there: int, more: int) -> float:
        """How many of `more` GPUs would be in use beside so many, in the mean."""
        beyond = (need + self.between - there for need in self.gpus)
        return sum(min(max(b, 0), more) for b in beyond) / len(self.gpus)

    def worth(self, there: int, more: int) -> float:
        """In GPUs."""
        return self.price * self.used(there, more)


def plan_nodes(
    planning: Planning, models: Mapping[str, Expected], wanted: Mapping[str, Wanted]
) -> None:
    """Where nodes may come and go."""
    elastic = planning.facts.elastic
    if elastic is not None:
        _Nodes(planning, models, wanted, elastic).run()


class _Nodes:
    def __init__(
        self,
        planning: Planning,
        models: Mapping[str, Expected],
        wanted: Mapping[str, Wanted],
        elastic: Elastic,
    ) -> None:
        self._planning = planning
        self._draft = planning.draft
        self._facts = planning.facts
        self._elastic = elastic
        self._going = planning.facts.going
        self._models, self._wanted = models, wanted
        there = [n for n in self._facts.catalog.nodes if n.id in self._draft.nodes]
        self._staying = [n for n in there if not self._draft.leaves(n.id)]
        self._coming = [
            n
            for n in self._facts.catalog.nodes
            if n.id in elastic.coming and n.id not in self._draft.nodes
        ]

    def run(self) -> None:
        now = self._now()
        soon = self._soon(now)
        needed = _at_least(soon, now)
        launched = list(self._launches(soon))
        self._coming += [n for n, _ in launched]
        changes: list[NodeChange] = [LaunchNode(node_id=n.id, why=why) for n, why in launched]
        going = self._still_going(soon)
        if not launched:
            going = self._next_going(going, needed)
        emptied = self._emptied(going)
        if emptied is not None:
            why = self._why(ReasonCode.EXCESS, needed, self._gpus(), emptied.gpus)
            changes.append(ReturnNode(node_id=emptied.id, why=why))
            going = Going()
        self._planning.change_nodes(tuple(changes), going)

    # --- what is needed

    def _now(self) -> Need:
        """What is worth its GPUs at this moment."""
        each = [
            (model, worth_from_none(model, self._wanted[model_id].climb_s))
            for model_id, model in self._models.items()
            if model_id in self._wanted and model.spec.on_gpu
        ]
        gpus = sum(model.spec.gpus * count for model, count in each)
        largest = max((model.spec.gpus for model, count in each if count), default=1)
        paid = sum(model.price * model.spec.gpus * count for model, count in each)
        price = paid / gpus if gpus else self._facts.catalog.policy.waiting_to_idle
        return Need((gpus,), largest - 1, price)

    def _soon(self, now: Need) -> Need:
        """Once a node that is launched now serves: by the forecasts, else as now."""
        outlook = self._facts.outlook
        assert outlook is not None, "without an outlook nobody asks for nodes"
        climbs = [climb_us(m.spec, WeightsAt.HOST) for m in self._models.values() if m.asked]
        ahead_us = self._elastic.lead_us + max(climbs, default=0)
        return Need(outlook.gpus_at(ahead_us) or now.gpus, now.between, now.price)

    def _gpus(self) -> int:
        """There and on their way, without those that go."""
        return sum(n.gpus for n in (*self._staying, *self._coming))

    # --- coming

    def _launches(self, soon: Need) -> Iterator[tuple[NodeSpec, Reason]]:
        """Absent nodes that are worth their GPUs. Whoever goes, comes back first."""
        there, count = self._gpus(), len(self._staying) + len(self._coming)
        returning = self._facts.catalog.node(self._going.node_id)
        if returning is not None and self._going.node_id in self._draft.nodes:
            there, count = there + returning.gpus, count + 1
        absent = [n for n in self._facts.catalog.nodes if self._absent(n)]
        homeless = self._homeless()
        absent.sort(key=lambda n: not any(_fits(spec, n) for spec in homeless))
        for node in absent:
            first = any(_fits(spec, node) for spec in homeless)
            worth = soon.worth(there, node.gpus) >= node.gpus
            if not (worth or first or count < self._elastic.nodes_min):
                return
            code = ReasonCode.HELD_REQUESTS if first else ReasonCode.FORECAST
            yield node, self._why(code, soon, there, node.gpus)
            there, count = there + node.gpus, count + 1
            homeless = [spec for spec in homeless if not _fits(spec, node)]

    def _absent(self, node: NodeSpec) -> bool:
        return node.id not in self._draft.nodes and node.id not in self._elastic.coming

    def _homeless(self) -> list[ModelSpec]:
        """Models that are wanted and fit on no node that is there or comes."""
        wants = [self._facts.models[want.model_id] for want in self._planning.wants]
        return [
            spec
            for spec in wants
            if not ever_fits(self._draft, spec) and not any(_fits(spec, n) for n in self._coming)
        ]

    # --- going

    def _still_going(self, soon: Need) -> Going:
        """Taken back if it is worth its GPUs again, or somebody waits in vain, or others were lost,
        or it does not empty."""
        going, node = self._going, self._draft.nodes.get(self._going.node_id)
        if node is None:
            return going if not going.node_id else Going()
        worth = soon.worth(self._gpus(), len(node.gpus)) >= len(node.gpus)
        late = self._facts.now_us - going.since_us > EMPTY_US
        stuck = late and any(r.serving for r in node.replicas)
        missing = len(self._staying) < self._elastic.nodes_min
        if worth or missing or stuck or self._waits_in_vain():
            self._staying.append(self._spec(node))
            return Going()
        return going

    def _waits_in_vain(self) -> bool:
        """Somebody is held for whom there is no way up, so long as the node is closed to it."""
        vain = (self._models.get(want.model_id) for want in self._planning.wants if not want.eta_us)
        return any(model is not None and model.held for model in vain)

    def _next_going(self, going: Going, needed: Need) -> Going:
        """One more goes if there have been too many for as long as a launch takes."""
        now_us = self._facts.now_us
        if going.node_id:
            return going
        spare = list(self._spare(needed))
        if not spare or self._waits_in_vain():
            return Going()
        since_us = now_us if going.too_many_since_us is None else going.too_many_since_us
        if now_us - since_us < self._elastic.lead_us:
            return Going(too_many_since_us=since_us)
        node = min(spare, key=self._loss)
        return Going(too_many_since_us=since_us, node_id=node.node_id, since_us=now_us)

    def _spare(self, needed: Need) -> Iterable[NodeState]:
        """Nodes any one of which may be missed, and that have been here for a while."""
        if len(self._staying) <= self._elastic.nodes_min or self._coming:
            return
        settled_us = self._facts.now_us - 2 * self._elastic.lead_us
        for spec in self._staying:
            rest = self._gpus() - spec.gpus
            if needed.worth(rest, spec.gpus) >= KEEP * spec.gpus:
                continue
            node = self._draft.nodes[spec.id]
            if self._elastic.since_us.get(spec.id, 0) <= settled_us and self._may_move(node):
                yield node

    def _may_move(self, node: NodeState) -> bool:
        """Whether all that must serve can do so elsewhere."""
        specs = {self._facts.models.get(r.model_id) for r in node.replicas}
        pinned = [s for s in specs if s is not None and s.min_replicas]
        return all(ever_fits(self._draft, spec, but={node.node_id}) for spec in pinned)

    def _loss(self, node: NodeState) -> tuple[float, int]:
        """Waiting until all that is worth something there is as near elsewhere; of equals the last
        in the catalog."""
        known = [r for r in node.replicas if r.model_id in self._facts.models]
        order = [n.id for n in self._facts.catalog.nodes].index(node.node_id)
        return (sum(self._draft.loss_us(r, None) for r in known), -order)

    def _emptied(self, going: Going) -> NodeSpec | None:
        """The node that goes, if nothing serves, starts or moves there any more."""
        node = self._draft.nodes.get(going.node_id)
        return self._spec(node) if node is not None and nothing_runs(node) else None

    # --- in short

    def _spec(self, node: NodeState) -> NodeSpec:
        return self._draft.spec_of(node)

    def _why(self, code: ReasonCode, need: Need, there: int, more: int) -> Reason:
        at = need.price / (1 + need.price)
        numbers = {
            "gpus_there": float(there),
            "gpus_needed": float(
                sorted(need.gpus)[min(int(at * len(need.gpus)), len(need.gpus) - 1)]
            ),
            "quantile": at,
            "between_sets": float(need.between),
            "used": need.used(there, more),
            "worth_gpus": need.worth(there, more),
            "costs_gpus": float(more),
            "lead_s": self._elastic.lead_us / US,
        }
        return Reason(code=code, numbers=numbers)


def _at_least(soon: Need, now: Need) -> Need:
    """Nobody goes who is needed now, whatever is forecast."""
    least = max(now.gpus)
    return Need(tuple(max(gpus, least) for gpus in soon.gpus), soon.between, soon.price)


def _fits(spec: ModelSpec, node: NodeSpec) -> bool:
    """Whether a node that is empty could serve this model."""
    sets = sets_for(spec, node)
    return (
        bool(sets)
        and wrong_gpu_set(spec, node, sets[0]) is None
        and footprint_bytes(spec) <= usable_hbm_bytes(node.hbm_bytes)
        and host_bytes(spec, Rung.SERVING) <= node.host_bytes
    )
