"""What a launch breaks: larger GPU sets that nobody serves on, and who may need them. Pure.

In: a draft, ranks. Out: a loss. Never: decides. Sets are aligned buddies. A small model launched in
the midst of a large free set leaves no place for a large model, so of equal places the one is best
whose surroundings are in use already; the fewer large sets are left, the dearer they are.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

from placement.edges import power_of_two_above, return_us
from placement.planning.draft import Draft
from placement.planning.expected import Expected
from placement.planning.ranks import Ranks, serves_or_will, taken_on, whole_around
from placement.snapshot import NodeState

US = 1_000_000


class Buddies:
    """Of one round; follows the draft as it changes."""

    def __init__(self, draft: Draft, models: Mapping[str, Expected], ranks: Ranks) -> None:
        self._draft = draft
        self._models = models
        self._ranks = ranks
        self._read = -1
        """So many of the draft's changes are taken in."""
        self._taken: dict[str, frozenset[int]] = {}
        self._whole: Counter[int] = Counter()
        """By size: sets of which no GPU is taken."""
        self._worth: dict[int, dict[str, float]] = {}
        """By size and model: what the next replicas of models so large are worth."""

    def loss_s(self, node: NodeState, gpus: tuple[int, ...]) -> float:
        """What those larger sets are worth that a launch on these GPUs breaks, at its price."""
        self._refresh()
        sizes = whole_around(self._taken[node.node_id], len(node.gpus), gpus)
        return sum(
            (sum(self._worth.get(size, {}).values()) / max(self._whole[size], 1) for size in sizes),
            0.0,
        )

    def _refresh(self) -> None:
        draft, read = self._draft, self._read
        if read == len(draft.changes):
            return
        self._read = len(draft.changes)
        if read < 0:
            self._take_in(draft.nodes)
            self._value(self._models)
            return
        changes = draft.changes[read:]
        self._take_in({change.node_id for change in changes if change.gpus is None})
        self._value({change.model_id for change in changes})

    def _value(self, model_ids: Iterable[str]) -> None:
        for model_id in model_ids:
            model = self._models.get(model_id)
            if model is not None:
                size = power_of_two_above(model.spec.gpus)
                self._worth.setdefault(size, {})[model_id] = self._worth_of(model)

    def _take_in(self, changed: Iterable[str]) -> None:
        for node_id in changed:
            node, before = self._draft.nodes[node_id], self._taken.get(node_id)
            taken = taken_on(node)
            if taken == before:
                continue
            if before is not None:
                self._whole.subtract(_whole_sets(before, len(node.gpus)))
            self._whole.update(_whole_sets(taken, len(node.gpus)))
            self._taken[node_id] = taken

    def _worth_of(self, model: Expected) -> float:
        """Of its next replica."""
        climb_s = return_us(model.spec) / US
        unit = model.waiters(climb_s) * climb_s * model.price
        up = sum(map(serves_or_will, self._draft.of_model(model.spec.id)))
        return self._ranks.chance(model.spec.id, up + 1) * unit


def _whole_sets(taken: frozenset[int], count: int) -> Counter[int]:
    """By size."""
    sizes = [1 << power for power in range(count.bit_length()) if 1 << power <= count]
    return Counter(
        {
            size: sum(
                taken.isdisjoint(range(first, first + size))
                for first in range(0, count - size + 1, size)
            )
            for size in sizes
        }
    )
