"""The engines of a residency plan in the making, and what they are worth together. Pure.

In: a draft, what is called for. Out: what exists already; what one more engine would add, what the
loss of one would cost. Mutable while a plan is made. Never: decides.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from placement.catalog import ModelSpec
from placement.feasibility import wrong_gpu_set
from placement.planning.berths import Berth, Berths
from placement.planning.draft import Draft, sets_for
from placement.planning.ranks import rung_to_come, serves_or_will
from placement.planning.turns import GpuTurns, part_of, value_of
from placement.planning.uses import Called, Use, plannable
from placement.snapshot import Phase, ReplicaState, Rung

Place = tuple[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Engine:
    """In the plan: the `count`-th of its model."""

    berth: Berth
    count: int
    use: Use | None = None
    """None: it saves nobody a start, but it stays."""
    exists: bool = False
    stays: bool = False
    """It is at work, or its model's minimum."""
    adds: float = 0.0
    """Beside those that came before it, less what its start costs."""

    @property
    def cost(self) -> float:
        return 0.0 if self.exists or self.use is None else self.use.cost


class Estate:
    def __init__(self, draft: Draft, called: dict[str, Called], cells: int) -> None:
        self.draft, self.called, self.cells = draft, called, cells
        self.berths = Berths(draft)
        self.engines: list[Engine] = []
        self.places = {m: list(_places(draft, one.spec)) for m, one in called.items()}
        self._turns = {
            (name, g): GpuTurns(self.berths.usable(name, g), cells)
            for name, node in draft.nodes.items()
            for g in range(len(node.gpus))
        }
        self._count: dict[str, int] = {}
        before = draft.facts.residency
        self._planned_before = {
            (r.model_id, r.node_id, r.gpu_ids): int(r.why.numbers.get("replica", 0))
            for r in (before.residents if before is not None else ())
        }
        self._take_what_exists()

    @property
    def value(self) -> float:
        """Saved in the mean of the paths, less what starts cost."""
        return value_of(self._turns.values()) - sum(e.cost for e in self.engines)

    def rooms(self) -> Iterator[GpuTurns]:
        yield from self._turns.values()

    # --- what one more adds

    def next_use(self, model_id: str) -> Use | None:
        count = self._count.get(model_id, 0) + 1
        return next((u for u in self.called[model_id].uses if u.count == count), None)

    def versions(self, berth: Berth) -> tuple[int, ...]:
        """They change when what it would add may have become less."""
        return tuple(self._turns[berth.node_id, g].version for g in berth.gpu_ids)

    def more(self, use: Use, berth: Berth) -> float:
        """What one more engine adds, less what its start costs."""
        part = part_of(use, berth.rests, exists=False)
        return sum(t.more(part) for t in self._on(berth)) - use.cost

    def raised(self, engine: Engine) -> float:
        """What it adds if its weights stay on the host while it sleeps."""
        assert engine.use is not None
        part = part_of(engine.use, Rung.PARKED, exists=engine.exists)
        return sum(t.instead(part) for t in self._on(engine.berth))

    def add(self, engine: Engine) -> None:
        self._count[engine.berth.spec.id] = engine.count
        self.engines.append(engine)
        self.berths.take(engine.berth)
        if engine.use is not None:
            part = part_of(engine.use, engine.berth.rests, exists=engine.exists)
            for turns in self._on(engine.berth):
                turns.put(part)

    def raise_up(self, engine: Engine, adds: float) -> None:
        """It keeps its weights on the host."""
        berth = replace(engine.berth, rests=Rung.PARKED)
        raised = replace(engine, berth=berth, adds=engine.adds + adds)
        assert engine.use is not None
        self.engines[self.engines.index(engine)] = raised
        self.berths.leave(engine.berth)
        self.berths.take(berth)
        part = part_of(engine.use, Rung.PARKED, exists=engine.exists)
        for turns in self._on(berth):
            turns.put(part)

    def remove(self, engine: Engine) -> None:
        """Only the last of its model."""
        assert self._count[engine.berth.spec.id] == engine.count, "the last one goes first"
        self._count[engine.berth.spec.id] -= 1
        self.engines.remove(engine)
        self.berths.leave(engine.berth)
        if engine.use is not None:
            for turns in self._on(engine.berth):
                turns.drop(engine.use.key)

    def loss(self, engine: Engine) -> float:
        """What is lost if it ends; its start is saved if it has yet to be started."""
        if engine.use is None:
            return 0.0
        return sum(t.loss(engine.use.key) for t in self._on(engine.berth)) - engine.cost

    def removable(self, node_id: str, gpu_ids: tuple[int, ...] = ()) -> list[Engine]:
        """Of each model the last engine, if it is here and not at work."""
        return [
            e
            for e in self.engines
            if not e.stays
            and e.berth.node_id == node_id
            and (not gpu_ids or not set(gpu_ids).isdisjoint(e.berth.gpu_ids))
            and self._count[e.berth.spec.id] == e.count
        ]

    def _on(self, berth: Berth) -> Iterator[GpuTurns]:
        for g in berth.gpu_ids:
            yield self._turns[berth.node_id, g]

    # --- what exists, and minimums

    def _take_what_exists(self) -> None:
        by_model: dict[str, list[ReplicaState]] = {}
        for node in self.draft.nodes.values():
            for replica in node.replicas:
                spec = self.draft.facts.catalog.model(replica.model_id)
                if spec is not None and plannable(spec) and rung_to_come(replica):
                    by_model.setdefault(spec.id, []).append(replica)
        for model_id in sorted(by_model):
            spec = self.draft.facts.models[model_id]
            for replica in sorted(by_model[model_id], key=self._nearness):
                self._take(spec, replica)
        for called in sorted(self.called.values(), key=lambda c: (-c.spec.priority, c.spec.id)):
            while self._count.get(called.spec.id, 0) < called.spec.min_replicas:
                if not self._found_minimum(called.spec):
                    break

    def _nearness(self, replica: ReplicaState) -> tuple[bool, bool, int, str]:
        """Those at work first, then in the order of the plan before: the same again is the same."""
        here = (replica.model_id, replica.node_id, replica.gpu_ids)
        count = self._planned_before.get(here, 1 << 30)
        return (not serves_or_will(replica), not _at_work(replica), count, replica.replica_id)

    def _take(self, spec: ModelSpec, replica: ReplicaState) -> None:
        called, count = self.called.get(spec.id), self._count.get(spec.id, 0) + 1
        stays = _at_work(replica) or count <= spec.min_replicas
        use = self.next_use(spec.id) if called is not None else None
        if not stays and (use is None or use.most(Rung.PARKED, exists=True) <= 0):
            return
        rests = self._rests(spec, replica, always_serves=count <= spec.min_replicas)
        berth = Berth(spec, replica.node_id, replica.gpu_ids, rests)
        if called is not None:
            self._occupy(called, count, berth)
        engine = Engine(berth=berth, count=count, use=use, exists=True, stays=stays)
        before = value_of(self._on(berth))
        self.add(engine)
        added = value_of(self._on(berth)) - before
        self.engines[-1] = replace(engine, adds=added)

    def _rests(self, spec: ModelSpec, replica: ReplicaState, *, always_serves: bool) -> Rung:
        if replica.pinned or Rung.PARKED in (replica.rung, replica.target):
            return Rung.PARKED
        if always_serves or (replica.rung is Rung.SHED and not replica.action_id):
            return Rung.SHED
        parked = Berth(spec, replica.node_id, replica.gpu_ids, Rung.PARKED)
        roomy = parked.host_bytes <= self.berths.host_free(replica.node_id)
        return Rung.PARKED if roomy else Rung.SHED

    def _occupy(self, called: Called, count: int, berth: Berth) -> None:
        """Whoever serves now, and a minimum for ever, is not asked to take turns."""
        held = berth.growth_bytes + berth.residue_bytes
        for turns in self._on(berth):
            if count <= called.spec.min_replicas:
                turns.occupy(turns.room >= 0, held)
            elif count <= len(called.goes_on):
                turns.occupy(called.goes_on[count - 1], held)

    def _found_minimum(self, spec: ModelSpec) -> bool:
        """A place for one that has to serve, though it does not exist yet."""
        open_to = [Berth(spec, n, gpus, Rung.SHED) for n, gpus in self.places[spec.id]]
        open_to = [b for b in open_to if not self.berths.stands(b) and not self.berths.lacking(b)]
        if not open_to:
            return False
        berth = min(open_to, key=self.crowding)
        count = self._count.get(spec.id, 0) + 1
        self._occupy(self.called[spec.id], count, berth)
        self.add(Engine(berth=berth, count=count, stays=True))
        return True

    def crowding(self, berth: Berth) -> tuple[int, int, str, tuple[int, ...]]:
        """Apart from others of its model, then from others at all; ids close the tie."""
        mine = self.berths.of_model(berth.node_id, berth.spec.id)
        return (mine, self.berths.on(berth.node_id, berth.gpu_ids), berth.node_id, berth.gpu_ids)


def _at_work(replica: ReplicaState) -> bool:
    """It serves, drains or moves."""
    at_rest = replica.phase is Phase.READY and not replica.action_id
    return replica.rung is Rung.SERVING or not at_rest


def _places(draft: Draft, spec: ModelSpec) -> Iterator[Place]:
    for node in draft.nodes.values():
        node_spec = draft.spec_of(node)
        for gpus in sets_for(spec, node_spec):
            if wrong_gpu_set(spec, node_spec, gpus) is None:
                yield node.node_id, gpus
