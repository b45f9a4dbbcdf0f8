"""What a launch breaks: larger GPU sets that nobody serves on, and who may need them. Pure.

In: a draft, ranks. Out: a loss. Never: decides. Sets are aligned buddies. A small model launched in
the midst of a large free set leaves no place for a large model, so of equal places the one is best
whose surroundings are in use already; the fewer large sets are left, the dearer they are.
"""

from collections.abc import Mapping

from placement.edges import climb_us, resting_rungs
from placement.planning.draft import Draft
from placement.planning.expected import Expected
from placement.planning.ranks import Ranks, rung_to_come, serves_or_will
from placement.snapshot import NodeState, ReplicaState, Rung, WeightsAt

US = 1_000_000


class Buddies:
    """Of one round; to be made anew once somebody was launched."""

    def __init__(self, draft: Draft, models: Mapping[str, Expected], ranks: Ranks) -> None:
        self._draft = draft
        self._models = models
        self._ranks = ranks
        self._taken: dict[str, frozenset[int]] = {}
        self._whole: dict[int, int] = {}
        self._wanted: dict[int, float] | None = None

    def loss_s(self, node: NodeState, gpus: tuple[int, ...]) -> float:
        """What those larger sets are worth that a launch on these GPUs breaks, at its price."""
        loss, size = 0.0, len(gpus) * 2
        while gpus and size <= len(node.gpus):
            first = gpus[0] // size * size
            if self._taken_on(node).isdisjoint(range(first, first + size)):
                loss += self._worth().get(size, 0.0) / max(self._whole_sets(size), 1)
            size *= 2
        return loss

    def _taken_on(self, node: NodeState) -> frozenset[int]:
        known = self._taken.get(node.node_id)
        if known is None:
            up = [r for r in self._draft.nodes[node.node_id].replicas if _holds(r)]
            known = self._taken[node.node_id] = frozenset(g for r in up for g in r.gpu_ids)
        return known

    def _whole_sets(self, size: int) -> int:
        known = self._whole.get(size)
        if known is None:
            known = self._whole[size] = sum(
                self._taken_on(node).isdisjoint(range(first, first + size))
                for node in self._draft.nodes.values()
                for first in range(0, len(node.gpus) - size + 1, size)
            )
        return known

    def _worth(self) -> dict[int, float]:
        """By size: what the next replicas of models so large are worth."""
        if self._wanted is None:
            self._wanted = {}
            for model_id, model in self._models.items():
                up = sum(map(serves_or_will, self._draft.of_model(model_id)))
                rest = next(iter(resting_rungs(model.spec)), WeightsAt.HOST)
                climb_s = climb_us(model.spec, rest) / US
                unit = model.waiters(climb_s) * climb_s * model.price
                worth = self._ranks.chance(model_id, up + 1) * unit
                size = 1 << max(model.spec.gpus - 1, 0).bit_length()
                self._wanted[size] = self._wanted.get(size, 0.0) + worth
        return self._wanted


def _holds(replica: ReplicaState) -> bool:
    return Rung.SERVING in (rung_to_come(replica), replica.rung)
