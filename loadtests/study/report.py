"""The written report of the simulations, in Markdown. Pure.

In: cells by the question they answer, published figures beside ours, speed, the machine. Out: text.
Never: runs anything, rounds a loss away: every table counts the cells that a policy loses.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from loadtests.study.cells import Cell, Place
from loadtests.study.excess import ORACLE
from loadtests.study.gains import AXES, gain_by_place, lost, where_all_were_served
from loadtests.study.lines import heads, row, shown
from loadtests.study.parts import Facts, by_world, in_brief, made_of, not_run, policies_table
from loadtests.study.sides import Twin, twin_lines
from loadtests.study.summary import (
    BASELINE,
    against_oracle,
    below_bound,
    orderings,
    pairs,
    ratios,
)
from loadtests.validation.figures import Figure, Verdict, figure_rows, ordering_rows

CHALLENGER = "warmserve"


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """How fast the simulator itself went, with our controller in the loop, on one core."""

    policy: str
    world: str
    gpus: int
    simulated_h: float
    requests: int
    wall_s: float
    rss_mb: float

    @property
    def per_s(self) -> float:
        return self.requests / self.wall_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """Cells by what they were run for."""

    grid: Sequence[Cell]
    """The whole grid of `warmserve16` for the main policies."""
    ablations: Sequence[Cell]
    """A few of its cells for every policy."""
    close: Sequence[Cell]
    """Cells in which it is open who wins, with more seeds."""
    others: Mapping[str, Sequence[Cell]]
    """Of the other scenarios, by name."""
    questions: Mapping[str, str]
    figures: Sequence[Figure]
    twins: Sequence[Twin]
    speeds: Sequence[Speed]
    failed: Sequence[str]


def markdown(findings: Findings, facts: Facts) -> str:
    sections = (
        _head(facts),
        _warmserve16(findings.grid),
        _close(findings.close),
        _orderings(findings.ablations),
        _all_policies(findings.ablations),
        _oracle([*findings.grid, *findings.ablations, *findings.close], findings.others),
        _others(findings),
        _validation(findings.figures),
        twin_lines(findings.twins),
        _speed(findings.speeds),
        not_run(findings.failed),
    )
    return "\n".join(line for section in sections for line in section).rstrip() + "\n"


def _head(facts: Facts) -> Iterator[str]:
    yield "# What the simulations say"
    yield ""
    yield "Written by `make sim-report`. **Everything here is simulated**: no engine ran, no GPU"
    yield "was measured. Our gateway and our controller run unchanged; engines, links and memory"
    yield "are the models of `placement/`, whose constants have their grades and sources in one"
    yield "file. World S is stock vLLM, world W is WarmServe's mechanism. Requests that were"
    yield "refused or cut count 999 s. A gain is reactive's P99 time to first token ÷ the"
    yield "policy's: above 1 it wins."
    yield ""
    yield from made_of(facts)


# --- warmserve16


def _warmserve16(cells: Sequence[Cell]) -> Iterator[str]:
    yield "## The WarmServe paper's set-up (`warmserve16`)"
    yield ""
    for world, inside in by_world(cells):
        seeds = len({cell.seed for cell in inside})
        places = len({cell.place[1:-1] for cell in inside})
        yield f"### World {world}: {places} cells, seeds: {seeds}"
        yield ""
        yield from policies_table(inside)
        compared = pairs(inside, CHALLENGER, BASELINE)
        yield from where_all_were_served(compared)
        yield from gain_by_place(compared)
        yield from lost(compared)


def _close(cells: Sequence[Cell]) -> Iterator[str]:
    if not cells:
        return
    yield "### Cells in which it is open who wins, with more seeds (world W)"
    yield ""
    yield from heads(("rps", "alpha", "cv", "hour", "seeds", "won", "gain worst", "median", "best"))
    compared = pairs(cells, CHALLENGER, BASELINE)
    for place in dict.fromkeys(pair.cell.place[:-1] for pair in compared):
        here = [pair for pair in compared if pair.cell.place[:-1] == place]
        gain = ratios(here)
        if gain is not None:
            axes = [shown(getattr(here[0].cell, axis)) for axis in AXES]
            won = gain["compared"] - gain["lost"]
            gains = [f"{gain[key]:.3g}" for key in ("worst", "median", "best")]
            yield row([*axes, str(gain["compared"]), str(won), *gains])
    yield ""


def closest_places(cells: Sequence[Cell], count: int) -> list[Place]:
    """Places, without their seed, whose median gain is nearest to one: small changes turn them."""
    by_place: dict[Place, list[float]] = {}
    for pair in pairs(cells, CHALLENGER, BASELINE):
        if pair.ratio is not None:
            by_place.setdefault(pair.cell.place[:-1], []).append(pair.ratio)
    gaps = {place: max(m := median(found), 1 / m) for place, found in by_place.items()}
    return sorted(gaps, key=lambda place: (gaps[place], str(place)))[:count]


# --- what was published of it


def _orderings(cells: Sequence[Cell]) -> Iterator[str]:
    yield "## Published orderings of WarmServe's ablations"
    yield ""
    yield "Shares under 100 ms, means over the cells that all variants ran. The published figures"
    yield "are of grade C: only their order is held against ours."
    yield ""
    for world, inside in by_world(cells):
        found = orderings(inside)
        if found:
            yield f"World {world}:"
            yield ""
            yield from ordering_rows(found.values())
            yield ""
            for one in (one for one in found.values() if not one.holds and one.claim.why_not):
                yield f"{one.claim.name}: does not hold. {one.claim.why_not}"
                yield ""


def _all_policies(cells: Sequence[Cell]) -> Iterator[str]:
    yield "## Every policy, on a few cells of `warmserve16`"
    yield ""
    for world, inside in by_world(cells):
        yield f"World {world}:"
        yield ""
        yield from policies_table(inside)


# --- the bound


def _oracle(cells: Sequence[Cell], others: Mapping[str, Sequence[Cell]]) -> Iterator[str]:
    yield "## The bound of the relaxation (`oracle`)"
    yield ""
    yield "All climbs free and instant, requests repacked at will, GPUs and service times the same."
    yield "A violation is a cell in which a policy's P50, P95 or P99 lies below the oracle's."
    yield ""
    yield from heads(
        ("scenario", "policy", "cells compared", "violations", "P99 ÷ the oracle's, median")
    )
    for scenario, own in {"warmserve16": cells, **others}.items():
        unique = list({(cell.policy, cell.place): cell for cell in own}.values())
        for policy in dict.fromkeys(cell.policy for cell in unique):
            compared = pairs(unique, policy, ORACLE)
            found = against_oracle(compared)
            if policy != ORACLE and found:
                times = found["p99_times_oracle_median"]
                over = "–" if times is None else f"{times:.3g}"
                count, bad = str(found["compared"]), sum(map(below_bound, compared))
                yield row([scenario, f"`{policy}`", count, str(bad), over])
    yield ""


# --- the rest


def _others(findings: Findings) -> Iterator[str]:
    yield "## Other scenarios, in brief"
    yield ""
    yield from in_brief(findings.others, findings.questions)


def _validation(figures: Sequence[Figure]) -> Iterator[str]:
    yield "## Published results beside ours"
    yield ""
    count = {verdict: sum(f.verdict is verdict for f in figures) for verdict in Verdict}
    yield f"{count[Verdict.REPRODUCED]} are reproduced within 20 %, {count[Verdict.MISSED]} are"
    yield f"missed and explained; {count[Verdict.FITTED]} do not count, for a constant was fitted"
    yield "on them."
    yield ""
    yield from figure_rows(figures)
    yield ""


def _speed(speeds: Iterable[Speed]) -> Iterator[str]:
    yield "## Speed of the simulator"
    yield ""
    yield "`steady`, our controller in the loop, one process on one core, demand drawn meanwhile."
    yield ""
    yield from heads(
        ("policy", "world", "GPUs", "simulated h", "requests", "wall s", "requests/s", "RSS MB")
    )
    for one in speeds:
        figures = [f"{one.simulated_h:g}", str(one.requests), f"{one.wall_s:.1f}"]
        rates = [f"{one.per_s:.0f}", f"{one.rss_mb:.0f}"]
        yield row([f"`{one.policy}`", one.world, str(one.gpus), *figures, *rates])
    yield ""
