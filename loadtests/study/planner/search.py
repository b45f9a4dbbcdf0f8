"""The highest rate that a policy takes with its P99 inside the SLO: a search by halves. Pure.

In: which rates of a fixed ladder passed. Out: the next rate to try, at last the highest that
passed. A search believes that whoever fails at one rate fails at every higher one; where that is
not so it finds one of the rates beyond which it fails. Never: runs a cell.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from loadtests.study.cells import Cell
from loadtests.study.task import Task

STEP = 1.05
LOWEST_RPS, HIGHEST_RPS = 1.0, 120.0


def ladder(*, step: float = STEP) -> tuple[float, ...]:
    """Rates of three figures, each about so many times the one before."""
    rates = [LOWEST_RPS]
    while (following := float(f"{rates[-1] * step:.3g}")) <= HIGHEST_RPS:
        rates.append(following)
    return tuple(rates)


@dataclass(frozen=True, slots=True)
class Search:
    """Rungs of the ladder by number: `passed` is -1 where none is known to, `failed` likewise its
    length."""

    rates: tuple[float, ...]
    passed: int
    failed: int

    @classmethod
    def over(cls, rates: Sequence[float]) -> "Search":
        return cls(tuple(rates), -1, len(rates))

    @property
    def asks(self) -> float | None:
        """The rate to try next; None: it is found."""
        if self.failed - self.passed == 1:
            return None
        return self.rates[(self.passed + self.failed) // 2]

    def told(self, rate: float, *, passed: bool) -> "Search":
        rung = self.rates.index(rate)
        if passed:
            return Search(self.rates, max(self.passed, rung), self.failed)
        return Search(self.rates, self.passed, min(self.failed, rung))

    @property
    def highest(self) -> float | None:
        """The highest rate that passed; None: the lowest failed already."""
        return self.rates[self.passed] if self.passed >= 0 else None

    @property
    def at_the_top(self) -> bool:
        """It never failed: the ladder is too short for it."""
        return self.passed == len(self.rates) - 1


def within(cells: Sequence[Cell], slo_ms: float) -> bool:
    """Whether the P99 of all requests is, in the median over seeds."""
    tails = [cell.ttft_ms.p99 for cell in cells if cell.ttft_ms.p99 is not None]
    return bool(tails) and median(tails) <= slo_ms


def column_of(task: Task) -> tuple[object, ...]:
    """What a search is over: everything but the rate and the seed."""
    cell = task.cell
    return (task.world.value, task.policy, cell.hour, cell.alpha, cell.cv)
