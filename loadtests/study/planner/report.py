"""The written report of the planner, in Markdown. Pure.

In: cells by the question they answer, the machine. Out: text, targets first. Never: runs anything,
states a target as met by figures that are not shown below it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from loadtests.study.cells import Cell
from loadtests.study.excess import Duel, duels
from loadtests.study.parts import Facts, in_brief, made_of, not_run, policies_table
from loadtests.study.planner.costs import cost_section, cost_targets
from loadtests.study.planner.fleets import (
    elastic_section,
    elastic_target,
    many_section,
    many_target,
)
from loadtests.study.planner.gains import gain_target, gains_section
from loadtests.study.planner.ideas import ideas_section, wrong_section, wrong_targets
from loadtests.study.planner.rates import Highest, rate_section, rate_targets
from loadtests.study.planner.tails import excess_section, excess_targets, worse_section
from loadtests.study.planner.targets import Target, target_table
from loadtests.study.summary import RIVAL


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """Cells by what they were run for. `subject` is the policy that is reported on."""

    subject: str
    grid: Sequence[Cell]
    """`warmserve16` in world W."""
    stock: Sequence[Cell]
    """The same in world S."""
    rates: Sequence[Highest]
    slo_ms: float
    span: str
    """Which hours of `many-models` and `elastic` were run."""
    many: Sequence[Cell]
    floor: Sequence[Cell]
    """`many-models` where every model always serves, on `floor_gpus`."""
    floor_gpus: int
    elastic: Sequence[Cell]
    fixed: Mapping[int, Sequence[Cell]]
    """Without `elastic`, on so many nodes."""
    wrong: Sequence[Cell]
    ideas: Mapping[str, Sequence[Cell]]
    """The planner and its ablations, by scenario."""
    brief: Mapping[str, Sequence[Cell]]
    """Every scenario, by name."""
    unseen: Mapping[str, Sequence[Cell]]
    """Demand that nothing was tuned on, by what it is."""
    questions: Mapping[str, str]
    """Of the scenarios in `brief`, and what `unseen` asks."""
    failed: Sequence[str]

    def against_rival(self) -> list[Duel]:
        return duels(self.grid, self.subject, RIVAL)

    def in_stock(self) -> list[Duel]:
        return duels(self.stock, self.subject, RIVAL)

    def across(self) -> list[Duel]:
        """The planner on stock engines beside WarmServe with its own mechanism."""
        return duels(self.stock, self.subject, RIVAL, beside=self.grid)


def markdown(found: Findings, facts: Facts) -> str:
    sections = (
        _head(found.subject, facts),
        target_table(targets(found)),
        _world_w(found),
        _world_s(found),
        _across(found),
        rate_section(found.rates, found.subject, found.slo_ms),
        many_section(found.many, found.floor, found.floor_gpus, found.span),
        elastic_section(found.elastic, found.fixed, found.span),
        wrong_section(found.wrong, found.subject),
        ideas_section(found.ideas, found.subject),
        _titled("Every scenario, in brief", found.brief, found.questions),
        _titled("Demand that nothing was tuned on", found.unseen, found.questions),
        not_run(found.failed),
    )
    return "\n".join(line for section in sections for line in section).rstrip() + "\n"


def targets(found: Findings) -> list[Target]:
    """What was promised, in the order of the sections."""
    subject = found.subject
    return [
        gain_target(found.grid, subject),
        *excess_targets(found.against_rival(), "W"),
        *cost_targets(found.against_rival(), "W"),
        *rate_targets(found.rates, subject),
        *excess_targets(found.in_stock(), "S"),
        *cost_targets(found.in_stock(), "S"),
        *excess_targets(found.across(), "S against W"),
        many_target(found.many, found.floor, subject),
        elastic_target(found.elastic, found.fixed, subject),
        *wrong_targets(found.wrong, subject),
    ]


def _head(subject: str, facts: Facts) -> Iterator[str]:
    yield "# What the planner is worth"
    yield ""
    yield f"Written by `make plan-report`, about the policy `{subject}`. **Everything here is"
    yield "simulated**: no engine ran, no GPU was measured. World S is stock vLLM, world W is"
    yield "WarmServe's mechanism; demand, service times and seeds are the same for all policies."
    yield "Whoever was refused or cut counts 999 s. The oracle is the bound of a relaxation: all"
    yield "climbs free and instant, requests repacked at will."
    yield ""
    yield from made_of(facts)


def _world_w(found: Findings) -> Iterator[str]:
    if found.grid:
        yield from _grid("`warmserve16` in world W", found.grid, found)
        yield from _beside(found.against_rival())


def _world_s(found: Findings) -> Iterator[str]:
    if found.stock:
        yield from _grid("`warmserve16` in world S", found.stock, found)
        yield from _beside(found.in_stock())


def _grid(title: str, cells: Sequence[Cell], found: Findings) -> Iterator[str]:
    seeds = len({cell.seed for cell in cells})
    places = len({cell.place[1:-1] for cell in cells})
    yield f"## {title}: {places} places, seeds: {seeds}"
    yield ""
    yield from policies_table(cells)
    yield f"### Gains of `{found.subject}`"
    yield ""
    yield from gains_section(cells, found.subject)


def _beside(found: Sequence[Duel]) -> Iterator[str]:
    yield f"### Excess over the oracle, beside `{RIVAL}`'s"
    yield ""
    yield from excess_section(found)
    yield from worse_section(found)
    yield f"### What it costs, beside `{RIVAL}`"
    yield ""
    yield from cost_section(found)


def _across(found: Findings) -> Iterator[str]:
    across = found.across()
    if across:
        yield f"## `{found.subject}` in world S against `{RIVAL}` in world W"
        yield ""
        yield "Stock vLLM against the mechanism. Each excess is over the oracle of its own world."
        yield ""
        yield from _beside(across)


def _titled(
    title: str, cells: Mapping[str, Sequence[Cell]], questions: Mapping[str, str]
) -> Iterator[str]:
    if cells:
        yield f"## {title}"
        yield ""
        yield from in_brief(cells, questions)
