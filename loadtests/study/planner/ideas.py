"""What each idea of the planner is worth, and what a wrong forecast costs. Pure.

In: cells of the planner, of its ablations, of the baseline. Out: Markdown and a target.
Never: leaves out an ablation that does better than the whole.
"""

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean, median

from loadtests.study.cells import Cell
from loadtests.study.excess import geometric_mean
from loadtests.study.gains import place_told
from loadtests.study.lines import heads, percent, row, seconds, shown
from loadtests.study.parts import by_world
from loadtests.study.planner.targets import Target, none_of
from loadtests.study.summary import BASELINE, Pair, pairs

WORSE_BOUND = 1.05
IDEAS = {
    "independent": "models burst each by themselves: no joint paths",
    "noresidency": "no plan of which engines exist",
    "scattered": "prewarms wherever they fit: no anti-affinity",
    "point": "a point forecast",
    "reactive": "no forecast at all",
    "perfect": "a forecast that is never wrong",
    "inverted": "a forecast that is wrong on purpose",
}


def ideas_section(scenarios: Mapping[str, Sequence[Cell]], subject: str) -> Iterator[str]:
    """A table for each scenario and world: the whole first, then without one idea at a time."""
    if not any(scenarios.values()):
        return
    yield "## What each idea is worth"
    yield ""
    yield f"`{subject}` with one idea taken away (or its forecast exchanged), and `{BASELINE}`."
    yield f"P99 ÷ `{subject}`'s on the same place and seed, geometric mean, then the worst for"
    yield "the idea and the best: above 1 the idea helps."
    yield ""
    for ablation, told in IDEAS.items():
        yield f"- `{subject}-{ablation}`: {told}"
    yield ""
    for scenario, cells in scenarios.items():
        for world, inside in by_world(cells):
            yield f"`{scenario}`, world {world}:"
            yield ""
            yield from _ideas_table(inside, subject)


def _ideas_table(cells: Sequence[Cell], subject: str) -> Iterator[str]:
    yield from heads(
        ("policy", "cells", f"P99 ÷ {subject}'s", "least", "most", "P99 s, median",
         "TTFT in SLO", "ITL in SLO", "not served", "GPU h serving", "GPU h paid")
    )  # fmt: skip
    for policy in dict.fromkeys(cell.policy for cell in cells):
        own = [cell for cell in cells if cell.policy == policy]
        ratios = [p.times for p in pairs(cells, policy, subject) if p.times is not None]
        spread = (geometric_mean(ratios), min(ratios), max(ratios)) if ratios else [None] * 3
        tails = [cell.ttft_ms.p99 for cell in own if cell.ttft_ms.p99 is not None]
        yield row(
            [
                f"`{policy}`",
                str(len(own)),
                *map(shown, spread),
                seconds(median(tails) if tails else None),
                percent([cell.share_under_slo for cell in own]),
                percent([cell.itl_attainment for cell in own]),
                str(sum(cell.requests - cell.served for cell in own)),
                f"{fmean(cell.gpu_hours_serving for cell in own):.2f}",
                f"{fmean(cell.gpu_hours for cell in own):.2f}",
            ]
        )
    yield ""


# --- a forecast that is wrong on purpose


def wrong_section(cells: Sequence[Cell], subject: str) -> Iterator[str]:
    if not cells:
        return
    yield "## `wrong-forecast`: what it costs to have believed it"
    yield ""
    yield from heads(("world", "pairs", "P99 ÷ reactive's, median", "worst", "where", "above 1.05"))
    for world, inside in by_world(cells):
        if found := _over_reactive(inside, subject):
            figures = [str(len(found)), f"{median(map(_times, found)):.3g}"]
            worst = [f"{_times(found[0]):.3g}", place_told(found[0].cell)]
            yield row([world, *figures, *worst, str(_bad(found))])
    yield ""


def _over_reactive(cells: Sequence[Cell], subject: str) -> list[Pair]:
    """The worst first."""
    compared = pairs(cells, subject, BASELINE)
    return sorted((p for p in compared if p.times is not None), key=_times, reverse=True)


def _times(pair: Pair) -> float:
    return pair.times or 0.0


def _bad(found: Sequence[Pair]) -> int:
    return sum(_times(pair) > WORSE_BOUND for pair in found)


def wrong_targets(cells: Sequence[Cell], subject: str) -> list[Target]:
    return [_wrong_target(cells, subject, world) for world in ("W", "S")]


def _wrong_target(cells: Sequence[Cell], subject: str, world: str) -> Target:
    found = _over_reactive([cell for cell in cells if cell.world == world], subject)
    name = f"`wrong-forecast` in {world}: never worse than {WORSE_BOUND:g}x `{BASELINE}`"
    goal = f"at most {WORSE_BOUND:g}x in each"
    why = f"worst {_times(found[0]):.3g}: {place_told(found[0].cell)}" if found else ""
    return none_of(name, goal, _bad(found), len(found), why)
