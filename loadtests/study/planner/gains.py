"""What the planner gains over each rival on the grid. Pure.

In: cells of one world. Out: Markdown and a target. Pairs are of one place and one seed.
Never: lets a gain that is made of refusals stand alone.
"""

from collections.abc import Iterator, Sequence
from statistics import median
from typing import NamedTuple

from loadtests.study.cells import Cell
from loadtests.study.excess import ORACLE
from loadtests.study.gains import gain_by_place, lost, where_all_were_served
from loadtests.study.lines import heads, row, shown
from loadtests.study.planner.targets import Target, at_least
from loadtests.study.summary import BASELINE, Pair, pairs, ratios

RIVALS = (BASELINE, "warmserve", "warmserve+gateway", "static")
BEST_GAIN = 50.8


def gains_section(cells: Sequence[Cell], subject: str) -> Iterator[str]:
    """Against each rival, and the same where nobody was refused."""
    yield "A gain is the rival's P99 ÷ its own, on the same place with the same seed: above 1 it"
    yield "wins. Whoever is refused counts 999 s, so a rival that refuses one in a hundred makes"
    yield "a gain of hundreds; the right half has the pairs in which both served everybody."
    yield ""
    yield from heads(
        ("over", "pairs", "worst", "median", "best", "lost", "all served: pairs", "worst",
         "median", "best", "lost")
    )  # fmt: skip
    for rival in RIVALS:
        compared = pairs(cells, subject, rival)
        if compared:
            figures = [*_gains(compared), *_gains(_served(compared))]
            yield row([f"`{rival}`", *figures])
    yield ""
    compared = pairs(cells, subject, BASELINE)
    yield from where_all_were_served(compared)
    yield from _ceiling(cells)
    yield from gain_by_place(compared)
    yield from lost(compared)


def _gains(compared: Sequence[Pair]) -> list[str]:
    gain = ratios(compared)
    if gain is None:
        return [str(len(compared)), *["–"] * 4]
    figures = [f"{gain[key]:.3g}" for key in ("worst", "median", "best")]
    return [str(gain["compared"]), *figures, str(gain["lost"])]


def _served(compared: Sequence[Pair]) -> list[Pair]:
    return [pair for pair in compared if all(one.served == one.requests for one in pair)]


def _ceiling(cells: Sequence[Cell]) -> Iterator[str]:
    """What the bound itself gains: no policy could have more."""
    best = best_gain(cells, ORACLE)
    if best.served is not None:
        yield f"The bound's own best gain where both served everybody is {best.served:.3g}: no"
        yield "policy can have more on these cells."
        yield ""


class Best(NamedTuple):
    """The best gain over reactive."""

    pair: float | None
    served: float | None
    """Among pairs in which both served everybody."""
    place: float | None
    """The best place, by the median over its seeds, all of which served everybody."""


def best_gain(cells: Sequence[Cell], policy: str) -> Best:
    compared = pairs(cells, policy, BASELINE)
    served = _served(compared)
    by_place: dict[object, list[float]] = {}
    for pair in served:
        by_place.setdefault(pair.cell.place[:-1], []).append(pair.ratio or 0.0)
    seeds = len({pair.cell.seed for pair in compared})
    whole = [median(found) for found in by_place.values() if len(found) == seeds]
    return Best(_best(compared), _best(served), max(whole, default=None))


def _best(compared: Sequence[Pair]) -> float | None:
    return max((pair.ratio for pair in compared if pair.ratio is not None), default=None)


def gain_target(cells: Sequence[Cell], subject: str) -> Target:
    """Judged where nobody was refused, for the other kind says little."""
    best, bound = best_gain(cells, subject), best_gain(cells, ORACLE)
    why = f"one pair; {shown(best.place)} by the best place's median over seeds; "
    why += f"{shown(best.pair)} with refusals. The bound's own best is {shown(bound.served)}"
    name = f"best cell over `{BASELINE}`, nobody refused"
    return at_least(name, BEST_GAIN, best.served, why=why)
