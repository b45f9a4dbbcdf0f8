"""How far a policy's tail lies above the bound, beside a rival's. Pure.

In: cells. Out: excesses in milliseconds, ratios of them. Excess is the P99 time to first token less
the oracle's on the same place and seed, in the same world. In a ratio an excess counts at least
`FLOOR_MS`, or a rival that is a microsecond off would decide a mean.
Never: compares different places or seeds, drops a pair that is lost.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import exp, log
from statistics import fmean, median
from typing import Any, NamedTuple

from loadtests.study.cells import Cell, Place

ORACLE = "oracle"
FLOOR_MS = 1.0
APART_MS = 50.0
"""Above this a rival's excess leaves something to gain; elsewhere being near the bound is all."""
NEAR_MS = 10.0
"""How far from the oracle counts as near."""


@dataclass(frozen=True, slots=True)
class Tail:
    """A cell beside the bound of its own world."""

    cell: Cell
    p99_ms: float
    bound_ms: float

    @property
    def excess_ms(self) -> float:
        return max(self.p99_ms - self.bound_ms, 0.0)

    @property
    def all_served(self) -> bool:
        return self.cell.served == self.cell.requests


class Duel(NamedTuple):
    """Two policies on one place with one seed; perhaps each in a world of its own."""

    mine: Tail
    rival: Tail

    @property
    def p99_ratio(self) -> float:
        """Mine ÷ the rival's: below 1 I win."""
        return self.mine.p99_ms / self.rival.p99_ms

    @property
    def all_served(self) -> bool:
        return self.mine.all_served and self.rival.all_served

    def ratio(self, floor_ms: float = FLOOR_MS) -> float:
        """Of the excesses, mine ÷ the rival's."""
        return max(self.mine.excess_ms, floor_ms) / max(self.rival.excess_ms, floor_ms)

    @property
    def apart(self) -> bool:
        return self.rival.excess_ms > APART_MS

    @property
    def near(self) -> bool:
        return self.mine.excess_ms <= NEAR_MS


def duels(
    cells: Sequence[Cell], policy: str, rival: str, *, beside: Sequence[Cell] | None = None
) -> list[Duel]:
    """Where both ran and both have a bound, in the order of the policy's cells.

    `cells` are of one world, and so are those in which the rival is looked up if it is not there.
    """
    mine = _tails(cells, policy)
    rivals = _tails(cells if beside is None else beside, rival)
    return [Duel(tail, rivals[spot]) for spot, tail in mine.items() if spot in rivals]


def _tails(cells: Sequence[Cell], policy: str) -> dict[Place, Tail]:
    """By place and seed, the world left out."""
    bounds = {_spot(cell): cell.ttft_ms.p99 for cell in cells if cell.policy == ORACLE}
    found = {}
    for cell in cells:
        p99_ms, bound_ms = cell.ttft_ms.p99, bounds.get(_spot(cell))
        if cell.policy == policy and p99_ms is not None and bound_ms is not None:
            found[_spot(cell)] = Tail(cell, p99_ms, bound_ms)
    return found


def _spot(cell: Cell) -> Place:
    return cell.place[1:]


def sides(found: Sequence[Duel]) -> tuple[str, str]:
    """What the two are called; their worlds too, where these differ."""
    mine, rival = (tail.cell for tail in found[0])
    if mine.world == rival.world:
        return mine.policy, rival.policy
    return f"{mine.policy} in {mine.world}", f"{rival.policy} in {rival.world}"


def spots(found: Iterable[Duel]) -> dict[Place, list[Duel]]:
    """By place on the grid: seeds together."""
    places: dict[Place, list[Duel]] = {}
    for duel in found:
        places.setdefault(duel.mine.cell.place[1:-1], []).append(duel)
    return places


def geometric_mean(values: Sequence[float]) -> float:
    """Of positive values: half and double cancel out."""
    return exp(fmean(log(value) for value in values))


def excess_summary(found: Sequence[Duel]) -> dict[str, Any] | None:
    """What the duels come to, for the JSON. None where there are none."""
    if not found:
        return None
    apart = [duel.ratio() for duel in found if duel.apart]
    elsewhere = [duel for duel in found if not duel.apart]
    return {
        "compared": len(found),
        "apart": len(apart),
        "geometric_mean": geometric_mean(apart) if apart else None,
        "median": median(apart) if apart else None,
        "worst": max(apart, default=None),
        "elsewhere_near_the_bound": sum(duel.near for duel in elsewhere),
        "elsewhere": len(elsewhere),
    }
