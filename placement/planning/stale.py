"""Which weights would make room for others by their end, and what they are worth. Pure.

In: places, what each warm replica is worth. Out: offers, the least loss first. Never: ends anybody.

On one place the least valuable go first, until there is room. What that costs hangs on the bytes
that are needed and on nothing else of the model that needs them: it is worked out once for all that
need as much, and anew where a node changed.
"""

from bisect import insort
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from placement.catalog import ModelSpec
from placement.planning.places import Gpus, Place, Places
from placement.snapshot import ReplicaState

Value: TypeAlias = Callable[[ReplicaState], float | None]
"""What a replica is worth; None: it is not to be ended."""


@dataclass(frozen=True, slots=True, order=True)
class Offer:
    """Ordered by loss, then by ids."""

    loss: float
    node_id: str
    gpus: Gpus
    stale: tuple[tuple[float, str], ...]
    """Value and id of each that ends."""

    def within(self, loss_max: float) -> bool:
        for value, _ in self.stale:
            loss_max -= value
        return loss_max >= 0


class Stale:
    def __init__(self, places: Places, value: Value, held: Callable[[ReplicaState], int]) -> None:
        self._places, self._value, self._held = places, value, held
        self._offers: dict[tuple[int, int], tuple[ModelSpec, list[Offer]]] = {}

    def offers(self, spec: ModelSpec, need: int) -> list[Offer]:
        """On all nodes whose link is idle; some may not be open to the model."""
        known = self._offers.get((spec.gpus, need))
        if known is None:
            names = self._places.idle
            found = sorted(o for name in names for o in self._on(spec, need, name))
            known = self._offers[spec.gpus, need] = (spec, found)
        return known[1]

    def changed(self, node_id: str) -> None:
        """Weights have come or gone there."""
        for (_, need), (spec, offers) in self._offers.items():
            offers[:] = [o for o in offers if o.node_id != node_id]
            if self._places.link_is_idle(node_id):
                for offer in self._on(spec, need, node_id):
                    insort(offers, offer)

    def _on(self, spec: ModelSpec, need: int, node_id: str) -> Iterator[Offer]:
        for place in self._places.open_to(spec, node_id):
            if place.free < need:
                offer = self._offer(place, need, node_id)
                if offer is not None:
                    yield offer

    def _offer(self, place: Place, need: int, node_id: str) -> Offer | None:
        on_node = self._places.free_on(node_id)
        free = {g: on_node[g] for g in place.gpus}
        chosen = []
        for value, replica_id, replica in self._ranked(place):
            if min(free.values()) >= need:
                break
            chosen.append((value, replica_id))
            for g in replica.gpu_ids:
                if g in free:
                    free[g] += self._held(replica)
        if min(free.values()) < need:
            return None
        return Offer(sum(value for value, _ in chosen), node_id, place.gpus, tuple(chosen))

    def _ranked(self, place: Place) -> list[tuple[float, str, ReplicaState]]:
        found = [(self._value(r), r.replica_id, r) for r in place.there if not r.action_id]
        return sorted((value, name, r) for value, name, r in found if value is not None)
