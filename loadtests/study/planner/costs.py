"""What the planner's tail costs beside WarmServe's: ITL attainment and GPU hours. Pure.

In: duels. Out: Markdown and targets. Never: hides by a mean how many pairs are worse.
"""

from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import NamedTuple

from loadtests.study.cells import Cell
from loadtests.study.excess import Duel, sides
from loadtests.study.gains import AXES, LOST_SHOWN
from loadtests.study.lines import heads, row, shown
from loadtests.study.planner.targets import Target
from loadtests.study.summary import RIVAL


class Cost(NamedTuple):
    """A figure that must not be worse than the rival's."""

    key: str
    told: str
    more_is_better: bool

    def of(self, cell: Cell) -> float:
        return float(getattr(cell, self.key) or 0.0)

    def worse(self, duel: Duel) -> bool:
        mine, rival = self.of(duel.mine.cell), self.of(duel.rival.cell)
        return mine < rival if self.more_is_better else mine > rival

    def times(self, duel: Duel) -> float:
        """How much worse: above 1 it is."""
        mine, rival = self.of(duel.mine.cell), self.of(duel.rival.cell)
        over, under = (rival, mine) if self.more_is_better else (mine, rival)
        return over / under if under else 1.0 if over == under else float("inf")


COSTS = (
    Cost("itl_attainment", "ITL attainment", True),
    Cost("gpu_hours_serving", "GPU hours serving", False),
)


def cost_section(found: Sequence[Duel]) -> Iterator[str]:
    """Means over the grid and per rate, and the places where it costs most."""
    if not found:
        return
    mine, rival = sides(found)
    yield from heads(("figure", "rps", f"{mine}, mean", f"{rival}, mean", "pairs", "worse in"))
    for cost in COSTS:
        for rps in (None, *sorted({duel.mine.cell.rps or 0.0 for duel in found})):
            here = [d for d in found if rps is None or (d.mine.cell.rps or 0.0) == rps]
            means = [fmean(cost.of(tail.cell) for tail in side) for side in zip(*here, strict=True)]
            worse = sum(cost.worse(duel) for duel in here)
            where = "all" if rps is None else shown(rps)
            yield row([cost.told, where, *(f"{m:.4f}" for m in means), str(len(here)), str(worse)])
    yield ""
    for cost in COSTS:
        yield from _costliest(cost, found)


def _costliest(cost: Cost, found: Sequence[Duel]) -> Iterator[str]:
    bad = sorted(filter(cost.worse, found), key=lambda duel: -cost.times(duel))
    if not bad:
        return
    yield f"{cost.told} is worse in {len(bad)} of {len(found)} pairs; the worst:"
    yield ""
    yield from heads((*AXES, "seed", *sides(bad), "times"))
    for duel in bad[:LOST_SHOWN]:
        cell = duel.mine.cell
        place = [shown(getattr(cell, axis)) for axis in AXES]
        figures = [f"{cost.of(tail.cell):.4f}" for tail in duel]
        yield row([*place, str(cell.seed), *figures, f"{cost.times(duel):.3g}"])
    yield ""


def cost_targets(found: Sequence[Duel], where: str) -> list[Target]:
    """Judged by the mean over the grid; how many pairs are worse is told beside it."""
    return [_cost_target(cost, found, where) for cost in COSTS]


def _cost_target(cost: Cost, found: Sequence[Duel], where: str) -> Target:
    name, goal = f"{cost.told}, mean over the grid, {where}", f"no worse than `{RIVAL}`"
    if not found:
        return Target(name, goal, "–", None)
    mine, rival = (fmean(cost.of(t.cell) for t in side) for side in zip(*found, strict=True))
    met = mine >= rival if cost.more_is_better else mine <= rival
    told = f"{mine:.4f} to {rival:.4f}"
    why = f"worse in {sum(map(cost.worse, found))} of {len(found)} pairs"
    return Target(name, goal, told, met, why)
