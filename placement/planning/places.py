"""GPU sets to which weights may come: those on which nobody serves. Pure.

In: a draft that changes. Out: places of a node, bytes that are free, loads under way; reckoned once
for each state of a node. Never: decides.
"""

from dataclasses import dataclass, field

from placement.catalog import ModelSpec
from placement.feasibility import gpu_free_bytes
from placement.planning.draft import Draft, sets_for
from placement.snapshot import NodeState, ReplicaState, Rung

Gpus = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """A GPU set on which nobody serves or is about to."""

    gpus: Gpus
    free: int
    """Bytes, on the fullest of its GPUs."""
    there: tuple[ReplicaState, ...]


@dataclass(slots=True)
class _Looked:
    """What was seen of one state of a node."""

    node: NodeState
    free: Gpus
    loading: int
    open: dict[int, tuple[Place, ...]] = field(default_factory=dict)


class Places:
    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._looked: dict[str, _Looked] = {}
        self._side_by_side: dict[str, int] = {}
        self._roomy: dict[tuple[int, int], list[str]] = {}
        self.idle: list[str] = sorted(filter(self.link_is_idle, draft.nodes))
        """Nodes to which one more load may run at full speed, in order of their ids."""

    def changed(self, node_id: str) -> None:
        """A load has begun there: nodes only lose room by that."""
        if not self.link_is_idle(node_id):
            for names in (self.idle, *self._roomy.values()):
                if node_id in names:
                    names.remove(node_id)

    def roomy(self, spec: ModelSpec, need: int) -> list[str]:
        """Of those nodes the ones with room for that at some place, or with little less."""
        known = self._roomy.get((spec.gpus, need))
        if known is None:
            known = [n for n in self.idle if any(p.free >= need for p in self.open_to(spec, n))]
            self._roomy[spec.gpus, need] = known
        return known

    def link_is_idle(self, node_id: str) -> bool:
        at_once = self._side_by_side.get(node_id)
        if at_once is None:
            links = self._draft.spec_of(self._draft.nodes[node_id]).links
            at_once = max(int(links.h2d_total // links.h2d_stream), 1)
            self._side_by_side[node_id] = at_once
        return self._look(node_id).loading < at_once

    def open_to(self, spec: ModelSpec, node_id: str) -> tuple[Place, ...]:
        """By their GPUs. One may hold an engine of the model already, or be promised."""
        looked = self._look(node_id)
        known = looked.open.get(spec.gpus)
        if known is None:
            known = looked.open[spec.gpus] = tuple(self._open(looked, spec))
        return known

    def _open(self, looked: _Looked, spec: ModelSpec) -> list[Place]:
        found = []
        for gpus in sets_for(spec, self._draft.spec_of(looked.node)):
            there = looked.node.on(gpus)
            if not any(r.rung is Rung.SERVING or r.target is Rung.SERVING for r in there):
                found.append(Place(gpus, min(looked.free[g] for g in gpus), there))
        return found

    def free_on(self, node_id: str) -> Gpus:
        return self._look(node_id).free

    def _look(self, node_id: str) -> _Looked:
        node, looked = self._draft.nodes[node_id], self._looked.get(node_id)
        if looked is None or looked.node is not node:
            free = tuple(gpu_free_bytes(node, g) for g in range(len(node.gpus)))
            looked = self._looked[node_id] = _Looked(node, free, _loading(node))
        return looked


def _loading(node: NodeState) -> int:
    """Replicas on whose way up bytes cross the link."""
    return sum(
        r.target is not None and r.target > Rung.PARKED and bool(r.action_id) for r in node.replicas
    )
