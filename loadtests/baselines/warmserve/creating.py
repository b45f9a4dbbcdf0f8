"""From the wish for an instance to its launch (4.6): GPUs claimed, others dropped, the verbs given.

In: a model that needs an instance, books as they change. Out: the next actions towards it. State is
the instances whose GPUs are still being cleared. Never: decides whether an instance is wanted.
"""

from dataclasses import dataclass

from loadtests.baselines.warmserve.belief import Belief
from loadtests.baselines.warmserve.books import (
    Books,
    Copy,
    Doing,
    NodeBook,
    claim,
    share_bytes,
)
from loadtests.baselines.warmserve.flags import Flags
from loadtests.baselines.warmserve.instances import Instance, Instances
from loadtests.baselines.warmserve.launch import Choice, choose, steps_down
from placement.catalog import ModelSpec, World
from placement.plan import Action, ReasonCode
from placement.snapshot import Rung


@dataclass(slots=True)
class _Creation:
    """An instance whose GPUs are being cleared. `fresh`: nothing of its model is there yet."""

    instance: Instance
    fresh: bool


class Creations:
    """World W drops whoever overlaps and launches in one transaction; a miss ends them first. World
    S has its neighbours step down, and waits for whatever takes time."""

    def __init__(self, belief: Belief, instances: Instances, flags: Flags) -> None:
        self._belief = belief
        self._instances = instances
        self._flags = flags
        self._open: dict[str, _Creation] = {}
        self._looked_in: Books = {}
        self._in_vain: set[str] = set()
        """Models that found no GPUs in these books: sleepers ask every second, and often many."""

    def create(self, spec: ModelSpec, now_us: int) -> tuple[Instance, list[Action]] | None:
        """Choose GPUs and claim them; None where no instance-free ones are left."""
        belief, choice = self._belief, self._choose(spec)
        if choice is None:
            return None
        books, copy = belief.books(), choice.copy
        name = belief.scribe.new_replica(spec.id) if copy is None else copy.replica_id
        instance = self._instances.by_id.get(name)  # there if its launch was refused this moment
        if instance is None:
            instance = Instance(
                replica_id=name,
                model_id=spec.id,
                node_id=choice.node_id,
                gpu_ids=choice.gpu_ids,
                created_us=now_us,
            )
            self._instances.add(instance)
        self._leak(books[choice.node_id], instance)
        belief.ahead.discard(instance.replica_id)
        belief.promise(claim(instance.replica_id, spec.id, choice.node_id, choice.gpu_ids))
        self._open[instance.replica_id] = _Creation(instance, copy is None)
        return instance, self._advance(self._open[instance.replica_id])

    def _choose(self, spec: ModelSpec) -> Choice | None:
        books = self._belief.books()
        if books is not self._looked_in:
            self._looked_in, self._in_vain = books, set()
        if spec.id in self._in_vain:
            return None
        found = choose(books, spec, self._belief.specs, by_count=self._flags.by_score)
        if found is None:
            self._in_vain.add(spec.id)
        return found

    def go_on(self) -> list[Action]:
        """Creations whose GPUs were still being cleared."""
        return [a for creation in list(self._open.values()) for a in self._advance(creation)]

    def _leak(self, book: NodeBook, instance: Instance) -> None:
        """4.11, 2: what dropped replicas hold beside the launch stays deducted, until that GPU
        runs an instance itself."""
        belief, inside = self._belief, set(instance.gpu_ids)
        for g in inside:
            belief.leaks.pop((book.node_id, g), None)
        if not self._flags.dropped_stays_booked:
            return
        for copy in book.beside(instance.replica_id, instance.gpu_ids):
            spec = belief.specs[copy.model_id]
            if spec.mechanism.world is World.W:
                for g in set(copy.gpu_ids) - inside:
                    key = (book.node_id, g)
                    belief.leaks[key] = belief.leaks.get(key, 0) + share_bytes(spec)

    def _advance(self, creation: _Creation) -> list[Action]:
        """The next actions on the way to an instance; none while something must end first."""
        instance = creation.instance
        book = self._belief.books().get(instance.node_id)
        if book is None:
            return self._close(creation)
        spec = self._belief.specs[instance.model_id]
        beside = book.beside(instance.replica_id, instance.gpu_ids)
        if any(c.doing is Doing.LEAVING for c in beside):
            return []
        if spec.mechanism.world is World.S:
            return self._advance_stock(creation, book, spec)
        if not creation.fresh:
            return self._launch(creation, {c.replica_id: None for c in beside})
        if not beside:
            return self._launch(creation, {})
        return [self._step_down(instance.node_id, c.replica_id, None) for c in beside]

    def _advance_stock(self, creation: _Creation, book: NodeBook, spec: ModelSpec) -> list[Action]:
        own = self._own(creation, book)
        if own is None or own.serves or (own.moving and own.holds is Rung.SERVING):
            return self._close(creation)  # it is gone, or was started ahead and comes up by itself
        if own.moving:
            return []
        steps = steps_down(book, self._belief.specs, spec, own)
        if steps is None:
            return self._close(creation)
        if not creation.fresh or not steps:
            return self._launch(creation, steps)
        node_id = creation.instance.node_id
        return [self._step_down(node_id, name, to) for name, to in steps.items()]

    def _own(self, creation: _Creation, book: NodeBook) -> Copy | None:
        name = creation.instance.replica_id
        return next((c for c in book.copies if c.replica_id == name), None)

    def _step_down(self, node_id: str, replica_id: str, to: Rung | None) -> Action:
        scribe, why = self._belief.scribe, ReasonCode.MAKE_ROOM
        if to is None:
            return self._belief.ask(scribe.evict(replica_id, node_id, why))
        return self._belief.ask(scribe.shed(replica_id, node_id, why))

    def _launch(self, creation: _Creation, victims: dict[str, Rung | None]) -> list[Action]:
        """Everything is ready for it."""
        one, scribe = creation.instance, self._belief.scribe
        self._close(creation)
        if not creation.fresh:
            return [self._belief.ask(scribe.promote(one.replica_id, one.node_id, victims))]
        why = ReasonCode.HELD_REQUESTS
        start = scribe.start(one.replica_id, one.model_id, one.node_id, one.gpu_ids, why)
        return [self._belief.ask(start)]

    def _close(self, creation: _Creation) -> list[Action]:
        """Nothing more to clear: the cluster shows what becomes of it."""
        del self._open[creation.instance.replica_id]
        self._belief.release(creation.instance.replica_id)
        return []
