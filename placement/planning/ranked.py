"""What it takes to make room on each GPU set, in order, kept up to date. Pure.

In: sets and what was reckoned of them, whenever that changes. Out: the sets in order of harm.
Never: reckons anything itself.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

from placement.plan import Victim

Gpus: TypeAlias = tuple[int, ...]
Rank: TypeAlias = tuple[float, int, str, Gpus]
"""Loss, how many step down, node, GPUs: the least harm first, ties closed by ids."""

LOSS_DIGITS = 3
"""Nobody is told apart by less than a nanosecond of waiting, but by how many step down."""


@dataclass(frozen=True, slots=True)
class RoomMade:
    """Who steps down so that a GPU set has room: how long that takes them, and what it costs."""

    victims: tuple[Victim, ...]
    takes_us: int
    loss_us: float
    around: int = 0
    """Larger sets around it on which nobody serves: a launch here breaks them."""

    @property
    def kind(self) -> tuple[int, int]:
        return (self.takes_us, self.around)


@dataclass(slots=True)
class Ranked:
    """Sets by how long it takes to make room there and how many larger ones a launch breaks; those
    that are equal in both in order of harm."""

    read: int = 0
    """So many of the draft's changes are taken in."""
    by_kind: dict[tuple[int, int], list[Rank]] = field(default_factory=dict)
    _made: dict[str, dict[Gpus, RoomMade]] = field(default_factory=dict)

    def at(self, node_id: str, gpus: Gpus) -> RoomMade:
        return self._made[node_id][gpus]

    def put(self, node_id: str, found: Iterable[tuple[Gpus, RoomMade | None]]) -> None:
        """What is known of these sets from now on."""
        there = self._made.setdefault(node_id, {})
        for gpus, made in found:
            before = there.pop(gpus, None)
            if before is not None:
                ranks = self.by_kind[before.kind]
                del ranks[bisect_left(ranks, _rank(node_id, gpus, before))]
            if made is not None:
                there[gpus] = made
                insort(self.by_kind.setdefault(made.kind, []), _rank(node_id, gpus, made))


def _rank(node_id: str, gpus: Gpus, made: RoomMade) -> Rank:
    return (round(made.loss_us, LOSS_DIGITS), len(made.victims), node_id, gpus)
