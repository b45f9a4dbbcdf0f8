"""Which of its model's replicas one is, and how likely that many are needed. Pure.

In: a draft, what models are expected to need. Out: probabilities and expected waiters per replica.
Never: decides. A model's replicas are ranked by nearness: those that serve or will, then those that
are warm or will be, then those that sleep; of equals by id. The k-th is needed when k are.
"""

from collections.abc import Iterator, Mapping

from placement.planning.draft import Draft
from placement.planning.expected import Expected
from placement.planning.outlook import Outlook
from placement.snapshot import NodeState, Phase, ReplicaState, Rung

US = 1_000_000
CROWD_S = 20.0
"""Who lost its GPUs to others is back after so long: where places are scarce, it waits for one."""
HORIZON_US = 300 * US
"""How far ahead need is looked for."""


class Ranks:
    """Of one round; follows the draft as it changes."""

    def __init__(self, draft: Draft, models: Mapping[str, Expected], outlook: Outlook) -> None:
        self._draft = draft
        self._models = models
        self._outlook = outlook
        self._chances: dict[tuple[str, int], float] = {}
        self._ranks: dict[str, tuple[list[ReplicaState], dict[str, int]]] = {}
        """By model, and the list of replicas that it holds for: a change makes another list."""

    def rank(self, replica: ReplicaState) -> int:
        """From 1."""
        mine = self._draft.of_model(replica.model_id)
        known = self._ranks.get(replica.model_id)
        if known is None or known[0] is not mine:
            ordered = sorted(mine, key=nearness)
            known = (mine, {r.replica_id: i for i, r in enumerate(ordered, 1)})
            self._ranks[replica.model_id] = known
        return known[1][replica.replica_id]

    def mask(self, model_id: str, count: int) -> int:
        """The futures in which so many replicas are needed; 0 where nobody knows."""
        return self._outlook.mask(model_id, count, HORIZON_US)

    def chance(self, model_id: str, count: int) -> float:
        """That so many replicas of a model are needed within the horizon."""
        known = self._chances.get((model_id, count))
        if known is None:
            known = self._chances[model_id, count] = self._chance(model_id, count)
        return known

    def _chance(self, model_id: str, count: int) -> float:
        own = self._outlook.of(model_id)
        if own is not None and own.need:
            return self._outlook.share(self.mask(model_id, count))
        model = self._models.get(model_id)
        return model.chance(count, HORIZON_US) if model is not None else 0.0

    def loss_us(self, replica: ReplicaState, more_us: int) -> float:
        """What its step down costs if it is back so much later. Who serves is missed for longer:
        where others need its place, it has to find one."""
        model = self._models.get(replica.model_id)
        if model is None:
            return 0.0
        if replica.rung is Rung.SERVING:
            serving = len(self._draft.serving_of(replica.model_id))
            return model.missed(serving, CROWD_S) * US
        more_s = more_us / US
        chance = self.chance(replica.model_id, self.rank(replica))
        return chance * model.waiters(more_s) * model.price * more_us


def nearness(replica: ReplicaState) -> tuple[int, str]:
    return (-rung_to_come(replica), replica.replica_id)


def rung_to_come(replica: ReplicaState) -> int:
    """Where it stands, or will once its transition has ended. 0: it serves nobody any more."""
    if replica.phase is Phase.FAILED:
        return 0
    if replica.action_id:
        return replica.target or 0
    draining = replica.phase is Phase.DRAINING and replica.rung is Rung.SERVING
    return Rung.WARM if draining else replica.rung


def serves_or_will(replica: ReplicaState) -> bool:
    """Takes new requests now, or will once its climb has ended."""
    return replica.serving or (bool(replica.action_id) and replica.target is Rung.SERVING)


def taken_on(node: NodeState) -> frozenset[int]:
    """GPUs on which somebody serves or will."""
    up = (r for r in node.replicas if Rung.SERVING in (rung_to_come(r), r.rung))
    return frozenset(g for r in up for g in r.gpu_ids)


def whole_around(taken: frozenset[int], count: int, gpus: tuple[int, ...]) -> Iterator[int]:
    """Sizes of the larger sets around these GPUs, of so many on the node, of which none is taken.
    Sets are aligned buddies."""
    size = len(gpus) * 2
    while gpus and size <= count:
        first = gpus[0] // size * size
        if taken.isdisjoint(range(first, first + size)):
            yield size
        size *= 2
