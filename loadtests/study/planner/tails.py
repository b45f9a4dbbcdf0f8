"""The planner's excess over the oracle beside WarmServe's, and where its tail is worse. Pure.

In: duels. Out: Markdown and targets. Never: leaves out pairs in which somebody was refused: what
the figure is without them stands beside it.
"""

from collections.abc import Iterator, Sequence
from statistics import median

from loadtests.study.excess import (
    APART_MS,
    FLOOR_MS,
    NEAR_MS,
    Duel,
    geometric_mean,
    sides,
    spots,
)
from loadtests.study.gains import AXES, LOST_SHOWN, in_order, place_told
from loadtests.study.lines import heads, row, seconds, shown
from loadtests.study.planner.targets import Target, at_most, none_of
from loadtests.study.summary import RIVAL

EXCESS_BOUND, WORSE_BOUND = 0.3, 1.05
WIDE_FLOOR_MS = 10.0


def excess_section(found: Sequence[Duel]) -> Iterator[str]:
    """Excess over the oracle, beside the rival's."""
    if not found:
        return
    mine, rival = sides(found)
    yield f"Excess is P99 less the oracle's on the same place and seed. Where `{rival}`'s is above"
    yield f"{APART_MS:g} ms, `{mine}`'s ÷ `{rival}`'s (an excess below the floor counts as the"
    yield "floor; below 1 it wins):"
    yield ""
    yield from heads(("which pairs", "floor ms", "pairs", "geometric mean", "median", "worst"))
    for which, chosen in (("all", found), ("both served everybody", _both_served(found))):
        for floor_ms in (FLOOR_MS, WIDE_FLOOR_MS):
            yield row([which, f"{floor_ms:g}", *_ratios(chosen, floor_ms)])
    yield ""
    yield from _excess_by_axis(found)
    yield from _elsewhere(found)


def _both_served(found: Sequence[Duel]) -> list[Duel]:
    return [duel for duel in found if duel.all_served]


def _ratios(found: Sequence[Duel], floor_ms: float) -> list[str]:
    apart = [duel.ratio(floor_ms) for duel in found if duel.apart]
    if not apart:
        return ["0", "–", "–", "–"]
    figures = (geometric_mean(apart), median(apart), max(apart))
    return [str(len(apart)), *(f"{figure:.3g}" for figure in figures)]


def _excess_by_axis(found: Sequence[Duel]) -> Iterator[str]:
    yield from heads(("axis", "value", "pairs", "geometric mean", "median", "worst"))
    for axis in AXES:
        values = {getattr(duel.mine.cell, axis) for duel in found} - {None}
        for value in sorted(values, key=in_order):
            here = [duel for duel in found if getattr(duel.mine.cell, axis) == value]
            yield row([axis, shown(value), *_ratios(here, FLOOR_MS)])
    yield ""


def _elsewhere(found: Sequence[Duel]) -> Iterator[str]:
    rest = [duel for duel in found if not duel.apart]
    if not rest:
        return
    far = sorted((d for d in rest if not d.near), key=lambda d: -d.mine.excess_ms)
    yield f"Elsewhere, {len(rest) - len(far)} of {len(rest)} pairs are within {NEAR_MS:g} ms of"
    yield "the oracle." + (" The farthest:" if far else "")
    yield ""
    if far:
        yield from _duel_rows(far)


def worse_section(found: Sequence[Duel]) -> Iterator[str]:
    """Pairs in which the rival's tail is clearly the better one."""
    if not found:
        return
    mine, rival = sides(found)
    bad = sorted((d for d in found if d.p99_ratio > WORSE_BOUND), key=lambda d: -d.p99_ratio)
    places = spots(found)
    by_median = sum(median(d.p99_ratio for d in own) > WORSE_BOUND for own in places.values())
    yield f"`{mine}`'s P99 is above {WORSE_BOUND:g} times `{rival}`'s in {len(bad)} of"
    yield f"{len(found)} pairs; by the median over seeds, on {by_median} of {len(places)} places."
    yield f"The worst {min(len(bad), LOST_SHOWN)}:" if bad else ""
    yield ""
    if bad:
        yield from _duel_rows(bad)


def _duel_rows(found: Sequence[Duel]) -> Iterator[str]:
    mine, rival = sides(found)
    names = (*AXES, "seed", f"{mine} P99 s", f"{rival} P99 s", "oracle P99 s", "ratio")
    yield from heads(names)
    for duel in found[:LOST_SHOWN]:
        cell = duel.mine.cell
        times = (duel.mine.p99_ms, duel.rival.p99_ms, duel.mine.bound_ms)
        place = [shown(getattr(cell, axis)) for axis in AXES]
        yield row([*place, str(cell.seed), *map(seconds, times), f"{duel.p99_ratio:.3g}"])
    if len(found) > LOST_SHOWN:
        yield row([f"and {len(found) - LOST_SHOWN} more", *[""] * (len(names) - 1)])
    yield ""


def excess_targets(found: Sequence[Duel], where: str) -> list[Target]:
    apart = [duel.ratio() for duel in found if duel.apart]
    served = [duel.ratio() for duel in _both_served(found) if duel.apart]
    rest = [duel for duel in found if not duel.apart]
    why = f"{shown(geometric_mean(served))} where both served everybody" if served else ""
    farthest = max(rest, key=lambda d: d.mine.excess_ms, default=None)
    worst = max(found, key=lambda d: d.p99_ratio, default=None)
    return [
        at_most(
            f"excess ÷ `{RIVAL}`'s where that is above {APART_MS:g} ms, geometric mean, {where}",
            EXCESS_BOUND,
            geometric_mean(apart) if apart else None,
            why=why,
        ),
        none_of(
            f"elsewhere, {where}",
            f"oracle + {NEAR_MS:g} ms",
            sum(not duel.near for duel in rest),
            len(rest),
            f"farthest {farthest.mine.excess_ms:.0f} ms: {place_told(farthest.mine.cell)}"
            if farthest
            else "",
        ),
        none_of(
            f"no cell above {WORSE_BOUND:g}x `{RIVAL}`, {where}",
            f"at most {WORSE_BOUND:g}x in each",
            sum(duel.p99_ratio > WORSE_BOUND for duel in found),
            len(found),
            f"worst {worst.p99_ratio:.3g}: {place_told(worst.mine.cell)}" if worst else "",
        ),
    ]
