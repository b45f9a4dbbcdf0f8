"""What sleeping engines hold on a node, and whether one more has room beside them. Pure.

In: bare nodes, engines with the rung on which each sleeps. Out: what would be lacking. Never:
decides.

Asleep, an engine holds its residue on each of its GPUs and its process on the host, parked also
its pinned weights. And each has to be able to serve: on every GPU the residues of all and the
growth of the largest fit together, so that a start or a climb has its whole footprint once others
sleep.
"""

from dataclasses import dataclass, field

from placement.catalog import ModelSpec
from placement.edges import footprint_bytes, gpu_bytes, host_bytes
from placement.feasibility import host_free_bytes, usable_hbm_bytes
from placement.planning.draft import Draft
from placement.snapshot import NodeState, Rung


@dataclass(frozen=True, slots=True)
class Berth:
    """Where an engine of a model stands, and the rung on which it sleeps."""

    spec: ModelSpec
    node_id: str
    gpu_ids: tuple[int, ...]
    rests: Rung

    @property
    def host_bytes(self) -> int:
        return host_bytes(self.spec, self.rests)

    @property
    def residue_bytes(self) -> int:
        return gpu_bytes(self.spec, self.rests)

    @property
    def growth_bytes(self) -> int:
        return footprint_bytes(self.spec) - self.residue_bytes


@dataclass(slots=True)
class _Node:
    host_free: int
    usable: tuple[int, ...]
    berths: list[Berth] = field(default_factory=list)

    def on(self, gpu_id: int) -> list[Berth]:
        return [b for b in self.berths if gpu_id in b.gpu_ids]


class Berths:
    """All nodes. Mutable while a plan is made."""

    def __init__(self, draft: Draft) -> None:
        self._nodes = {name: _empty(draft.bare(node)) for name, node in draft.nodes.items()}

    def take(self, berth: Berth) -> None:
        node = self._nodes[berth.node_id]
        node.berths.append(berth)
        node.host_free -= berth.host_bytes

    def leave(self, berth: Berth) -> None:
        node = self._nodes[berth.node_id]
        node.berths.remove(berth)
        node.host_free += berth.host_bytes

    def host_free(self, node_id: str) -> int:
        return self._nodes[node_id].host_free

    def usable(self, node_id: str, gpu_id: int) -> int:
        return self._nodes[node_id].usable[gpu_id]

    def on(self, node_id: str, gpu_ids: tuple[int, ...]) -> int:
        """Engines that stand on any of these GPUs, once for each."""
        return sum(len(self._nodes[node_id].on(g)) for g in gpu_ids)

    def of_model(self, node_id: str, model_id: str) -> int:
        return len([b for b in self._nodes[node_id].berths if b.spec.id == model_id])

    def stands(self, berth: Berth) -> bool:
        """Whether an engine of the model is to stand on exactly these GPUs already."""
        there = self._nodes[berth.node_id].berths
        return any(b.spec.id == berth.spec.id and b.gpu_ids == berth.gpu_ids for b in there)

    def lacking(self, berth: Berth) -> str:
        """What there is too little of; empty if nothing."""
        node = self._nodes[berth.node_id]
        if berth.host_bytes > node.host_free:
            return "host memory"
        fits = all(self._fits(node, g, berth) for g in berth.gpu_ids)
        return "" if fits else "GPU memory"

    def _fits(self, node: _Node, gpu_id: int, more: Berth) -> bool:
        beside = [*node.on(gpu_id), more]
        residues = sum(b.residue_bytes for b in beside)
        return residues + max(b.growth_bytes for b in beside) <= node.usable[gpu_id]


def _empty(bare: NodeState) -> _Node:
    """What is left beside reservations that no replica of ours explains."""
    usable = tuple(usable_hbm_bytes(g.hbm_bytes) - g.reserved_bytes for g in bare.gpus)
    return _Node(host_free=host_free_bytes(bare), usable=usable)
